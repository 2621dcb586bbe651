"""The embedded engine: one in-memory DuckDB connection a run, with a memory limit and a folder to spill to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import duckdb

from backhaul.errors import StateError
from backhaul.sql import ident, literal

T = TypeVar("T")
_OWN_SHARE = 304 << 20
"""What the rest of the process needs of the limit, in bytes (measured: interpreter, Arrow, HTTP client, buffers)."""


def open_engine(memory_limit: int, spill: Path) -> duckdb.DuckDBPyConnection:
    """A new engine; `memory_limit` is the whole process's, in bytes. Its zone is UTC."""
    engine = duckdb.connect(":memory:")
    room = max(memory_limit - _OWN_SHARE, memory_limit // 2)
    for name, value in {
        "memory_limit": f"{room >> 20}MiB",
        "temp_directory": str(spill),
        "TimeZone": "UTC",
        "preserve_insertion_order": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "enable_progress_bar": "false",
    }.items():
        engine.execute(f"SET {name} = {literal(value)}")
    return engine


async def in_thread(
    engine: duckdb.DuckDBPyConnection, step: Callable[..., T], *args: Any, **options: Any
) -> T:
    """What a step gives that works with the engine, in a thread. Cancelled, it interrupts the engine, and returns only
    when the thread has ended: an engine cannot be closed while it works."""
    work = asyncio.ensure_future(asyncio.to_thread(step, *args, **options))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            engine.interrupt()
            await asyncio.wait([work], timeout=0.1)
        work.exception()
        raise


def spill_folder(engine: duckdb.DuckDBPyConnection) -> Path:
    """Where files may lie that go with the engine."""
    folder = Path(engine.execute("SELECT current_setting('temp_directory')").fetchall()[0][0])
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@contextlib.contextmanager
def in_order(engine: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Inside, queries give rows in the order in which they lie; writing tables costs nearly twice the time meanwhile."""
    engine.execute("SET preserve_insertion_order = true")
    try:
        yield
    finally:
        engine.execute("SET preserve_insertion_order = false")


_HURRY: WeakKeyDictionary[duckdb.DuckDBPyConnection, float] = WeakKeyDictionary()
"""When an engine stops waiting for files, on the monotonic clock."""


def hurry(engine: duckdb.DuckDBPyConnection, seconds: float) -> None:
    """From now on the engine waits for files that others have open no longer than this; called from any thread."""
    _HURRY[engine] = time.monotonic() + seconds


@contextlib.contextmanager
def attached(
    engine: duckdb.DuckDBPyConnection,
    path: Path,
    alias: str,
    *,
    writable: bool = False,
    patience: float = 30.0,
) -> Iterator[None]:
    """Attaches a DuckDB file of ours; waits up to `patience` seconds while another process has it open the other way.

    Raises:
        StateError: the file is damaged, foreign, newer, locked for too long, or cannot be read or written.
    """
    begun = time.monotonic()
    mode = "" if writable else " (READ_ONLY)"
    while True:
        try:
            engine.execute(f"ATTACH {literal(str(path))} AS {ident(alias)}{mode}")
            break
        except duckdb.IOException as error:
            if is_locked(error) and time.monotonic() < min(begun + patience, _HURRY.get(engine, inf)):
                time.sleep(0.05)
                continue
            raise StateError(_why(path, error), hint=_HELP) from None
        except duckdb.Error as error:
            raise StateError(_why(path, error), hint=_HELP) from None
    whole = False
    try:
        yield
        whole = True
    except duckdb.Error as error:
        if not (is_damaged(error) or is_full(error)):
            raise
        raise StateError(_why(path, error), hint=_HELP) from None
    finally:
        try:
            engine.execute(f"DETACH {ident(alias)}")
        except duckdb.Error as error:
            if whole:  # else what went wrong first is what is told
                raise StateError(_why(path, error), hint=_HELP) from None


_HELP = "see docs/troubleshooting.md, Damaged or locked state"
_DAMAGED = ("not a valid DuckDB", "Corrupt database", "Could not read enough bytes")
"""What DuckDB 1.x says of a file with other bytes than it wrote."""


def is_damaged(error: duckdb.Error) -> bool:
    """Whether a file that the engine reads is not as it was written."""
    return any(part in str(error) for part in _DAMAGED)


def is_full(error: duckdb.Error) -> bool:
    """Whether there was no room left to write to; DuckDB ends its sentence with the system's own."""
    return os.strerror(errno.ENOSPC) in str(error)


def is_locked(error: duckdb.Error) -> bool:
    """Whether another process has the file open; a damaged `block` is something else."""
    return "set lock on file" in str(error)


def _why(path: Path, error: duckdb.Error) -> str:
    text = str(error)
    if is_locked(error):
        return f"{path.name} is in use by another process"
    if is_full(error):
        return f"the disk has no room left for {path.name}; what is in it was left as it was"
    if is_damaged(error):
        return f"{path.name} is not a backhaul ledger, or it is damaged"
    if "newer version" in text or "version number" in text:
        return f"{path.name} was written by a newer version"
    return f"{path.name} cannot be used: {text.splitlines()[0]}"


def number(engine: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one whole number a query gives; 0 where it gives none. Leaves no result open on the connection."""
    rows = engine.execute(query).fetchall()
    return int(rows[0][0] or 0) if rows else 0
