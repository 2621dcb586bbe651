"""Rows that get another identifier, in one transaction: what else a row holds stays in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backhaul.destinations.kit import Batch
from backhaul.destinations.postgres.statements import MESSAGES, STAGE, Writing, escaped, staging, unlike_all
from backhaul.destinations.sql import Table, key_columns, passed_on, position
from backhaul.errors import Refused
from backhaul.sql import ident
from backhaul.types import Field

if TYPE_CHECKING:
    from psycopg import AsyncCursor


class Moving(Writing):
    """Writes the statements; the staged rows hold their previous identifiers too."""

    def __init__(self, table: Table, identifiers: Sequence[str], fields: Sequence[Field]) -> None:
        super().__init__(table, identifiers, fields)
        self.previous = [ident(position(fields, f"previous{number}")) for number in range(len(identifiers))]
        self.on_previous = " AND ".join(
            f"held.{key} = sent.{previous}" for key, previous in zip(self.keys, self.previous, strict=True)
        )
        self.free = next(
            ((number, free) for number, name in enumerate(identifiers) if (free := unlike_all(table.schema.fields[name]))),
            None,
        )  # fmt: skip
        """Which part of the identifier can have a value that no row has, and an expression for one."""

    def staging(self) -> tuple[str, str]:
        more = [f"{key} AS {previous}" for key, previous in zip(self.keys, self.previous, strict=True)]
        if self.free is not None:
            more.append(f"{self.keys[self.free[0]]} AS {self.aside}")
        return staging(self.table, self.fields, numbered=True, more=more)

    @property
    def aside(self) -> str:
        return ident(position(self.fields, "aside"))

    def name_previous(self) -> str:
        """Parameters: one text array for each identifier."""
        names = [f"k{number}" for number in range(len(self.keys))]
        changes = ", ".join(
            f"{previous} = given.{name}::{self.table.schema.fields[identifier].native_type}"
            for previous, name, identifier in zip(self.previous, names, self.identifiers, strict=True)
        )
        given = f"unnest({', '.join('%s::text[]' for _ in names)}) WITH ORDINALITY AS given({', '.join(names)}, place)"
        return (
            f"UPDATE {STAGE} AS sent SET {escaped(changes)} FROM {given} "
            f"WHERE sent.{escaped(self.number)} = given.place - 1"
        )

    def settle(self) -> str:
        """Of given positions: a row that is under its new identifier as sent, where its previous one holds another, was moved
        by an attempt whose answer was lost."""
        rows = self._sent(self.number, *self.previous)
        there = (
            f"EXISTS (SELECT FROM {self.table.sql} AS held WHERE {{on}} AND NOT ({self._differs('sent')}))"
        )
        is_moved = f"{there.format(on=self.on_key)} AND NOT {there.format(on=self.on_previous)}"
        return (
            f"UPDATE {STAGE} AS stage SET {self.previous[0]} = NULL FROM {escaped(rows)} AS sent "
            f"WHERE stage.{escaped(self.number)} = sent.{escaped(self.number)} AND sent.{escaped(self.number)} = ANY(%s) "
            f"AND {escaped(is_moved)}"
        )

    def let_go(self) -> list[str]:
        """Each of given positions lets go of its identifier, for one that no row has. The first statement takes the positions."""
        if self.free is None:
            return []
        part, free = self.free
        key, previous, held = self.keys[part], self.previous[part], f"{self.table.sql} AS held"
        value = free.format_map({"number": self.number, "table": self.table.sql})
        among = f"{escaped(self.number)} = ANY(%s) AND {self.previous[0]} IS NOT NULL"
        named = f"{self.on_previous} AND sent.{self.aside} IS NOT NULL"
        return [
            f"UPDATE {STAGE} SET {escaped(self.aside)} = {escaped(value)} WHERE {among}",
            f"UPDATE {held} SET {key} = sent.{self.aside} FROM {STAGE} AS sent WHERE {named}",
            f"UPDATE {STAGE} SET {previous} = {self.aside} WHERE {self.aside} IS NOT NULL",
        ]

    def move(self) -> str:
        changes = [f"{key} = sent.{key}" for key in self.keys]
        changes += [self._assignments("sent")] if self.values else []
        return (
            f"UPDATE {self.table.sql} AS held SET {', '.join(changes)} FROM {self._sent(*self.previous)} AS sent "
            f"WHERE {self.on_previous}"
        )

    def stuck(self) -> str:
        """Rows that let go of their identifier and did not get another."""
        return f"SELECT 1 FROM {STAGE} AS sent JOIN {self.table.sql} AS held ON {self.on_previous} WHERE {self.aside} IS NOT NULL"

    def unmoved(self) -> str:
        """Position and code of the rows that the table did not take."""
        there = f"SELECT FROM {self.table.sql} AS held WHERE"
        as_sent = f" AND NOT ({self._differs('sent')})" if self.values and self.table.may_skip else ""
        code = f"CASE WHEN EXISTS ({there} ({self.on_previous}) OR ({self.on_key})) THEN 'skipped' ELSE 'not_found' END"
        return (
            f"SELECT sent.{self.number}, {code} FROM {self._sent(self.number, *self.previous)} AS sent "
            f"WHERE NOT EXISTS ({there} {self.on_key}{as_sent})"
        )


async def move(cursor: AsyncCursor[Any], plan: Moving, batch: Batch) -> dict[int, tuple[str, str]]:
    """Moves the rows of a batch inside an open transaction; code and message of those that the table did not take, by position.

    Raises:
        Refused: two records of the batch are one row of the table, or a row let go of its identifier and did not get its new one.
    """
    stage, copying = plan.staging()
    await cursor.execute(stage)
    async with cursor.copy(copying) as copy:
        await copy.write(batch.text())
    if (twice := plan.twice()) and await (await cursor.execute(twice)).fetchone():
        raise Refused("two records of the batch have the same key in the table", code="21000")
    await cursor.execute(plan.name_previous(), key_columns(batch.previous_keys, len(plan.keys)))
    passed = passed_on(batch)
    if passed and plan.values:
        await cursor.execute(plan.settle(), [passed])
    for number, statement in enumerate(plan.let_go() if passed else ()):
        await cursor.execute(statement, [passed] if number == 0 else None)
    await cursor.execute(plan.move())
    if passed and plan.free is not None and await (await cursor.execute(plan.stuck())).fetchone():
        raise Refused(MESSAGES["skipped"], code="skipped")
    if plan.values:
        await cursor.execute(plan.update())
    await cursor.execute(plan.unmoved())
    return {row[0]: (row[1], MESSAGES[row[1]]) for row in await cursor.fetchall()}
