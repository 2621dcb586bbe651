"""When an intent is stored. A request that waits for its turn has not left, so its intent is stored when it has its place
and its permit: after a kill, only what may have left is unknown. Where requests are answered faster than the journal
commits, waiting for each commit would halve the throughput: there, as many intents are stored ahead as requests leave
during a commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from math import inf

from backhaul.types import Rate

_COMMITS = 2.0
"""Intents are stored ahead for so many commits' time."""
_SMOOTHING = 0.2

Act = Callable[[], Awaitable[None]]
BEFORE_LEAVING: ContextVar[Act | None] = ContextVar("before_leaving", default=None)
"""What has to be durable before a request of this task may leave."""


async def before_leaving() -> None:
    """Called with the permit in hand, before the first byte. Raises: StateError: the intent is not durable."""
    act = BEFORE_LEAVING.get()
    if act is not None:
        await act()


class Ahead:
    """How many batches may be in the journal before they have their permit. `waiting` has the first rows of those that are."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self.waiting: set[int] = set()
        self._pace = min((rate.count / rate.per for rate in rates), default=inf)
        """Requests a second that the limits let through; what waits for a limit is not stored ahead."""
        self._commit = self._turn = 0.0

    def stored(self, seconds: float) -> None:
        """A commit took so long."""
        self._commit = _smoothed(self._commit, seconds)

    def answered(self, seconds: float) -> None:
        """A request held its place for so long, from its turn to its answer."""
        self._turn = _smoothed(self._turn, seconds)

    def most(self, places: float) -> int:
        """How many may be, where so many requests may be in flight."""
        return int(_COMMITS * self._commit * min(places / self._turn, self._pace)) if self._turn else 0


def _smoothed(mean: float, seconds: float) -> float:
    return mean + _SMOOTHING * (seconds - mean) if mean else seconds
