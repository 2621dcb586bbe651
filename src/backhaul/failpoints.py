"""Places where the process can be made to die, for tests of what a crash leaves behind. Off unless the environment
variable BACKHAUL_FAILPOINT names one: `NAME`, or `NAME:3` for the third time it is passed."""

from __future__ import annotations

import os
import signal
from itertools import count

NAMES = (
    "planned",
    "intended",
    "sent",
    "answered",
    "acknowledged",
    "rejected",
    "between_batches",
    "folding",
    "folded",
)
"""In the order in which a run passes them; docs/concepts.md says what is found after each."""

_passed = count(1)
_wanted, _hit = "", 1


def arm(place: str) -> None:
    """Sets where this process dies, from here on: as in the variable, which is read once."""
    global _wanted, _hit
    _wanted, _, hit = place.partition(":")
    _hit = int(hit or 1)


arm(os.environ.get("BACKHAUL_FAILPOINT", ""))


def failpoint(name: str) -> None:
    """Kills this process as by kill -9 if it was asked to die here."""
    if _wanted == name and next(_passed) == _hit:
        os.kill(os.getpid(), signal.SIGKILL)
