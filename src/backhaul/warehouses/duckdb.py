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
from backhaul.warehouses.external_files import hidden_reader
from backhaul.warehouses.inplace import InPlace, described, read_in_place, resolve_built_in_first
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
    external_files: bool = False
    """Whether views and macros of the file may read other files of the machine that runs backhaul."""


class DuckDB(Warehouse):
    """A DuckDB file."""

    config: ClassVar[type[WarehouseConfig]] = DuckDBConfig
    dialect: ClassVar[str] = "duckdb"

    def __init__(self, config: DuckDBConfig, root: Path) -> None:
        super().__init__(config, root)
        self._alias, self._readers = "", 0
        """What the file is attached as, and how many read it: a model may be read while another read of it is open."""

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        alias = self._attach(engine)
        try:
            select = self._checked(engine, select, alias)
            engine.execute(f"USE {ident(alias)}")
            return described(engine, select)
        finally:
            self._detach(engine)

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> InPlace:  # fmt: skip
        alias = self._attach(engine)
        try:
            select = self._checked(engine, select, alias)
        except SourceError:
            self._detach(engine)
            raise
        return read_in_place(engine, select, columns, cursor, alias, lambda: self._detach(engine))

    def _checked(self, engine: duckdb.DuckDBPyConnection, select: str, alias: str) -> str:
        """The SELECT with its paths made absolute. Raises: SourceError: it reads files by way of the attached one."""
        reader = hidden_reader(engine, select, alias)
        if reader is not None and not self.settings.external_files:
            raise SourceError(
                f"a view or macro of {self.settings.path} reads other files ({reader}), which is not allowed",
                hint="if you trust that file as you trust the project's own SQL, set `external_files: true` for the warehouse",
            )
        return from_project(engine, select, self.root)

    def _attach(self, engine: duckdb.DuckDBPyConnection) -> str:
        """Attaches the file by its own name where that is free, so that names which begin with it resolve as they do in the
        warehouse (dbt writes `warehouse.marts.customers`). Gives the name it is attached by."""
        if not self._readers:
            self._alias = self._attach_free(engine)
        self._readers += 1
        return self._alias

    def _attach_free(self, engine: duckdb.DuckDBPyConnection) -> str:
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
        return alias

    def _detach(self, engine: duckdb.DuckDBPyConnection) -> None:
        self._readers -= 1
        if self._readers:
            resolve_built_in_first(engine, self._alias)
            return
        engine.execute("USE memory")
        engine.execute(f"DETACH DATABASE IF EXISTS {ident(self._alias)}")

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
