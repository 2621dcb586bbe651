"""The one clock of all hosts: DynamoDB's, as every answer's `Date` header tells it.

The header has whole seconds, and an answer takes its time: each one bounds the clock from below and from above. The
bounds of several answers together are as close as one answer takes, once a second has turned between two of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from backhaul.errors import StateError

_ENOUGH = 0.03
"""Seconds between the bounds, at which looking closer ends."""
_LOOK = 1.5
"""Seconds of looking closer, at most."""
_DRIFT = 0.0001
"""Seconds a second, at most, by which this machine's clock goes faster or slower."""


class ServerClock:
    """Seconds since 1970 by the server, from what it said and this machine's monotonic clock."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._enough = _ENOUGH
        self._low = self._high = 0.0
        """Bounds of the server's time less ours, at `_since`."""
        self._since: float | None = None

    def heard(self, date: str, sent: float, received: float) -> None:
        """An answer with this `Date`, by our own clock. One that contradicts the others is believed alone: a clock was set."""
        said = parsedate_to_datetime(date).timestamp()
        low, high = said - received, said + 1 - sent
        with self._turn:
            if self._since is not None:
                drift = _DRIFT * max(received - self._since, 0.0)
                both = max(low, self._low - drift), min(high, self._high + drift)
                low, high = both if both[0] <= both[1] else (low, high)
            self._low, self._high, self._since = low, high, received

    def now(self) -> float:
        """The middle of the bounds.

        Raises:
            StateError: no answer told the time.
        """
        with self._turn:
            if self._since is None:
                raise StateError("the state's DynamoDB does not tell the time (no Date in its answers)",
                                 hint="something between this host and DynamoDB takes it away")  # fmt: skip
            return time.monotonic() + (self._low + self._high) / 2

    @property
    def doubt(self) -> float:
        """Seconds between the bounds."""
        return self._high - self._low if self._since is not None else 60.0

    def look_closer(self, ask: Callable[[], object]) -> None:
        """Asks until the bounds are close, or it takes too long: then they are as close as they get."""
        if self.doubt <= self._enough:
            return
        began = time.monotonic()
        while self.doubt > _ENOUGH and time.monotonic() - began < _LOOK:
            ask()
            time.sleep(0.005)
        self._enough = max(_ENOUGH, 1.5 * self.doubt)
