"""What SQLite says about a table."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from backhaul.destinations.kit import no_such_object
from backhaul.destinations.sql import Table
from backhaul.sql import ident
from backhaul.types import Field, FieldType, ObjectSchema

_NAMES = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'"
_LENIENT = """
SELECT k.name FROM pragma_index_list(?) i, pragma_index_xinfo(i.name) k
WHERE i."unique" AND k.key AND k.coll <> 'BINARY' AND k.name IS NOT NULL
"""
"""Columns of unique indexes that take two spellings for one (sqlite.org/datatype3.html, 7)."""
_WORDS = (
    ("BOOL", FieldType.BOOLEAN), ("JSON", FieldType.JSON), ("DATETIME", FieldType.ANY),
    ("TIMESTAMP", FieldType.ANY), ("DATE", FieldType.DATE), ("INT", FieldType.INTEGER),
    ("CHAR", FieldType.STRING), ("CLOB", FieldType.STRING), ("TEXT", FieldType.STRING),
    ("REAL", FieldType.NUMBER), ("FLOA", FieldType.NUMBER), ("DOUB", FieldType.NUMBER),
    ("NUMERIC", FieldType.DECIMAL), ("DECIMAL", FieldType.DECIMAL),
)  # fmt: skip


def table(connection: sqlite3.Connection, name: str) -> Table:
    """The table of this name.

    Raises:
        Halt: there is none.
    """
    columns = connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)', [name]
    )
    rows = columns.fetchall()
    if not rows:
        raise no_such_object(name, [row[0] for row in connection.execute(_NAMES)], "the database")
    unique = unique_columns(connection, name)
    lenient = {row[0] for row in connection.execute(_LENIENT, [name])}
    alone = [row[0] for row in rows if row[4]]
    if alone:
        unique |= {frozenset(alone)}
    fields = {
        row[0]: replace(
            field(*row, alone=len(alone) == 1, unique=frozenset((row[0],)) in unique),
            case_insensitive=row[0] in lenient,
        )
        for row in rows
    }
    return Table(
        ident(name),
        ObjectSchema(name, fields, keys=unique),
        unique,
        contested=contested_columns(connection, name),
    )


def contested_columns(connection: sqlite3.Connection, name: str) -> frozenset[str]:
    """The columns of all unique indexes, also of partial ones."""
    indexes = connection.execute('SELECT name FROM pragma_index_list(?) WHERE "unique"', [name]).fetchall()
    rows = [
        row for index in indexes for row in connection.execute("SELECT name FROM pragma_index_info(?)", index)
    ]
    return frozenset(row[0] for row in rows if row[0] is not None)


def unique_columns(connection: sqlite3.Connection, name: str) -> frozenset[frozenset[str]]:
    """The column sets of the whole unique indexes; one over an expression names no column."""
    indexes = connection.execute(
        'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', [name]
    ).fetchall()
    columns = [
        [row[0] for row in connection.execute("SELECT name FROM pragma_index_info(?)", index)]
        for index in indexes
    ]
    return frozenset(frozenset(names) for names in columns if None not in names)


def field(
    name: str,
    native: str,
    not_null: int,
    default: str | None,
    key: int,
    hidden: int,
    *,
    alone: bool,
    unique: bool,
) -> Field:
    """`hidden` is above 0 for hidden and generated columns (sqlite.org/pragma.html#pragma_table_xinfo)."""
    upper = native.upper()
    numbered = bool(key) and alone and upper == "INTEGER"
    return Field(
        name,
        next((kind for word, kind in _WORDS if word in upper), FieldType.ANY),
        writable=not hidden,
        required=bool(not_null) and default is None and not numbered and not hidden,
        nullable=not not_null or numbered,
        unique=unique,
        native_type=native or None,
    )


def is_numeric(field: Field) -> bool:
    """Whether a text that looks like a number becomes one: affinity NUMERIC (sqlite.org/datatype3.html, 3.1), as of STRING."""
    native = (field.native_type or "BLOB").upper()
    other = ("INT", "CHAR", "CLOB", "TEXT", "BLOB", "REAL", "FLOA", "DOUB")
    return field.type is FieldType.ANY and native != "ANY" and not any(word in native for word in other)
