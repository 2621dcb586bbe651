"""Delivers a plan: the only place that waits, retries, splits, limits and counts.

A batch's life: intent stored -> sent -> answer read -> outcome stored. An answer that does not name a record, a broken
connection or a 5xx leaves the record in doubt: it is sent again where the operation may be repeated, and is `unknown`
where it may not, or when the attempts are used up. A batch refused as a whole is halved down to the bad record.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing
from typing import Any

from backhaul.delivery.batches import Chunk, PlanBatch
from backhaul.delivery.budget import Budget
from backhaul.delivery.concurrency import Concurrency
from backhaul.delivery.tally import Tally, Totals
from backhaul.destinations.kit import Destination
from backhaul.errors import (
    Exhausted,
    Halt,
    Refused,
    RunError,
    SendError,
    StateError,
    Throttled,
    Unsettled,
)
from backhaul.state.journal import Journal
from backhaul.types import BatchLimits, Outcomes

ATTEMPTS = 5
_BASE_WAIT, _LONGEST_WAIT = 0.25, 60.0
_SINGLES = 5
"""So many single records refused with one code, and none delivered: that is configuration, not data."""
_BREAKER_SHARE, _BREAKER_COUNT = 0.2, 50
_AHEAD = 4
_DEAF = 3
"""So many batches in a row without an answer, and the run stops."""


class Delivery:
    """One plan on its way to one destination."""

    def __init__(
        self, destination: Destination[Any], journal: Journal, budget: Budget, *, dead_keys: frozenset[str] = frozenset(),
        progress: Callable[[Totals], None] = lambda totals: None, rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        self.destination = destination
        self.journal = journal
        self.budget = budget
        self.concurrency = Concurrency(destination.concurrency)
        self.totals = Totals()
        self.failure: RunError | None = None
        self.stopping = False
        self._broken: BaseException | None = None
        self._dead_keys = dead_keys
        self._progress = progress
        self._rng = rng or random.Random()
        self._taken = False  # whether the destination took any record at all
        self._alone: list[str] = []  # codes of single records refused before it did
        self._unanswered = 0
        # batches whose intent or outcome is being stored hold no place among the requests in flight
        self._room = asyncio.Semaphore(destination.concurrency * _AHEAD)

    def stop(self) -> None:
        """Starts nothing new; what is in flight ends."""
        self.stopping = True
        self.budget.stop.set()

    async def deliver(self, chunks: Generator[Chunk, None, None], limits: BatchLimits, most: int) -> None:
        """Sends one segment, at most `most` of its rows; returns when every batch that left is settled.

        Raises:
            StateError: the journal cannot be written, so nothing more was sent.
            BaseException: what a connector raised beside the errors of its contract.
        """
        tasks: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and self._broken is None:
                self._broken = error
                self.stop()

        try:
            async with aclosing(self._batches(chunks, limits, most)) as batches:
                async for batch in batches:
                    await self._room.acquire()
                    if self.stopping:
                        break
                    task = asyncio.create_task(self._one(batch))
                    tasks.add(task)
                    task.add_done_callback(ended)
        finally:
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._broken is not None:
            raise self._broken
        if isinstance(self.failure, StateError):
            raise self.failure

    async def _batches(
        self, chunks: Generator[Chunk, None, None], limits: BatchLimits, most: int
    ) -> AsyncGenerator[PlanBatch, None]:
        """Cuts chunks into batches; the next chunk is made in a thread while this one is sent."""
        left = most
        upcoming = asyncio.create_task(asyncio.to_thread(next, chunks, None))
        try:
            while (chunk := await upcoming) is not None and left > 0 and not self.stopping:
                upcoming = asyncio.create_task(asyncio.to_thread(next, chunks, None))
                for batch in chunk.batches(limits):
                    if left <= 0:
                        break
                    cut = batch if len(batch) <= left else batch.only(batch.rows[:left])
                    left -= len(cut)
                    yield cut
        finally:
            # the engine that makes the chunks serves one thread at a time
            await asyncio.gather(upcoming, return_exceptions=True)
            chunks.close()

    async def _one(self, batch: PlanBatch) -> None:
        """The whole life of one batch."""
        tally = Tally(batch)
        try:
            await self.journal.intend(batch.low, batch.high, str(batch.op), batch.idempotency_key)
            try:
                await self._send(batch, tally)
            except RunError as error:
                self._fail(error)
            if spent := self.budget.statements():
                self.journal.note(spent)
            await self.journal.settle(tally.outcome(), tally.dead_letters(), self._raised(tally))
            tally.add_to(self.totals)
            self._progress(self.totals)
            self._check_breaker()
        except StateError as error:
            self._fail(error)
        finally:
            self._room.release()

    def _raised(self, tally: Tally) -> list[str]:
        """Keys of dead letters that the destination has accepted now."""
        if not self._dead_keys:
            return []
        keys = (tally.batch.primary_key(row) for row in tally.delivered())
        return [key for key in keys if key in self._dead_keys]

    def _fail(self, error: RunError) -> None:
        if self.failure is None or isinstance(error, StateError):
            self.failure = error
        self.stop()

    async def _send(self, batch: PlanBatch, tally: Tally) -> None:
        """Attempts a batch until every row has a fate."""
        open_rows: Sequence[int] = batch.rows
        error: SendError | None = None
        for attempt in range(1, ATTEMPTS + 1):
            if self.stopping:
                break
            try:
                error, open_rows = await self._attempt(batch.only(open_rows), tally, again=attempt > 1)
            except RunError:
                tally.give_up(open_rows)
                raise
            if isinstance(error, Refused):
                await self._narrow(batch.only(open_rows), tally, error)
                return
            if not open_rows or isinstance(error, Exhausted):
                break
            if attempt < ATTEMPTS:
                await self._pause(error, attempt)
        tally.give_up(open_rows)
        self._end_of_attempts(error)

    async def _attempt(
        self, batch: PlanBatch, tally: Tally, *, again: bool
    ) -> tuple[SendError | None, Sequence[int]]:
        """One request. Returns what went wrong with it as a whole, and the rows still open."""
        error: SendError | None = None
        await self.concurrency.acquire()
        if self.stopping:
            self.concurrency.release()
            return Exhausted("the run is stopping"), batch.rows
        tally.requests += 1
        self.totals.writes += 1
        self.totals.retries += again
        began = time.monotonic()
        try:
            outcomes = await self.destination.write(batch)
        except SendError as raised:
            error = raised
        finally:
            self.concurrency.release()
        self.concurrency.seen(time.monotonic() - began, throttled=isinstance(error, Throttled))
        if error is None:
            self._unanswered = 0
            return None, self._take(batch, tally, outcomes)
        if isinstance(error, Unsettled):
            return error, self._keep_doubt(batch, tally, batch.rows, set(batch.rows))
        if isinstance(error, Refused | Throttled):
            self._unanswered = 0
        return error, batch.rows

    def _take(self, batch: PlanBatch, tally: Tally, outcomes: Outcomes) -> Sequence[int]:
        """Takes an answer in; returns the rows still open."""
        refused = len(tally.refusals)
        left, unnamed = tally.take(batch, outcomes)
        if len(left) + len(tally.refusals) - refused < len(batch):
            self._taken = True
        return self._keep_doubt(batch, tally, left, unnamed)

    def _keep_doubt(
        self, batch: PlanBatch, tally: Tally, left: Sequence[int], doubted: set[int]
    ) -> Sequence[int]:
        """Marks rows in doubt; of an operation that must not be repeated they are unknown at once."""
        if not doubted or batch.op in self.destination.repeatable:
            tally.doubted |= doubted
            return left
        tally.unknown |= doubted
        return [row for row in left if row not in doubted]

    async def _pause(self, error: SendError | None, attempt: int) -> None:
        """Full jitter (AWS Architecture Blog, Exponential Backoff And Jitter); a throttled bucket waits as a whole."""
        if isinstance(error, Exhausted):
            return
        longest = min(_LONGEST_WAIT, _BASE_WAIT * 2**attempt)
        if isinstance(error, Throttled):
            self.budget.hold(
                error.after if error.after is not None else longest / 2 + self._rng.uniform(0, longest / 2)
            )
            return
        try:
            await asyncio.wait_for(self.budget.stop.wait(), self._rng.uniform(0, longest))
        except TimeoutError:
            return

    def _end_of_attempts(self, error: SendError | None) -> None:
        """A batch leaves with rows that wait for the next run, or in doubt."""
        if isinstance(error, Exhausted):
            self.stop()
        if self.stopping or error is None or isinstance(error, Throttled):
            return
        self._unanswered += 1
        if self._unanswered >= _DEAF or (error.code == "connect" and not self.totals.settled):
            raise Halt(
                f"the destination does not answer: {error}",
                hint="nothing is lost: the rest is sent by the next run",
            )

    async def _narrow(self, batch: PlanBatch, tally: Tally, error: Refused) -> None:
        """Halves a refused batch. When the left half was clean the fault is in the right one: it is halved unsent."""
        if len(batch) == 1:
            tally.refuse(batch.rows[0], error.code, str(error))
            self._count_single(error)
            return
        left, right = batch.halves()
        try:
            await self._send(left, tally)
        except RunError:
            tally.give_up(right.rows)
            raise
        if self.stopping:
            tally.give_up(right.rows)
        elif len(right) > 1 and not any(row in tally.refusals for row in left.rows):
            await self._narrow(right, tally, error)
        else:
            await self._send(right, tally)

    def _count_single(self, error: Refused) -> None:
        if self._taken:
            return
        self._alone.append(error.code)
        if len(self._alone) >= _SINGLES and len(set(self._alone[-_SINGLES:])) == 1:
            raise Systemic(
                error.code, f"the first {_SINGLES} records tried one by one were all refused: {error}"
            )

    def _check_breaker(self) -> None:
        for code, count in self.totals.codes.items():
            if count >= _BREAKER_COUNT and count > _BREAKER_SHARE * self.totals.settled and not self.failure:
                said = f"{count:,} of {self.totals.settled:,} records were refused with {code}: {self.totals.words[code]}"
                self._fail(Systemic(code, said))


class Systemic(Halt):
    """The destination refuses record after record for one reason; `code` is its own."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(
            f"stopped, because this looks like configuration and not like data: {said}",
            hint="mend the mapping or the destination and run again; these records are not dead letters",
        )
        self.code = code
