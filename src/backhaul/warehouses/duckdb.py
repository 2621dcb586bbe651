"""DuckDB: the file is attached read-only to the engine and read where it lies, without a copy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from backhaul.errors import SourceError
from backhaul.sql import literal
from backhaul.warehouses.inplace import InPlace, described, in_one_line, read_in_place
from backhaul.warehouses.protocol import Column, Warehouse, WarehouseConfig

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
        self._attach(engine)
        try:
            return described(engine, select)
        finally:
            self._detach(engine)

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> InPlace:  # fmt: skip
        self._attach(engine)
        return read_in_place(engine, select, columns, cursor, lambda: self._detach(engine))

    def _attach(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Makes the file's own names resolve as they do in the warehouse; ours are always written in full."""
        import duckdb

        path = self.root / self.settings.path
        if not path.is_file():
            raise SourceError(
                f"there is no DuckDB file {self.settings.path}",
                hint="has dbt been run? see `path` in backhaul.yml",
            )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                engine.execute(f"ATTACH {literal(str(path))} AS {_ALIAS} (READ_ONLY)")
                break
            except duckdb.Error as error:
                if "lock" not in str(error).lower():
                    raise SourceError(
                        f"{self.settings.path} cannot be opened: {in_one_line(error)}"
                    ) from None
                if time.monotonic() > deadline:
                    raise SourceError(f"{self.settings.path} is being written by another process",
                                      hint="run again when the dbt build is done") from None  # fmt: skip
                time.sleep(0.1)
        engine.execute(f"USE {_ALIAS}")

    def _detach(self, engine: duckdb.DuckDBPyConnection) -> None:
        engine.execute("USE memory")
        engine.execute(f"DETACH DATABASE IF EXISTS {_ALIAS}")
