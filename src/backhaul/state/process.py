"""Names a process among all of a machine's, so that whoever waits for it can see that it is gone."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def owner() -> str:
    """This process, for people."""
    return f"{socket.gethostname()} (pid {os.getpid()})"


def this_process() -> str:
    """This process, for `is_gone`; '' where its end could not be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}/{os.getpid()}/{_started(os.getpid())}"
    except OSError:
        return ""


def is_gone(process: str) -> bool:
    """Whether a process was one of this machine's and is no more; False where that cannot be known."""
    if not process:
        return False
    boot, space, pid, started = process.split("/", 3)
    if this_process().split("/")[:2] != [boot, space]:
        return False
    try:
        return _started(int(pid)) != started
    except OSError:
        return True


def _started(pid: int) -> str:
    """When a process began, in ticks since the machine did (proc(5), stat, field 22)."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
