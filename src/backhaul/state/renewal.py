"""A lease that its owner moves on: by a thread, at a third of its length."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress

from backhaul.errors import StateError
from backhaul.state.protocol import LeaseLost

_MARGIN = 0.05
"""The last share of a lease, in which nothing leaves any more."""


_LAST = 5.0
"""Seconds that the end of a run waits for a state that does not answer."""


class RenewedLease(ABC):
    """A lease on one sync in the state's `store`, `length` seconds long, taken at `since` by the monotonic clock, which goes
    on while a process is stopped."""

    store = ""

    def __init__(self, sync: str, fence: int, length: float, since: float, name: str = "") -> None:
        self.sync, self.fence, self.length, self.name = sync, fence, length, name or sync
        self._until = since + length
        self._lost = False
        self._start()

    def check(self) -> None:
        if self._lost or self._clock() + _MARGIN * self.length > self._until:
            raise self._loss()

    def lose(self) -> LeaseLost:
        """Takes note that the sync is somebody else's; gives the error to raise."""
        self._lost = True
        return self._loss()

    def _loss(self) -> LeaseLost:
        return LeaseLost(
            f"the lease on {self.name} ran out (this process was stopped, or the state's {self.store} did not answer)",
            hint="nothing was sent after this; the next run settles what is open",
        )

    _clock = staticmethod(time.monotonic)

    def _start(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {self.sync}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Moves it on no more."""
        self._ended.set()
        self._thread.join(_LAST)

    def _renew(self) -> None:
        while not self._ended.wait(self.length / 3) and self._renewed():
            pass
        self._let_go()

    def _renewed(self) -> bool:
        """Moves the end on once. False: it is not ours any more."""
        asked = self._clock()
        with suppress(StateError):  # tried again until the lease ends; `check` says when it has
            if not self._move_on():
                self._lost = True
            self._until = asked + self.length
        return not self._lost

    @abstractmethod
    def _move_on(self) -> bool:
        """Moves the lease's end on by its length. False: it is not ours any more.

        Raises:
            StateError: nobody knows.
        """

    @abstractmethod
    def _let_go(self) -> None:
        """Closes what the thread has opened."""
