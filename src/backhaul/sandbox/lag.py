"""Reads that lag behind writes: vendors that acknowledge a write before they apply it show the record as it was."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")


class Lag:
    """What reads show of records, each as it was `seconds()` ago."""

    def __init__(self, seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._earlier: dict[Hashable, deque[tuple[float, object]]] = {}
        """By name: when a record was written, and what it was until then."""

    def wrote(self, name: Hashable, before: object) -> None:
        """Notes a write that is made now; `before` is the record as it was, None where there was none."""
        if self._seconds() > 0:
            self._earlier.setdefault(name, deque()).append((self._clock(), copy.deepcopy(before)))

    def shown(self, name: Hashable, held: T) -> T:
        """The record as a read shows it; `held` is the record as it is."""
        earlier, since = self._earlier.get(name), self._clock() - self._seconds()
        while earlier and earlier[0][0] <= since:
            earlier.popleft()
        if not earlier:
            self._earlier.pop(name, None)
            return held
        before: T = earlier[0][1]  # type: ignore[assignment]
        return before
