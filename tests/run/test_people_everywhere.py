"""undo and why over both states, with composite keys and in insert mode."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from sites import Site

from backhaul.runs.report import PlanReport

COMPOSITE = {"warehouse": "main", "table": "t", "primary_key": ["id", "name"]}


@pytest.fixture(params=["folder", "postgres"])
def place(site: Site, request: pytest.FixtureRequest) -> Site:
    """A project on each kind of state."""
    if request.param == "postgres":
        site.settings = {"state": request.getfixturevalue("postgres_db")}
    site.write()
    return site


def undo(site: Site, run: str) -> PlanReport:
    with site.project as project:
        return project.undo(run)


def why(site: Site, key: str) -> dict[str, Any]:
    with site.project as project:
        return project.why("users", key)


def test_a_run_is_undone_and_one_record_tells_its_life(place: Site) -> None:
    place.fill(5).run()
    before = dict(place.sink.records)
    statements = (
        "update t set name = 'bad' where id = 2",
        "delete from t where id = 1",
        "insert into t values (9, 'new', 1)",
    )
    run = place.sql(*statements).run().report.id
    plan = undo(place, run)
    assert plan.changes == {"create": 1, "update": 1, "delete": 1}
    assert place.run(plan=plan.id).report.delivered == 3
    assert place.sink.records == before
    assert [step["change"] for step in why(place, "2")["history"]] == ["create", "update", "update"]
    assert place.run().report.delivered == 3
    assert place.sink.records == place.model()


def test_another_worker_undoes_what_this_one_did(site: Site, postgres_db: str) -> None:
    site.settings = {"state": postgres_db}
    site.write()
    site.fill(5).run()
    before = dict(site.sink.records)
    run = site.sql("update t set name = 'bad'").run().report.id
    shutil.rmtree(site.root / ".backhaul")
    assert [step["status"] for step in why(site, "3")["history"]] == ["delivered", "delivered"]
    plan = undo(site, run)
    assert site.run(plan=plan.id).report.delivered == 5
    assert site.sink.records == before


def test_composite_keys_are_undone_and_explained(place: Site) -> None:
    place.sync = {"model": COMPOSITE}
    place.write()
    place.fill(4).run()
    before = dict(place.sink.records)
    run = place.sql("update t set v = 99 where id < 2", "delete from t where id = 3").run().report.id
    place.sql("update t set v = 100 where id = 1").run()
    plan = undo(place, run)
    assert plan.undo is not None
    assert plan.undo["left_out"] == {"changed": {"count": 1, "keys": [[1, "n1"]]}}
    assert plan.changes == {"create": 1, "update": 1, "delete": 0}
    assert place.run(plan=plan.id).report.delivered == 2
    assert {**place.sink.records, "1": before["1"]} == before
    found = why(place, '[0, "n0"]')
    assert found["key"] == [0, "n0"]
    assert [step["change"] for step in found["history"]] == ["create", "update", "update"]
    assert found["destination"]["fields"]["score"] == 0.0


def test_inserts_are_taken_back_and_the_next_run_makes_them_again(place: Site) -> None:
    place.sync = {"mode": "insert", "freshness": {"sample": 0}}
    place.write()
    run = place.fill(3).run().report.id
    plan = undo(place, run)
    assert plan.changes == {"create": 0, "update": 0, "delete": 3}
    assert place.run(plan=plan.id).report.delivered == 3
    assert place.sink.records == {}
    assert why(place, "1")["summary"] == "Never acknowledged; the next run sends it."
    assert place.run().report.delivered == 3
    assert set(place.sink.creates.values()) == {2}
