"""Leases in DynamoDB: taken from nobody who may still send, and nothing is stored by who has lost one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.waiting import HANGS, until

from backhaul.errors import RunError
from backhaul.state.dynamo.state import DynamoState
from backhaul.state.dynamo.table import change, put
from backhaul.state.protocol import LeaseLost

ROW = ("p", 0, 10, "upsert", "k", "2026-01-01T00:00:00.000Z", None, "{}", 1.0)


@pytest.fixture
def pair(dynamodb_state: str) -> Iterator[tuple[DynamoState, DynamoState]]:
    """Two workers of one state, whose leases last a second."""
    states = DynamoState(dynamodb_state, length=1.0), DynamoState(dynamodb_state, length=1.0)
    yield states
    for state in states:
        state.close()


def abroad(state: DynamoState, age: float, **values: Any) -> None:
    """The sync is held by a worker of another host, whose last beat was so long ago."""
    held: Mapping[str, Any] = {"owner": "elsewhere (pid 7)", "process": "", "fence": 3, "beat": "b", "seconds": 1.0, "timeout": 0.5}  # fmt: skip
    beaten = state.table.clock.now() - age
    state.table.do(put("lease/s", "lease", {**held, "beaten": beaten, **values}))


def test_who_has_just_moved_it_on_keeps_it_and_nobody_waits(pair: tuple[DynamoState, DynamoState]) -> None:
    """I26"""
    state, _ = pair
    abroad(state, age=0.0, seconds=60.0)
    with pytest.raises(RunError, match=r"being run by elsewhere \(pid 7\)") as error, state.lease("s"):
        pass
    assert "the sync is free in 6" in str(error.value.hint)
    assert state.is_leased("s")


@pytest.mark.parametrize("age", [3600.0, -3600.0])
def test_a_silent_lease_is_watched_for_its_length_and_a_request_and_then_taken(
    pair: tuple[DynamoState, DynamoState], age: float
) -> None:
    """I26, I32: whatever the time that stands in it says, also where a clock was set."""
    state, _ = pair
    abroad(state, age=age)
    assert not state.is_leased("s")
    began = time.monotonic()
    with state.lease("s", timeout=0.5) as lease:
        assert time.monotonic() - began >= 1.5
        lease.check()
        assert state.held is not None
        assert state.held.fence == 4


def test_a_lease_that_is_moved_on_while_it_is_watched_is_not_taken(
    pair: tuple[DynamoState, DynamoState],
) -> None:
    """I26: its owner was slow, or stopped for a while, and lives."""
    state, other = pair
    abroad(state, age=3600.0, seconds=60.0)
    moves = threading.Timer(0.5, lambda: other.table.do(change("lease/s", "lease", {"beat": "c"})))
    moves.start()
    with pytest.raises(RunError, match="being run by elsewhere"), state.lease("s"):
        pass
    moves.join()


def test_of_many_who_watch_one_takes_it(pair: tuple[DynamoState, DynamoState]) -> None:
    """I26"""
    abroad(pair[0], age=3600.0)
    told: list[str] = []

    def take(state: DynamoState) -> None:
        try:
            with state.lease("s", timeout=0.0):
                told.append("taken")
                until(lambda: len(told) == 2)
        except RunError as error:
            told.append(str(error))

    threads = [threading.Thread(target=take, args=[state]) for state in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 2
    assert told.count("taken") == 1
    assert sum("s is being run by" in text for text in told) == 1


def test_it_is_moved_on_for_as_long_as_the_run_lasts(dynamodb_state: str) -> None:
    """I26: a lease of three seconds, of which a busy machine may take one or two for a beat."""
    ours, other = DynamoState(dynamodb_state, length=3.0), DynamoState(dynamodb_state, length=3.0)
    with ours.lease("s", timeout=0.1) as lease:
        for _ in range(6):
            time.sleep(0.7)
            lease.check()
            ours.do_all("intend", [ROW])
        with pytest.raises(RunError), other.lease("s"):
            pass
    assert not other.is_leased("s")
    for state in (ours, other):
        state.close()


def test_who_has_lost_it_stores_nothing(pair: tuple[DynamoState, DynamoState]) -> None:
    """I26: every transaction has the fence as its condition, a run's statements and its journal alike."""
    ours, other = pair
    with ours.lease("s") as lease:
        other.table.do(change("lease/s", "lease", {"fence": 9}))
        with pytest.raises(LeaseLost, match="the lease on s ran out"):
            ours.writer().write({"intend": [ROW]})
        with pytest.raises(LeaseLost):
            ours.do("keep_schema", {"scope": "s", "body": "{}"})
        with pytest.raises(LeaseLost):
            lease.check()
    assert other.do("intents", {"plan": "p"}) == []
    assert other.do("schema", {"scope": "s"}) == []
    assert other.is_leased("s"), "who lost it does not give it away"


def test_a_table_that_does_not_answer_ends_the_lease_in_time(dynamodb_state: str) -> None:
    """I26: a beat that cannot be stored is a lease that ends, by this process's own clock."""
    state = DynamoState(dynamodb_state, length=1.0)
    answers = threading.Event()

    def hang(**_: Any) -> None:
        answers.wait(HANGS)

    with state.lease("s") as lease:
        state.table.client.meta.events.register("before-send.dynamodb", hang)
        began = time.monotonic()
        with pytest.raises(LeaseLost):
            while time.monotonic() - began < HANGS:
                lease.check()
                time.sleep(0.02)
        state.table.client.meta.events.unregister("before-send.dynamodb", hang)
        answers.set()
