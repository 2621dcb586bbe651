"""DuckDB: the file is attached read-only to the engine and read where it lies, without a copy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from backhaul.engine import is_locked
from backhaul.engine_errors import in_one_line
from backhaul.errors import SourceError
from backhaul.sql import ident, literal
from backhaul.warehouses.inplace import InPlace, described, read_in_place
from backhaul.warehouses.protocol import Column, Warehouse, WarehouseConfig
from backhaul.warehouses.relative_paths import from_project

if TYPE_CHECKING:
    import duckdb

_ALIAS = "backhaul_source"
_PATIENCE = 10.0
"""Seconds to wait for a writer, such as a dbt build, to let go of the file."""


class DuckDBConfig(WarehouseConfig):
    """A DuckDB file."""

    path: Path
    """Relative to the project."""


class DuckDB(Warehouse):
    """A DuckDB file."""

    config: ClassVar[type[WarehouseConfig]] = DuckDBConfig
    dialect: ClassVar[str] = "duckdb"

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        alias = self._attach(engine)
        try:
            return described(engine, from_project(engine, select, self.root))
        finally:
            _detach(engine, alias)

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> InPlace:  # fmt: skip
        alias = self._attach(engine)
        select = from_project(engine, select, self.root)
        return read_in_place(engine, select, columns, cursor, alias, lambda: _detach(engine, alias))

    def _attach(self, engine: duckdb.DuckDBPyConnection) -> str:
        """Makes the file's own names resolve as they do in the warehouse, also those that begin with its own name
        (dbt writes `warehouse.marts.customers`); ours are always written in full. Gives the name it is attached by."""
        path = self.root / self.settings.path
        if not path.is_file():
            raise SourceError(
                f"there is no DuckDB file {self.settings.path}",
                hint="has dbt been run? see `path` in backhaul.yml",
            )
        alias = path.stem if _is_free(engine, path.stem) else _ALIAS
        self._attach_as(engine, path, alias)
        if alias != _ALIAS and _has_schema(engine, alias, alias):
            engine.execute(f"DETACH {ident(alias)}")
            alias = _ALIAS
            self._attach_as(engine, path, alias)
        engine.execute(f"USE {ident(alias)}")
        return alias

    def _attach_as(self, engine: duckdb.DuckDBPyConnection, path: Path, alias: str) -> None:
        import duckdb

        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                engine.execute(f"ATTACH {literal(str(path))} AS {ident(alias)} (TYPE duckdb, READ_ONLY)")
                return
            except duckdb.Error as error:
                if not is_locked(error):
                    raise SourceError(_why(str(self.settings.path), error)) from None
                if time.monotonic() > deadline:
                    raise SourceError(f"{self.settings.path} is being written by another process",
                                      hint="run again when the dbt build is done") from None  # fmt: skip
                time.sleep(0.1)


def _is_free(engine: duckdb.DuckDBPyConnection, name: str) -> bool:
    query = "SELECT 1 FROM duckdb_databases() WHERE lower(database_name) = lower(?)"
    return not engine.execute(query, [name]).fetchall()


def _has_schema(engine: duckdb.DuckDBPyConnection, database: str, name: str) -> bool:
    """A schema of the database's own name: `name.table` would be ambiguous."""
    query = "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND lower(schema_name) = lower(?)"
    return bool(engine.execute(query, [database, name]).fetchall())


def _why(path: str, error: Exception) -> str:
    text = str(error)
    if "not a valid DuckDB" in text or "Corrupt database" in text:
        return f"{path} cannot be opened: it is not a DuckDB file, or it is damaged"
    if "version number" in text:
        return f"{path} cannot be opened: it was written by another version of DuckDB; upgrade the package duckdb"
    return f"{path} cannot be opened: {in_one_line(error)}"


def _detach(engine: duckdb.DuckDBPyConnection, alias: str) -> None:
    engine.execute("USE memory")
    engine.execute(f"DETACH DATABASE IF EXISTS {ident(alias)}")
