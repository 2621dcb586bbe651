"""A folder of CSV and Parquet files: each file is a table, named by its stem, read by the engine itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from backhaul.engine import in_order
from backhaul.engine_errors import in_one_line
from backhaul.errors import SourceError
from backhaul.sql import ident, literal
from backhaul.warehouses.csv_files import DELIMITERS, Format, exactly, line_numbers, numbered, scan
from backhaul.warehouses.inplace import InPlace, described, read_in_place, resolve_built_in_first
from backhaul.warehouses.protocol import SPOILT, Column, Warehouse, WarehouseConfig
from backhaul.warehouses.relative_paths import from_project
from backhaul.warehouses.repeatable import nodes_of, parsed, tables_of

if TYPE_CHECKING:
    import duckdb

_ENDINGS = (".parquet", *DELIMITERS)
_WATCHED = frozenset(("read_parquet",))
"""Scanned twice; that a file did not change meanwhile is seen when it is closed. CSV is read once."""
_ALIAS = "backhaul_files"
_ROW = SPOILT + "row"
_NAMED_LINES = 10_000
"""Values that do not fit of which the line is named; of more, only the column is."""
_Mark = Annotated[str, Field(min_length=1, max_length=1, pattern=r"[^\r\n\x00]")]


class FilesConfig(WarehouseConfig):
    """A folder of CSV and Parquet files."""

    path: Path
    """The folder, relative to the project. Sub-folders are not read."""
    delimiter: _Mark | None = None
    """Between the values of a CSV file; unset: a comma, in a .tsv file a tab."""
    quote: _Mark = '"'
    """Around values of a CSV file that hold a delimiter, a quote or a line break."""
    escape: _Mark = '"'
    """Before a quote within a quoted value."""


class Files(Warehouse):
    """A folder of CSV and Parquet files."""

    config: ClassVar[type[WarehouseConfig]] = FilesConfig
    dialect: ClassVar[str] = "duckdb"

    def __init__(self, config: FilesConfig, root: Path) -> None:
        super().__init__(config, root)
        self._readers = 0
        """How many have the views open: a model may be read while another read of it is."""

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        self._open(engine, select)
        try:
            return described(engine, from_project(engine, select, self.root))
        finally:
            self._close(engine)

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> InPlace:  # fmt: skip
        read = {path: _stamp(path) for path in self._open(engine, select)}
        select = from_project(engine, select, self.root)

        def release() -> None:
            self._close(engine)
            for path, stamp in read.items():
                if _stamp(path) != stamp:
                    raise SourceError(
                        f"{path.name} changed while it was read", hint="run again when it is complete"
                    )

        relation = read_in_place(engine, select, columns, cursor, _ALIAS, release, _WATCHED)
        if not relation.is_spooled or len(read) != 1 or not _unfit(engine, relation.sql):
            return relation
        relation.close()
        return self._with_lines(engine, select, columns, cursor)

    def _with_lines(
        self, engine: duckdb.DuckDBPyConnection, select: str, columns: Sequence[str] | None, cursor: tuple[str, Any] | None,
    ) -> InPlace:  # fmt: skip
        """The relation of a model over one CSV file, in which values that do not fit are named by their lines where the model's
        rows are the file's."""
        (path,) = self._open(engine, select, _ROW)
        has_rows = any(column.name == _ROW for column in described(engine, select))
        columns = [*columns, _ROW] if has_rows and columns else columns
        with in_order(engine):
            relation = read_in_place(
                engine, select, columns, cursor, _ALIAS, lambda: self._close(engine), _WATCHED
            )
        if has_rows:
            _name_lines(engine, relation.sql, path, self._format(path))
        return relation

    def _format(self, path: Path) -> Format:
        settings = self.settings
        return Format(settings.delimiter or DELIMITERS[path.suffix.lower()], settings.quote, settings.escape)

    def _open(self, engine: duckdb.DuckDBPyConnection, select: str, row: str | None = None) -> list[Path]:
        """Makes views, in a catalog of their own, of the files that a SELECT names; gives these files. `row`: the name of a
        column for the numbers of rows of CSV files."""
        import duckdb

        tree = parsed(engine, select)
        files = self._named(tables_of(tree))
        _refuse_wide_decimals(engine, files, tree)
        engine.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {_ALIAS}")
        engine.execute(f"USE {_ALIAS}")
        self._readers += 1
        for path in files:
            try:
                engine.execute(f"CREATE OR REPLACE VIEW {ident(path.stem)} AS {self._select(path, row)}")
            except SourceError:
                self._close(engine)
                raise
            except duckdb.Error as error:
                self._close(engine)
                raise SourceError(f"{path.name} cannot be read: {in_one_line(error)}") from None
        return files

    def _close(self, engine: duckdb.DuckDBPyConnection) -> None:
        self._readers -= 1
        if self._readers:
            resolve_built_in_first(engine, _ALIAS)
            return
        engine.execute("USE memory")
        engine.execute(f"DETACH DATABASE IF EXISTS {_ALIAS}")

    def _select(self, path: Path, row: str | None) -> str:
        if path.suffix.lower() not in DELIMITERS:
            return f"SELECT * FROM read_parquet({literal(exactly(path))})"
        form = self._format(path)
        return numbered(path, form, row) if row else f"SELECT * FROM {scan(path, form)}"

    def _named(self, names: set[str]) -> list[Path]:
        folder = self.root / self.settings.path
        if not folder.is_dir():
            raise SourceError(f"there is no folder {self.settings.path}", hint="see `path` in backhaul.yml")
        files = [
            path for path in sorted(folder.iterdir()) if path.suffix.lower() in _ENDINGS and path.is_file()
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


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced."""
    try:
        known = path.stat()
    except OSError:
        return ()
    return known.st_ino, known.st_size, known.st_mtime_ns


def _refuse_wide_decimals(engine: duckdb.DuckDBPyConnection, files: Sequence[Path], tree: Any) -> None:
    """Raises SourceError where a SELECT takes a DECIMAL of a Parquet file that the engine would read as a rounded DOUBLE."""
    import duckdb

    nodes = list(nodes_of(tree))
    named = {
        name.lower() for node in nodes if node.get("class") == "COLUMN_REF" for name in node["column_names"]
    }
    every = any(node.get("class") == "STAR" for node in nodes)
    query = "SELECT name, precision, scale FROM parquet_schema(?) WHERE precision > 38"
    for path in files:
        if path.suffix.lower() in DELIMITERS:
            continue
        try:
            wide = engine.execute(query, [exactly(path)]).fetchall()
        except duckdb.Error:
            continue  # a file that cannot be read says so when its view is made
        for name, precision, scale in wide:
            if every or name.lower() in named:
                raise SourceError(
                    f"{path.name}: the column {name} is DECIMAL({precision},{scale}); only 38 digits can be read exactly",
                    hint="write it to the file as text, or select the other columns in the model",
                )


def _unfit(engine: duckdb.DuckDBPyConnection, rows: str) -> list[str]:
    """The columns beside those of the spooled model in which a value does not fit."""
    names = [row[0] for row in engine.execute(f"DESCRIBE {rows}").fetchall()]
    spoilt = [name for name in names if name.endswith(SPOILT)]
    if not spoilt:
        return []
    counts = engine.execute(
        f"SELECT {', '.join(f'count({ident(name)})' for name in spoilt)} FROM {rows}"
    ).fetchall()[0]
    return [name for name, count in zip(spoilt, counts, strict=True) if count]


def _name_lines(engine: duckdb.DuckDBPyConnection, rows: str, path: Path, form: Format) -> None:
    """Puts lines for the numbers of rows into the spooled model."""
    spoilt = _unfit(engine, rows)
    any_unfit = " OR ".join(f"{ident(name)} IS NOT NULL" for name in spoilt)
    query = f"SELECT {ident(_ROW)} FROM {rows} WHERE {any_unfit} ORDER BY 1 LIMIT {_NAMED_LINES}"
    lines = line_numbers(path, form, [row for (row,) in engine.execute(query).fetchall()])
    given = {"rows": list(lines), "lines": list(lines.values())}
    for name in spoilt:
        engine.execute(
            f"UPDATE {rows} SET {ident(name)} = 'the value on line ' || given.line "
            f"FROM (SELECT unnest($rows) AS row, unnest($lines) AS line) AS given "
            f"WHERE {ident(_ROW)} = given.row AND {ident(name)} IS NOT NULL",
            given,
        )
    engine.execute(f"ALTER TABLE {rows} DROP COLUMN {ident(_ROW)}")
