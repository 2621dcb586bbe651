"""The journal: what it says is written survives whatever happens next."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backhaul.errors import RunError, StateError
from backhaul.ledger.fold import Settled, Settlement
from backhaul.recovery import settlements
from backhaul.state.journal import BatchOutcome, DeadLetter, Journal
from backhaul.state.lease import is_leased, lease
from backhaul.state.store import State

WRITER = Path(__file__).parent / "writer.py"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "state")
    yield opened
    opened.close()


def started(state: State, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, WRITER, state.folder, what], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("lines", [1, 7, 60, 400])
def test_what_was_said_is_there_after_a_kill(state: State, lines: int) -> None:
    process = started(state, "journal")
    assert process.stdout is not None
    said = [process.stdout.readline().split() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    said += [line.split() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait()
    with sqlite3.connect(state.path) as database:
        intents = {row[0] for row in database.execute("SELECT low FROM intents WHERE plan = 'p1'")}
        outcomes = {row[0] for row in database.execute("SELECT low FROM outcomes WHERE plan = 'p1'")}
        letters = {int(row[0]) for row in database.execute("SELECT key FROM dead_letters")}
    database.close()
    ended = {int(low) for what, low in said if what == "outcome"}
    begun = {int(low) for what, low in said if what == "intent"}
    assert ended <= outcomes == letters
    assert begun <= intents | outcomes
    assert not intents & outcomes
    # at most one batch of each of the four lanes was written without having been said
    assert len(outcomes - ended) <= 4


async def test_batches_in_flight_share_commits(state: State) -> None:
    async with Journal(state, "s", "p") as journal:
        await asyncio.gather(*(journal.intend(low, low + 1, "upsert", "k") for low in range(500)))
        rows = state.do("intents", {"plan": "p"})
        assert [row["low"] for row in rows] == list(range(500))
        await asyncio.gather(*(journal.settle(BatchOutcome(low, low + 1)) for low in range(500)))
    assert state.do("intents", {"plan": "p"}) == []
    assert settlements(state, "p") == [Settlement(Settled.DELIVERED, 0, 500)]


async def test_outcomes_become_settlements(state: State) -> None:
    async with Journal(state, "s", "p") as journal:
        await journal.settle(BatchOutcome(0, 4))
        await journal.settle(
            BatchOutcome(4, 8, ["a", None, "c", "d"], rejected=[5], unknown=[6], pending=[7])
        )
        await journal.intend(8, 12, "upsert", "k")
        await journal.settle(BatchOutcome(12, 14))
    assert settlements(state, "p") == [
        Settlement(Settled.DELIVERED, 0, 4),
        Settlement(Settled.DELIVERED, 4, 8, frozenset({5, 6, 7}), ["a", None, "c", "d"]),
        Settlement(Settled.UNKNOWN, 6, 7),
        Settlement(Settled.DELIVERED, 12, 14),
        Settlement(Settled.UNKNOWN, 8, 12),
    ]


async def test_what_cannot_be_stored_is_said_and_the_rest_goes_on(state: State) -> None:
    """A text that has no UTF-8 must not leave the others waiting for ever."""
    letter = DeadLetter("1", "upsert", "bad", "half a pair: \ud800", 1, "{}", "1")
    async with Journal(state, "s", "p") as journal, asyncio.timeout(10):
        with pytest.raises(StateError):
            await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter])
        await journal.intend(1, 2, "upsert", "k")
    assert [row["low"] for row in state.do("intents", {"plan": "p"})] == [1]


async def test_a_locked_state_fails_the_write_and_not_the_process(state: State) -> None:
    other = sqlite3.connect(state.path, isolation_level=None)
    async with Journal(state, "s", "p") as journal:
        journal._database.execute("PRAGMA busy_timeout = 50")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="is locked by another process"):
            await journal.intend(0, 1, "upsert", "k")
        other.execute("ROLLBACK")
        await journal.intend(0, 1, "upsert", "k")
    other.close()
    assert len(state.do("intents", {"plan": "p"})) == 1


def letter(**changes: Any) -> DeadLetter:
    told = {
        "key": "1",
        "op": "upsert",
        "code": "bad",
        "message": "no",
        "attempts": 1,
        "payload": '{"a": 1}',
        "hash": "11",
    }
    return DeadLetter(**(told | changes))


async def test_the_life_of_a_dead_letter(state: State) -> None:
    async with Journal(state, "s", "p") as journal:
        await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter()])
        (first,) = state.do("dead_letters", {"sync": "s", "id": None})
        assert (first["attempts"], first["status"], json.loads(first["payload"])) == (1, "dead", {"a": 1})
        assert first["first_failed_at"] == first["last_failed_at"]
        await asyncio.sleep(0.01)
        await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter(code="worse", attempts=3, hash="22")])
        (second,) = state.do("dead_letters", {"sync": "s", "id": first["id"]})
        assert (second["attempts"], second["code"]) == (4, "worse")
        assert first["first_failed_at"] == second["first_failed_at"] < second["last_failed_at"]
        refused = [tuple(row) for row in state.do("refused", {"sync": "s"})]
        assert refused == [("1", "22", 0)]
        state.do("mark_dead_letter", {"id": first["id"], "status": "replay"})
        assert state.do("refused", {"sync": "s"}) == []
        await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter()])
        assert [row["status"] for row in state.do("dead_letters", {"sync": "s", "id": None})] == ["dead"]
        state.do("mark_dead_letter", {"id": first["id"], "status": "discarded"})
        assert state.do("dead_letters", {"sync": "s", "id": None}) == []
        assert len(state.do("refused", {"sync": "s"})) == 1
        await journal.settle(BatchOutcome(0, 1), raised=["1"])
        assert state.do("dead_keys", {"sync": "s"}) == []


async def test_letters_of_other_syncs_stay(state: State) -> None:
    for sync in ("s", "other"):
        async with Journal(state, sync, "p") as journal:
            await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter()])
    async with Journal(state, "s", "p2") as journal:
        await journal.settle(BatchOutcome(0, 1), raised=["1"])
    assert [row["sync"] for row in state.do("dead_letters", {"sync": None, "id": None})] == ["other"]


def test_a_lease_is_one_process_at_a_time_and_dies_with_it(state: State) -> None:
    locks = state.folder / "locks"
    assert not is_leased(locks, "s")
    process = started(state, "lease")
    assert process.stdout is not None
    assert process.stdout.readline() == "leased\n"
    assert is_leased(locks, "s")
    with pytest.raises(RunError, match=rf"pid {process.pid}"), lease(locks, "s"):
        pass
    with lease(locks, "another"):
        pass
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while is_leased(locks, "s"):
        assert time.monotonic() < deadline
    with lease(locks, "s"):
        assert is_leased(locks, "s")
    assert oct((locks / "s.lock").stat().st_mode)[-3:] == "600"
    assert oct(locks.stat().st_mode)[-3:] == "700"
