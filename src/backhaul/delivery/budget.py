"""What may be sent when. Every request, whatever for, is reserved in the state before it leaves, so that all processes
that share a credential keep its limits together.

All who wait in one process are reserved in one exchange with the state, off the event loop; a destination without
limits is never asked about. A request that leaves too long after its reservation is counted again at that time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import Any

from backhaul.delivery.answer_times import AnswerTimes
from backhaul.delivery.demand import Demand
from backhaul.delivery.windows import (
    LONGEST_HOLD,
    QUOTA,
    WANTED,
    WANTED_LONG,
    Ask,
    Grant,
    leave,
    length,
    margin,
    reserve,
    spell,
)
from backhaul.errors import BackhaulError, Exhausted
from backhaul.state.buckets import OwnBuckets
from backhaul.state.protocol import Buckets
from backhaul.types import Left, Rate

PATIENCE = 3600.0
"""Seconds. A longer wait ends the run `deferred`."""
_LONG = 2.0
"""Seconds. Of a longer wait somebody who looks on is told."""
_LOOK = 1.0
"""Seconds between two looks at whether another process was told to be silent, where there are no limits to ask about."""
_DRIFT = 0.0005
"""Seconds in one exchange, at most, by which the state's clock is taken to fall behind ours."""
_REMEMBERED = 1.5
"""Windows, of the longest that is no quota, for which the times of answers are remembered."""
_NEVER = -1.0
"""When a request was reserved that nobody reserved."""
RETRIES, RETRIES_FREE = 0.1, 30
"""Retries at most: this share of the requests, and so many whatever their share."""


WAITED: ContextVar[list[float] | None] = ContextVar("waited", default=None)
"""Where somebody set it: the seconds for which each of his requests waited for leave."""


@dataclass(slots=True)
class Pass:
    """Leave for one request: reserved `at` by the state's clock, `since` by ours."""

    at: float
    since: float
    used: bool = False


class Stale(BackhaulError):
    """Between leave and the request the process was paused, or the destination asked for silence: leave has to be asked
    for again."""


class Budget:
    """One sender's part of the budget of one bucket. `stop` ends every wait. Endpoints that have limits of their own among the
    `rates` have a budget and a bucket of their own in it.

    Without `buckets` the budget is this object's own.
    """

    def __init__(
        self, name: str, rates: Sequence[Rate], *, bucket: str = "", buckets: Buckets | None = None, priority: int = 0,
        clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.name, self.bucket, self.priority = name, bucket or name, priority
        self.rates = tuple(rate for rate in rates if not rate.endpoint)
        self.stop = asyncio.Event()
        self.spent = False
        """Set where it is a limit that stops the run: who has a place in it leaves all the same."""
        self.counts_writes = False
        """Set where a destination has no door that counts its requests: who calls it acquires."""
        self.permit: Callable[[], None] = lambda: None
        """Asked when a request is about to leave; raises where none may."""
        self.told: Callable[[str], None] = lambda why: None
        """Called with what a long wait is for, and with '' when it is over."""
        self.sent = 0
        """Requests asked for."""
        self.retried = 0
        self.demand = Demand(self.rates)
        self._buckets, self._clock = buckets or OwnBuckets(clock), clock
        self.clock = clock
        self._wall = wall
        self._owner = secrets.token_hex(8)
        self._stale = min((rate.per / 2 for rate in self.rates), default=inf)
        self._late = min((margin(rate.per) / 4 for rate in self.rates), default=0.0)
        self._waiting: deque[asyncio.Future[Pass]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None
        self._looked = self._known = self._held_until = -1.0
        self._held_why = ""
        self._hold: tuple[float, str] | None = None
        self._moved: list[float] = []
        self._left: dict[str, Left] = {}
        self._in_flight = 0
        self._apart = inf
        windows = (rate.per for rate in self.rates if rate.per < QUOTA)
        self._times = AnswerTimes(_REMEMBERED * max(windows, default=0.0))
        self._news = asyncio.Event()
        self._endpoints: dict[str, Budget] = {}
        for endpoint in dict.fromkeys(rate.endpoint for rate in rates if rate.endpoint):
            own = [replace(rate, endpoint="") for rate in rates if rate.endpoint == endpoint]
            part = self._endpoints[endpoint] = Budget(
                f"{name}, {endpoint}", own, bucket=f"{self.bucket}/{endpoint}", buckets=self._buckets, priority=priority,
                clock=clock, wall=wall,
            )  # fmt: skip
            part.stop = self.stop
            part.permit = lambda: self.permit()
            part.told = lambda why: self.told(why)

    def of(self, endpoints: Iterable[str]) -> list[Budget]:
        """The budgets that a request counts against, each once."""
        if not self._endpoints:
            return [self]
        return list(dict.fromkeys(self._endpoints.get(endpoint, self) for endpoint in endpoints))

    async def acquire(self) -> Pass | None:
        """Waits until one request may leave, and counts it. None where there is nothing to count it in.

        Raises:
            Exhausted: that would take longer than a run waits, or the run is stopping.
            StateError: it cannot be reserved, or the lease has run out.
        """
        self.sent += 1
        given, stopped, began = None, self.stop.is_set(), self._clock()
        if self.rates:
            given = await self._fresh()
        else:
            await self._hear()
            while await self._silence():  # others may have been told to be silent for longer meanwhile
                await self._hear()
        if (waited := WAITED.get()) is not None:
            waited.append(self._clock() - began)
        if self.stop.is_set() and not stopped:  # a stop that came with the place ends the wait as well
            if given is not None:
                self.ends()
            raise self._stopped()
        self.permit()
        return given

    async def _fresh(self) -> Pass:
        """A place, and nothing that keeps the request from leaving at once."""
        while True:
            given = await self._reserved()
            await self._silence()  # it may have been asked for while the place was being reserved
            if self._clock() - given.since <= self._stale:
                return given
            self.ends()

    def leaves(self, given: Pass | None, *, stopped: bool = False) -> None:
        """A request leaves now, over a connection that may have taken its time; again, where that broke and it is sent over
        another. `stopped`: the run was stopping before leave was asked for, and wants it all the same.

        Raises:
            Stale: it must not leave now.
            Exhausted: the run is stopping.
            StateError: the lease has run out.
        """
        self.permit()
        if self.stop.is_set() and not stopped:
            raise self._stopped()
        if self._held_until > self._clock():
            raise Stale
        if given is None:
            return
        age = self._clock() - given.since
        if age > self._stale and not given.used:
            raise Stale
        if given.used or age > self._late:
            self._moved.append(_NEVER if given.used else given.at)
            self._work()
        given.used = True

    @property
    def buckets(self) -> Buckets:
        """Where the state keeps what processes share."""
        return self._buckets

    def hold(self, seconds: float, why: str = "") -> None:
        """The destination wants silence for so long (capped): for every process that shares the credential."""
        seconds = min(seconds, LONGEST_HOLD)
        said = why or "the destination asked for a pause"
        if self._clock() + seconds > self._held_until:
            self._held_until, self._held_why = self._clock() + seconds, said
        if self._hold is None or seconds > self._hold[0]:
            self._hold = (seconds, said)
        self._work()

    @property
    def is_held(self) -> bool:
        """Whether the destination wants silence now."""
        return self._held_until > self._clock()

    def answered(self, seconds: float) -> None:
        """An answer came so long after its request left."""
        self._times.add(seconds, self._clock())

    def ends(self) -> None:
        """A request was answered, or never will be."""
        self._in_flight -= 1

    def report(self, left: Mapping[float, Left]) -> None:
        """What the destination says is left of its quotas, by their windows' seconds. It may not have counted what is in
        flight."""
        for rate in self.rates:
            if (said := left.get(rate.per)) is not None:
                self._left[length(rate)] = Left(said.requests - self._in_flight, said.seconds)

    def retry(self) -> bool:
        """Counts a retry; False where there were so many that another would feed a storm."""
        sent = self.sent + sum(part.sent for part in self._endpoints.values())
        if self.retried >= RETRIES_FREE + RETRIES * sent:
            return False
        self.retried += 1
        return True

    def expect(self, requests: int) -> None:
        """So many requests are to come, as far as anyone knows: senders of lower priority leave room for them."""
        self.demand.begin(requests)

    async def open(self) -> None:
        """Looks at what is known of the bucket."""
        await self._look_up()

    async def close(self) -> None:
        """Stores what is not stored yet, and gives up the turn."""
        for task in (self._worker, self._look):
            if task is not None:
                await asyncio.gather(task, return_exceptions=True)
        if self.sent and self.rates:
            await self._exchange(free=False, last=True)
        for part in self._endpoints.values():
            await part.close()

    async def _hear(self) -> None:
        """Looks, not too often, whether another process was told to be silent; who has not looked for long waits for it."""
        self._look_again()
        if self._look is not None and self._clock() - self._known > 2 * _LOOK:
            await asyncio.wait([self._look])

    def _look_again(self) -> None:
        clock = self._clock()
        if (
            self._buckets is not None
            and clock - self._looked > _LOOK
            and (self._look is None or self._look.done())
        ):
            self._look = asyncio.create_task(self._look_up())
            self._look.add_done_callback(_heard)

    async def _silence(self) -> bool:
        """Waits as long as the destination wants silence. Gives whether it had to."""
        waited = False
        while (wait := self._held_until - self._clock()) > 0:
            if wait > PATIENCE:
                raise self._exhausted(wait, self._held_why)
            waited = True
            await self._pause(wait, self._held_why)
            if self.stop.is_set():
                raise self._stopped()
        return waited

    async def _look_up(self) -> None:
        self._looked = self._clock()
        document, now = await self._buckets.peek(self.bucket)
        self._known = self._looked
        until, why = document.get("held") or (0.0, "")
        if until > now:
            ours = self._clock() + min(until - now, LONGEST_HOLD)
            if ours > self._held_until:  # what was heard since may not be stored yet
                self._held_until, self._held_why = ours, why

    async def _reserved(self) -> Pass:
        place: asyncio.Future[Pass] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._work(urgent=False)
        return await place

    def _work(self, *, urgent: bool = True) -> None:
        """Has the waiting requests reserved and the news stored; who waits for a window is not asked about again."""
        if urgent:
            self._news.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._serve())
            self._worker.add_done_callback(self._served)

    def _served(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self._refuse(error)

    async def _serve(self) -> None:
        """Exchanges with the state as long as somebody waits or something is to be stored."""
        blocked: float | None = None
        while self._waiting or self._moved or self._hold:
            self._news.clear()
            grant, since = await self._exchange(free=blocked is None)
            for _ in range(grant.granted):
                self._let(Pass(grant.at, since))
            if grant.granted or not self._waiting:
                blocked = None
            if not self._waiting or grant.wait <= 0:
                continue
            blocked = self._clock() if blocked is None else blocked
            if not grant.turn and grant.wait > PATIENCE:
                raise self._exhausted(grant.wait, grant.why)
            if self._clock() - blocked > PATIENCE:
                raise Exhausted(f"{self.name}: {grant.why}, for more than {spell(PATIENCE)}", after=PATIENCE)
            await self._pause(grant.wait, grant.why)
            if self.stop.is_set():
                raise self._stopped()

    async def _exchange(self, *, free: bool, last: bool = False) -> tuple[Grant, float]:
        """One exchange, and when it was by our own clock."""
        self._drop_gone()
        moved, self._moved = self._moved, []
        hold, self._hold = self._hold, None
        left, self._left = self._left, {}
        clock = self._clock()
        speed = self.demand.speed(clock, free=free)
        ask = Ask(
            self._owner, self.rates, len(self._waiting), self.priority, self.demand.needs(clock, speed),
            WANTED if speed is None else WANTED_LONG, moved, hold, left, self._times.spread(clock),
        )  # fmt: skip

        def act(document: dict[str, Any], now: float) -> tuple[Grant, float]:
            grant = reserve(document, ask, now)
            if last:
                leave(document, self._owner)
            return grant, self._ours(now)

        found = await self._buckets.exchange(self.bucket, act)
        granted = found[0].granted
        self._in_flight += granted
        for name, said in self._left.items():  # said meanwhile
            self._left[name] = Left(said.requests - granted, said.seconds)
        self.demand.seen(found[1], granted, free=free)
        return found

    def _ours(self, now: float) -> float:
        """The state's time by our own clock. What the state says of the time comes late, more or less: the least difference
        of late is nearest to the truth, and may grow a little again, as clocks drift."""
        self._apart = min(self._apart + _DRIFT, self._clock() - now)
        return now + self._apart

    def _drop_gone(self) -> None:
        """Who was cancelled while waiting needs no place."""
        if any(place.done() for place in self._waiting):
            self._waiting = deque(place for place in self._waiting if not place.done())

    def _let(self, given: Pass) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(given)
                return

    def _refuse(self, error: BaseException) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    async def _pause(self, seconds: float, why: str) -> None:
        """Until then, or until the run stops or there is news to store."""
        if seconds > _LONG:
            self.told(f"{why}; waiting for {spell(seconds)}")
        ends = [asyncio.ensure_future(self.stop.wait()), asyncio.ensure_future(self._news.wait())]
        try:
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            if seconds > _LONG:
                self.told("")

    def _stopped(self) -> Exhausted:
        return Exhausted(f"{self.name}: stopped while waiting for the rate limit")

    def _exhausted(self, wait: float, why: str) -> Exhausted:
        until = datetime.fromtimestamp(self._wall() + wait, UTC)
        return Exhausted(
            f"{self.name}: {why}; it can go on in {spell(wait)}, from {until:%Y-%m-%d %H:%M} UTC", after=wait
        )


def _heard(look: asyncio.Task[None]) -> None:
    """What is wrong with the state is said by who has to write it."""
    if not look.cancelled():
        look.exception()
