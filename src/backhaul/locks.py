"""Folders as locks between the processes of one machine; what a process holds goes with it, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time, the others wait: what is done inside does not wait for itself."""
    with _locked(folder, fcntl.LOCK_EX):
        yield


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Marks a folder as a living process's.

    Raises:
        BlockingIOError: it is another living process's.
    """
    with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
