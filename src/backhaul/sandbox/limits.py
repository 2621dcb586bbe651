"""Rolling limits, as vendors count them."""

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
        """Counts a request; False where it is one too many (and is not counted)."""
        now = self._clock()
        while self._times and self._times[0] + self.per <= now:
            self._times.popleft()
        if len(self._times) >= self.count:
            return False
        self._times.append(now)
        return True

    @property
    def remaining(self) -> int:
        return max(self.count - len(self._times), 0)

    def wait(self) -> float:
        """Seconds until the next request is taken."""
        return max(self._times[0] + self.per - self._clock(), 0.0) if len(self._times) >= self.count else 0.0
