"""PostgreSQL: bulk writes by COPY and one statement a batch, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from backhaul.destinations.kit import Account, Batch, Destination, DestinationConfig, Http, Secret, Spec, Wire
from backhaul.destinations.postgres.codes import REFUSALS
from backhaul.destinations.sql import Table, but, key_columns, same_value
from backhaul.errors import Refused, UsageError
from backhaul.types import COMMON_OPS, BatchLimits, Field, ObjectSchema, Op, Outcomes

if TYPE_CHECKING:
    from psycopg import AsyncCursor

    from backhaul.destinations.postgres.statements import Statements

__all__ = ["Postgres", "PostgresConfig"]

_FIXES = {
    "21000": "two rows of the model are one row of the table: make the identifier unique in the model",
    "22001": "shorten the value in the model (left(x, n)), or alter the column to a longer type",
    "22003": "bring the value into the column's range in the model, or alter the column to a wider type",
    "22007": "cast the value to a date or timestamp in the model",
    "22008": "bring the date into PostgreSQL's range in the model",
    "22021": "remove what the database's encoding has not (such as NUL characters) in the model",
    "22P02": "cast the value to the column's type in the model, or map it to a column of its own type",
    "22P05": "the database's encoding has no such character: replace it in the model, or use a UTF8 database",
    "42501": "the row is against a policy of row security: mend it in the model, or grant the role BYPASSRLS",
    "skipped": "change the trigger, rule or row security policy that skips this row, or exclude the row from the model",
    "23502": "give the column a value in the model (coalesce) or `default:` in the mapping, or drop its NOT NULL",
    "23503": "deliver the row it refers to first (its sync before this one), or mend the reference in the model",
    "23505": "another row of the table has this unique value: make it unique in the model, or mend the table",
    "23514": "bring the value within the column's CHECK in the model, or alter the constraint",
    "54000": "the value is longer than an index takes: shorten it in the model, or index a hash of it",
    "P0001": "a trigger of the table refuses this row: see its message, then mend the model or the trigger",
    "exists": "the table has this row from elsewhere: use mode upsert to take it over, or leave the row out",
    "not_found": "the table has no such row: use mode upsert to have it made, or leave the row out",
}
"""By SQLSTATE (PostgreSQL documentation, appendix A)."""
_BATCH = BatchLimits(records=50_000, bytes=16_000_000)


class PostgresConfig(DestinationConfig):
    """A PostgreSQL database. Its objects are tables: `table`, `schema.table`, `"Odd Table"`."""

    dsn: Secret
    """A connection string, such as postgresql://user:password@host:5432/database."""


class Postgres(Destination[PostgresConfig]):
    """Tables of one database. Needs SELECT, INSERT and UPDATE on the table (DELETE to delete), and
    TEMP on the database, which PostgreSQL grants to all by default."""

    spec: ClassVar[Spec] = Spec(
        name="postgres",
        config=PostgresConfig,
        docs="Tables of a PostgreSQL database, written in bulk; unchanged rows are not rewritten.",
        batch=dict.fromkeys((*COMMON_OPS, Op.MOVE), _BATCH),
        concurrency=2,
        wire=Wire.CSV,
        states_account=True,
        repeatable=frozenset(Op),
        refusals=REFUSALS,
        sources="PostgreSQL documentation, appendix A",
        fixes=_FIXES,
        nulls="NULL is stored as NULL; an empty text stays an empty text",
    )

    def __init__(self, config: PostgresConfig, http: Http) -> None:
        super().__init__(config, http)
        try:
            from backhaul.destinations.postgres.sessions import Sessions
        except ImportError:
            raise UsageError(
                "the postgres driver is missing", hint="pip install 'backhaul[postgres]'"
            ) from None
        self._sessions = Sessions(config.dsn.get_secret_value(), self.concurrency, config.timeout)
        self._tables: dict[str, Table] = {}

    @property
    def address(self) -> str:
        return self._sessions.address

    async def account(self) -> Account | None:
        """Return the database and its schema, on the server whose cluster has this identifier (PostgreSQL: pg_control_system). A
        physical copy, such as a restored snapshot, has the same one."""
        async with self._sessions.transaction() as cursor:
            await cursor.execute(
                "SELECT oid, current_database(), current_schema(), "
                "coalesce(has_function_privilege(to_regprocedure('pg_control_system()'), 'execute'), false) "
                "FROM pg_database WHERE datname = current_database()"
            )
            oid, name, schema, may_ask = await cursor.fetchone() or (0, "", "", False)
            server = ""
            if may_ask:
                await cursor.execute("SELECT system_identifier FROM pg_control_system()")
                ((server,),) = await cursor.fetchall()
        label = f"PostgreSQL database {name}" + ("" if schema in (None, "public") else f" (schema {schema})")
        return Account(f"{server}/{oid}/{schema}", label, copies=True)

    async def open(self) -> None:
        async with self._sessions.transaction():
            pass

    async def close(self) -> None:
        await self._sessions.close()

    async def describe(self, object: str) -> ObjectSchema:
        from backhaul.destinations.postgres import catalog

        table = await self._described(object)
        async with self._sessions.transaction() as cursor:
            await catalog.require_writing(cursor, table)
        return table.schema

    def moves(self, object: str, identifiers: tuple[str, ...]) -> Op | None:
        return Op.MOVE

    async def write(self, batch: Batch) -> Outcomes:
        from backhaul.destinations.postgres.moving import Moving, move
        from backhaul.destinations.postgres.statements import statements

        table = self._tables.get(batch.object) or await self._described(batch.object)
        table.require_unique(batch.identifiers)
        fields = table.fields(batch.fields)
        async with self._sessions.transaction() as cursor:
            if batch.op is Op.MOVE:
                missed = await move(cursor, Moving(table, batch.identifiers, fields), batch)
            else:
                plan = statements(batch.op, table, batch.identifiers, fields, set_aside=batch.set_aside)
                missed = await run(cursor, plan, batch)
        return but(batch, missed)

    async def read(
        self,
        object: str,
        identifiers: tuple[str, ...],
        keys: Sequence[str],
        fields: Sequence[str],
    ) -> dict[str, dict[str, Any]]:
        from backhaul.destinations.postgres.statements import lookup

        table = self._tables.get(object) or await self._described(object)
        table.fields([Field(name) for name in (*identifiers, *fields)])
        async with self._sessions.transaction() as cursor:
            await cursor.execute(lookup(table, identifiers, fields), key_columns(keys, len(identifiers)))
            rows = await cursor.fetchall()
        return {keys[row[0] - 1]: dict(zip(fields, row[1:], strict=True)) for row in rows}

    async def as_stored(self, object: str, values: Sequence[tuple[str, Any]]) -> Sequence[Any]:
        """As a column of the same type stores them: many types take several spellings of one value."""
        from backhaul.destinations.postgres.statements import storing

        table = self._tables.get(object) or await self._described(object)
        found = [value for _, value in values]
        for name in {name for name, _ in values}:
            stage, copying, select = storing(table, table.schema.fields[name])
            lines = [_line(place, value) for place, (of, value) in enumerate(values) if of == name]
            async with self._sessions.transaction() as cursor:
                await cursor.execute(stage)
                async with cursor.copy(copying) as copy:
                    await copy.write("".join(lines))
                await cursor.execute(select)
                for place, value in await cursor.fetchall():
                    found[place] = value
        return found

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        return same_value(field, sent, held)

    async def _described(self, name: str) -> Table:
        from backhaul.destinations.postgres import catalog

        async with self._sessions.transaction() as cursor:
            self._tables[name] = await catalog.table(cursor, name)
        return self._tables[name]


def _line(place: int, value: str) -> str:
    """CSV of a numbered value."""
    return '{},"{}"\n'.format(place, value.replace('"', '""'))


async def run(cursor: AsyncCursor[Any], plan: Statements, batch: Batch) -> dict[int, tuple[str, str]]:
    """Writes a batch inside an open transaction; code and message of the records that the table did not take, by position.

    Raises:
        Refused: two records of the batch are one row of the table.
    """
    from backhaul.destinations.postgres.statements import MESSAGES

    await cursor.execute(plan.stage)
    async with cursor.copy(plan.copy) as copy:
        await copy.write(batch.text())
    if plan.twice and await (await cursor.execute(plan.twice)).fetchone():
        raise Refused("two records of the batch have the same key in the table", code="21000")
    if plan.set_aside:
        await cursor.execute(plan.set_aside)
    await cursor.execute(plan.apply)
    if plan.missed is None:
        return {}
    passed = [row[0] for row in await cursor.fetchall()] if plan.passed else []
    if plan.passed and not passed:
        return {}
    await cursor.execute(plan.missed, [passed] if plan.passed else None)
    return {row[0]: (row[1], MESSAGES[row[1]]) for row in await cursor.fetchall()}
