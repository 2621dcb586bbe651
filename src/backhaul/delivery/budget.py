"""What may be sent when: every window of a destination's limits, and its holds. Counts every request, whatever for.

A window is kept in slots of a two-hundredth of its length; a slot's requests leave the window when its end does. Requests are
counted as they leave, and by the destination as they arrive, on paths of uneven length: a window is kept a little
longer than it is. Together that costs less than 4% of the rate. Elapsed time is monotonic; stored slots are
wall-clock time and survive a restart.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from backhaul.errors import Exhausted
from backhaul.types import Rate

_MARGIN, _LONGEST_MARGIN = 0.03, 0.25
"""A share of the window, and seconds: what arrival may lag behind departure."""
PATIENCE = 3600.0
"""Seconds. A longer wait ends the run `deferred`."""
_LONGEST_HOLD = 86_400.0
"""Seconds. Whatever the destination or a stored hold says."""


class Window:
    """One rate limit."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.slot = rate.per / 200
        self.length = rate.per + min(rate.per * _MARGIN, _LONGEST_MARGIN)
        self._slots: deque[list[float]] = deque()  # [end of slot, requests in it], oldest first
        self._used = 0

    def load(self, spent: Iterable[tuple[int, int]], wall: float, clock: float) -> None:
        """Takes stored (slot number, requests) in; slots that claim to lie in the future count as now."""
        for number, used in spent:
            end = min((number + 1) * self.slot, wall + self.slot)
            self._slots.append([clock - wall + end, used])
            self._used += used

    def wait(self, clock: float) -> float:
        """Seconds until one more request fits; 0 where it fits now."""
        while self._slots and self._slots[0][0] + self.length <= clock:
            self._used -= int(self._slots.popleft()[1])
        return 0.0 if self._used < self.rate.count else self._slots[0][0] + self.length - clock

    def take(self, clock: float) -> None:
        end = (clock // self.slot + 1) * self.slot
        if self._slots and self._slots[-1][0] >= end:
            self._slots[-1][1] += 1
        else:
            self._slots.append([end, 1])
        self._used += 1


class Budget:
    """The budget of one destination. `stop` ends every wait."""

    def __init__(
        self, name: str, rates: Sequence[Rate], *,
        clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.name = name
        self.windows = [Window(rate) for rate in rates]
        self.stop = asyncio.Event()
        self._clock, self._wall = clock, wall
        self._held_until = 0.0
        self._turn = asyncio.Lock()
        self._unsaved: dict[tuple[str, int], int] = {}
        self._hold_unsaved = False

    def bucket(self, window: Window) -> str:
        return f"{self.name}/{window.rate.name}"

    def load(self, spent: Callable[[str, int], Iterable[tuple[int, int]]], held_until: float | None) -> None:
        """`spent(bucket, since slot)` gives what earlier runs used; `held_until` is wall-clock time."""
        clock, wall = self._clock(), self._wall()
        for window in self.windows:
            since = int((wall - window.length) / window.slot)
            window.load(spent(self.bucket(window), since), wall, clock)
        if held_until is not None:
            self._held_until = clock + min(max(held_until - wall, 0.0), _LONGEST_HOLD)

    def hold(self, seconds: float) -> None:
        """Nobody sends for so long (capped)."""
        self._held_until = max(self._held_until, self._clock() + min(seconds, _LONGEST_HOLD))
        self._hold_unsaved = True

    async def acquire(self) -> None:
        """Waits until one request may leave, and counts it.

        Raises:
            Exhausted: that would take longer than a run waits, or the run is stopping.
        """
        if not self.windows and self._held_until <= self._clock():
            return
        async with self._turn:
            while True:
                clock = self._clock()
                wait = max(
                    [self._held_until - clock, *(window.wait(clock) for window in self.windows)], default=0.0
                )
                if wait <= 0:
                    break
                if wait > PATIENCE:
                    raise Exhausted(f"{self.name}: the limit leaves no room for another {_spell(wait)}")
                try:
                    await asyncio.wait_for(self.stop.wait(), wait)
                except TimeoutError:
                    continue
                raise Exhausted(f"{self.name}: stopped while waiting for the rate limit")
            for window in self.windows:
                window.take(clock)
                slot = (self.bucket(window), int(self._wall() / window.slot))
                self._unsaved[slot] = self._unsaved.get(slot, 0) + 1

    def statements(self) -> list[tuple[str, tuple[Any, ...]]]:
        """What the state does not know yet, as journal statements."""
        saved: list[tuple[str, tuple[Any, ...]]] = [
            ("spend", (*slot, used)) for slot, used in self._unsaved.items()
        ]
        self._unsaved.clear()
        if self._hold_unsaved:
            saved.append(("hold", (self.name, self._wall() + self._held_until - self._clock())))
            self._hold_unsaved = False
        return saved


def _spell(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
