"""How long tests wait for processes and conditions: as long as a busy machine takes, and never for ever."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

HANGS = 300.0
"""Seconds after which something is taken to hang. What has to end before something else does has that last longer."""


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Waits for a condition, and fails where the process that should bring it about has ended without it."""
    ends = time.monotonic() + HANGS
    while not condition():
        assert process is None or process.poll() is None, "the process has ended"
        assert time.monotonic() < ends, "it hangs"
        time.sleep(0.01)
