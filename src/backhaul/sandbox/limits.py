"""Limits, as vendors count them. A request that is one too many is not counted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class RollingLimit:
    """At most `count` requests in any `per` seconds."""

    def __init__(self, count: int, per: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.count, self.per, self._clock = count, per, clock
        self._times: deque[float] = deque()

    def take(self) -> bool:
        """Counts a request; False where it is one too many."""
        if self.remaining <= 0:
            return False
        self._times.append(self._clock())
        return True

    @property
    def remaining(self) -> int:
        now = self._clock()
        while self._times and self._times[0] + self.per <= now:
            self._times.popleft()
        return self.count - len(self._times)

    def recent(self, seconds: float) -> int:
        """Requests taken within the last seconds."""
        since = self._clock() - seconds
        return sum(1 for at in self._times if at > since)


class DailyLimit:
    """At most `count` requests a day (UTC); `used` may be set."""

    def __init__(self, count: int, clock: Callable[[], float] = time.time) -> None:
        self.count, self._clock = count, clock
        self.used = 0
        self._day = int(clock() // 86_400)

    def take(self) -> bool:
        """Counts a request; False where it is one too many."""
        if self.remaining <= 0:
            return False
        self.used += 1
        return True

    @property
    def remaining(self) -> int:
        day = int(self._clock() // 86_400)
        if day != self._day:
            self._day, self.used = day, 0
        return self.count - self.used


class WindowLimit:
    """At most `count` requests in each window of `per` seconds; windows begin at multiples of it (Unix time)."""

    def __init__(self, count: int, per: float, clock: Callable[[], float] = time.time) -> None:
        self.count, self.per, self._clock = count, per, clock
        self._window, self._used = 0, 0

    def take(self) -> bool:
        """Counts a request; False where it is one too many."""
        if self.remaining <= 0:
            return False
        self._used += 1
        return True

    @property
    def remaining(self) -> int:
        window = int(self._clock() // self.per)
        if window != self._window:
            self._window, self._used = window, 0
        return self.count - self._used

    @property
    def resets(self) -> float:
        """When the current window ends, in Unix seconds."""
        return (self._clock() // self.per + 1) * self.per
