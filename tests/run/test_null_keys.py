"""I20: rows without a primary key stop the run and are named, or are set aside as rejections; the rest is delivered."""

from __future__ import annotations

from typing import Any

import pytest
from sites import Site
from test_one_status import listed

from backhaul.runs.report import RunReport


@pytest.fixture
def lenient(site: Site) -> Site:
    site.sync = {"duplicates": "reject"}
    site.write()
    return site


def by_mail(site: Site, **more: Any) -> Site:
    """Records are known by a mail address; the primary key is another column."""
    site.sync |= {"identify": {"id": "name"}, "fields": {"score": "v"}, **more}
    site.write()
    return site.sql(
        "create or replace table t as select * from (values (1, 'anna@example.com', 1.0), (2, 'bob@example.com', 2.0), "
        "(NULL, 'carol@example.com', 3.0), (NULL, 'dave@example.com', 4.0)) x(id, name, v)"
    )


def letters(site: Site) -> dict[str, tuple[str, str]]:
    return {
        str(letter["key"]): (letter["error"]["code"], letter["error"]["message"]) for letter in site.letters()
    }


def counts(report: RunReport) -> tuple[str, int, int]:
    return report.status, report.delivered, report.rejected


def test_i20_by_default_they_stop_the_run_with_samples_and_what_to_do(site: Site) -> None:
    report = by_mail(site).run().report
    assert (report.status, report.exit_code, site.sink.seen) == ("failed", 1, [])
    assert str(report.error) == ("2 rows have NULL in the primary key (id), such as id caro…com, dave…com")
    assert "duplicates: reject" in str(report.hint)


def test_i20_they_are_set_aside_visibly_and_the_rest_is_sent(lenient: Site) -> None:
    report = by_mail(lenient).run().report
    assert (*counts(report), report.exit_code) == ("partial", 2, 1, 3)
    assert sorted(lenient.sink.records) == ["anna@example.com", "bob@example.com"]
    said = "id: 2 rows have NULL here, and a primary key is required, such as id caro…com, dave…com"
    assert letters(lenient) == {"None": ("null", said)}
    assert listed(lenient) == {1: "acknowledged", 2: "acknowledged", None: "rejected"}
    assert [(one["code"], one["class"]) for one in report.refused] == [("null", "record")]


def test_i20_they_are_not_refused_anew_by_every_run_and_leave_when_they_are_mended(lenient: Site) -> None:
    by_mail(lenient).run()
    again = lenient.run().report
    assert (*counts(again), again.requests) == ("succeeded", 0, 0, 0)
    assert len(lenient.letters()) == 1
    more = lenient.sql("update t set id = 3 where name like 'carol%'").run().report
    assert counts(more) == ("partial", 1, 1)  # one row is left, and says so anew
    assert letters(lenient)["None"][1].startswith("id: 1 row has NULL here")
    rest = lenient.sql("update t set id = 4 where id is null").run().report
    assert counts(rest) == ("succeeded", 1, 0)
    assert lenient.letters() == []
    assert len(lenient.sink.records) == 4


def test_i20_in_mirror_mode_they_delete_nobody(lenient: Site) -> None:
    """A row that lost its key is not what was delivered under it: that record left the model."""
    lenient.fill(5).run()
    report = (
        lenient.sql("insert into t values (NULL, 'x', 1), (NULL, 'x', 1)", "delete from t where id = 3")
        .run()
        .report
    )
    assert (report.changes, *counts(report)) == (
        {"create": 0, "update": 0, "delete": 1}, "partial", 1, 1,
    )  # fmt: skip
    assert sorted(lenient.sink.records) == ["0", "1", "2", "4"]
    assert [letter["payload"] for letter in lenient.letters()] == [{"id": None, "name": "x", "score": 1.0}]


def test_i20_beside_duplicates_each_is_set_aside_for_its_own_reason(lenient: Site) -> None:
    lenient.fill(5).run()
    lenient.sql(
        "insert into t values (NULL, 'x', 1), (1, 'twin', 7), (9, 'new', 1), (8, 'a', 1), (8, 'b', 1)"
    )
    report = lenient.run().report
    assert counts(report) == ("partial", 1, 3)
    assert {key: code for key, (code, _) in letters(lenient).items()} == {
        "None": "null", "1": "duplicate", "8": "duplicate",
    }  # fmt: skip
    assert "9" in lenient.sink.records


def test_i20_null_keys_do_not_hide_a_duplicate(site: Site) -> None:
    """Duplicates are counted among rows with a key: as many NULLs as records that left must not make up for them."""
    site.sync = {"duplicates": "reject", "mode": "upsert"}
    site.write()
    site.fill(5).run()
    report = (
        site.sql("update t set id = NULL where id > 2", "insert into t values (1, 'twin', 7)").run().report
    )
    assert counts(report) == ("partial", 0, 2)
    assert set(letters(site)) == {"None", "1"}


def test_i20_part_of_a_composite_key(lenient: Site) -> None:
    keys = {"warehouse": "main", "table": "t", "primary_key": ["id", "name"]}
    lenient.sync |= {"model": keys, "identify": {"id": "v::bigint"}, "fields": {"name": "name"}}
    lenient.write()
    lenient.fill(2).sql("insert into t values (NULL, 'a', 7), (NULL, 'A', 8), (3, NULL, 9)")
    report = lenient.run().report
    assert counts(report) == ("partial", 2, 3), report.error
    assert {str(letter["key"]) for letter in lenient.letters()} == {"[None, 'a']", "[None, 'A']", "[3, None]"}
    assert counts(lenient.run().report) == ("succeeded", 0, 0)


def test_i20_an_incremental_read_sets_them_aside_too(lenient: Site) -> None:
    lenient.sync |= {
        "mode": "upsert",
        "model": {"warehouse": "main", "table": "t", "primary_key": "id", "cursor": "v"},
    }
    lenient.write()
    lenient.fill(3).run()
    report = lenient.sql("insert into t values (NULL, 'x', 100), (7, 'n7', 101)").run().report
    assert (report.incremental, *counts(report)) == (True, "partial", 1, 1)


def test_a_plan_shows_them(lenient: Site) -> None:
    with by_mail(lenient).project as project:
        plan = project.plan("users").report
    assert plan.refused == 1
    assert [item["keys"] for item in plan.refusals] == [[None]]


def test_a_replay_finds_them_as_they_are(lenient: Site) -> None:
    by_mail(lenient).run()
    (letter,) = lenient.letters()
    with lenient.project as project:
        project.mark_dead_letters([int(letter["id"])], "replay")
    assert counts(lenient.run().report) == ("partial", 0, 1)
    assert len(lenient.letters()) == 1
