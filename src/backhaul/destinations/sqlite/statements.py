"""The SQL of one batch, and running it row by row over a prepared statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from backhaul.destinations.sql import Table
from backhaul.sql import ident
from backhaul.types import Field, FieldType, Op

Row = tuple[int, tuple[Any, ...]]
"""A record's position in the batch, and its values."""
_TRIGGERED = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE"
"""RAISE(IGNORE) in a trigger leaves a row out without an error (sqlite.org/lang_createtrigger.html)."""


class Writing:
    """Writes rows of some columns, in this order, into a table."""

    def __init__(self, table: Table, identifiers: Sequence[str], names: Sequence[str]) -> None:
        self.table, self.name = table.sql, table.schema.name
        self.contested, self.fields = table.contested, table.schema.fields
        self.keys = ", ".join(map(ident, identifiers))
        self.columns = ", ".join(map(ident, names))
        self.slots = {name: f"?{number}" for number, name in enumerate(names, 1)}
        self.key_slots = [names.index(name) for name in identifiers]
        self.values = [name for name in names if name not in identifiers]
        self.left_out = [
            name for name, field in self.fields.items() if field.required and name not in self.slots
        ]
        self.on_key = " AND ".join(f"{ident(name)} = {self.slots[name]}" for name in identifiers)

    def run(self, connection: sqlite3.Connection, op: Op, rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
        """Writes the rows; yields position and code of those that the table did not take."""
        statement = {
            Op.UPSERT: self.upsert,
            Op.INSERT: self.insert,
            Op.UPDATE: self.update,
            Op.DELETE: self.delete,
        }[op]()
        may_skip = bool(connection.execute(_TRIGGERED, [self.name]).fetchone())
        if op in (Op.UPSERT, Op.DELETE) and not may_skip:
            connection.executemany(statement, [values for _, values in rows])
            return
        for position, values in rows:
            written = connection.execute(statement, values).rowcount > 0 if statement else False
            code = self._missed(connection, op, values, written=written, may_skip=may_skip)
            if code:
                yield position, code

    def _missed(
        self,
        connection: sqlite3.Connection,
        op: Op,
        values: tuple[Any, ...],
        *,
        written: bool,
        may_skip: bool,
    ) -> str:
        """The code of a row that the table did not take; '' where it holds what was sent."""

        def there(query: str) -> bool:
            return connection.execute(query, values).fetchone() is not None

        if op is Op.DELETE:
            return "skipped" if not written and there(self.found()) else ""
        if written and (op is not Op.UPSERT or there(self.found())):
            return ""
        if op is Op.UPDATE and not there(self.found()):
            return "not_found"
        as_sent = there(self.same()) if may_skip or op is Op.INSERT else there(self.found())
        return "" if as_sent else "exists" if op is Op.INSERT else "skipped"

    def give_up_unique_values(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Takes away the unique values that change of these rows, so that another one of them can have them."""
        aside = [
            (name, free)
            for name in self.values
            if name in self.contested and (free := unused(self.fields[name]))
        ]
        if aside:
            changes = ", ".join(f"{ident(name)} = {free}" for name, free in aside)
            differs = " OR ".join(
                f"{ident(name)} IS NOT {self.slots[name]} COLLATE BINARY" for name, _ in aside
            )
            statement = (
                f"UPDATE {self.table} SET {changes} WHERE {self.on_key} AND ({differs}){self.every_slot()}"
            )
            connection.executemany(statement, [values for _, values in rows])

    def upsert(self) -> str:
        changes = ", ".join(f"{ident(name)} = excluded.{ident(name)}" for name in self.values)
        differs = " OR ".join(
            f"{self.table}.{ident(n)} IS NOT excluded.{ident(n)} COLLATE BINARY" for n in self.values
        )
        action = f"DO UPDATE SET {changes} WHERE {differs}" if self.values else "DO NOTHING"
        return f"{self._insert(self.left_out)} ON CONFLICT ({self.keys}) {action}"

    def insert(self) -> str:
        return f"{self._insert()} ON CONFLICT ({self.keys}) DO NOTHING"

    def update(self) -> str:
        if not self.values:
            return ""
        changes = ", ".join(f"{ident(name)} = {self.slots[name]}" for name in self.values)
        return f"UPDATE {self.table} SET {changes} WHERE {self.on_key} AND ({self.differs()})"

    def delete(self) -> str:
        return f"DELETE FROM {self.table} WHERE {self.on_key}"

    def found(self) -> str:
        return f"SELECT 1 FROM {self.table} WHERE {self.on_key}{self.every_slot()}"

    def same(self) -> str:
        differs = f" AND NOT ({self.differs()})" if self.values else ""
        return f"SELECT 1 FROM {self.table} WHERE {self.on_key}{differs}{self.every_slot()}"

    def _insert(self, held: Sequence[str] = ()) -> str:
        """`held`: columns that have the value of the row that is there. SQLite looks for NULLs before it looks for a conflict
        (sqlite.org/lang_upsert.html), so a row that is only updated would be refused for a column that it leaves out."""
        columns = ", ".join([self.columns, *map(ident, held)])
        there = [f"(SELECT {ident(name)} FROM {self.table} WHERE {self.on_key})" for name in held]
        return f"INSERT INTO {self.table} ({columns}) VALUES ({', '.join([*self.slots.values(), *there])})"

    def differs(self) -> str:
        """BINARY: a NOCASE column would hide a change of case."""
        return " OR ".join(f"{ident(name)} IS NOT {self.slots[name]} COLLATE BINARY" for name in self.values)

    def every_slot(self) -> str:
        """A statement takes as many values as its highest slot: name the last one, always true."""
        last = f"?{len(self.slots)}"
        return f" AND {last} IS {last}"


def unused(field: Field) -> str:
    """An expression for a value that no row has; '' where the type has none."""
    if field.nullable and not field.required:
        return "NULL"
    if field.type is FieldType.STRING:
        return "hex(randomblob(16))"
    return "-abs(random() / 2)" if field.type is FieldType.INTEGER else ""


def lookup(table: Table, identifiers: Sequence[str], fields: Sequence[str]) -> str:
    on = " AND ".join(named(table, name, number) for number, name in enumerate(identifiers, 1))
    return f"SELECT {', '.join(map(ident, fields))} FROM {table.sql} WHERE {on}"


def named(table: Table, name: str, number: int) -> str:
    """A column without an affinity holds numbers as numbers, which no text equals (sqlite.org/datatype3.html, 4.2)."""
    if table.schema.fields[name].type is not FieldType.ANY:
        return f"{ident(name)} = ?{number}"
    as_number = f"CAST(?{number} AS NUMERIC)"
    return f"{ident(name)} IN (?{number}, iif(CAST({as_number} AS TEXT) = ?{number}, {as_number}, ?{number}))"
