"""Delivers a plan: the only place that waits, retries, splits, limits and counts.

A batch's life: place and permit -> intent stored -> sent -> answer read -> outcome stored. An answer that does not name
a record, a broken connection or a 5xx leaves the record in doubt: it is sent again where the operation may be repeated, and
is `unknown` where it may not, or when the attempts are used up. A batch refused as a whole is halved down to the bad record.
A create that carries an idempotency key is repeated as it was, rows and key; while it is in doubt its intent stays.
A record that the destination acknowledged and holds no more is made again within its batch, where the sync says so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from backhaul.delivery.absence import Absence
from backhaul.delivery.batches import Chunk, Cutter, PlanBatch, in_groups
from backhaul.delivery.budget import WAITED, Budget
from backhaul.delivery.concurrency import Concurrency, Room, room_for
from backhaul.delivery.departure import BEFORE_LEAVING, Ahead, before_leaving
from backhaul.delivery.failures import Systemic, Underway, silent
from backhaul.delivery.narrowing import Narrowing
from backhaul.delivery.refusals import Refusals
from backhaul.delivery.suspicion import Suspicion
from backhaul.delivery.tally import UNNAMED, Tally, Totals
from backhaul.delivery.waiting import LONGEST_WAIT, Backoff, JobPoller
from backhaul.destinations.kit import Destination, Job
from backhaul.errors import (
    Exhausted,
    Forbidden,
    Refused,
    RunError,
    SendError,
    StateError,
    Throttled,
    Unsettled,
)
from backhaul.failpoints import failpoint
from backhaul.state.journal import Journal, Reason, Statement
from backhaul.state.letters import KnownLetter
from backhaul.surroundings import REAL, Surroundings
from backhaul.types import BatchLimits, Op, Outcomes, RefusalClass

ATTEMPTS = 5
GRACE = 15.0  # seconds that a stop leaves to what is in flight
_DEAF = 3
"""So many batches in a row without an answer, and the run stops."""


class Delivery:
    """One plan on its way to one destination."""

    def __init__(
        self, destination: Destination[Any], journal: Journal, budget: Budget, *,
        letters: Mapping[str, KnownLetter] | None = None, at_least_once: bool = False, recreates: bool = False,
        erases: bool = False, ages: Callable[[], Mapping[str, float]] = dict, cleared: Collection[str] = (),
        progress: Callable[[Totals], None] = lambda totals: None, surroundings: Surroundings = REAL,
    ) -> None:  # fmt: skip
        self.destination = destination
        self.journal = journal
        self.budget = budget
        self.concurrency = Concurrency(destination.concurrency, clock=surroundings.clock)
        self.totals = Totals()
        self.failure: RunError | None = None
        self.exhausted: Exhausted | None = None  # why the budget ended the delivery
        self.underway = 0  # records of jobs that are not over: their intents stay, and a later run asks
        self._repeatable = destination.repeatable | (frozenset({Op.INSERT}) if at_least_once else frozenset())
        self._recreates = recreates
        self._act = destination.erase if erases else destination.write
        self.stopping = False
        self._broken: BaseException | None = None
        self._writing: set[asyncio.Task[Any]] = set()
        self._letters = letters or {}
        self.refusals = Refusals(destination, (letter.code for letter in self._letters.values()), cleared)
        self._narrowing = Narrowing(self._send, self.refusals, lambda: self.stopping)
        self.waiting: list[int] = []  # rows of the plan that wait for another record
        self._undeleted: set[str] = set()  # keys of records that were not deleted: nothing takes their place
        self._progress = progress
        budget.told = self._waits
        self._clock = surroundings.clock
        self._absence = Absence(destination.read_lag_of, surroundings.clock, ages)
        self._unanswered = 0
        self._each: int | None = None
        self._room = Room(destination.concurrency)
        self._suspicion = Suspicion(self.refusals, self.totals, self._room, lambda: self.stopping)
        self._ahead = Ahead(destination.limits)
        self._backoff = Backoff(destination, budget, surroundings.rng)
        self._jobs = JobPoller(destination, budget, self._backoff, surroundings.clock)

    def _waits(self, why: str) -> None:
        self.totals.waits = why
        self._progress(self.totals)

    def stop(self) -> None:
        """Starts nothing new; what is in flight ends, or is in doubt when it is not over after `GRACE`."""
        if not self.stopping and self._writing:
            asyncio.get_running_loop().call_later(GRACE, lambda: [task.cancel() for task in self._writing])
        self.stopping = True
        self.budget.stop.set()

    async def deliver(self, chunks: Generator[Chunk, None, None], limits: BatchLimits, most: int) -> None:
        """Sends one segment, at most `most` of its rows; returns when every batch that left is settled.

        Raises:
            StateError: the journal cannot be written, so nothing more was sent.
            BaseException: what a connector raised beside the errors of its contract.
        """
        tasks: set[asyncio.Task[Tally | None]] = set()
        self._each = limits.each
        cutter = Cutter(limits, most)

        def ended(task: asyncio.Task[Tally | None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and self._broken is None:
                error.add_note(f"raised by {self.destination.spec.name}")
                self._broken = error
                self.stop()

        def start(batch: PlanBatch, storing: float | None = None, failure: StateError | None = None) -> Any:
            if failure is not None:
                self._fail(failure)
                self._room.give(1)
                return None
            if storing is not None:
                self._ahead.stored(self._clock() - storing)
            task = asyncio.create_task(self._one(batch, stored=storing is not None))
            tasks.add(task)
            task.add_done_callback(ended)
            return task

        try:
            groups = in_groups(chunks, cutter, self.destination.concurrency, lambda: self.stopping)
            async with aclosing(groups):
                async for group in groups:
                    await self._hand_out(group, start, cutter)
                    if self.stopping:
                        break
        finally:
            await self.journal.written()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.journal.written()
        if self._broken is not None:
            raise self._broken
        self._fail(self._suspicion.judge())
        self._progress(self.totals)
        if isinstance(self.failure, StateError):
            raise self.failure

    async def resume(self, creates: Sequence[tuple[PlanBatch, Sequence[int]]]) -> None:
        """Sends creates again, each the same rows under the same key; what becomes of `rows` among them is settled.

        Raises:
            RunError: the destination refuses us, or does not answer.
        """
        for batch, rows in creates:
            if self.stopping:
                break
            await self._room.take(1)
            await self._one(batch, doubted=rows)
            await self.journal.written()
        self._fail(self._suspicion.judge())
        if self.failure is not None:
            raise self.failure

    async def collect(self, batch: PlanBatch, jobs: Sequence[tuple[PlanBatch, str]]) -> None:
        """Settles a batch that an earlier run handed over, when its jobs are over; otherwise it is `underway` still. Each job
        has some rows of the batch.

        Raises:
            RunError: the destination refuses us.
        """
        tally = self._tally(batch, batch.rows, recreates=self._recreates)
        tally.intents = {part.low: part.high for part, _ in jobs}
        try:
            await self._collect_all(jobs, tally)
            await self._make_anew(batch, tally)
        except Underway:
            self.underway += len(batch)
            return
        statements = self.journal.settlement(
            tally.outcome(), tally.dead_letters(), self._raised(tally), ends=list(tally.intents)
        )
        await self.journal.write(statements)
        tally.add_to(self.totals)

    async def _collect_all(self, jobs: Sequence[tuple[PlanBatch, str]], tally: Tally) -> None:
        """Takes the answers of jobs in; rows that none of them names stay unknown."""
        open_rows = set(tally.batch.rows)
        for part, job in jobs:
            mine = sorted(open_rows.intersection(part.rows))
            try:
                outcomes = await self._jobs.outcomes(part, Job(job, 0.0))
            except Refused as error:
                tally.release(mine, self.refusals.reason(error))
                open_rows.difference_update(mine)
            else:
                still = self._take(part, tally, mine, outcomes, asked=self._clock())
                open_rows = open_rows.difference(mine).union(still)
        tally.give_up(sorted(open_rows.difference(tally.stages)))

    async def _hand_out(self, group: Sequence[PlanBatch], start: Callable[..., Any], cutter: Cutter) -> None:
        """Starts batches, as many as may be on their way, until the delivery stops. `start` takes a batch, and where its
        intent was stored ahead: since when, and why it is not stored."""
        room, pending = room_for(group, self.destination.concurrency), deque(group)
        while pending and not self.stopping:
            if self._suspicion.error is not None:
                self._fail(await self._suspicion.probe(cutter, pending, start))
                continue
            batch = pending.popleft()
            limit = self.concurrency.limit
            ahead = 0 if self.budget.is_held else self._ahead.most(limit)
            self._room.places = min(room, int(limit) + max(ahead, 1))
            await self._room.take(1)
            if self.stopping:
                return
            if len(self._ahead.waiting) < ahead:
                self._ahead.waiting.add(batch.low)
                self.journal.store([self._intention(batch)], partial(start, batch, self._clock()))
            else:
                start(batch)

    async def _one(self, batch: PlanBatch, doubted: Sequence[int] = (), *, stored: bool = False) -> Tally | None:  # fmt: skip
        """The whole life of one batch. `stored`: its intent is. `doubted` rows have left with an earlier run, whose intent is
        still there. None: it goes on in a later run."""
        tally = self._tally(batch, doubted, recreates=self._recreates)
        if stored or doubted:
            tally.intents[batch.low] = batch.high
        try:
            if self.totals.settled:
                failpoint("between_batches")
            try:
                await self._send(batch, tally, doubted or self._sendable(batch, tally))
                await self._make_anew(batch, tally)
            except Underway:
                self.underway += len(batch)
                return None
            except (Systemic, Forbidden) as error:
                tally.broken_off = True
                self._suspicion.raise_for(error)
            except RunError as error:
                self._fail(error)
            if self._keyed(batch):
                tally.bind()
            statements = self.journal.settlement(
                tally.outcome(), tally.dead_letters(), self._raised(tally), ends=self._ended(tally)
            )
            self.journal.store(statements, partial(self._settled, tally))
            self._progress(self.totals)
            return tally
        finally:
            self._ahead.waiting.discard(batch.low)
            self._room.give(1)

    def _sendable(self, batch: PlanBatch, tally: Tally) -> Sequence[int]:
        """Its rows but those that are larger than the destination takes, or whose record under another identifier stays."""
        if batch.op is not Op.DELETE:
            tally.leave(self._undeleted)
        if self._each is not None and not self._keyed(batch):
            tally.refuse_larger(self._each, self.destination.spec.name)
        return [row for row in batch.rows if row not in tally.stages] if tally.stages else batch.rows

    def _settled(self, tally: Tally, failure: StateError | None) -> None:
        if failure is not None:
            self._fail(failure)
            return
        failpoint("rejected" if tally.refusals else "acknowledged")
        if tally.batch.op is Op.DELETE:
            self._undeleted.update(map(tally.batch.primary_key, tally.stages))
        tally.add_to(self.totals)
        self.waiting += tally.waiting_rows()
        self._suspicion.raise_for(self.refusals.too_many(self.totals))

    def conclude(self, *, whole: bool = True) -> None:
        """Says, when the plan was tried, whether its refusals are a matter of the settings; `whole`: it is no part of another."""
        found = self.refusals.at_the_end(self.totals) or self.refusals.too_many(self.totals, whole=whole)
        self._fail(None if self.stopping else found)

    def _tally(self, batch: PlanBatch, doubted: Sequence[int], *, recreates: bool = False) -> Tally:
        return Tally(
            batch,
            doubted,
            recreates=recreates,
            class_of=self.refusals.class_of,
            letters=self._letters,
            mask=self.journal.state.mask,
        )

    def _intention(self, batch: PlanBatch) -> Statement:
        return self.journal.intention(
            batch.low, batch.high, str(batch.op), batch.idempotency_key, batch.encoding
        )

    async def _make_anew(self, batch: PlanBatch, tally: Tally) -> None:
        """What the destination has lost is made again; what a stop leaves of it waits for the next run."""
        limits = self.destination.batch_limits(batch.object, Op.UPSERT) if tally.missing else None
        for part in batch.made_anew(tally.missing, limits) if limits else ():
            if self.stopping:
                return
            tally.recall(part.rows)
            await self._send(part, tally, part.rows)

    def _keyed(self, batch: PlanBatch) -> bool:
        return batch.op is Op.INSERT and self.destination.idempotency_life is not None

    def _ended(self, tally: Tally) -> list[int]:
        """First rows of the intents that are over."""
        return tally.ended() if self._keyed(tally.batch) else list(tally.intents)

    def _raised(self, tally: Tally) -> list[str]:
        """Keys of dead letters that the destination has accepted now."""
        if not self._letters:
            return []
        keys = (tally.batch.primary_key(row) for row in tally.delivered())
        return [key for key in keys if key in self._letters]

    def _fail(self, error: RunError | None) -> None:
        if error is None:
            return
        if self.failure is None or isinstance(error, StateError):
            self.failure = error
        self.stop()

    async def _send(self, batch: PlanBatch, tally: Tally, open_rows: Sequence[int]) -> None:
        """Attempts a batch until each of `open_rows` has left it."""
        if not open_rows:
            return
        error: SendError | None = None
        for attempt in range(1, ATTEMPTS + 1):
            if self.stopping or (attempt > 1 and not self._may_repeat(error)):
                break
            try:
                sent = batch if self._keyed(batch) else batch.only(open_rows)
                sent = sent if tally.doubted.isdisjoint(open_rows) else sent.in_full()
                error, open_rows = await self._attempt(sent, tally, open_rows, again=attempt > 1)
            except RunError:
                tally.give_up(open_rows)
                raise
            if isinstance(error, Refused):
                await self._take_refusal(batch.only(open_rows), tally, error)
                return
            if not open_rows or isinstance(error, Exhausted) or self._is_other(batch, tally, open_rows):
                break
            if error is None and tally.pause > LONGEST_WAIT:  # some record is for a later run
                break
            # the last attempt's answer holds the others too
            if attempt < ATTEMPTS or isinstance(error, Throttled):
                await self._backoff.pause(error, attempt, tally.pause if error is None else 0.0)
        reason = None if error is None or isinstance(error, Exhausted) else self.refusals.reason(error)
        tally.give_up(open_rows, reason)
        self._end_of_attempts(error)

    def _may_repeat(self, error: SendError | None) -> bool:
        """Whether one more retry leaves with the storm budget; if not, the run ends. A throttled bucket waits as a whole."""
        if error is not None and not isinstance(error, Throttled) and not self.budget.retry():
            if not self.totals.settled:
                self._fail(silent(error))
            self.exhausted = self.exhausted or Exhausted("too many requests had to be repeated")
            self.stop()
        return not self.stopping

    def _is_other(self, batch: PlanBatch, tally: Tally, open_rows: Sequence[int]) -> bool:
        """Whether what is left of a create with a key, none of it in doubt, would be another request: it waits for a
        plan and a key of its own."""
        return self._keyed(batch) and len(open_rows) < len(batch) and tally.doubted.isdisjoint(open_rows)

    async def _attempt(
        self, batch: PlanBatch, tally: Tally, open_rows: Sequence[int], *, again: bool
    ) -> tuple[SendError | None, Sequence[int]]:
        """One request. Returns what went wrong with it as a whole, and the rows still open."""
        error: SendError | None = None
        await self.concurrency.acquire()
        if self.stopping:
            self.concurrency.release()
            return Exhausted("the run is stopping"), open_rows
        tally.sent.append(batch.rows)
        self.totals.writes += 1
        self.totals.retries += again
        began, waited = self._clock(), list[float]()
        WAITED.set(waited)
        BEFORE_LEAVING.set(partial(self._depart, batch, tally, waited))
        try:
            if self.budget.counts_writes:
                await self.budget.acquire()
            if not self.destination.base_url:
                await before_leaving()
                if self.stopping:
                    raise Exhausted("the run is stopping")
            answer = await self._write(batch)
            took = self._clock() - began - sum(waited)
            outcomes = await self._await(batch, tally, answer) if isinstance(answer, Job) else answer
            failpoint("answered")
        except (SendError, Forbidden) as raised:
            error = self.refusals.read(raised)
            took = self._clock() - began - sum(waited)
        finally:
            self._ahead.answered(self._clock() - began)
            self.concurrency.release()
        self.concurrency.seen(max(took, 0.0), throttled=isinstance(error, Throttled))
        if error is None:
            self._unanswered = 0
            return None, self._take(batch, tally, open_rows, outcomes, asked=began)
        if self._keyed(batch) and error.code == "409" and not tally.doubted.isdisjoint(batch.rows):
            # the key's first request is still worked on (draft-ietf-httpapi-idempotency-key-header, 2.7)
            error = Unsettled(str(error), code=error.code)
        if isinstance(error, Unsettled):
            return error, self._keep_doubt(
                batch, tally, open_rows, set(open_rows), self.refusals.reason(error)
            )
        if isinstance(error, Refused | Throttled):
            self._unanswered = 0
        return error, open_rows

    async def _depart(self, batch: PlanBatch, tally: Tally, waited: list[float]) -> None:
        """Makes sure that a request's intent is durable. One without an idempotency key shares that of its whole batch."""
        whole = batch if self._keyed(batch) else tally.batch
        self._ahead.waiting.discard(tally.batch.low)
        if not tally.is_intended(whole):
            began = self._clock()
            async with tally.storing:  # a connector's other requests for the same batch wait here
                if not tally.is_intended(whole):
                    await self.journal.write([self._intention(whole)])
                    tally.intents[whole.low] = whole.high
            waited.append(self._clock() - began)
            self._ahead.stored(waited[-1])
        failpoint("intended")

    async def _await(self, batch: PlanBatch, tally: Tally, job: Job) -> Outcomes:
        """Waits for a job, whose id is durable before anyone asks about it."""
        high = tally.intents[batch.low] = max(tally.intents.get(batch.low, 0), batch.high)
        await self.journal.intend(
            batch.low, high, str(batch.op), batch.idempotency_key, batch.encoding, job.id
        )
        failpoint("handed_over")
        return await self._jobs.outcomes(batch, job)

    async def _write(self, batch: PlanBatch) -> Outcomes | Job:
        """Raises: Unsettled where a stop could not wait for the answer any longer."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._writing.add(task)
        try:
            return await self._act(batch)
        except asyncio.CancelledError:
            if not self.stopping or task.uncancel():
                raise
            raise Unsettled("the run was stopped before there was an answer", code="stopped") from None
        finally:
            self._writing.discard(task)

    def _take(
        self, batch: PlanBatch, tally: Tally, open_rows: Sequence[int], outcomes: Outcomes, asked: float
    ) -> Sequence[int]:
        """Takes in the answer to a request that left at `asked`; returns the rows still open."""
        before = len(tally.stages)
        left, unnamed = tally.take(batch, open_rows, self._absence.doubted(batch, outcomes, asked))
        taken = len(open_rows) - len(left) - (len(tally.stages) - before)
        self._note_room(taken, tally.no_room)
        return self._keep_doubt(batch, tally, left, unnamed, UNNAMED)

    def _note_room(self, taken: int, reason: Reason | None) -> None:
        """Ends the run where the destination has no room for one record after the other."""
        if self.refusals.answered(taken, reason is not None) and reason is not None:
            self.exhausted = self.exhausted or Exhausted(reason.message, code=reason.code)
            self.stop()

    def _keep_doubt(
        self, batch: PlanBatch, tally: Tally, left: Sequence[int], doubted: set[int], reason: Reason
    ) -> Sequence[int]:
        """Marks rows in doubt; of an operation that must not be repeated they are unknown at once."""
        if not doubted or batch.op in self._repeatable or self._keyed(batch):
            tally.doubt(doubted, reason)
            return left
        tally.lose(doubted, reason)
        return [row for row in left if row not in doubted]

    def _end_of_attempts(self, error: SendError | None) -> None:
        """A batch leaves with rows that wait for the next run, or in doubt."""
        if isinstance(error, Exhausted):
            if error.after is not None:
                self.exhausted, self.budget.spent = error, True
            self.stop()
        if self.stopping or error is None or isinstance(error, Throttled):
            return
        self._unanswered += 1
        if self._unanswered >= _DEAF or (error.code == "connect" and not self.totals.settled):
            raise silent(error)

    async def _take_refusal(self, batch: PlanBatch, tally: Tally, error: Refused) -> None:
        """A request was refused: what that means for its records, by its class."""
        reason = self.refusals.reason(error)
        if tally.resumed:
            tally.release(batch.rows, reason)
        elif reason.kind is RefusalClass.CAPACITY:
            tally.give_up(batch.rows, reason)
            self._note_room(0, reason)
        else:
            await self._narrowing.narrow(batch, tally, error)
