"""Rows that get another identifier, in one transaction: what else a row holds stays in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from backhaul.destinations.kit import Batch
from backhaul.destinations.sql import Table, key_columns, passed_on
from backhaul.destinations.sqlite.statements import Row, Writing, named
from backhaul.errors import Refused
from backhaul.sql import ident
from backhaul.types import FieldType

Groups = Mapping[tuple[str, ...], Sequence[Row]]


class Moving:
    """Writes a batch of records whose identifiers change, row by row."""

    def __init__(self, connection: sqlite3.Connection, table: Table, batch: Batch) -> None:
        self.connection, self.table, self.batch = connection, table, batch
        self.previous: dict[int, tuple[Any, ...]] = dict(
            enumerate(zip(*key_columns(batch.previous_keys, len(batch.identifiers)), strict=True))
        )
        """The identifier under which the table holds each record, by position."""
        self.aside: set[int] = set()

    def run(self, groups: Groups) -> Iterator[tuple[int, str]]:
        """Position and code of the records that the table did not take."""
        self._let_go(groups)
        for names, rows in groups.items():
            writing = Writing(self.table, self.batch.identifiers, names)
            for position, values in rows:
                if code := self._move(writing, position, values):
                    yield position, code

    def _let_go(self, groups: Groups) -> None:
        """Rows whose identifiers others get take ones that no row has, unless an attempt whose answer was lost has moved them."""
        passed = set(passed_on(self.batch))
        waiting = []
        for names, rows in groups.items() if passed else ():
            writing = Writing(self.table, self.batch.identifiers, names)
            for position, values in rows:
                if position in passed:
                    waiting.append(position)
                    if self._is_moved(writing, position, values):
                        waiting.remove(position)
                        del self.previous[position]
        for position in waiting:
            self._take_unused(position)

    def _take_unused(self, position: int) -> None:
        """One part of the identifier is enough."""
        before = self.previous[position]
        for part, name in enumerate(self.batch.identifiers):
            free = self._unused(name)
            if free is not None:
                slot = f"?{len(before) + 1}"
                where = self._on_previous(1)
                self.connection.execute(
                    f"UPDATE {self.table.sql} SET {ident(name)} = {slot} WHERE {where}", (*before, free)
                )
                self.previous[position] = (*before[:part], free, *before[part + 1 :])
                self.aside.add(position)
                return

    def _unused(self, name: str) -> Any:
        """A value that no row has; None where the type has none."""
        kind = self.table.schema.fields[name].type
        if kind is FieldType.STRING:
            return uuid4().hex
        if kind is not FieldType.INTEGER:
            return None
        query = f"SELECT min(min({ident(name)}), 0) - 1 FROM {self.table.sql}"
        return self.connection.execute(query).fetchone()[0]

    def _on_previous(self, slot: int) -> str:
        return " AND ".join(
            named(self.table, name, number) for number, name in enumerate(self.batch.identifiers, slot)
        )

    def _is_moved(self, writing: Writing, position: int, values: tuple[Any, ...]) -> bool:
        """Whether the row is under its new identifier as sent, while its previous one holds another."""
        if not writing.values or not self._there(writing.same(), values):
            return False
        differs = writing.differs()
        query = (
            f"SELECT 1 FROM {self.table.sql} WHERE {self._on_previous(len(values) + 1)} AND NOT ({differs})"
        )
        return not self._there(query + writing.every_slot(), (*values, *self.previous[position]))

    def _move(self, writing: Writing, position: int, values: tuple[Any, ...]) -> str:
        """The code of a record that the table did not take; '' where it is under its new identifier."""
        before = self.previous.get(position)
        if before is not None:
            changes = ", ".join(f"{ident(name)} = {slot}" for name, slot in writing.slots.items())
            where = self._on_previous(len(values) + 1)
            moved = self.connection.execute(
                f"UPDATE {self.table.sql} SET {changes} WHERE {where}", (*values, *before)
            )
            if moved.rowcount > 0:
                return ""
            if self._there(f"SELECT 1 FROM {self.table.sql} WHERE {self._on_previous(1)}", before):
                if position in self.aside:
                    raise Refused("a trigger of the table left the row as it was", code="skipped")
                return "skipped"
        if update := writing.update():
            self.connection.execute(update, values)
        if not self._there(writing.found(), values):
            return "not_found"
        return "" if self._there(writing.same(), values) else "skipped"

    def _there(self, query: str, values: tuple[Any, ...]) -> bool:
        return self.connection.execute(query, values).fetchone() is not None
