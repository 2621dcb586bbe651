"""How many requests may be in flight: additive increase, multiplicative decrease, on throttling or rising latency; and the
places of the batches around them.


The shape follows Vector's adaptive request concurrency (vectordotdev/vector, src/sinks/util/adaptive_concurrency):
one step a round trip; a moving mean and deviation of latency tell a slow destination from noise.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from backhaul.delivery.batches import PlanBatch

_DECREASE = 0.7
_SMOOTHING = 0.4
_DEVIATIONS = 3.0
_NOISE = 0.05
"""Seconds. Latency below the mean plus this is never taken for back-pressure."""

_PLACES = 8
"""Batches for each request in flight whose intent is being stored, or was, and that are not answered: a commit is waited for
by all that came meanwhile, so that a disk's latency bounds nothing as long as there is room. Outcomes that are being stored
take no place: what comes after them waits for the same commits."""
_BYTES = 128 << 20
"""Bytes of records in so many places at most; where batches are large, places are for requests alone."""


class Concurrency:
    """A limit between 1 and `most` that finds its own level, starting at `start`."""

    def __init__(
        self, most: int, start: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most = most
        self.limit = float(min(start or max(most // 2, 1), most))
        self.in_flight = 0
        self.peak = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._clock = clock
        self._usual: dict[str, tuple[float, float]] = {}
        """Mean latency and variance, by kind."""
        self._mean = 0.0
        self._next_more = self._next_less = 0.0
        self._full = False

    async def acquire(self) -> None:
        """Waits for a place, first come first served."""
        if self.in_flight < int(self.limit) and not self._waiting:
            self._grant()
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._full = True
        await place

    def _grant(self) -> None:
        """A place counts from here on, not from when its taker wakes up: until then others must not take it."""
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def release(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.limit):
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self._grant()

    def seen(self, latency: float, kind: str = "") -> None:
        """Takes into account the seconds that one answer took, among those of its kind: other requests may take longer anyway."""
        mean, variance = self._usual.get(kind, (latency, 0.0))
        slow = latency > mean + max(_DEVIATIONS * variance**0.5, _NOISE + mean)
        now = self._clock()
        if slow and now >= self._next_less:
            self._less(now)
        elif now >= self._next_more:
            if self._full:
                self.limit = min(float(self.most), self.limit + 1)
            self._next_more, self._full = now + mean, False
        gap = latency - mean
        self._mean = mean + _SMOOTHING * gap
        self._usual[kind] = self._mean, (1 - _SMOOTHING) * (variance + _SMOOTHING * gap * gap)

    def throttled(self) -> None:
        """The destination asked for less."""
        now = self._clock()
        if now >= self._next_less:
            self._less(now)
        else:
            self.limit = max(1.0, self.limit - 0.5)

    def _less(self, now: float) -> None:
        """What it does can be seen after an answer's time: until then nothing changes."""
        self.limit = max(1.0, self.limit * _DECREASE)
        self._next_more = self._next_less = now + self._mean
        self._full = False


class Room:
    """Places that one taker waits for, several at a time."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._taken = self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    async def take(self, places: int) -> None:
        while self._taken and self._taken + places > self.places:
            self._wanted = places
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._taken += places

    def give(self, places: int) -> None:
        self._taken -= places
        fits = not self._taken or self._taken + self._wanted <= self.places
        if self._waiter is not None and fits and not self._waiter.done():
            self._waiter.set_result(None)


def room_for(group: Sequence[PlanBatch], concurrency: int) -> int:
    """How many batches like these may be on their way, in flight or in the journal."""
    each = max(sum(batch.size for batch in group) // len(group), 1)
    return max(concurrency, min(concurrency * _PLACES, _BYTES // each))
