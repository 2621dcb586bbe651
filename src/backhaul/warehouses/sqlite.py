"""SQLite: read in one transaction, as Arrow batches.

SQLite types values, not columns. A column whose values are of one kind has that type; integers and reals together are
DOUBLE; text beside numbers makes the column text, written as SQLite writes it. Nothing is dropped or rounded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from backhaul.errors import SourceError
from backhaul.sql import ident
from backhaul.warehouses.protocol import Column, Warehouse, WarehouseConfig, narrowed
from backhaul.warehouses.stream import Stream

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_ROWS = 65_536
_TYPES = {frozenset({"integer"}): "BIGINT", frozenset({"real"}): "DOUBLE", frozenset({"integer", "real"}): "DOUBLE",
          frozenset({"blob"}): "BLOB"}  # fmt: skip


class SqliteConfig(WarehouseConfig):
    """A SQLite file."""

    path: Path
    """Relative to the project."""


class Sqlite(Warehouse):
    """A SQLite file."""

    config: ClassVar[type[WarehouseConfig]] = SqliteConfig
    dialect: ClassVar[str] = "sqlite"

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        connection = self._open()
        try:
            return self._typed(connection, select.strip().rstrip(";"))
        finally:
            connection.close()

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> Stream:  # fmt: skip
        import pyarrow as pa

        query = narrowed(select, columns, cursor)
        connection = self._open()
        typed = self._typed(connection, query)
        arrow = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BLOB": pa.binary(), "VARCHAR": pa.string()}
        schema = pa.schema([(column.name, arrow[column.type]) for column in typed])
        sent = ", ".join(
            f"CAST({ident(column.name)} AS TEXT)" if column.type == "VARCHAR" else ident(column.name)
            for column in typed
        )
        batches = _batches(connection, f"SELECT {sent} FROM ({query}) AS model", schema)
        return Stream(engine, schema, batches, "*", lambda error: f"{self.settings.path}: {error}",
                      lambda: self.relation(engine, select, columns=columns, cursor=cursor), connection.close)  # fmt: skip

    def _open(self) -> sqlite3.Connection:
        path = self.root / self.settings.path
        if not path.is_file():
            raise SourceError(
                f"there is no SQLite file {self.settings.path}", hint="see `path` in backhaul.yml"
            )
        try:
            address = f"{path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            raise SourceError(f"{self.settings.path} cannot be opened: {error}") from None
        return connection

    def _typed(self, connection: sqlite3.Connection, select: str) -> tuple[Column, ...]:
        try:
            names = [
                item[0]
                for item in connection.execute(f"SELECT * FROM ({select}) AS model LIMIT 0").description
            ]
            kinds = ", ".join(f"group_concat(DISTINCT typeof({ident(name)}))" for name in names)
            found = connection.execute(f"SELECT {kinds} FROM ({select}) AS model").fetchone()
        except sqlite3.Error as error:
            raise SourceError(
                f"the model does not run: {error}", hint="try it in the warehouse first"
            ) from None
        sets = [frozenset((kind or "").split(",")) - {"null", ""} for kind in found]
        return tuple(
            Column(name, _TYPES.get(kind, "VARCHAR")) for name, kind in zip(names, sets, strict=True)
        )


def _batches(connection: sqlite3.Connection, query: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    cursor = connection.execute(query)
    while rows := cursor.fetchmany(_ROWS):
        columns = zip(zip(*rows, strict=True), schema, strict=True)
        yield pa.record_batch([pa.array(values, field.type) for values, field in columns], schema=schema)
