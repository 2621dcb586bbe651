"""The clock of an embedded state: one that all processes of a machine share, and that no change of the wall clock moves.

Since the machine started, time is what its kernel counts (CLOCK_BOOTTIME, which goes on in sleep); what it stands at is
set once a start, from the wall clock, and never back behind what the state has seen. Where a system has no name for
its start, the wall clock is all there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's clocks. `boot` names its last start, '' where the system has no name for it."""

    boot: str
    elapsed: Callable[[], float]
    """Seconds since that start."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970, as people set it."""


def this_machine() -> Machine:
    """The clocks of the machine we are on."""
    try:
        boot = _BOOT.read_text().strip()
        return Machine(boot, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    except (OSError, AttributeError):
        return Machine("", time.monotonic)


class StateClock:
    """Seconds since 1970, more or less; only differences mean something.

    `settle(boot, began)` keeps the given beginning for this start of the machine unless one is kept, and gives the
    kept one.
    """

    def __init__(self, machine: Machine, settle: Callable[[str, float], float]) -> None:
        self._machine, self._settle = machine, settle
        self._began: float | None = None

    def now(self, seen: float = 0.0) -> float:
        """The time, where the state has already seen `seen`."""
        machine = self._machine
        if not machine.boot:
            return machine.wall()
        elapsed = machine.elapsed()
        if self._began is None:
            self._began = self._settle(machine.boot, max(machine.wall(), seen) - elapsed)
        return self._began + elapsed
