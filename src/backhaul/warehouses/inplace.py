"""Reading in place: a model that the engine itself runs, over an attached file or over files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from backhaul.engine_errors import in_one_line, is_of_csv
from backhaul.errors import SourceError
from backhaul.sql import ident, literal
from backhaul.warehouses.protocol import Column, narrowed
from backhaul.warehouses.repeatable import is_plain_scan

if TYPE_CHECKING:
    import duckdb

_SPOOL = "model_rows"
_BUILT_IN = "system.main"


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
        self._engine, self._release, self.is_spooled = engine, release, False
        resolve_built_in_first(engine, catalog)
        if is_plain_scan(engine, select, files):
            self.sql = f"({select})"
            return
        spool = _free_name(engine)
        engine.execute(f"USE {ident(catalog)}")
        engine.execute(f"CREATE TEMP TABLE {spool} AS {select}")
        engine.execute("USE memory")
        self.is_spooled = True
        self.sql = f"temp.main.{spool}"

    def again(self) -> InPlace:
        return self

    def close(self) -> None:
        if self.is_spooled:
            self._engine.execute(f"DROP TABLE IF EXISTS {self.sql}")
        release, self._release = self._release, lambda: None
        release()


def _free_name(engine: duckdb.DuckDBPyConnection) -> str:
    """The name of a table for the rows: another read of the same model may have one."""
    query = f"SELECT table_name FROM duckdb_tables() WHERE temporary AND starts_with(table_name, '{_SPOOL}')"
    taken = {name for (name,) in engine.execute(query).fetchall()}
    return next(
        name for number in count(1) if (name := f"{_SPOOL}{'' if number == 1 else number}") not in taken
    )


def resolve_built_in_first(engine: duckdb.DuckDBPyConnection, catalog: str) -> None:
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
        if is_of_csv(error):
            raise SourceError(in_one_line(error), hint="correct the file; nothing was sent") from None
        raise SourceError(
            f"the model does not run: {in_one_line(error)}", hint="try it in the warehouse first"
        ) from None
