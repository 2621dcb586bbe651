"""`backhaul undo RUN`: what a run replaced is put back, over real HTTP, and nothing that changed since."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from sites import Site, outcome
from tests.waiting import until

from backhaul.errors import UsageError
from backhaul.runs.report import PlanReport


def _undo(site: Site, run: str) -> PlanReport:
    with site.project as project:
        return project.undo(run)


def _changed(site: Site, *statements: str) -> tuple[dict[str, Any], str]:
    """What the destination held before a run, and the run."""
    before = dict(site.sink.records)
    report = site.sql(*statements).run().report
    assert report.status == "succeeded"
    return before, report.id


def _left(plan: PlanReport) -> dict[str, Any]:
    assert plan.undo is not None
    return {why: left["keys"] for why, left in plan.undo["left_out"].items()}


def test_an_update_is_undone_and_the_next_run_sends_the_model_again(site: Site) -> None:
    site.fill(5).run()
    before, run = _changed(site, "update t set name = 'bad' where id < 3")
    plan = _undo(site, run)
    assert plan.changes == {"create": 0, "update": 3, "delete": 0}
    assert plan.sample[0]["fields"] == {"name": ["bad", "n0"]}
    assert outcome(site.run(plan=plan.id).report) == {"delivered": 3}
    assert site.sink.records == before
    assert outcome(site.run().report) == {"delivered": 3}
    assert site.sink.records == site.model()


def test_a_mended_model_has_nothing_to_send_after_an_undo(site: Site) -> None:
    site.fill(5).run()
    _, run = _changed(site, "update t set name = 'bad'")
    site.run(plan=_undo(site, run).id)
    assert site.fill(5).run().report.requests == 0


def test_an_undo_from_before_a_field_leaves_that_field_acknowledged(site: Site) -> None:
    site.fill(9).run()
    _, run = _changed(site, "update t set name = 'bad' where id < 2")
    site.sync = {"fields": {"score": "v", "name": "name", "double": "v * 2"}}
    site.write()
    assert outcome(site.run().report) == {"delivered": 9}
    plan = _undo(site, run)
    assert outcome(site.run(plan=plan.id).report) == {"delivered": 2}
    assert site.sink.records["1"]["name"] == "n1"
    assert site.sql("update t set name = 'n' || id where id = 0").run().report.delivered == 1
    assert site.sink.records["1"] == {"id": 1, "name": "bad", "score": 1.5, "double": 3.0}
    assert site.run().report.requests == 0


def test_creates_and_deletes_of_a_mirror_are_undone(site: Site) -> None:
    site.fill(5).run()
    before, run = _changed(site, "delete from t where id = 1", "insert into t values (9, 'new', 1)")
    plan = _undo(site, run)
    assert plan.changes == {"create": 1, "update": 0, "delete": 1}
    assert site.run(plan=plan.id).status == "succeeded"
    assert site.sink.records == before
    assert _undo(site, run).changes == {"create": 0, "update": 0, "delete": 0}
    site.run()
    assert site.sink.records == site.model()


def test_an_identifier_that_another_record_has_now_is_left_alone(site: Site) -> None:
    site.sync = {"identify": {"id": "name"}, "fields": {"score": "v"}}
    site.write()
    site.fill(3).run()
    _, run = _changed(site, "delete from t where id = 1")
    _changed(site, "insert into t values (7, 'n1', 70)")
    held = dict(site.sink.records)
    plan = _undo(site, run)
    assert plan.changes == {"create": 0, "update": 0, "delete": 0}
    assert _left(plan) == {"taken": [1]}
    assert site.sink.records == held


def test_what_the_destination_cannot_delete_is_listed(site: Site) -> None:
    site.sync = {"mode": "upsert"}
    site.write()
    run = site.fill(2).run().report.id
    config = json.loads((site.root / "backhaul.yml").read_text())
    del config["destinations"]["api"]["objects"]["user"]["delete"]
    (site.root / "backhaul.yml").write_text(json.dumps(config))
    plan = _undo(site, run)
    assert plan.changes["delete"] == 0
    assert _left(plan) == {"unable": [0, 1]}


def test_a_deleted_record_whose_values_were_never_known_is_not_made_up(site: Site) -> None:
    site.sync = {"mode": "mirror"}
    site.write()
    site.fill(20).run()
    site.sql("insert into t values (99, 'new', 1)")
    killed = site.command("run", env=os.environ | {"BACKHAUL_FAILPOINT": "intended"})
    assert killed.wait(60) == -signal.SIGKILL
    run = site.sql("delete from t where id in (7, 99)").run().report.id
    plan = _undo(site, run)
    assert (plan.changes["create"], _left(plan)) == (1, {"unable": [99]})
    site.run(plan=plan.id)
    assert "7" in site.sink.records
    assert "99" not in site.sink.records


def test_guards_do_not_hold_it(site: Site) -> None:
    site.sync = {"guards": {"max_deletes": "1%"}}
    site.write()
    run = site.fill(5).run().report.id
    assert site.run(plan=_undo(site, run).id).status == "succeeded"
    assert site.sink.records == {}


def test_a_record_changed_since_is_left_out(site: Site) -> None:
    site.fill(5).run()
    _, run = _changed(site, "update t set name = 'bad' where id < 3")
    _changed(site, "update t set name = 'good' where id = 1")
    plan = _undo(site, run)
    assert plan.changes["update"] == 2
    assert _left(plan) == {"changed": [1]}
    site.run(plan=plan.id)
    assert [site.sink.records[key]["name"] for key in ("0", "1", "2")] == ["n0", "good", "n2"]


def test_what_was_rejected_is_left_out(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(5).run()
    faulty(refuse_key="1")
    run = site.sql("update t set name = 'bad' where id < 3").run().report.id
    plan = _undo(site, run)
    assert plan.changes["update"] == 2
    assert _left(plan) == {"undelivered": [1]}


def test_it_is_refused_when_a_record_has_moved(site: Site) -> None:
    site.fill(5).run()
    _, run = _changed(site, "update t set name = 'bad' where id < 3")
    plan = _undo(site, run)
    _changed(site, "update t set name = 'good' where id = 1")
    seen = len(site.sink.seen)
    report = site.run(plan=plan.id).report
    assert report.status == "failed"
    assert "1 of its records changed since; nothing was sent" in str(report.error)
    assert len(site.sink.seen) == seen


def test_an_undo_killed_on_its_way_converges(site: Site, faulty: Callable[..., None]) -> None:
    site.batch_size = 10
    site.write()
    site.fill(1000).run()
    before, run = _changed(site, "update t set name = 'bad'")
    plan = _undo(site, run)
    faulty(latency=1.0)
    process = site.command("run", "--plan", plan.id)
    until(lambda: len(site.rows(f"SELECT 1 FROM outcomes WHERE plan = '{plan.id}'")) >= 3, process)
    process.kill()
    process.wait()
    faulty()
    assert site.sink.records != before
    again = _undo(site, run)
    assert 0 < again.changes["update"] < 1000
    assert site.run(plan=again.id).status == "succeeded"
    assert site.sink.records == before
    site.run()
    assert site.sink.records == site.model()


def test_an_unknown_run_one_that_sent_nothing_and_one_no_longer_kept(site: Site) -> None:
    first = site.fill(3).run().report.id
    nothing = site.run().report.id
    for run, said in (("r-none", "there is no run r-none"), (nothing, "nothing to undo")):
        with pytest.raises(UsageError, match=said):
            _undo(site, run)
    for file in (site.root / ".backhaul" / "plans").glob("*"):
        file.unlink()
    with pytest.raises(UsageError, match="not kept any more"):
        _undo(site, first)


def test_a_ledger_without_values_is_refused(site: Site) -> None:
    site.sync = {"ledger": {"values": False}}
    site.write()
    run = site.fill(3).run().report.id
    with pytest.raises(UsageError, match="keeps no values"):
        _undo(site, run)


def test_the_command_line(site: Site) -> None:
    site.fill(3).run()
    _, run = _changed(site, "update t set name = 'bad' where id = 1")
    called = site.call("undo", run)
    said, complaint = called.stdout, called.stderr
    assert f"undo of run {run}" in said, complaint
    assert "n1" in said
    assert "--plan p-" in said
    assert "before the next normal run: it sends the model's values again" in said
    document = json.loads(site.call("undo", run, "--json").stdout)["plans"][0]
    assert document["undo"] == {"run": run, "left_out": {}}
    assert site.call("run", "--plan", document["id"]).exit_code == 0
    assert site.sink.records["1"]["name"] == "n1"


def test_a_null_that_is_skipped_cannot_be_put_back(site: Site) -> None:
    site.sync = {"nulls": "skip"}
    site.write()
    site.fill(3).sql("update t set name = null where id = 1").run()
    _, run = _changed(site, "update t set name = 'x' where id in (1, 2)")
    plan = _undo(site, run)
    assert plan.changes == {"create": 0, "update": 1, "delete": 0}
    assert _left(plan) == {"unable": [1]}
    assert outcome(site.run(plan=plan.id).report) == {"delivered": 1}
    assert (site.sink.records["1"]["name"], site.sink.records["2"]["name"]) == ("x", "n2")
