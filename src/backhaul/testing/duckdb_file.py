"""A DuckDB file that a test fills: opened in an engine that all tests of the process share: a new one takes ten times
as long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from backhaul.sql import ident, literal

if TYPE_CHECKING:
    import duckdb

_TURN = threading.RLock()


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(":memory:")


@contextmanager
def opened(path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose database is this file, which it makes where there is none; no other process may have it meanwhile."""
    name = ident(path.stem)
    with _TURN, _engine().cursor() as connection:
        connection.execute(f"ATTACH {literal(str(path))} AS {name} (TYPE duckdb{', READ_ONLY' * read_only})")
        try:
            connection.execute(f"USE {name}")
            yield connection
        finally:
            connection.execute("USE memory")
            connection.execute(f"DETACH {name}")
