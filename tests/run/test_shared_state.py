"""A state that workers share: on any disk they continue each other's work, and only one runs a sync."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sites import Site
from tests.waiting import HANGS, until

from backhaul.state.dynamo.creation import VERSION
from backhaul.state.dynamo.state import DynamoState
from backhaul.state.dynamo.table import put
from backhaul.state.postgres import PostgresState


@pytest.fixture(params=["postgres_db", "dynamodb_state"])
def shared(site: Site, request: pytest.FixtureRequest) -> Site:
    site.settings = {"state": request.getfixturevalue(request.param), "lease": "3s"}
    site.write()
    return site


def wipe(site: Site) -> None:
    """Another worker's disk: nothing of ours is on it."""
    shutil.rmtree(site.root / ".backhaul", ignore_errors=True)


def test_a_worker_with_an_empty_disk_goes_on_where_another_stopped(shared: Site) -> None:
    shared.fill(3000)
    assert shared.run().delivered == 3000
    assert not list(shared.root.glob(".backhaul/state.db*"))
    for round_ in range(4):
        wipe(shared)
        assert shared.run().report.requests == 0
        shared.sql(
            f"update t set v = v + 1 where id % 300 = {round_}", f"delete from t where id = {1000 + round_}"
        )
        if round_ % 2:
            wipe(shared)
        report = shared.run().report
        assert (report.status, report.changes["update"], report.changes["delete"]) == ("succeeded", 10, 1)
        assert shared.sink.records == shared.model()


def test_dead_letters_and_records_are_the_same_on_every_disk(
    shared: Site, faulty: Callable[..., None]
) -> None:
    shared.fill(50)
    faulty(refuse_key="7")
    assert shared.run().rejected == 1
    wipe(shared)
    with shared.project as project:
        assert [letter["key"] for letter in project.dead_letters("users")] == [7]
        assert [row["key"] for row in project.records("users", "rejected")] == [7]
        assert len(list(project.records("users", "acknowledged"))) == 49


def test_killed_and_continued_on_another_disk(shared: Site, faulty: Callable[..., None]) -> None:
    """I5, I6: the intents and the plan are in the state, so only what was in flight is sent again."""
    shared.batch_size = 10
    shared.write()
    shared.fill(2000)
    faulty(latency=0.1)
    process = shared.command("run")
    until(lambda: len(shared.sink.seen) > 60)
    process.kill()
    process.wait()
    wipe(shared)
    faulty()
    assert shared.run().report.status == "succeeded"
    assert shared.sink.records == shared.model()
    twice = [key for key, count in shared.sent().items() if count > 1]
    assert len(twice) <= 48 * 10, "more than what can be in flight was sent again"


def test_of_racing_workers_one_runs(shared: Site) -> None:
    """I26: the others end with 1 and say who runs it, while the one waits for its first answers; in DynamoDB they may fail at
    making the state's first entries at the same moment."""
    shared.api = {"timeout": "10m"}
    shared.write()
    shared.fill(500)
    shared.held = True
    racers = [shared.command("run", "users") for _ in range(4)]
    until(lambda: sum(process.poll() is not None for process in racers) == 3)
    shared.held = False
    said = [process.communicate(timeout=HANGS)[1] for process in racers]
    codes = sorted(process.returncode for process in racers)
    assert codes == [0, 1, 1, 1], said
    told = ("users is being run by", "another process changed the state at the same moment")
    assert sum(any(one in text for one in told) for text in said) == 3, said
    assert set(shared.sent().values()) == {1}
    assert shared.sink.records == shared.model()


def test_a_worker_that_was_stopped_past_its_lease_sends_nothing(
    shared: Site, faulty: Callable[..., None]
) -> None:
    """I26: it wakes up to a sync that is somebody else's."""
    shared.batch_size = 10
    shared.api = {"timeout": "1s"}
    shared.write()
    shared.fill(3000)
    faulty(latency=0.2)
    stopped = shared.command("run")
    until(lambda: len(shared.sink.seen) > 30)
    time.sleep(0.1)  # it waits for answers: a request that was just let go would still leave when it wakes
    stopped.send_signal(signal.SIGSTOP)
    try:
        time.sleep(5.5)
        faulty()
        assert shared.run().report.status == "succeeded"
        shared.sql("update t set v = v + 1")
        assert shared.run().report.status == "succeeded"
        seen = len(shared.sink.seen)
    finally:
        stopped.send_signal(signal.SIGCONT)
    text = stopped.communicate(timeout=HANGS)[1]
    assert stopped.returncode == 1
    # stopped in the middle of a transaction, it finds its connection ended
    assert "lease on users ran out" in text or "ended the connection" in text
    assert len(shared.sink.seen) == seen
    assert shared.sink.records == shared.model()
    assert shared.run().report.requests == 0


def test_the_database_restarts_under_a_run(
    site: Site, faulty: Callable[..., None], own_postgres: Path, own_dsn: str
) -> None:
    """Whatever the moment, the next run makes the destination equal to the model."""
    site.settings = {"state": own_dsn, "lease": "3s"}
    site.batch_size = 10
    site.write()
    site.fill(5000)
    faulty(latency=0.1)
    script = Path(__file__).parents[2] / "scripts" / "postgres"
    process = site.command("run")
    until(lambda: len(site.sink.seen) > 40)
    subprocess.run([script, "stop", own_postgres], check=True, capture_output=True)
    text = process.communicate(timeout=HANGS)[1]
    assert process.returncode == 1
    assert "the state's PostgreSQL" in text
    assert "Traceback" not in text
    seen = len(site.sink.seen)
    assert "the state's PostgreSQL is not running" in site.call("run").stderr
    assert len(site.sink.seen) == seen
    subprocess.run([script, "start", own_postgres], check=True, capture_output=True)
    faulty()
    report = site.run().report
    assert report.status == "succeeded", report.error
    assert site.sink.records == site.model()
    assert site.run().report.requests == 0


def test_a_newer_state_is_left_as_it_is(shared: Site) -> None:
    shared.fill(5)
    shared.run()
    with shared.project as project:
        state = project.workspace.state
        if isinstance(state, DynamoState):
            state.table.do(put("state", "version", {"version": VERSION + 1}))
        elif isinstance(state, PostgresState):
            state.db.execute("UPDATE backhaul.version SET version = version + 1")
    called = shared.call("run")
    assert "written by a newer backhaul" in called.stderr
    assert called.exit_code == 1
    assert len(shared.sink.seen) == 1


def test_a_password_is_never_shown(site: Site, postgres_db: str) -> None:
    (site.root / ".env").write_text(
        f"STATE={postgres_db.replace('postgresql://', 'postgresql://nobody:s3cret-s3cret@', 1).replace('postgres@', '')}\n"
    )
    site.settings = {"state": "${STATE}"}
    site.write()
    site.fill(5)
    called = site.call("run")
    out, err = called.stdout, called.stderr
    assert called.exit_code == 1
    assert "s3cret" not in out + err
    assert "the state's PostgreSQL" in err
    assert not site.sink.seen
