"""Rows that get another identifier, in one transaction: what else a row holds stays in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from backhaul.destinations.kit import Batch
from backhaul.destinations.mysql.catalog import Held
from backhaul.destinations.mysql.literals import converter
from backhaul.destinations.mysql.sessions import Session
from backhaul.destinations.mysql.statements import NOT_FOUND, SKIPPED, Refusals, Writing, exactly, new_value
from backhaul.destinations.sql import key_columns, passed_on, position
from backhaul.sql import ident
from backhaul.types import Field, FieldType


class Moving(Writing):
    """Writes one table's rows under other identifiers; the staged rows hold their previous ones too."""

    def __init__(self, table: Held, identifiers: Sequence[str], fields: Sequence[Field]) -> None:
        super().__init__(table, identifiers, fields)
        self.identifiers = identifiers
        self.previous = [ident(position(fields, f"previous{number}")) for number in range(len(identifiers))]
        pairs = list(zip(identifiers, self.previous, strict=True))
        on = [f"held.{ident(name)} = sent.{previous}" for name, previous in pairs]
        on += [
            f"{exactly(f'lower(held.{ident(name)})')} = {exactly(f'lower(sent.{previous})')}"
            for name, previous in pairs
            if name in table.texts
        ]
        self.held_before = f"{table.stage} AS sent STRAIGHT_JOIN {table.sql} AS held ON {' AND '.join(on)}"

    async def stage(self, session: Session, batch: Batch, rows: Iterable[str]) -> None:
        named = [self.table.schema.fields[name] for name in self.identifiers]
        texts = zip(*key_columns(batch.previous_keys, len(named)), strict=True)
        write = [converter(field) for field in named]
        before = (",".join(one(text) for one, text in zip(write, row, strict=True)) for row in texts)
        more = [
            f"{previous} {self.table.columns[name]}"
            for name, previous in zip(self.identifiers, self.previous, strict=True)
        ]
        await self.staged(session, (f"{row},{key}" for row, key in zip(rows, before, strict=True)), more)

    async def move(self, session: Session, batch: Batch) -> Refusals:
        """Writes the staged rows; the records that the table did not take."""
        if passed := await self._still_to_move(session, passed_on(batch)):
            await self._let_go(session, passed)
        changes = [f"held.{key} = sent.{key}" for key in self.keys]
        changes += [f"held.{ident(field.name)} = {new_value(field)}" for field in self.values]
        await session.run(f"UPDATE {self.held_before} SET {', '.join(changes)}")
        if self.values:
            await session.run(self.update())
        left = await session.rows(
            f"SELECT sent.{self.number} FROM {self.held_before} WHERE NOT ({self.on_key})"
        )
        return await self.missed(session, NOT_FOUND) | {row[0]: SKIPPED for row in left}

    async def _still_to_move(self, session: Session, passed: Sequence[int]) -> list[int]:
        """Of these positions, those whose row was not moved by an attempt whose answer was lost: then it is under its new
        identifier as sent, and its previous one holds another."""
        if not passed or not self.values:
            return list(passed)
        among = f"sent.{self.number} IN ({_listed(passed)}) AND NOT ({self._differs()})"
        moved = await session.rows(
            f"SELECT sent.{self.number} FROM {self.joined} WHERE {self.same_key} AND {among}"
        )
        before = await session.rows(f"SELECT sent.{self.number} FROM {self.held_before} WHERE {among}")
        done = {row[0] for row in moved} - {row[0] for row in before}
        if done:
            await session.run(
                f"UPDATE {self.table.stage} SET {self.previous[0]} = NULL WHERE {self.number} IN ({_listed(done)})"
            )
        return [number for number in passed if number not in done]

    async def _let_go(self, session: Session, passed: Sequence[int]) -> None:
        """Each of these rows lets go of its identifier, for one that no row has."""
        for name, previous in zip(self.identifiers, self.previous, strict=True):
            if free := unlike_all(self.table.schema.fields[name], self.table.sql, self.number):
                aside, key = ident(position(self.fields, "aside")), ident(name)
                column = f"{aside} {self.table.columns[name]}"
                among = f"{self.number} IN ({_listed(passed)})"
                for statement in (
                    f"ALTER TABLE {self.table.stage} ADD COLUMN {column}",
                    f"UPDATE {self.table.stage} SET {aside} = {free} WHERE {among}",
                    f"UPDATE {self.held_before} SET held.{key} = sent.{aside} WHERE sent.{aside} IS NOT NULL",
                    f"UPDATE {self.table.stage} SET {previous} = {aside} WHERE {aside} IS NOT NULL",
                ):
                    await session.run(statement)
                return


def unlike_all(field: Field, table: str, number: str) -> str:
    """An expression for a value that no row of the table has; '' where the type has none."""
    name = ident(field.name)
    if field.type is FieldType.STRING and field.choices is None:
        longest = min(field.max_length or 36, 36)
        return f"left(uuid(), {longest})" if longest >= 8 else ""
    if field.type is not FieldType.INTEGER:
        return ""
    if "unsigned" in (field.native_type or ""):
        return f"(SELECT max({name}) FROM {table}) + 1 + {number}"
    return f"(SELECT least(min({name}), 0) FROM {table}) - 1 - {number}"


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, numbers))
