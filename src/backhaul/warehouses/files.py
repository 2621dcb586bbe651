"""A folder of CSV and Parquet files: each file is a table, named by its stem, read by the engine itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from backhaul.errors import SourceError
from backhaul.sql import ident, literal
from backhaul.warehouses.inplace import InPlace, described, in_one_line, read_in_place
from backhaul.warehouses.protocol import Column, Warehouse, WarehouseConfig

if TYPE_CHECKING:
    import duckdb

_READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".tsv": "read_csv"}


class FilesConfig(WarehouseConfig):
    """A folder of CSV and Parquet files."""

    path: Path
    """The folder, relative to the project. Sub-folders are not read."""


class Files(Warehouse):
    """A folder of CSV and Parquet files."""

    config: ClassVar[type[WarehouseConfig]] = FilesConfig
    dialect: ClassVar[str] = "duckdb"

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        made = self._views(engine)
        try:
            return described(engine, select)
        finally:
            self._drop(engine, made)

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> InPlace:  # fmt: skip
        made = self._views(engine)
        return read_in_place(engine, select, columns, cursor, lambda: self._drop(engine, made))

    def _views(self, engine: duckdb.DuckDBPyConnection) -> list[str]:
        import duckdb

        folder = self.root / self.settings.path
        if not folder.is_dir():
            raise SourceError(f"there is no folder {self.settings.path}", hint="see `path` in backhaul.yml")
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _READERS)
        names = [path.stem for path in files]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise SourceError(
                f"{self.settings.path} has more than one file named {min(twice)}", hint="rename one of them"
            )
        for path in files:
            reader = _READERS[path.suffix.lower()]
            try:
                engine.execute(
                    f"CREATE OR REPLACE TEMP VIEW {ident(path.stem)} AS SELECT * FROM {reader}({literal(str(path))})"
                )
            except duckdb.Error as error:
                raise SourceError(f"{path.name} cannot be read: {in_one_line(error)}") from None
        return names

    def _drop(self, engine: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
        for name in names:
            engine.execute(f"DROP VIEW IF EXISTS temp.main.{ident(name)}")
