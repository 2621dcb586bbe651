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
        self._mean: float | None = None
        self._variance = 0.0
        self._next_change = 0.0
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

    def seen(self, latency: float, *, throttled: bool = False) -> None:
        """Takes one answer into account: its latency in seconds, and whether it asked for less."""
        now = self._clock()
        mean = self._mean if self._mean is not None else latency
        slow = latency > mean + max(_DEVIATIONS * self._variance**0.5, _NOISE + mean)
        if now >= self._next_change:
            if throttled or slow:
                self.limit = max(1.0, self.limit * _DECREASE)
            elif self._full:
                self.limit = min(float(self.most), self.limit + 1)
            self._next_change = now + mean
            self._full = False
        elif throttled and self.limit > 1:
            self.limit = max(1.0, self.limit - 0.5)
        gap = latency - mean
        self._mean = mean + _SMOOTHING * gap
        self._variance = (1 - _SMOOTHING) * (self._variance + _SMOOTHING * gap * gap)


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
