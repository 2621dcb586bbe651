"""Virtual time: an event loop that never waits, in which everything happens in one order that the seed decides."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Coroutine
from copy import copy
from math import inf
from typing import Any

MORNING = 1_795_000_000.0
"""The wall clock of a simulation's first moment: some day of 2026, in seconds since 1970."""


_TURN = 1e-6
"""Seconds that a turn of the loop takes: what waits for less than a clock can show ends too."""


class Killed(BaseException):
    """The process was killed: what is raised after it means nothing, and changes nothing outside."""


class Stuck(Exception):
    """Nothing is ready and no timer is set, and yet the work is not done."""


class Time:
    """The true time, and the clocks of the machine. `elapsed` is in seconds; `skew` is what the wall clock is off."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.skew = 0.0
        self.booted = -1000.0

    def clock(self) -> float:
        """The machine's monotonic clock."""
        return self.elapsed - self.booted

    def wall(self) -> float:
        return MORNING + self.elapsed + self.skew


class VirtualLoop(asyncio.BaseEventLoop):
    """`select` sets the clock forward to the next timer; an executor's work is done at once, in the loop's thread."""

    def __init__(self, time: Time, rng: random.Random, tick: Callable[[], None], limit: int = 60_000) -> None:
        super().__init__()
        self.now, self.rng, self.tick, self.limit = time, rng, tick, limit
        self._selector = self
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.now.clock()

    def select(self, timeout: float | None) -> list[Any]:
        """Stands in for a selector."""
        self.tick()
        self.limit -= 1
        if timeout is None or self.limit < 0:
            raise Stuck("no end" if self.limit < 0 else "nothing left to wait for")
        self.now.elapsed += max(timeout, _TURN)
        return []

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def due(self) -> float:
        """When there is something to do next, in true time; infinite where nothing is."""
        if self._ready:
            return self.now.elapsed
        return self._scheduled[0]._when + self.now.booted if self._scheduled else inf

    def turn(self) -> None:
        """One turn, among those of other loops."""
        hooks = sys.get_asyncgen_hooks()
        self._thread_id = threading.get_ident()
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
        )
        asyncio._set_running_loop(self)
        try:
            self._run_once()
        finally:
            self._thread_id = None
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Works now; others have a turn before the result is seen."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            result = func(*args)
        except BaseException as error:  # noqa: BLE001 - as an executor does
            later, what = future.set_exception, error
        else:
            later, what = future.set_result, result
        self.call_later(self.rng.choice((0.0, 0.0, 0.003)), _unless_done, future, later, what)
        return future

    def live(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs to the end; raises Killed where `tick` or somebody else did."""
        task = self.create_task(work)
        try:
            return self.run_until_complete(task)
        finally:
            self.bury()
            self.close()

    def bury(self) -> None:
        """Unwinds what a kill left, with nobody listening."""
        self.tick, self.now = (lambda: None), copy(self.now)
        self.set_exception_handler(lambda loop, context: None)
        for _ in range(20):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=1.0))


def _unless_done(future: asyncio.Future[Any], act: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        act(value)
