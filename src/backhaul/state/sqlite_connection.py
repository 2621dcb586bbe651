"""A connection to the state's SQLite file, and what is wrong where there is none."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backhaul.errors import StateError

ROWS = "json_each(?)"
"""The elements of a JSON list, for `queries`."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Names what is wrong with the state file, whatever the driver says.

    Raises:
        StateError: damaged, foreign, read-only, locked, or the disk is full.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(
            f"the state {path.name} {_why(error)}",
            hint="nothing was sent after this; see docs/troubleshooting.md",
        ) from None
    except OSError as error:
        raise StateError(
            f"the state {path.parent.name}/{path.name} cannot be used: {error.strerror or error}",
            hint="see `state` in backhaul.yml",
        ) from None


def _why(error: sqlite3.Error) -> str:
    text = str(error)
    if "unable to open" in text and _is_out_of_files():
        return "cannot be opened: this process may have no more files open; raise `ulimit -n`"
    known = {
        "disk is full": "cannot grow: the disk is full",
        "readonly": "is read-only",
        "unable to open": "cannot be opened: the folder is missing or read-only",
        "not a database": "is damaged, or not a backhaul state",
        "malformed": "is damaged",
        "locked": "is locked by another process",
        "disk I/O": "cannot be written: disk error",
    }
    return next((said for part, said in known.items() if part in text), f"cannot be used: {text}")


def _is_out_of_files() -> bool:
    """SQLite says the same of this as of a folder that is missing."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the durability that the journal promises."""
    connection = opened(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    return connection
