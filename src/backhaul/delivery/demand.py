"""How much of the rate a sender needs: what senders of lower priority have to leave to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil, exp

from backhaul.delivery.windows import length
from backhaul.types import Rate

_MEMORY, _SURE = 5.0, 0.5
"""Seconds of free sending that count, and that it takes to know a speed."""


class Demand:
    """Watches one sender. `expected` is how many requests it still has, as far as anyone knows."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self.expected = 0
        self._rates = rates
        self._granted: deque[tuple[float, int]] = deque()
        self._longest = max((rate.per for rate in rates), default=0.0)
        self._sent, self._seconds = 0.0, 0.0
        self._last: float | None = None

    def begin(self, expected: int) -> None:
        """Sending begins: what was before says nothing of its speed."""
        self.expected, self._last = expected, None
        self._sent = self._seconds = 0.0

    def seen(self, clock: float, granted: int, *, free: bool) -> None:
        """Takes a grant in. Only what was granted while nobody had to wait tells how fast the sender is by itself."""
        if free and self._last is not None:
            gap = clock - self._last
            fade = exp(-gap / _MEMORY)
            self._sent, self._seconds = self._sent * fade + granted, self._seconds * fade + gap
        self._last = clock
        self.expected = max(self.expected - granted, 0)
        if granted:
            self._granted.append((clock, granted))
        while self._granted and self._granted[0][0] + self._longest <= clock:
            self._granted.popleft()

    def speed(self, clock: float, *, free: bool) -> float | None:
        """Requests a second, unhindered; None as long as nobody knows. `free`: nobody waits since the last grant."""
        seconds = self._seconds
        if free and self._last is not None:
            seconds += clock - self._last
        return self._sent / seconds if seconds >= _SURE else None

    def needs(self, clock: float, speed: float | None) -> dict[str, int]:
        """Places of each window that it will need: all that it may use, where the window is what holds it up; else what it
        sends in the window's length, less what of its own leaves the window meanwhile."""
        found = {}
        for rate in self._rates:
            needed = rate.count
            if speed is not None and speed * rate.per < rate.count:
                own = sum(count for at, count in self._granted if at + rate.per > clock)
                needed = ceil(speed * rate.per) - own
            if (needed := min(needed, self.expected)) > 0:
                found[length(rate)] = needed
        return found
