"""The SQL of one batch: a temporary table, INSERTs into it, and from there what is missing and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backhaul.destinations.mysql import literals
from backhaul.destinations.mysql.catalog import Held
from backhaul.destinations.mysql.sessions import Session
from backhaul.destinations.sql import position
from backhaul.errors import Refused
from backhaul.sql import ident
from backhaul.types import Field, FieldType, Op

Refusals = dict[int, tuple[str, str]]
"""Code and message by a record's position in the batch."""

_EXISTS = ("exists", "a row with this key exists, with other values")
NOT_FOUND = ("not_found", "no row has this key")
_TAKEN = ("1062", "another row of the table has a unique value of this record")
SKIPPED = ("skipped", "a trigger of the table left the row as it was")
_SPELLING = ("spelling", "the table has this key spelt otherwise, which its collation takes for the same")


class Writing:
    """Writes one table's fields; `held` is the table, `sent` the rows in the temporary table."""

    def __init__(self, table: Held, identifiers: Sequence[str], fields: Sequence[Field]) -> None:
        self.table, self.fields = table, fields
        self.keys = [ident(name) for name in identifiers]
        self.values = [field for field in fields if field.name not in identifiers]
        self.number = ident(position(fields))
        self.on_key = " AND ".join(f"held.{key} = sent.{key}" for key in self.keys)
        spelt = [
            f"{exactly(f'lower(held.{ident(name)})')} = {exactly(f'lower(sent.{ident(name)})')}"
            for name in identifiers
            if name in table.texts
        ]
        self.same_key = " AND ".join(spelt) or "TRUE"
        self.joined = f"{table.stage} AS sent STRAIGHT_JOIN {table.sql} AS held ON {self.on_key}"
        self.outer = f"{table.stage} AS sent LEFT JOIN {table.sql} AS held ON {self.on_key}"

    async def staged(self, session: Session, rows: Iterable[str], more: Sequence[str] = ()) -> None:
        """Columns of the table's own types, and `more` behind the position. CREATE and DROP TEMPORARY do not end the
        transaction."""
        columns = [f"{ident(field.name)} {self.table.columns[field.name]}" for field in self.fields]
        columns += [f"{self.number} int NOT NULL", *more]
        await session.run(f"DROP TEMPORARY TABLE IF EXISTS {self.table.stage}")
        await session.run(f"CREATE TEMPORARY TABLE {self.table.stage} ({', '.join(columns)})")
        for statement in literals.statements(f"INSERT INTO {self.table.stage}", rows, session.packet):
            await session.run(statement)
        await self._refuse_nulls(session)

    async def _refuse_nulls(self, session: Session) -> None:
        """Raises: Refused."""
        for field in self.fields:
            if field.name in self.table.stamps and not field.skip_null:
                null = f"SELECT 1 FROM {self.table.stage} WHERE {ident(field.name)} IS NULL LIMIT 1"
                if await session.rows(null):
                    raise Refused(f"Column '{field.name}' cannot be null", code="1048")

    async def give_up_unique_values(self, session: Session, op: Op) -> None:
        """Takes away the unique values that change of staged rows, so that another row of the batch can have them."""
        aside = [
            (field, free)
            for field in self.values
            if field.name in self.table.contested and (free := unused(field))
        ]
        if aside and op in (Op.UPSERT, Op.UPDATE):
            changes = ", ".join(f"held.{ident(field.name)} = {free}" for field, free in aside)
            differs = " OR ".join(self._differ(field) for field, _ in aside)
            await session.run(f"UPDATE {self.joined} SET {changes} WHERE {self.same_key} AND ({differs})")

    async def run(self, session: Session, op: Op) -> Refusals:
        """Writes the staged rows; the records that the table did not take."""
        if op is Op.DELETE:
            await session.run(f"DELETE held FROM {self.joined} WHERE {self.same_key}")
            return {}
        if op is Op.INSERT:
            return await self._insert_only(session)
        if op is Op.UPSERT:
            await session.run(self.insert())
        kept = await self._update(session) if self.values else []
        return dict.fromkeys(kept, SKIPPED) | await self.missed(
            session, _TAKEN if op is Op.UPSERT else NOT_FOUND
        )

    async def _update(self, session: Session) -> list[int]:
        """Positions of the rows that were to change, and that a trigger left as they were."""
        if not self.table.may_skip:
            await session.run(self.update())
            return []
        before = self.table.stage.replace("backhaul_batch", "backhaul_before")
        names = [f"v{number}" for number, _ in enumerate(self.values)]
        held = [f"held.{ident(field.name)} AS {name}" for field, name in zip(self.values, names, strict=True)]
        await session.run(f"DROP TEMPORARY TABLE IF EXISTS {before}")
        await session.run(
            f"CREATE TEMPORARY TABLE {before} AS SELECT sent.{self.number} AS place, {', '.join(held)} "
            f"FROM {self.joined} WHERE {self.same_key} AND ({self._differs()})"
        )
        await session.run(self.update())
        as_before = " AND ".join(
            f"{exactly(f'held.{ident(field.name)}')} <=> {exactly(f'was.{name}')}"
            for field, name in zip(self.values, names, strict=True)
        )
        rows = await session.rows(
            f"SELECT was.place FROM {before} AS was STRAIGHT_JOIN {self.table.stage} AS sent ON sent.{self.number} = was.place "
            f"STRAIGHT_JOIN {self.table.sql} AS held ON {self.on_key} WHERE {self.same_key} AND {as_before}"
        )
        return [row[0] for row in rows]

    async def _insert_only(self, session: Session) -> Refusals:
        differs = self._differs() if self.values else "FALSE"
        taken = f"SELECT sent.{self.number} FROM {self.joined} WHERE {self.same_key} AND ({differs})"
        refused = {row[0]: _EXISTS for row in await session.rows(taken)}
        await session.run(self.insert())
        return refused | await self.missed(session, _TAKEN)

    async def missed(self, session: Session, code: tuple[str, str]) -> Refusals:
        """The staged rows whose key the table does not hold, now that all is written."""
        near = f"held.{self.keys[0]} IS NOT NULL"
        rows = await session.rows(
            f"SELECT sent.{self.number}, {near} FROM {self.outer} WHERE NOT ({near} AND {self.same_key})"
        )
        return {number: _SPELLING if spelt else code for number, spelt in rows}

    def insert(self) -> str:
        """ON DUPLICATE KEY fires on any unique key of the table, so it changes nothing: what it passes over is refused by
        `missed`, or was made by somebody else just now and is updated."""
        columns = [ident(field.name) for field in self.fields]
        key = f"{self.table.sql}.{self.keys[0]}"
        return (
            f"INSERT INTO {self.table.sql} ({', '.join(columns)}) "
            f"SELECT {', '.join(f'sent.{name}' for name in columns)} FROM {self.outer} "
            f"WHERE held.{self.keys[0]} IS NULL ON DUPLICATE KEY UPDATE {key} = {key}"
        )

    def update(self) -> str:
        changes = ", ".join(f"held.{ident(field.name)} = {new_value(field)}" for field in self.values)
        return f"UPDATE {self.joined} SET {changes} WHERE {self.same_key} AND ({self._differs()})"

    def lookup(self, names: Sequence[str]) -> str:
        """The rows of the staged keys."""
        columns = "".join(f", {shown(self.table.schema.fields[name])}" for name in names)
        return f"SELECT sent.{self.number}{columns} FROM {self.joined} WHERE {self.same_key}"

    def stored(self) -> str:
        """Position and value of the staged rows of one field, as `lookup` shows it."""
        return f"SELECT held.{self.number}, {shown(self.fields[0])} FROM {self.table.stage} AS held"

    def _differs(self) -> str:
        """Unchanged rows are not touched: no trigger, no lock, no log."""
        return " OR ".join(self._differ(field) for field in self.values)

    def _differ(self, field: Field) -> str:
        held, sent = f"held.{ident(field.name)}", new_value(field)
        if field.name in self.table.texts:
            held, sent = exactly(held), exactly(sent)
        return f"NOT ({held} <=> {sent})"


def unused(field: Field) -> str:
    """An expression for a value that no row has; '' where the type has none."""
    if field.nullable and not field.required:
        return "NULL"
    if field.type is FieldType.STRING and field.choices is None:
        longest = min(field.max_length or 36, 36)
        return f"left(uuid(), {longest})" if longest >= 8 else ""
    return "-1 - floor(rand() * 2000000000)" if field.type is FieldType.INTEGER else ""


def exactly(sql: str) -> str:
    """By its bytes: a collation takes 'a' and 'A', 'e' and 'é', or 'a' and 'a ' for the same."""
    return f"CAST({sql} AS BINARY)"


def new_value(field: Field) -> str:
    name = ident(field.name)
    return f"coalesce(sent.{name}, held.{name})" if field.skip_null else f"sent.{name}"


def shown(field: Field) -> str:
    """A column as it is read: a FLOAT in all its digits, BIT as a number, TIME as text."""
    name, native = f"held.{ident(field.name)}", field.native_type or ""
    if native.startswith(("float", "bit")):
        return f"{name} + {'0e0' if native.startswith('float') else '0'}"
    if field.type is FieldType.ANY and native.startswith("time"):
        return f"CAST({name} AS CHAR)"
    return name
