"""Guards, approval and reviewed plans (I24, I25): what holds a run, what lets it go, and what a changed mapping says."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from sites import Site

from backhaul.errors import UsageError


def configured(site: Site, **keys: Any) -> Site:
    site.sync = keys
    site.write()
    return site


def mapped(site: Site, **fields: str) -> Site:
    return configured(site, **{**site.sync, "fields": fields})


@pytest.mark.parametrize(
    ("guards", "change", "tripped"),
    [
        ({}, "delete from t", {"min_rows", "max_drop", "max_deletes"}),
        ({}, "delete from t where id >= 49", {"max_drop", "max_deletes"}),
        ({"max_drop": "off"}, "delete from t where id >= 89", {"max_deletes"}),
        ({"max_updates": 5}, "update t set v = -1 where id < 6", {"max_updates"}),
        ({"max_creates": 5}, "insert into t select 100 + i, 'n', 1 from range(6) x(i)", {"max_creates"}),
        ({"max_field_changes": "5%"}, "update t set v = -1 where id < 6", {"max_field_changes"}),
        ({"max_null_rise": "5%"}, "update t set name = null where id < 6", {"max_null_rise"}),
    ],
)  # fmt: skip
def test_i24_a_guard_holds_the_run_before_anything_is_sent(
    site: Site, guards: dict[str, Any], change: str, tripped: set[str]
) -> None:
    configured(site, guards=guards).fill(100)
    site.run()
    requests, plans = len(site.sink.seen), site.rows("select count(*) from intents")
    site.sql(change)
    held = site.run().report
    assert (held.status, held.exit_code, held.delivered, held.requests) == ("held", 1, 0, 0)
    assert {guard["name"] for guard in held.guards if not guard["ok"]} == tripped
    assert str(held.plan) in str(held.hint)
    assert len(site.sink.seen) == requests
    assert site.rows("select count(*) from intents") == plans
    assert site.run(plan=held.plan).report.status == "succeeded"
    assert site.sink.records == site.model()


@pytest.mark.parametrize(
    "change",
    [
        "update t set v = -1 where id < 5",
        "update t set name = null where id < 5",
        "update t set name = case when id < 50 then null else 'back' end where id < 100",
    ],
)
def test_i24_guards_of_single_fields_let_pass_what_they_allow(site: Site, change: str) -> None:
    fields = {"max_field_changes": "5%", "max_null_rise": "5%"}
    configured(site, guards=fields if "case" not in change else {"max_null_rise": 0}).fill(100)
    site.sql("update t set name = null where id >= 50" if "case" in change else "select 1")
    site.run()
    site.sql(change)
    assert site.run().report.status == "succeeded"


def test_i24_guards_of_single_fields_need_the_acknowledged_values(site: Site) -> None:
    configured(site, guards={"max_null_rise": "5%"}, ledger={"values": False}).fill(10)
    report = site.run().report
    assert report.exit_code == 2
    assert "does not keep" in str(report.error)
    assert site.sink.seen == []


def test_i24_a_held_run_moves_no_cursor(site: Site) -> None:
    model = {"warehouse": "main", "table": "t", "primary_key": "id", "cursor": "v"}
    configured(site, model=model, mode="upsert", guards={"max_creates": "50%"}).fill(100)
    site.run(plan=site.run().report.plan)
    site.sql("insert into t select 1000 + i, 'n', 1000 + i from range(60) x(i)")
    for _ in range(2):
        held = site.run().report
        assert (held.status, held.incremental, held.changes["create"]) == ("held", True, 60)
    assert site.run(plan=held.plan).report.delivered == 60
    assert site.sink.records == site.model()


def test_i24_a_plan_held_twice_keeps_its_id_and_another_process_delivers_it(site: Site) -> None:
    configured(site, guards={}).fill(100)
    site.run()
    site.sql("delete from t where id < 20")
    first, second = site.run().report, site.run().report
    assert first.plan == second.plan
    called = site.call("run", "users", "--plan", str(first.plan), "--json")
    said = called.stdout
    assert called.exit_code == 0
    assert json.loads(said)["runs"][0]["delivered"] == 20
    assert site.sink.records == site.model()


def test_i24_a_superseded_plan_says_so(site: Site) -> None:
    configured(site, guards={}).fill(100)
    site.run()
    site.sql("delete from t where id < 20")
    old = site.run().report.plan
    site.sql("delete from t where id < 30")
    new = site.run().report.plan
    assert new != old
    with pytest.raises(UsageError, match=f"plan {old} was superseded: now plan {new} is held"):
        site.run(plan=old)
    site.fill(100).sql("update t set v = v + 1 where id = 7")
    assert site.run().report.delivered == 1
    with pytest.raises(UsageError, match=f"plan {new} was superseded: a later run of users took its place"):
        site.run(plan=new)


@pytest.mark.parametrize("what", ["model", "ledger", "mapping"])
def test_i24_a_plan_is_refused_when_the_world_moved_and_says_which(site: Site, what: str) -> None:
    configured(site, guards={}).fill(100)
    site.run()
    site.sql("update t set v = v + 1 where id = 1")
    with site.project as project:
        plan = str(project.plan("users").report.id)
    if what == "model":
        site.sql("update t set v = v + 1 where id = 2")
    elif what == "ledger":
        site.run()
        site.sql("update t set name = 'm' where id = 1")
    else:
        mapped(site, name="name", score="v + 0")
    requests = len(site.sink.seen)
    report = site.run(plan=plan).report
    assert (report.status, report.exit_code) == ("failed", 1)
    said = {
        "model": "the model's rows",
        "ledger": "something was delivered",
        "mapping": "the mapping of score changed",
    }
    assert said[what] in str(report.error)
    assert len(site.sink.seen) == requests


def test_i25_a_changed_expression_is_named_with_its_field(site: Site) -> None:
    site.fill(50)
    site.run()
    mapped(site, name="upper(name)", score="v")
    report = site.run().report
    assert report.remapped == {"name": 50}
    assert report.reasons == {"mapping": 50}
    assert report.json()["remapped"] == {"name": 50}
    assert site.run().report.remapped == {}


def test_i25_plan_and_run_say_it_in_words(site: Site) -> None:
    site.fill(50)
    site.run()
    mapped(site, name="upper(name)", score="v")
    for command in ("plan", "run"):
        said = site.call(command).stdout
        assert "resends 50 because the mapping of name changed" in said


def test_i25_only_what_changes_a_value_is_a_change(site: Site) -> None:
    configured(site, approve="first", fields={"name": "upper(name)", "score": "v"}).fill(5)
    site.run(plan=site.run().report.plan)
    mapped(site, name="UPPER( name )", score="v")
    site.sql("update t set v = 0 where id = 1")
    report = site.run().report
    assert (report.status, report.remapped, report.reasons) == ("succeeded", {}, {})


def test_i25_approve_first_holds_the_first_sync_and_each_changed_mapping(site: Site) -> None:
    configured(site, approve="first").fill(10)
    first = site.run().report
    assert "review of the first sync" in str(first.error)
    site.run(plan=first.plan)
    mapped(site, name="upper(name)", score="v")
    held = site.run().report
    assert (held.status, held.delivered) == ("held", 0)
    assert "the mapping of name changed" in str(held.error)
    assert site.run(plan=held.plan).report.delivered == 10
    site.sql("update t set v = 9")
    assert site.run().report.status == "succeeded"


def test_i25_an_approved_mapping_that_was_delivered_in_part_is_not_held_again_and_still_named(
    site: Site,
) -> None:
    configured(site, approve="first").fill(10)
    site.run(plan=site.run().report.plan)
    mapped(site, name="upper(name)", score="v")
    site.run(plan=site.run().report.plan, limit=4)
    report = site.run().report
    assert (report.status, report.delivered, report.remapped) == ("succeeded", 6, {"name": 6})


def test_i25_a_changed_mapping_is_read_in_full_whatever_the_cursor_says(site: Site) -> None:
    model = {"warehouse": "main", "table": "t", "primary_key": "id", "cursor": "v"}
    configured(site, model=model, mode="upsert").fill(20)
    site.run()
    mapped(site, name="upper(name)", score="v")
    assert site.run().report.delivered == 20
    assert site.sink.records["3"]["name"] == "N3"


def test_i25_a_changed_mapping_without_effect_is_forgotten_by_the_next_run(site: Site) -> None:
    site.fill(10)
    site.run()
    mapped(site, name="concat(name, '')", score="v")
    assert site.run().report.requests == 0
    site.sql("update t set name = 'x' where id = 1")
    assert site.run().report.remapped == {}


def test_i25_an_added_and_a_removed_field_are_named(site: Site) -> None:
    site.fill(10)
    site.run()
    mapped(site, name="name", twice="v * 2")
    assert site.run().report.remapped == {"score": 0, "twice": 10}


def test_i25_a_ledger_of_before_fingerprints_names_no_field_that_stayed(site: Site) -> None:
    configured(site, approve="first").fill(5)
    site.run(plan=site.run().report.plan)
    with duckdb.connect(str(site.ledger)) as ledger:
        ledger.execute("delete from meta where name in ('mapping', 'approved')")
    site.sql("update t set v = 7 where id = 1")
    report = site.run().report
    assert (report.status, report.remapped) == ("succeeded", {})
    mapped(site, name="name", score="v", twice="v * 2")
    assert site.run().report.remapped == {"twice": 5}
