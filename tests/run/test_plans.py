"""Reviews, guards, limits, baseline, reset, verification, the lease: what holds a run back and what lets it go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from sites import Site, outcome
from tests.waiting import HANGS, until

from backhaul.errors import RunError, UsageError


def planned(site: Site) -> str:
    with site.project as project:
        return str(project.plan("users").report.id)


def test_a_limit_sends_so_many_and_the_next_run_the_rest(site: Site) -> None:
    site.fill(250)
    report = site.run(limit=120).report
    assert outcome(report) == {"delivered": 120, "pending": 130}
    assert report.exit_code == 0
    assert len(site.sink.records) == 120
    assert outcome(site.run(limit=1000).report) == {"delivered": 130}
    assert set(site.sent().values()) == {1}
    assert site.sink.records == site.model()


def test_a_limit_reaches_over_deletes_and_updates(site: Site) -> None:
    site.fill(100)
    site.run()
    site.sql("delete from t where id < 5", "update t set v = v + 1 where id >= 95")
    assert site.run(limit=7).report.delivered == 7
    assert site.run().report.delivered == 3
    assert site.sink.records == site.model()


def test_a_reviewed_plan_is_delivered_exactly(site: Site) -> None:
    site.fill(100)
    plan = planned(site)
    report = site.run(plan=plan).report
    assert (report.status, report.delivered) == ("succeeded", 100)
    assert site.sink.records == site.model()


def test_a_reviewed_plan_is_refused_when_the_model_moved(site: Site) -> None:
    site.fill(100)
    plan = planned(site)
    site.sql("update t set v = v + 1 where id = 50")
    report = site.run(plan=plan).report
    assert (report.status, report.exit_code) == ("failed", 1)
    assert "not what the model" in str(report.error)
    assert site.sink.seen == []


def test_a_plan_file_is_as_good_as_its_id(site: Site, tmp_path: Path) -> None:
    site.fill(10)
    with site.project as project:
        document = project.plan("users").report.json()
    file = tmp_path / "plan.json"
    file.write_bytes(orjson.dumps(document))
    assert site.run(plan=str(file)).report.delivered == 10
    file.write_text("no plan")
    with pytest.raises(UsageError, match="not a plan file"):
        site.run(plan=str(file))
    with pytest.raises(UsageError, match="no plan p-1"):
        site.run(plan="p-1")


def test_a_guard_holds_the_run_until_it_is_reviewed(site: Site) -> None:
    site.sync = {"guards": {"max_deletes": "5%"}}
    site.write()
    site.fill(100)
    site.run()
    requests = len(site.sink.seen)
    site.sql("delete from t where id < 20")
    held = site.run().report
    assert (held.status, held.exit_code, held.delivered) == ("held", 1, 0)
    assert "max_deletes" in str(held.error)
    assert len(site.sink.seen) == requests
    with site.project as project:
        assert len(list(project.records("users", "held"))) == 20
    assert held.plan
    report = site.run(plan=held.plan).report
    assert (report.status, report.delivered) == ("succeeded", 20)
    assert site.sink.records == site.model()
    with site.project as project:
        assert not list(project.records("users", "held"))


def test_an_empty_model_is_held_by_default(site: Site) -> None:
    site.fill(100)
    site.sync = {"guards": {}}
    site.write()
    site.run()
    site.sql("delete from t")
    report = site.run().report
    assert report.status == "held"
    assert len(site.sink.records) == 100


@pytest.mark.parametrize(
    ("approve", "statuses"), [("always", ["held", "held"]), ("first", ["held", "succeeded"])]
)
def test_approval(site: Site, approve: str, statuses: list[str]) -> None:
    site.sync = {"approve": approve}
    site.write()
    site.fill(10)
    first = site.run().report
    assert site.sink.seen == []
    assert site.run(plan=first.plan).report.status == "succeeded"
    site.sql("update t set v = v + 1")
    second = site.run().report
    assert [first.status, second.status] == statuses


def test_a_changed_mapping_is_named_and_approved_anew(site: Site) -> None:
    site.sync = {"approve": "first"}
    site.write()
    site.fill(10)
    site.run(plan=site.run().report.plan)
    site.sync = {"approve": "first", "fields": {"name": "name", "score": "v", "twice": "v * 2"}}
    site.write()
    report = site.run().report
    assert report.status == "held"
    assert report.reasons == {"mapping": 10}


def test_a_baseline_sends_nothing_and_only_later_changes_are_sent(site: Site) -> None:
    site.fill(100)
    with site.project as project:
        assert project.baseline("users").records == 100
    assert site.sink.seen == []
    assert site.run().report.requests == 0
    site.sql("update t set v = v + 1 where id < 3")
    report = site.run().report
    assert report.changes == {"create": 0, "update": 3, "delete": 0}


def test_a_reset_sends_everything_again_and_keeps_the_known_keys(site: Site) -> None:
    site.fill(100)
    site.run()
    with site.project as project:
        assert project.reset("users").records == 100
    site.sql("delete from t where id = 1")
    report = site.run().report
    assert report.changes == {"create": 0, "update": 99, "delete": 1}
    assert report.reasons == {"reset": 100}
    assert site.sink.records == site.model()


def test_verify_finds_what_was_changed_behind_our_back_and_the_next_run_mends_it(site: Site) -> None:
    site.fill(300)
    site.run()
    site.sink.records["5"]["name"] = "someone else"
    del site.sink.records["6"]
    with site.project as project:
        found = project.verify("users", count=None)
    assert found.checked == 300
    wrong = {mismatch.key: mismatch for mismatch in found.mismatches}
    assert wrong[5].fields == {"name": ["n5", "someone else"]}
    assert wrong[6].missing
    assert len(wrong) == 2
    assert site.run().report.delivered == 2
    assert site.sink.records == site.model()


def test_a_seeded_sample_is_the_same_each_time(site: Site) -> None:
    site.fill(300)
    site.run()
    for key in site.sink.records:
        site.sink.records[key]["name"] = "changed"
    with site.project as project:
        one, two = (project.verify("users", count=7, seed=3) for _ in range(2))
    assert {found.key for found in one.mismatches}
    assert len(one.mismatches) == 7
    assert not {found.key for found in one.mismatches} & {found.key for found in two.mismatches}


def test_each_run_reads_back_a_sample(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(100)
    report = site.run().report
    assert report.verified is not None
    assert (report.verified.checked, report.verified.mismatches) == (10, ())


def test_two_runs_at_once_are_one_too_many(site: Site) -> None:
    site.fill(100)
    site.api = {"timeout": "10m"}
    site.write()
    site.held = True
    process = site.command("run")
    until(lambda: site.sink.seen, process)
    with pytest.raises(RunError, match=rf"users is being run by another process \(pid {process.pid}\)"):
        site.run()
    other = site.command("run")
    _, said = other.communicate(timeout=HANGS)
    assert other.returncode == 1
    assert "is being run by another process" in said
    assert len(said.strip().splitlines()) <= 2
    site.held = False
    assert process.wait(HANGS) == 0
    assert site.sent().most_common(1)[0][1] == 1


def test_an_operation_that_is_not_declared_is_said_before_anything_is_sent(site: Site) -> None:
    site.fill(10)
    site.run()
    project = orjson.loads((site.root / "backhaul.yml").read_bytes())
    del project["destinations"]["api"]["objects"]["user"]["upsert"]
    (site.root / "backhaul.yml").write_bytes(orjson.dumps(project))
    site.sql("delete from t where id = 1", "update t set v = v + 1")
    requests = len(site.sink.seen)
    report = site.run().report
    assert report.exit_code == 2
    assert "no upsert" in str(report.error)
    assert len(site.sink.seen) == requests


def test_a_cursor_reads_only_what_is_new_and_a_run_without_changes_keeps_it(site: Site) -> None:
    model = {"warehouse": "main", "table": "t", "primary_key": "id", "cursor": "v"}
    site.sync = {"model": model, "mode": "upsert"}
    site.write()
    site.fill(100)
    site.run()
    for _ in range(2):
        quiet = site.run().report
        assert (quiet.status, quiet.requests, quiet.incremental) == ("succeeded", 0, True), quiet.error
    site.sql("insert into t values (500, 'new', 1000)", "insert into t values (501, 'hidden', 1)")
    report = site.run().report
    assert (report.delivered, report.incremental) == (1, True)
    full = site.run(full=True).report
    assert (full.delivered, full.incremental) == (1, False)
    assert site.sink.records == site.model()
