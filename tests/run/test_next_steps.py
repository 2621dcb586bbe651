"""I43: every record has one next step, whatever a person did meanwhile: it is sent, looked up, or decided, singly and in bulk."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from plugin import Api, settings
from sites import Site
from test_unknown import FOUND, inserting, silent, statuses

from backhaul.changes import Stage
from backhaul.errors import StateError, UsageError
from backhaul.next_steps import STEPS, Offer, Step, next_step, status_of
from backhaul.types import Mode

WAITING = (Stage.DETECTED, Stage.RETRY, Stage.UNKNOWN, Stage.QUARANTINED)


def test_i43_every_stage_mode_and_offer_has_one_step() -> None:
    assert set(STEPS) == set(product(Stage, (False, True), Mode, Offer))


@pytest.mark.parametrize("stage", WAITING)
def test_i43_what_waits_is_sent_looked_up_repeated_or_decided(stage: Stage) -> None:
    for acknowledged, mode, offer in product((False, True), Mode, Offer):
        step = next_step(stage, acknowledged, mode, offer)
        assert step not in (Step.NOTHING, Step.WAIT)
        assert (step is Step.SEND) == (status_of(stage, acknowledged, mode, offer) == "pending") or (
            stage is Stage.UNKNOWN
        )


def test_i16_no_step_sends_an_insert_that_may_have_been_applied_where_nothing_recognises_it() -> None:
    for acknowledged in (False, True):
        for stage in (Stage.UNKNOWN, Stage.QUARANTINED):
            assert next_step(stage, acknowledged, Mode.INSERT, Offer.NONE) is Step.DECIDE


def project_of(act: Callable[[Any], Any]) -> Callable[[Site], None]:
    def do(site: Site) -> None:
        with site.project as project:
            act(project)

    return do


def restore(site: Site) -> None:
    with site.project as project:
        project.back_up_state(site.root / "b.tar")
        project.restore_state(site.root / "b.tar")


def undo(site: Site) -> None:
    with site.project as project:
        runs = [run for run in project.runs("users") if run["plan"]]
        project.undo(runs[-1]["id"])


def to_upsert(site: Site) -> None:
    site.sync["mode"] = "upsert"
    site.write()


def to_insert(site: Site) -> None:
    site.sync["mode"] = "insert"
    site.write()


def remap(site: Site) -> None:
    site.sync["fields"] = {"name": "upper(name)", "score": "v"}
    site.write()


COMMANDS: dict[str, Callable[[Site], None]] = {
    "reset": project_of(lambda project: project.reset("users")),
    "restore": restore,
    "verify": project_of(lambda project: project.verify("users", count=None)),
    "baseline": project_of(lambda project: project.baseline("users")),
    "undo": undo,
    "forget": project_of(lambda project: project.forget("users", "12", local=True)),
    "mode": to_upsert,
    "mapping": remap,
}


@pytest.fixture
def doubtful(site: Site) -> Site:
    """Ten inserts that were applied and never answered, and five that were acknowledged."""
    inserting(site)
    silent(site)
    assert site.run().report.unknown == 10
    site.sink.faults.silence = 0.0
    site.sql("insert into t select i, 'n' || i, 1 from range(10, 15) x(i)")
    assert site.run().report.delivered == 5
    return site


@pytest.mark.parametrize("command", COMMANDS)
def test_i43_after_every_command_each_insert_in_doubt_can_be_decided(doubtful: Site, command: str) -> None:
    COMMANDS[command](doubtful)
    if command == "mode":
        assert doubtful.run().report.status == "succeeded"
        assert statuses(doubtful) == {"acknowledged": 15}
        return
    report = doubtful.run().report
    acknowledged = 14 if command == "forget" else 15
    assert statuses(doubtful) == {"unknown": 10, "acknowledged": acknowledged - 10}
    assert (report.status, report.exit_code, report.undecided) == ("partial", 3, 10)
    with doubtful.project as project:
        project.settle("users", "3", delivered=True)
        assert project.settle("users", delivered=True, where="id < 5")["records"] == 4
        assert project.settle("users", delivered=True)["records"] == 5
    report = doubtful.run().report
    assert (report.requests, report.exit_code) == (0, 0), report.hint
    assert statuses(doubtful) == {"acknowledged": acknowledged}
    assert set(doubtful.sink.creates.values()) == {1}


@pytest.mark.parametrize("command", ["reset", "restore"])
@pytest.mark.parametrize("how", ["key", "look-up"])
def test_i15_a_reset_leaves_inserts_in_doubt_as_they_are(site: Site, command: str, how: str) -> None:
    inserting(site, keyed="1d" if how == "key" else "", lookup=FOUND if how == "look-up" else None)
    silent(site)
    assert site.run().report.unknown
    keys = {seen.idempotency_key for seen in site.sink.seen}
    site.sink.faults.silence = 0.0
    COMMANDS[command](site)
    since = len(site.sink.seen)
    report = site.run().report
    assert (report.status, statuses(site)) == ("succeeded", {"acknowledged": 10}), report.error
    assert set(site.sink.creates.values()) == {1}
    assert {seen.idempotency_key for seen in site.sink.seen[since:] if how == "key"} <= keys


@pytest.mark.parametrize("searchable", [True, False])
def test_a_reset_of_inserts_looks_them_up_or_leaves_them(site: Site, searchable: bool) -> None:
    inserting(site, lookup=FOUND if searchable else None)
    site.run()
    del site.sink.records["4"]
    site.sink.creates.pop("4")
    with site.project as project:
        done = project.reset("users")
    assert (done.records, done.kept) == ((10, False) if searchable else (0, True))
    assert site.run().report.status == "succeeded"
    assert ("4" in site.sink.records) == searchable
    assert set(site.sink.creates.values()) == {1}


def test_a_reset_sends_dead_letters_again(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(6)
    faulty(refuse_key="4")
    assert site.run().report.rejected == 1
    faulty()
    with site.project as project:
        assert project.reset("users").dead_letters == 1
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 6)
    assert site.letters() == []


def test_i22_a_reset_waits_for_a_job_that_the_destination_works_on(site: Site, plugged: Api) -> None:
    site.fill(30)
    plugged.working = False
    settings(site, job_timeout="0.3s")
    assert site.run().report.status == "deferred"
    with site.project as project, pytest.raises(StateError, match="still works"):
        project.reset("users")
    plugged.working = True
    assert site.run().report.status == "succeeded"
    with site.project as project:
        assert project.reset("users").records == 30


def test_what_left_the_model_after_a_reset_is_not_pending_for_ever(site: Site) -> None:
    site.sync = {"mode": "upsert", "freshness": {"sample": 0}}
    site.write()
    site.fill(10).run()
    site.sql("delete from t where id < 3")
    with site.project as project:
        project.reset("users")
    assert site.run().report.delivered == 7
    assert statuses(site) == {"acknowledged": 10}
    assert site.run().report.requests == 0


def test_a_record_that_went_away_is_looked_up_and_inserted_again(site: Site) -> None:
    inserting(site, lookup=FOUND).run()
    del site.sink.records["4"]
    site.sink.creates.pop("4")
    COMMANDS["verify"](site)
    assert statuses(site) == {"acknowledged": 9, "unknown": 1}
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 1)
    assert site.sink.records == site.model()


def test_what_the_index_shows_late_is_no_difference(site: Site, faulty: Callable[..., None]) -> None:
    inserting(site, lookup={"index_lag": "2s", "id": "_id"}, freshness={"sample": 10})
    faulty(index_lag=1.0)
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 10), report.verified
    assert statuses(site) == {"acknowledged": 10}


def test_where_that_cannot_be_evaluated_names_its_columns(doubtful: Site) -> None:
    with doubtful.project as project, pytest.raises(UsageError) as caught:
        project.settle("users", delivered=True, where="nonsense = 'secret-value'")
    assert "secret-value" not in str(caught.value)
    assert "id, name, score" in str(caught.value.hint)
