"""The journal: what it says is written survives whatever happens next."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import HANGS

from backhaul.changes import Stage
from backhaul.errors import RunError, StateError
from backhaul.ledger.fold import Settlement
from backhaul.runs.recovery import settlements
from backhaul.state.journal import BatchOutcome, Journal
from backhaul.state.letters import DeadLetter
from backhaul.state.protocol import State
from backhaul.state.sqlite import SqliteState

WRITER = Path(__file__).parent / "writer.py"


def started(address: str, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, WRITER, address, what], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("lines", [1, 7, 60, 400])
def test_what_was_said_is_there_after_a_kill(address: str, state: State, lines: int) -> None:
    lines = min(lines, 30) if address.startswith("dynamodb") else lines  # a simulated server is slow
    process = started(address, "journal")
    assert process.stdout is not None
    said = [process.stdout.readline().split() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    said += [line.split() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait()
    intents = {row["low"] for row in state.do("intents", {"plan": "p1"})}
    outcomes = {row["low"] for row in state.do("outcomes", {"plan": "p1"})}
    letters = {int(row["key"]) for row in state.do("dead_keys", {"scope": "s"})}
    ended = {int(low) for what, low in said if what == "outcome"}
    begun = {int(low) for what, low in said if what == "intent"}
    assert ended <= outcomes == letters
    assert begun <= intents | outcomes
    assert not intents & outcomes
    # at most one batch of each of the four lanes was written without having been said
    assert len(outcomes - ended) <= 4


async def test_batches_in_flight_share_commits(state: State) -> None:
    async with Journal(state, "s", "p") as journal:
        await asyncio.gather(*(journal.intend(low, low + 1, "upsert", "k", "{}") for low in range(500)))
        rows = state.do("intents", {"plan": "p"})
        assert [row["low"] for row in rows] == list(range(500))
        await asyncio.gather(*(journal.settle(BatchOutcome(low, low + 1)) for low in range(500)))
    assert state.do("intents", {"plan": "p"}) == []
    assert settlements(state, "p") == [Settlement(Stage.ACKNOWLEDGED, 0, 500)]


async def test_outcomes_become_settlements(state: State) -> None:
    async with Journal(state, "s", "p") as journal:
        await journal.settle(BatchOutcome(0, 4))
        await journal.settle(
            BatchOutcome(4, 8, ["a", None, "c", "d"], rejected=[5], unknown=[6], pending=[7])
        )
        await journal.intend(8, 12, "upsert", "k", "{}")
        await journal.settle(BatchOutcome(12, 14))
    assert settlements(state, "p") == [
        Settlement(Stage.ACKNOWLEDGED, 0, 4),
        Settlement(Stage.ACKNOWLEDGED, 4, 8, frozenset({5, 6, 7}), '["a",null,"c","d"]'),
        Settlement(Stage.UNKNOWN, 6, 7),
        Settlement(Stage.ACKNOWLEDGED, 12, 14),
        Settlement(Stage.UNKNOWN, 8, 12),
    ]


async def test_what_cannot_be_stored_is_said_and_the_rest_goes_on(state: State) -> None:
    """A text that has no UTF-8 must not leave the others waiting for ever."""
    letter = DeadLetter("\ud800", "upsert", "bad", "half a pair", 1, "{}", "1")
    async with Journal(state, "s", "p") as journal, asyncio.timeout(10):
        with pytest.raises(StateError):
            await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter])
        await journal.intend(1, 2, "upsert", "k", "{}")
    assert [row["low"] for row in state.do("intents", {"plan": "p"})] == [1]


async def test_a_locked_state_fails_the_write_and_not_the_process(tmp_path: Path) -> None:
    state = SqliteState(tmp_path)
    other = sqlite3.connect(state.path, isolation_level=None)
    async with Journal(state, "s", "p") as journal:
        journal._writer._database.execute("PRAGMA busy_timeout = 50")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="is locked by another process"):
            await journal.intend(0, 1, "upsert", "k", "{}")
        other.execute("ROLLBACK")
        await journal.intend(0, 1, "upsert", "k", "{}")
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
        (first,) = state.do("dead_letters", {"scope": "s", "id": None})
        assert (first["attempts"], first["status"], first["message"]) == (1, "dead", "no")
        assert (first["payload"], first["seal"]) == ("", "")
        assert first["first_failed_at"] == first["last_failed_at"]
        await asyncio.sleep(0.01)
        await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter(code="worse", attempts=3, hash="22")])
        (second,) = state.do("dead_letters", {"scope": "s", "id": first["id"]})
        assert (second["attempts"], second["code"]) == (4, "worse")
        assert first["first_failed_at"] == second["first_failed_at"] < second["last_failed_at"]
        refused = [
            (row["key"], row["hash"], row["by_mapping"]) for row in state.do("refused", {"scope": "s"})
        ]
        assert refused == [("1", "22", 0)]
        state.do_all("replay_letters", [(first["id"],)])
        assert state.do("refused", {"scope": "s"}) == []
        await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter()])
        assert [row["status"] for row in state.do("dead_letters", {"scope": "s", "id": None})] == ["dead"]
        state.do_all("discard_letters", [(first["id"],)])
        assert state.do("dead_letters", {"scope": "s", "id": None}) == []
        assert len(state.do("refused", {"scope": "s"})) == 1
        await journal.settle(BatchOutcome(0, 1), raised=["1"])
        assert state.do("dead_keys", {"scope": "s"}) == []


async def test_letters_of_other_syncs_stay(state: State) -> None:
    for sync in ("s", "other"):
        async with Journal(state, sync, "p") as journal:
            await journal.settle(BatchOutcome(0, 1, rejected=[0]), [letter()])
    async with Journal(state, "s", "p2") as journal:
        await journal.settle(BatchOutcome(0, 1), raised=["1"])
    assert [row["scope"] for row in state.do("dead_letters", {"scope": None, "id": None})] == ["other"]


def test_a_lease_is_one_process_at_a_time_and_dies_with_it(address: str, state: State) -> None:
    """I26: a run after a kill starts at once, where the death can be seen."""
    assert not state.is_leased("s")
    process = started(address, "lease")
    assert process.stdout is not None
    assert process.stdout.readline() == "leased\n"
    assert state.is_leased("s")
    with pytest.raises(RunError, match=rf"pid {process.pid}"), state.lease("s"):
        pass
    with state.lease("another"):
        pass
    process.kill()
    process.wait()
    deadline = time.monotonic() + HANGS
    while True:
        try:
            with state.lease("s") as lease:
                lease.check()
                assert state.is_leased("s")
            break
        except RunError:
            assert time.monotonic() < deadline
    assert not state.is_leased("s")


def test_locks_are_for_their_owner_alone(tmp_path: Path) -> None:
    state = SqliteState(tmp_path / "state")
    with state.lease("s"):
        locks = state.folder / "locks"
        assert oct((locks / "s.lock").stat().st_mode)[-3:] == "600"
        assert oct(locks.stat().st_mode)[-3:] == "700"
