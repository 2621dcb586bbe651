"""Time and chance, as one run sees them: handed down from the workspace, so that a simulation can hand in its own."""

from __future__ import annotations

import functools
import getpass
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path


def _actor() -> str:
    """The user of the machine who runs this process, by name where there is one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`clock` is in seconds and never goes back; `wall` is in seconds since 1970 and may jump either way; `age` is how many
    seconds ago a file was written; `actor` names who gave the command."""

    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.SystemRandom)
    age: Callable[[Path], float] = _age
    actor: Callable[[], str] = _actor

    def moment(self) -> datetime:
        """The time, in UTC."""
        return datetime.fromtimestamp(self.wall(), UTC)

    def now(self) -> str:
        """The time, as it is stored: UTC, milliseconds."""
        return _written(int(self.wall() * 1000))

    def new_id(self, prefix: str) -> str:
        """A new id that sorts by time: `r-20261123-021500-1a2b3c`."""
        return f"{prefix}-{self.moment():%Y%m%d-%H%M%S}-{self.rng.getrandbits(24):06x}"


def _written(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_to_the_second(seconds)}.{rest:03d}Z"


@functools.lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    # remembered, because a fast delivery asks thousands of times in a second
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


REAL = Surroundings()
"""The machine's own."""
