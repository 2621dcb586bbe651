"""How much the times of recent answers differ: what the arrival of two requests may differ by."""

from __future__ import annotations

from math import inf


class AnswerTimes:
    """Keeps the fastest and the slowest answer of the last `seconds` (up to twice as long), in constant room.

    A slow answer counts until every request of its window has left it: however many faster ones came since.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = -inf
        self._now, self._before = (inf, -inf), (inf, -inf)

    def add(self, took: float, clock: float) -> None:
        """An answer that came at `clock`."""
        self._turn(clock)
        fastest, slowest = self._now
        self._now = (min(fastest, took), max(slowest, took))

    def spread(self, clock: float) -> float:
        """Seconds between the fastest and the slowest."""
        self._turn(clock)
        fastest, slowest = zip(self._now, self._before, strict=True)
        return max(max(slowest) - min(fastest), 0.0)

    def _turn(self, clock: float) -> None:
        age = clock - self._began
        if age < self._seconds:
            return
        self._before = self._now if age < 2 * self._seconds else (inf, -inf)
        self._now, self._began = (inf, -inf), clock
