"""Reading in place: a model that the engine itself runs, over an attached file or over files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from backhaul.errors import SourceError
from backhaul.sql import ident, literal
from backhaul.warehouses.protocol import Column, narrowed
from backhaul.warehouses.repeatable import is_plain_scan

if TYPE_CHECKING:
    import duckdb

SPOOL = "temp.main.model_rows"
_BUILT_IN = "system.main"
_CSV = "CSV Error on Line: "
_COLUMNS = re.compile(r"Expected Number of Columns: (\d+) Found: (\d+)")
_VALUE = re.compile(r'Could not convert string ".*?" to(?= )', re.DOTALL)


class InPlace:
    """Implements protocol.Relation over an attached `catalog`. A plain scan is read where it lies; anything else, whose second
    run could give other rows or cost as much again, is spooled into a temporary table once, and only while that is made do
    names resolve in the catalog first."""

    rows: int | None = None
    failure: str | None = None
    repeatable = True

    def __init__(
        self, engine: duckdb.DuckDBPyConnection, select: str, catalog: str, release: Callable[[], None],
        files: frozenset[str],
    ) -> None:  # fmt: skip
        self._engine, self._release, self._spooled = engine, release, False
        _resolve_built_in_first(engine, catalog)
        if is_plain_scan(engine, select, files):
            self.sql = f"({select})"
            return
        engine.execute(f"USE {ident(catalog)}")
        engine.execute(f"CREATE OR REPLACE TEMP TABLE model_rows AS {select}")
        engine.execute("USE memory")
        self._spooled = True
        self.sql = SPOOL

    def again(self) -> InPlace:
        return self

    def close(self) -> None:
        if self._spooled:
            self._engine.execute(f"DROP TABLE IF EXISTS {SPOOL}")
        self._release()


def _resolve_built_in_first(engine: duckdb.DuckDBPyConnection, catalog: str) -> None:
    """What surrounds the model's SELECT is ours: no function or type of the source may stand for a built-in one there."""
    query = "SELECT schema_name FROM duckdb_schemas() WHERE database_name = ? AND NOT internal"
    engine.execute("USE memory")
    schemas = [name for (name,) in engine.execute(query, [catalog]).fetchall() if name != "main"]
    path = [f"{ident(catalog)}.{ident(schema)}" for schema in ("main", *schemas)]
    engine.execute(f"SET search_path = {literal(','.join([_BUILT_IN, *path]))}")


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
    """An engine message with the line of SQL that it points at, in one line, without a row's values."""
    text = _VALUE.sub("a value cannot become", str(error))
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    said = lines[0].split("Error: ", 1)[-1] if lines else text
    if said.startswith(_CSV):
        return _csv_error(said.removeprefix(_CSV), lines[1:])
    where = next((line for line in lines[1:] if line.startswith("LINE ")), "")
    return f"{said} [{where.replace('DESCRIBE ', '')}]" if where else said


def _csv_error(line: str, rest: Sequence[str]) -> str:
    """A reader's error by file and line; the line itself is quoted in `rest` and stays out."""
    told = (part for part in rest if not part.startswith(("Original Line", "Possible", "LINE ")))
    cause = next(told, "it does not fit the others")
    if counts := _COLUMNS.fullmatch(cause):
        # the reader stops at the first value too many
        found = counts[2] if int(counts[2]) < int(counts[1]) else "more"
        cause = f"the header has {counts[1]} columns, and this line has {found}"
    file = next((part.removeprefix("file = ") for part in rest if part.startswith("file = ")), "")
    return f"{file.rpartition('/')[2]}, line {line}: {cause}"


def read_in_place(
    engine: duckdb.DuckDBPyConnection, select: str, columns: Sequence[str] | None, cursor: tuple[str, Any] | None,
    catalog: str, release: Callable[[], None], files: frozenset[str] = frozenset(),
) -> InPlace:  # fmt: skip
    """Opens a relation; on an error the source is released. `catalog` as in InPlace, `files` as in is_plain_scan."""
    import duckdb

    try:
        return InPlace(engine, narrowed(select, columns, cursor), catalog, release, files)
    except duckdb.Error as error:
        release()
        if _CSV in str(error):
            raise SourceError(in_one_line(error), hint="correct the file; nothing was sent") from None
        raise SourceError(
            f"the model does not run: {in_one_line(error)}", hint="try it in the warehouse first"
        ) from None
