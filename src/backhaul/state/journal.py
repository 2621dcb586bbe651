"""The journal: what is on its way and what became of it, durable before anyone acts on it.

One thread owns the connection. It takes everything that is waiting, writes it in one transaction, forces it to the
disk, and then tells all who waited: batches in flight share a commit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from backhaul.errors import StateError
from backhaul.state.store import State, connect, now, queries, storing

Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record refused for good. `key` and `payload` are JSON."""

    key: str
    op: str
    code: str
    message: str
    attempts: int
    payload: str
    hash: str
    by_mapping: bool = False


@dataclass(slots=True)
class BatchOutcome:
    """What became of rows [low, high): those not listed were delivered."""

    low: int
    high: int
    remote_ids: list[str | None] | None = None
    rejected: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)


class Journal:
    """The journal of one plan's delivery. Use as an async context manager."""

    def __init__(self, state: State, sync: str, plan: str) -> None:
        self.state = state
        self.sync = sync
        self.plan = plan
        self._queue: queue.SimpleQueue[tuple[Sequence[Statement], asyncio.Future[None] | None] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        with storing(self.state.path):
            self._database = connect(self.state.path)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def write(self, statements: Sequence[Statement]) -> None:
        """Returns when the statements (name, values) are durable.

        Raises:
            StateError: they could not be stored.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((statements, future))
        await future

    def note(self, statements: Sequence[Statement]) -> None:
        """Stores statements with the next commit, without waiting for it."""
        self._queue.put((statements, None))

    async def intend(self, low: int, high: int, op: str, key: str) -> None:
        """Says that rows [low, high) are about to leave."""
        await self.write([("intend", (self.plan, low, high, op, key, now()))])

    async def settle(
        self, outcome: BatchOutcome, dead: Sequence[DeadLetter] = (), raised: Sequence[str] = ()
    ) -> None:
        """Ends the intent, stores the outcome, buries the refused, raises the accepted: in one transaction."""
        lists = [
            orjson.dumps(rows).decode() if rows else None
            for rows in (outcome.rejected, outcome.unknown, outcome.pending)
        ]
        ids = orjson.dumps(outcome.remote_ids).decode() if outcome.remote_ids else None
        statements: list[Statement] = [
            ("end_intent", (self.plan, outcome.low)),
            ("settle", (self.plan, outcome.low, outcome.high, ids, *lists)),
        ]
        statements += [("bury", self._burial(letter)) for letter in dead]
        statements += [("raise", (self.sync, key)) for key in raised]
        await self.write(statements)

    def _burial(self, letter: DeadLetter) -> Sequence[Any]:
        at = now()
        return (
            self.sync, letter.key, letter.op, letter.code, self.state.mask(letter.message), letter.attempts, at, at,
            letter.payload, letter.hash, int(letter.by_mapping), self.plan,
        )  # fmt: skip

    def _write(self) -> None:
        connection = self._database
        last = False
        while not last:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            last = None in waiting
            entries = [entry for entry in waiting if entry is not None]
            futures = [future for _, future in entries if future is not None]
            failure: StateError | None = None
            try:
                with storing(self.state.path):
                    connection.execute("BEGIN IMMEDIATE")
                    for name, rows in _grouped(entries).items():
                        connection.execute(queries()[name], (orjson.dumps(rows).decode(),))
                    connection.execute("COMMIT")
            except (StateError, TypeError) as error:
                # a TypeError is a value that JSON or UTF-8 has not, such as half of a surrogate pair
                failure = error if isinstance(error, StateError) else StateError(f"cannot be stored: {error}")
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            if futures:
                self._loop.call_soon_threadsafe(_answer, futures, failure)
        connection.close()


_ORDER = ("intend", "end_intent", "settle", "bury", "raise", "spend", "hold")


def _grouped(entries: Sequence[tuple[Sequence[Statement], Any]]) -> dict[str, list[Sequence[Any]]]:
    """The statements of all entries by name: each kind is one SQL statement over a JSON list of its rows, because every
    step of SQLite gives the interpreter away and has to win it back from a busy event loop. The order of kinds is safe:
    a batch's intent is durable, and so in an earlier commit, before its outcome is stored."""
    groups: dict[str, list[Sequence[Any]]] = {}
    for statements, _ in entries:
        for name, values in statements:
            groups.setdefault(name, []).append(values)
    return {name: groups[name] for name in _ORDER if name in groups}


def _answer(futures: Sequence[asyncio.Future[None]], failure: StateError | None) -> None:
    for future in futures:
        if future.done():
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)
