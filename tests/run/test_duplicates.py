"""I20: rows that share a primary key stop the run, or are all set aside; none of them is ever picked."""

from __future__ import annotations

from typing import Any

import pytest
from sites import Site
from test_one_status import listed


@pytest.fixture
def lenient(site: Site) -> Site:
    site.sync = {"duplicates": "reject"}
    site.write()
    return site


def messages(site: Site) -> dict[Any, str]:
    return {letter["key"]: letter["error"]["message"] for letter in site.letters()}


def test_i20_by_default_they_stop_the_run_and_it_says_what_to_do(site: Site) -> None:
    site.fill(3).sql("insert into t values (1, 'twin', 7)")
    report = site.run().report
    assert (report.status, report.requests) == ("failed", 0)
    assert "1 (2 rows)" in str(report.error)
    assert "duplicates: reject" in str(report.hint)


def test_i20_all_rows_of_a_key_are_set_aside_and_the_rest_is_sent(lenient: Site) -> None:
    lenient.fill(5).sql("insert into t values (1, 'twin', 7), (1, 'third', 8), (4, 'n4', 6)")
    report = lenient.run().report
    assert (report.status, report.exit_code, report.delivered, report.rejected) == ("partial", 3, 3, 2)
    assert sorted(lenient.sink.records) == ["0", "2", "3"]
    assert messages(lenient) == {1: "id: 3 rows have this key", 4: "id: 2 rows have this key"}
    assert {letter["key"]: letter["payload"] for letter in lenient.letters()} == {
        1: {"id": 1, "name": None, "score": None}, 4: {"id": 4, "name": "n4", "score": 6.0},
    }  # fmt: skip
    assert listed(lenient) == {
        0: "acknowledged",
        1: "rejected",
        2: "acknowledged",
        3: "acknowledged",
        4: "rejected",
    }
    again = lenient.run().report
    assert (again.status, again.requests, again.rejected) == ("succeeded", 0, 0)


def test_i20_in_mirror_mode_no_twin_is_deleted_or_changed(lenient: Site) -> None:
    lenient.fill(5).run()
    held = dict(lenient.sink.records)
    lenient.sql(
        "insert into t values (1, 'twin', 7), (2, 'n2', 3)",
        "update t set name = 'x' where id = 2",
        "delete from t where id = 3",
    )
    report = lenient.run().report
    assert (report.status, report.changes["delete"], report.rejected) == ("partial", 1, 2)
    assert lenient.sink.records == {key: record for key, record in held.items() if key != "3"}
    assert set(messages(lenient)) == {1, 2}
    lenient.sql("delete from t where name = 'twin'", "delete from t where id = 2").run()
    assert messages(lenient) == {}
    assert lenient.sink.records == lenient.model()


def test_i20_one_left_of_twins_is_sent(lenient: Site) -> None:
    lenient.fill(2).sql("insert into t values (1, 'twin', 7)").run()
    report = lenient.sql("delete from t where name = 'n1'").run().report
    assert (report.status, report.delivered) == ("succeeded", 1)
    assert lenient.sink.records["1"]["name"] == "twin"
    assert lenient.letters() == []


def test_i20_keys_that_differ_in_spelling_only_are_set_aside_too(lenient: Site) -> None:
    lenient.sync |= {"mode": "upsert"}
    lenient.write()
    lenient.sql(
        "create or replace table t as select * from (values ('bob', 'a', 1), ('eve', 'b', 2)) x(id, name, v)"
    ).run()
    report = lenient.sql("insert into t values (' BOB', 'c', 3), ('zoe', 'd', 4)").run().report
    assert (report.status, report.delivered, report.rejected) == ("partial", 1, 2)
    assert set(messages(lenient)) == {"bob", " BOB"}
    assert "differs from this one only in case" in messages(lenient)["bob"]
    assert sorted(lenient.sink.records) == ["bob", "eve", "zoe"]


def test_i20_a_twin_of_a_composite_key(lenient: Site) -> None:
    lenient.sync |= {"model": {"warehouse": "main", "table": "t", "primary_key": ["id", "name"]}}
    lenient.write()
    lenient.fill(3).sql("insert into t values (1, 'n1', 7)")
    assert lenient.run().report.rejected == 1
    assert [letter["key"] for letter in lenient.letters()] == [[1, "n1"]]
    assert sorted(lenient.sink.records) == ["0", "2"]


def test_i39_a_forgotten_key_leaves_no_dead_letter_when_it_comes_twice(lenient: Site) -> None:
    lenient.fill(3).run()
    with lenient.project as project:
        project.forget("users", "1")
    report = lenient.sql("insert into t values (1, 'twin', 7), (2, 'twin', 7)").run().report
    assert (report.suppressed, report.rejected) == (2, 1)
    assert set(messages(lenient)) == {2}
