"""Reading in place: a model that the engine itself runs, over an attached file or over files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from backhaul.errors import SourceError
from backhaul.warehouses.protocol import Column, narrowed

if TYPE_CHECKING:
    import duckdb

_PLAIN = (
    "SEQ_SCAN", "TABLE_SCAN", "PROJECTION", "FILTER", "READ_PARQUET", "PARQUET_SCAN", "EMPTY_RESULT", "COLUMN_DATA_SCAN",
    "DUMMY_SCAN",
)  # fmt: skip
_NO_FUNCTIONS = frozenset(("from", "join", "in", "where", "and", "or", "not", "on", "select", "as"))
"""Words before a parenthesis that call nothing: listing the engine's functions costs 30 ms."""
SPOOL = "temp.main.model_rows"


class InPlace:
    """Implements protocol.Relation. A plain scan is read where it lies; anything else, whose second run could give other
    rows or cost as much again, is spooled into a temporary table once."""

    rows: int | None = None
    failure: str | None = None
    repeatable = True

    def __init__(self, engine: duckdb.DuckDBPyConnection, select: str, release: Callable[[], None]) -> None:
        self._engine, self._release, self._spooled = engine, release, False
        if is_plain_scan(engine, select):
            self.sql = f"({select})"
            return
        engine.execute(f"CREATE OR REPLACE TEMP TABLE model_rows AS {select}")
        self._spooled = True
        self.sql = SPOOL

    def again(self) -> InPlace:
        return self

    def close(self) -> None:
        if self._spooled:
            self._engine.execute(f"DROP TABLE IF EXISTS {SPOOL}")
        self._release()


def is_plain_scan(engine: duckdb.DuckDBPyConnection, select: str) -> bool:
    """Whether a query only scans, filters and projects tables, with functions that give the same again."""
    plan = json.loads(engine.execute(f"EXPLAIN (FORMAT json) {select}").fetchall()[0][1])
    return _is_plain(plan) and not _is_volatile(engine, select)


def _is_plain(nodes: list[dict[str, Any]]) -> bool:
    return all(node["name"].strip() in _PLAIN and _is_plain(node["children"]) for node in nodes)


def _is_volatile(engine: duckdb.DuckDBPyConnection, select: str) -> bool:
    lower = select.lower()
    if "tablesample" in lower or "using sample" in lower:
        return True
    if not set(re.findall(r"(\w+)\s*\(", lower)) - _NO_FUNCTIONS:
        return False
    names = engine.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'"
    ).fetchall()
    return any(f"{name}(" in lower.replace(" ", "") for (name,) in names)


def described(engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
    """The columns of a query that the engine runs."""
    import duckdb

    try:
        return tuple(Column(row[0], row[1]) for row in engine.execute(f"DESCRIBE {select}").fetchall())
    except duckdb.Error as error:
        raise SourceError(
            f"the model does not run: {in_one_line(error)}", hint="try it in the warehouse first"
        ) from None


def in_one_line(error: Exception) -> str:
    """An engine message with the line of SQL that it points at, in one line."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    where = next((line for line in lines[1:] if line.startswith("LINE ")), "")
    said = lines[0].split("Error: ", 1)[-1] if lines else str(error)
    return f"{said} [{where}]" if where else said


def read_in_place(
    engine: duckdb.DuckDBPyConnection, select: str, columns: Sequence[str] | None, cursor: tuple[str, Any] | None,
    release: Callable[[], None],
) -> InPlace:  # fmt: skip
    """Opens a relation; on an error the source is released."""
    import duckdb

    try:
        return InPlace(engine, narrowed(select, columns, cursor), release)
    except duckdb.Error as error:
        release()
        raise SourceError(
            f"the model does not run: {in_one_line(error)}", hint="try it in the warehouse first"
        ) from None
