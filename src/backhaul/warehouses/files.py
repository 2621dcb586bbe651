"""A folder of CSV and Parquet files: each file is a table, named by its stem, read by the engine itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from backhaul.errors import SourceError
from backhaul.sql import ident, literal
from backhaul.warehouses.inplace import InPlace, described, in_one_line, read_in_place
from backhaul.warehouses.protocol import Column, Warehouse, WarehouseConfig
from backhaul.warehouses.repeatable import parsed, tables_of

if TYPE_CHECKING:
    import duckdb

_READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".tsv": "read_csv"}
_WATCHED = frozenset(("read_parquet",))
"""Scanned twice; that a file did not change meanwhile is seen when it is closed. CSV is read once."""
_ALIAS = "backhaul_files"


class FilesConfig(WarehouseConfig):
    """A folder of CSV and Parquet files."""

    path: Path
    """The folder, relative to the project. Sub-folders are not read."""


class Files(Warehouse):
    """A folder of CSV and Parquet files."""

    config: ClassVar[type[WarehouseConfig]] = FilesConfig
    dialect: ClassVar[str] = "duckdb"

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        self._open(engine, select)
        try:
            return described(engine, select)
        finally:
            _close(engine)

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> InPlace:  # fmt: skip
        read = {path: _stamp(path) for path in self._open(engine, select)}

        def release() -> None:
            _close(engine)
            for path, stamp in read.items():
                if _stamp(path) != stamp:
                    raise SourceError(
                        f"{path.name} changed while it was read", hint="run again when it is complete"
                    )

        return read_in_place(engine, select, columns, cursor, _ALIAS, release, _WATCHED)

    def _open(self, engine: duckdb.DuckDBPyConnection, select: str) -> list[Path]:
        """Makes views, in a catalog of their own, of the files that a SELECT names; gives these files."""
        import duckdb

        files = self._named(engine, select)
        engine.execute(f"ATTACH ':memory:' AS {_ALIAS}")
        engine.execute(f"USE {_ALIAS}")
        for path in files:
            reader = _READERS[path.suffix.lower()]
            try:
                engine.execute(
                    f"CREATE VIEW {ident(path.stem)} AS SELECT * FROM {reader}({literal(_one(path))})"
                )
            except duckdb.Error as error:
                _close(engine)
                raise SourceError(f"{path.name} cannot be read: {in_one_line(error)}") from None
        return files

    def _named(self, engine: duckdb.DuckDBPyConnection, select: str) -> list[Path]:
        folder = self.root / self.settings.path
        if not folder.is_dir():
            raise SourceError(f"there is no folder {self.settings.path}", hint="see `path` in backhaul.yml")
        names = tables_of(parsed(engine, select))
        files = [
            path for path in sorted(folder.iterdir()) if path.suffix.lower() in _READERS and path.is_file()
        ]
        files = [path for path in files if path.stem.lower() in names]
        stems = [path.stem.lower() for path in files]
        for path in files:
            if stems.count(path.stem.lower()) > 1:
                raise SourceError(
                    f"{self.settings.path} has more than one file named {path.stem}",
                    hint="rename one of them",
                )
        return files


def _close(engine: duckdb.DuckDBPyConnection) -> None:
    engine.execute("USE memory")
    engine.execute(f"DETACH DATABASE IF EXISTS {_ALIAS}")


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced."""
    try:
        known = path.stat()
    except OSError:
        return ()
    return known.st_ino, known.st_size, known.st_mtime_ns


def _one(path: Path) -> str:
    """A path as the engine's pattern for this file alone."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))
