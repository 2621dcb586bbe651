"""MySQL and MariaDB: bulk writes through a temporary table, in one transaction a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from backhaul.destinations.kit import Account, Batch, Destination, DestinationConfig, Http, Secret, Spec, Wire
from backhaul.destinations.mysql.answers import REFUSALS
from backhaul.destinations.sql import but, canonical, key_columns
from backhaul.errors import UsageError
from backhaul.types import COMMON_OPS, BatchLimits, Field, FieldType, ObjectSchema, Op, Outcomes, RefusalClass

if TYPE_CHECKING:
    from backhaul.destinations.mysql.catalog import Held

__all__ = ["Mysql", "MysqlConfig"]

_RANGE = "bring the value into the column's range in the model, or alter the column to a wider type"
_CAST = "cast the value to the column's type in the model, or map it to a column of its own type"
_CHECK = "bring the value within the column's CHECK in the model, or alter the constraint"
_TWICE = "another row of the table has this unique value: make it unique in the model, or mend the table"
_FIXES = {
    "1048": "give the column a value in the model (coalesce) or `default:` in the mapping, or drop its NOT NULL",
    "1062": _TWICE,
    "1118": "the row is longer than the engine takes: shorten its texts, or alter columns to TEXT",
    "1153": "shorten the value in the model, or raise max_allowed_packet of the server",
    "1264": _RANGE,
    "1265": _CAST,
    "1292": _CAST,
    "1364": "map this column too, or give it a default: a new row needs it",
    "1366": _CAST,
    "1406": "shorten the value in the model (left(x, n)), or alter the column to a longer type",
    "1452": "deliver the row it refers to first (its sync before this one), or mend the reference in the model",
    "1451": "other rows refer to this one: delete them first, or leave it in the model",
    "1644": "a trigger of the table refuses this row: see its message, then mend the model or the trigger",
    "1690": _RANGE,
    "3140": "bring the value into valid JSON in the model",
    "3819": _CHECK,
    "4025": _CHECK,
    "exists": "the table has this row from elsewhere: use mode upsert to take it over, or leave the row out",
    "not_found": "the table has no such row: use mode upsert to have it made, or leave the row out",
    "skipped": "change the trigger that leaves the row as it was, or exclude the row from the model",
    "spelling": "write the key as the table has it, or give its column a binary collation",
}
"""By error number (MySQL Server Error Message Reference; MariaDB Error Codes)."""
_REFUSALS = {**REFUSALS, **dict.fromkeys(("exists", "not_found", "skipped", "spelling"), RefusalClass.RECORD)}
_BATCH = BatchLimits(records=20_000, bytes=8_000_000)


class MysqlConfig(DestinationConfig):
    """A MySQL or MariaDB database. Its objects are tables: `table`, `database.table`, or in backticks."""

    dsn: Secret
    """mysql://user:password@host:3306/database, with ?ssl-mode=, ssl-ca= or socket= where needed."""


class Mysql(Destination[MysqlConfig]):
    """Tables of one server. Needs SELECT, INSERT and UPDATE on the table (DELETE to delete), and CREATE TEMPORARY
    TABLES on its database."""

    spec: ClassVar[Spec] = Spec(
        name="mysql",
        config=MysqlConfig,
        docs="Tables of a MySQL or MariaDB database, written in bulk; unchanged rows are not rewritten.",
        batch=dict.fromkeys((*COMMON_OPS, Op.MOVE), _BATCH),
        concurrency=2,
        wire=Wire.CSV,
        repeatable=frozenset(Op),
        refusals=_REFUSALS,
        states_account=True,
        sources="MySQL Server Error Message Reference; MariaDB Error Codes",
        fixes=_FIXES,
        nulls="NULL is stored as NULL; an empty text stays an empty text",
    )

    def __init__(self, config: MysqlConfig, http: Http) -> None:
        super().__init__(config, http)
        try:
            from backhaul.destinations.mysql.sessions import Sessions
        except ImportError:
            raise UsageError("the mysql driver is missing", hint="pip install 'backhaul[mysql]'") from None
        self._sessions = Sessions(config.dsn.get_secret_value(), self.concurrency, config.timeout)
        self._tables: dict[str, Held] = {}

    @property
    def address(self) -> str:
        return self._sessions.address

    async def account(self) -> Account | None:
        """Return the database on the server with this UUID (MySQL: server_uuid); a copy of its files has the same one.
        MariaDB states none: there the address counts."""
        async with self._sessions.transaction() as session:
            found = await session.rows("SHOW GLOBAL VARIABLES LIKE 'server_uuid'")
            ((name,),) = await session.rows("SELECT DATABASE()")
        return Account(f"{found[0][1]}/{name}", f"MySQL database {name}", copies=True) if found else None

    async def open(self) -> None:
        async with self._sessions.transaction():
            pass

    async def close(self) -> None:
        await self._sessions.close()

    async def describe(self, object: str) -> ObjectSchema:
        return (await self._described(object)).schema

    def moves(self, object: str, identifiers: tuple[str, ...]) -> Op | None:
        return Op.MOVE

    async def write(self, batch: Batch) -> Outcomes:
        from backhaul.destinations.mysql import literals
        from backhaul.destinations.mysql.moving import Moving
        from backhaul.destinations.mysql.statements import Writing

        table = self._tables.get(batch.object) or await self._described(batch.object)
        table.require_unique(batch.identifiers)
        fields = table.fields(batch.fields)
        rows = literals.rows(batch.text(), fields)
        if batch.op is Op.MOVE:
            moving = Moving(table, batch.identifiers, fields)
            async with self._sessions.transaction() as session:
                await moving.stage(session, batch, rows)
                refused = await moving.move(session, batch)
            return but(batch, refused)
        writing = Writing(table, batch.identifiers, fields)
        async with self._sessions.transaction() as session:
            await writing.staged(session, rows)
            if batch.set_aside:
                await writing.give_up_unique_values(session, batch.op)
            refused = await writing.run(session, batch.op)
        return but(batch, refused)

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        from backhaul.destinations.mysql.literals import converter
        from backhaul.destinations.mysql.statements import Writing

        table = self._tables.get(object) or await self._described(object)
        wanted = table.fields([Field(name) for name in fields])
        named = table.fields([Field(name) for name in identifiers])
        texts = [
            map(converter(field), column)
            for field, column in zip(named, key_columns(keys, len(identifiers)), strict=True)
        ]
        writing = Writing(table, identifiers, named)
        async with self._sessions.transaction() as session:
            rows = (f"{','.join(row)},{number}" for number, row in enumerate(zip(*texts, strict=True)))
            await writing.staged(session, rows)
            held = await session.rows(writing.lookup(fields))
        return {
            keys[row[0]]: {
                field.name: as_read(field, value) for field, value in zip(wanted, row[1:], strict=True)
            }
            for row in held
        }

    async def as_stored(self, object: str, values: Sequence[tuple[str, Any]]) -> Sequence[Any]:
        """As a column of the same type stores them: several types take more than one spelling of a value."""
        from backhaul.destinations.mysql.literals import converter
        from backhaul.destinations.mysql.statements import Writing

        table = self._tables.get(object) or await self._described(object)
        found = [value for _, value in values]
        for name in {name for name, _ in values}:
            (field,) = fields = table.fields([Field(name)])
            written, writing = converter(field), Writing(table, (name,), fields)
            rows = [f"{written(value)},{place}" for place, (of, value) in enumerate(values) if of == name]
            async with self._sessions.transaction() as session:
                await writing.staged(session, rows)
                for place, value in await session.rows(writing.stored()):
                    found[place] = as_read(field, value)
        return found

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        from backhaul.destinations.mysql.catalog import standard

        native = field.native_type or ""
        if sent is None or held is None:
            return sent is None and held is None
        if native.startswith("set("):
            return set(str(sent).split(",")) == set(str(held).split(","))
        named = replace(field, native_type=standard(native))
        one, other = canonical(named, sent), canonical(named, held)
        if isinstance(one, datetime) and isinstance(other, datetime) and native:
            # MySQL rounds to the column's precision, MariaDB cuts
            apart = abs(one.replace(tzinfo=None) - other.replace(tzinfo=None))
            return apart < timedelta(microseconds=10 ** (6 - precision(native)))
        return bool(one == other)

    async def _described(self, name: str) -> Held:
        from backhaul.destinations.mysql import catalog

        async with self._sessions.transaction() as session:
            self._tables[name] = await catalog.table(session, name)
        return self._tables[name]


def precision(native: str) -> int:
    """The decimal places of a second that datetime(n) or timestamp(n) keeps."""
    digits = native.partition("(")[2].rstrip(")")
    return int(digits) if digits.isdecimal() else 0


def as_read(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.type is FieldType.BOOLEAN:
        return value if value not in (0, 1) else bool(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
