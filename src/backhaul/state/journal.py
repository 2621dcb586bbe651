"""The journal: what is on its way and what became of it, durable before anyone acts on it.

One thread owns the connection. It takes everything that is waiting, writes it in one transaction, forces it to the
disk, and then tells all who waited: batches in flight share a commit. While they do, it lets more of them come before
it writes: every commit interrupts the event loop, and few large ones cost it less than many small ones.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from backhaul.advice import shape
from backhaul.errors import StateError
from backhaul.state.letters import LONGEST_CODE, DeadLetter, burial
from backhaul.state.protocol import State
from backhaul.types import RefusalClass
from backhaul.words import in_one_line

Statement = tuple[str, Sequence[Any]]
Told = Callable[[StateError | None], None]
"""Hears on the loop that statements are durable, or why they are not."""
Entry = tuple[Sequence[Statement], Told]
_GATHER = 0.005
"""How long a commit waits for company, in seconds, where the last one was shared."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record was not taken: the destination's code ('' where it gave none) and words, and the class of the refusal."""

    code: str
    message: str
    kind: RefusalClass


@dataclass(slots=True)
class BatchOutcome:
    """What became of rows [low, high): those not listed were delivered. A row that is rejected and unknown was refused after
    a request of unknown end: it is told as rejected, and its ledger row is in doubt."""

    low: int
    high: int
    remote_ids: list[str | None] | None = None
    rejected: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    reasons: list[tuple[Reason, list[int]]] = field(default_factory=list)
    """Why rows are pending or unknown."""


class Journal:
    """The journal of one plan's delivery; `mapping` is the fingerprint of the plan's mapping. Use as an async context manager."""

    def __init__(self, state: State, scope: str, plan: str, mapping: str = "") -> None:
        self.state = state
        self.mapping = mapping
        self.scope = scope
        self.plan = plan
        self._left: dict[int, str] = {}
        """When each batch that is on its way left, by its first row."""
        elapsed = state.machine.elapsed if state.machine is not None else time.monotonic
        self._apart = state.clock() - elapsed()
        self._elapsed = elapsed
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._writer = self.state.writer()
        self._start()
        return self

    def _start(self) -> None:
        self._thread.start()

    async def __aexit__(self, *_: object) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def write(self, statements: Sequence[Statement]) -> None:
        """Returns when the statements (name, values) are durable.

        Raises:
            StateError: they could not be stored.
        """
        failure = await self._failure_of(statements)
        if failure is not None:
            raise failure

    async def _failure_of(self, statements: Sequence[Statement]) -> StateError | None:
        future: asyncio.Future[StateError | None] = asyncio.get_running_loop().create_future()
        self.store(statements, lambda failure: None if future.done() else future.set_result(failure))
        return await future

    async def written(self) -> None:
        """Returns when all that was handed in has been told of."""
        await self._failure_of(())

    def store(self, statements: Sequence[Statement], told: Told) -> None:
        """Hands statements in, in the order of calls; `told` must not raise."""
        self._take((statements, told))

    def _take(self, entry: Entry) -> None:
        self._queue.put(entry)

    async def intend(
        self, low: int, high: int, op: str, key: str, encoding: str, job: str | None = None
    ) -> None:
        """Says that rows [low, high) are about to leave, written in `encoding` (delivery/encoding.py), or have left and are
        worked on as `job`."""
        await self.write([self.intention(low, high, op, key, encoding, job)])

    def intention(
        self, low: int, high: int, op: str, key: str, encoding: str, job: str | None = None
    ) -> Statement:
        """See `intend`."""
        at = self._left[low] = self.state.now()
        return "intend", (
            self.plan,
            low,
            high,
            op,
            key,
            at,
            job,
            encoding,
            round(self._elapsed() + self._apart, 3),
        )

    async def settle(
        self, outcome: BatchOutcome, dead: Sequence[DeadLetter] = (), raised: Sequence[str] = (), *,
        ends: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """See `settlement`."""
        await self.write(self.settlement(outcome, dead, raised, ends=ends))

    def settlement(
        self, outcome: BatchOutcome, dead: Sequence[DeadLetter] = (), raised: Sequence[str] = (), *,
        ends: Sequence[int] | None = None,
    ) -> list[Statement]:  # fmt: skip
        """Ends the intent, stores the outcome, buries the refused, raises the accepted: in one transaction. `ends`: the
        first rows of the intents that end, where it is not the one of the batch alone."""
        lists = [
            orjson.dumps(rows).decode() if rows else None
            for rows in (outcome.rejected, outcome.unknown, outcome.pending)
        ]
        ids = orjson.dumps(outcome.remote_ids).decode() if outcome.remote_ids else None
        statements: list[Statement] = [
            *(("end_intent", (self.plan, low)) for low in ([outcome.low] if ends is None else ends)),
            (
                "settle",
                (
                    self.plan,
                    outcome.low,
                    outcome.high,
                    ids,
                    *lists,
                    self._left.pop(outcome.low, None),
                    self.state.now(),
                    self._reasons(outcome),
                ),
            ),
        ]
        statements += [
            ("bury", burial(self.state, self.scope, self.plan, letter, self.mapping)) for letter in dead
        ]
        statements += [("raise", (self.scope, key)) for key in raised]
        return statements

    def _reasons(self, outcome: BatchOutcome) -> str | None:
        """As JSON: `[[code, class, words, rows], …]`; the words without what differs from record to record."""
        if not outcome.reasons:
            return None
        told = [
            (
                in_one_line(self.state.mask(why.code), LONGEST_CODE),
                why.kind,
                in_one_line(shape(self.state.mask(why.message))),
                rows,
            )
            for why, rows in outcome.reasons
        ]
        return orjson.dumps(told).decode()

    def _write(self) -> None:
        last = shared = False
        while not last:
            waiting = [self._queue.get()]
            if shared:
                time.sleep(_GATHER)
            while not self._queue.empty():
                waiting.append(self._queue.get())
            last = None in waiting
            entries = [entry for entry in waiting if entry is not None]
            failure = self._store(entries)
            shared = len(entries) > 1
            if entries:
                self._loop.call_soon_threadsafe(self._answer, entries, failure)
        self._writer.close()

    def _store(self, entries: Sequence[Entry]) -> StateError | None:
        """One transaction. Returns why it is not on the disk."""
        try:
            self._writer.write(_grouped(entries))
        except StateError as error:
            return error
        return None

    @staticmethod
    def _answer(entries: Sequence[Entry], failure: StateError | None) -> None:
        for _, told in entries:
            told(failure)


_ORDER = ("intend", "end_intent", "settle", "bury", "raise")


def _grouped(entries: Sequence[Entry]) -> dict[str, list[Sequence[Any]]]:
    """The statements of all entries by name: each kind is one SQL statement over a JSON list of its rows, because every
    step of SQLite gives the interpreter away and has to win it back from a busy event loop. The order of kinds is safe:
    a batch's intent is durable, and so in an earlier commit, before its outcome is stored."""
    groups: dict[str, list[Sequence[Any]]] = {}
    for statements, _ in entries:
        for name, values in statements:
            groups.setdefault(name, []).append(values)
    return {name: groups[name] for name in _ORDER if name in groups}
