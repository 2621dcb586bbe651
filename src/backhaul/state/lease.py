"""One run a sync: an operating-system lock that dies with its owner, so a run after a kill starts at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from backhaul.errors import RunError


class OwnLease:
    """Ours until this process ends: the system takes it from nobody who lives."""

    def check(self) -> None:
        """Nothing can have been lost."""


@contextlib.contextmanager
def hold(folder: Path, sync: str, name: str = "") -> Iterator[OwnLease]:
    """Holds the sync for this process; errors call it by its name.

    Raises:
        RunError: another process is running it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / f"{sync}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise RunError(
                f"{name or sync} is being run by another process (pid {owner})",
                hint="wait for it, or look with `backhaul status`",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield OwnLease()
    finally:
        os.close(handle)


def is_held(folder: Path, sync: str) -> bool:
    """Whether some process is running this sync now."""
    try:
        handle = os.open(folder / f"{sync}.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
