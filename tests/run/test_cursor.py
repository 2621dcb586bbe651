"""Incremental reads: what belongs to a stored cursor, what is read each time, and what cannot be a cursor."""

from __future__ import annotations

from typing import Any

import pytest
from sites import Site

from backhaul.planning.cursor import CHANGED


def reading(site: Site, model: dict[str, Any], **keys: Any) -> Site:
    given = {"warehouse": "main", "primary_key": "id", "cursor": "moved", **model}
    site.sync = {"mode": "upsert", "model": given, "fields": {"name": "name"}, **keys}
    site.write()
    return site


def rows(site: Site, *values: str, kind: str = "timestamp") -> Site:
    site.sql(f"create or replace table c (id int, name varchar, kind varchar, moved {kind})")
    return site.sql(*(f"insert into c values {value}" for value in values))


OLD = ("(1, 'a', 'x', '2024-01-01')", "(2, 'b', 'y', '2024-01-02')", "(3, 'c', 'x', '2024-01-03')")


def test_another_model_text_is_read_in_full_and_says_so(site: Site) -> None:
    reading(rows(site, *OLD), {"sql": "select * from c where kind = 'x'"})
    assert site.run().report.delivered == 2
    assert site.run().report.incremental
    reading(site, {"sql": "select * -- all kinds\nfrom  c WHERE kind = 'x'"})
    report = site.run().report
    assert (report.incremental, report.notices) == (True, [])
    reading(site, {"sql": "select * from c"})
    report = site.run().report
    assert (report.incremental, report.notices, report.delivered) == (False, [CHANGED], 1)
    assert report.json()["notices"] == [CHANGED]
    assert site.sink.records["2"]["name"] == "b"
    assert site.run().report.incremental


def test_another_cursor_column_is_read_in_full(site: Site) -> None:
    reading(rows(site, *OLD), {"sql": "select *, id as n from c"}).run()
    reading(site, {"sql": "select *, id as n from c", "cursor": "n"})
    assert site.run().report.notices == [CHANGED]
    assert site.run().report.incremental


def test_rows_without_a_cursor_are_read_each_time(site: Site) -> None:
    reading(rows(site, *OLD), {"table": "c"}).run()
    site.sql("insert into c values (4, 'd', 'x', null)")
    report = site.run().report
    assert (report.incremental, report.delivered) == (True, 1)
    site.sql("update c set name = 'e' where id = 4")
    assert site.run().report.delivered == 1


@pytest.mark.parametrize(
    ("kind", "beyond", "older", "what"),
    [
        ("timestamp", "2199-01-01", "2024-06-01", "in the future"),
        ("timestamptz", "infinity", "2024-06-01", "in the future"),
        ("date", "2199-01-01", "2024-06-01", "in the future"),
        ("double", "nan", "7", "not a number"),
        ("double", "infinity", "7", "not a number"),
    ],
)
def test_a_value_beyond_every_other_hides_no_row(
    site: Site, kind: str, beyond: str, older: str, what: str
) -> None:
    first = "(1, 'a', 'x', '1')" if kind == "double" else "(1, 'a', 'x', '2024-01-01')"
    reading(rows(site, first, f"(2, 'b', 'x', '{beyond}')", kind=kind), {"table": "c"})
    assert what in site.run().report.notices[0]
    site.sql(f"insert into c values (3, 'c', 'x', '{older}')")
    report = site.run().report
    assert (report.incremental, report.delivered) == (True, 1)
    assert set(site.sink.records) == {"1", "2", "3"}


@pytest.mark.parametrize("kind", ["varchar", "boolean"])
def test_a_cursor_that_does_not_grow_is_refused_by_name(site: Site, kind: str) -> None:
    reading(rows(site, "(1, 'a', 'x', 'true')", kind=kind), {"table": "c"})
    report = site.run().report
    assert (report.status, report.exit_code, report.requests) == ("failed", 2, 0)
    assert f"the cursor column moved is {kind.upper()}" in str(report.error)


def test_a_newer_row_with_a_known_key_stops_an_incremental_read(site: Site) -> None:
    reading(rows(site, *OLD), {"table": "c"}).run()
    site.sql("insert into c values (1, 'again', 'x', '2025-01-01')")
    report = site.run().report
    assert (report.status, report.delivered) == ("failed", 0)
    assert "the primary key is not unique: 1 (2 rows)" in str(report.error)
    assert site.sink.records["1"]["name"] == "a"
    site.sql("delete from c where name = 'a'")
    assert site.run().report.delivered == 1
