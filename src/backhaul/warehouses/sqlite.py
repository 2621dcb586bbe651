"""SQLite: read in one transaction, as Arrow batches.

SQLite types values, not columns. A column has its declared type as long as every value fits it; a column without one, or
with values that do not fit, has the type of its values: whole numbers BIGINT, numbers DOUBLE, bytes BLOB, anything else
text, in which every number keeps all its digits. Bytes beside text are an error. A column of nothing but NULL is text.
"""

from __future__ import annotations

import re
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
_PATIENCE = 10.0
"""Seconds to wait for a writer."""
_EXACT = 1 << 53
"""The last whole number up to which DOUBLE holds them all."""
_KINDS = ("integer", "real", "text", "blob")
_DECLARED = {
    "BIGINT": re.compile("INT|BOOL"), "VARCHAR": re.compile("CHAR|CLOB|TEXT|DATE|TIME|UUID|JSON"), "BLOB": re.compile("BLOB"),
    "DOUBLE": re.compile("REAL|FLOA|DOUB|DEC|NUM"),
}  # fmt: skip
"""Declared types by what their names hold, in the order of SQLite's documentation (datatype3.html, 3.1), and then some."""
_HOLDS = {"BIGINT": {"integer"}, "DOUBLE": {"integer", "real"}, "BLOB": {"blob"}, "VARCHAR": {"text"}}


class SqliteConfig(WarehouseConfig):
    """A SQLite file."""

    path: Path
    """Relative to the project."""


class Sqlite(Warehouse):
    """A SQLite file."""

    config: ClassVar[type[WarehouseConfig]] = SqliteConfig
    dialect: ClassVar[str] = "sqlite"

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        """As declared; reads the values, because SQLite has no other types."""
        connection = self._open()
        try:
            return self._typed(connection, select)
        finally:
            connection.close()

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> Stream:  # fmt: skip
        import pyarrow as pa

        query = narrowed(select, columns, cursor)
        connection = self._open()
        try:
            typed = self._typed(connection, query)
        except SourceError:
            connection.close()
            raise
        arrow = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BLOB": pa.binary(), "VARCHAR": pa.string()}
        schema = pa.schema([(column.name, arrow[column.type]) for column in typed])

        def again() -> Stream:
            return self.relation(engine, select, columns=columns, cursor=cursor)

        batches = _batches(connection, query, schema)
        return Stream(engine, schema, batches, "*", self._explain, again, connection.close)

    def _open(self) -> sqlite3.Connection:
        path = self.root / self.settings.path
        if not path.is_file():
            raise SourceError(
                f"there is no SQLite file {self.settings.path}", hint="see `path` in backhaul.yml"
            )
        address = f"{path.absolute().as_uri()}?mode=ro"
        try:
            connection = sqlite3.connect(
                address, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            raise SourceError(f"{self.settings.path} cannot be opened: {error}") from None
        return connection

    def _explain(self, error: Exception) -> str:
        undecoded = re.match(r"Could not decode to UTF-8 column '(.*)' with text", str(error), re.DOTALL)
        said = f"the column {undecoded[1]} holds text that is not UTF-8" if undecoded else _said(error)
        return f"{self.settings.path}: {said}"

    def _typed(self, connection: sqlite3.Connection, select: str) -> tuple[Column, ...]:
        try:
            connection.execute(f"CREATE TEMP VIEW backhaul_model AS {select}")
            declared = connection.execute("PRAGMA temp.table_info(backhaul_model)").fetchall()
            connection.execute("DROP VIEW temp.backhaul_model")
            asked = ", ".join(_asked(row[1]) for row in declared)
            found = connection.execute(f"SELECT {asked} FROM ({select}\n) AS model").fetchone()
        except sqlite3.Error as error:
            raise SourceError(
                f"the model does not run: {_said(error)}", hint="try it in the warehouse first"
            ) from None
        width = len(_KINDS) + 1
        names = [row[1] for row in declared]
        return tuple(
            Column(_unnumbered(row[1], names), _type(row[1], row[2], found[at * width : (at + 1) * width]))
            for at, row in enumerate(declared)
        )


_OF_SQL = re.compile(
    r'near "|no such |ambiguous column|unrecognized token|incomplete input|wrong number of arguments|misuse of|not authorized|'
    r"database |disk |unable to open|attempt to write|file is not"
)


def _said(error: Exception) -> str:
    """SQLite's words, as far as they quote the query; what follows in those about a value may be the value."""
    text = str(error)
    return (
        text
        if _OF_SQL.match(text)
        else re.split("['\":]", text)[0].strip() or "a value of a row makes it fail"
    )


def _asked(name: str) -> str:
    column = ident(name)
    kinds = ", ".join(f"max(typeof({column}) = '{kind}')" for kind in _KINDS)
    return f"{kinds}, max(typeof({column}) = 'integer' AND {column} NOT BETWEEN -{_EXACT} AND {_EXACT})"


def _unnumbered(name: str, names: Sequence[str]) -> str:
    """SQLite makes a second column `a` into `a:1`; a model must not have two."""
    base, colon, number = name.rpartition(":")
    known = {other.casefold() for other in names}
    return base if colon and number.isdigit() and base.casefold() in known else name


def _type(name: str, declared: str, found: Sequence[int | None]) -> str:
    """`found`: for each of _KINDS whether the column has such a value, and whether one is beyond DOUBLE."""
    kinds = {kind for kind, there in zip(_KINDS, found, strict=False) if there}
    if "blob" in kinds and len(kinds) > 1:
        raise SourceError(f"the column {name} holds bytes beside other values", hint="cast it in the model")
    own = next((kind for kind, names in _DECLARED.items() if names.search(declared.upper())), None)
    for kind in (own, "BIGINT", "DOUBLE", "BLOB"):
        if kind and kinds <= _HOLDS[kind] and (kinds or own) and not (kind == "DOUBLE" and found[-1]):
            return kind
    return "VARCHAR"


def _batches(connection: sqlite3.Connection, query: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    cursor = connection.execute(query)
    while rows := cursor.fetchmany(_ROWS):
        columns = zip(*rows, strict=True)
        arrays = [_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        yield pa.record_batch(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if kind == pa.string():
        values = [value if value is None or isinstance(value, str) else str(value) for value in values]
    return pa.array(values, kind)
