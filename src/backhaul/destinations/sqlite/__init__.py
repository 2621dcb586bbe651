"""SQLite: one transaction a batch, on one connection in a thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from backhaul.destinations.kit import Batch, Destination, DestinationConfig, Http, Spec, class_of
from backhaul.destinations.sql import Table, but, key_columns, same_value
from backhaul.destinations.sqlite import catalog, rows
from backhaul.destinations.sqlite.moving import Moving
from backhaul.destinations.sqlite.statements import Writing, lookup
from backhaul.errors import BackhaulError, Forbidden, Halt, NotApplied, Refused, Unsettled
from backhaul.types import COMMON_OPS, BatchLimits, Field, FieldType, ObjectSchema, Op, Outcomes, RefusalClass

__all__ = ["Sqlite", "SqliteConfig"]

T = TypeVar("T")
_MESSAGES = {
    "exists": "a row with this key exists, with other values",
    "not_found": "no row has this key",
    "skipped": "a trigger of the table left the row as it was",
}
"""What is said of a record that the table did not take, by its code."""
_TWICE = "another row of the table has this unique value: make it unique in the model, or mend the table"
_FIXES = {
    "SQLITE_CONSTRAINT_NOTNULL": "give the column a value in the model (coalesce) or `default:` in the mapping",
    "SQLITE_CONSTRAINT_UNIQUE": _TWICE,
    "SQLITE_CONSTRAINT_PRIMARYKEY": _TWICE,
    "SQLITE_CONSTRAINT_FOREIGNKEY": "deliver the row it refers to first (its sync before this one), or mend the reference",
    "SQLITE_CONSTRAINT_CHECK": "bring the value within the column's CHECK in the model, or alter the table",
    "SQLITE_CONSTRAINT_DATATYPE": "cast the value to the column's type in the model: the table is STRICT",
    "SQLITE_CONSTRAINT_TRIGGER": "a trigger of the table refuses this row: see its message, then mend the model or the trigger",
    "SQLITE_MISMATCH": "cast it in the model to what the column's type makes of it, or give the column the type TEXT",
    "skipped": "change the trigger that skips this row (RAISE(IGNORE)), or exclude the row from the model",
    "SQLITE_TOOBIG": "send the number as text into a TEXT column: SQLite would round it; or shorten the value",
    "exists": "the table has this row from elsewhere: use mode upsert to take it over, or leave the row out",
    "not_found": "the table has no such row: use mode upsert to have it made, or leave the row out",
}
"""By extended result code (sqlite.org, Result and Error Codes)."""
_UNNAMED = {3091: "SQLITE_CONSTRAINT_DATATYPE"}
"""Codes for which Python has no name."""
_REFUSALS = {
    **dict.fromkeys(("SQLITE_CONSTRAINT*", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "skipped", "exists", "not_found"),
                    RefusalClass.RECORD),
    **dict.fromkeys(("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"), RefusalClass.CONFLICT),
    "SQLITE_CONSTRAINT_FOREIGNKEY": RefusalClass.REFERENCE,
    "SQLITE_FULL": RefusalClass.CAPACITY,
    **dict.fromkeys(("SQLITE_BUSY*", "SQLITE_LOCKED*", "SQLITE_NOMEM", "SQLITE_PROTOCOL", "SQLITE_IOERR*", "SQLITE_INTERRUPT"),
                    RefusalClass.TRANSIENT),
    **dict.fromkeys(("SQLITE_ERROR", "SQLITE_READONLY*", "SQLITE_CANTOPEN*", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_CORRUPT*",
                     "SQLITE_NOTADB", "SQLITE_SCHEMA"), RefusalClass.CONFIGURATION),
}  # fmt: skip
"""By extended result code, or its beginning."""


class SqliteConfig(DestinationConfig):
    """An SQLite database that exists. Its objects are tables."""

    path: Path


class Sqlite(Destination[SqliteConfig]):
    """Tables of one SQLite file. Booleans are 0 and 1, objects and arrays their JSON text. A number that
    SQLite would round (beyond 64 bits, beyond a double) is refused: it needs a TEXT column."""

    spec: ClassVar[Spec] = Spec(
        name="sqlite",
        config=SqliteConfig,
        docs="Tables of an SQLite file, written in bulk; unchanged rows are not rewritten.",
        batch=dict.fromkeys((*COMMON_OPS, Op.MOVE), BatchLimits(records=20_000, bytes=8_000_000)),
        concurrency=1,
        repeatable=frozenset(Op),
        refusals=_REFUSALS,
        sources="sqlite.org, Result and Error Codes",
        fixes=_FIXES,
        nulls="NULL is stored as NULL; an empty text stays an empty text",
    )

    def __init__(self, config: SqliteConfig, http: Http) -> None:
        super().__init__(config, http)
        # one thread: a cancelled write ends before the next one begins
        self._thread = ThreadPoolExecutor(1, "sqlite")
        self._connection: sqlite3.Connection | None = None
        self._tables: dict[str, Table] = {}

    @property
    def address(self) -> str:
        return str(self.config.path)

    async def open(self) -> None:
        await self._in_thread(lambda connection: connection.execute("SELECT 1 FROM sqlite_schema").fetchone())

    async def close(self) -> None:
        if self._connection is not None:
            await self._in_thread(sqlite3.Connection.close)
            self._connection = None
        self._thread.shutdown()

    async def describe(self, object: str) -> ObjectSchema:
        self._tables[object] = await self._in_thread(lambda connection: catalog.table(connection, object))
        return self._tables[object].schema

    def moves(self, object: str, identifiers: tuple[str, ...]) -> Op | None:
        return Op.MOVE

    async def write(self, batch: Batch) -> Outcomes:
        if batch.object not in self._tables:
            await self.describe(batch.object)
        table = self._tables[batch.object]
        table.require_unique(batch.identifiers)
        table.fields(batch.fields)
        missed = await self._in_thread(lambda connection: write(connection, table, batch))
        return but(batch, {position: (code, _MESSAGES[code]) for position, code in missed})

    async def read(
        self,
        object: str,
        identifiers: tuple[str, ...],
        keys: Sequence[str],
        fields: Sequence[str],
    ) -> dict[str, dict[str, Any]]:
        if object not in self._tables:
            await self.describe(object)
        table = self._tables[object]
        table.fields([Field(name) for name in (*identifiers, *fields)])
        given = list(zip(*key_columns(keys, len(identifiers)), strict=True))
        statement = lookup(table, identifiers, fields)
        held = await self._in_thread(
            lambda connection: [connection.execute(statement, key).fetchone() for key in given]
        )
        return {key: dict(zip(fields, row, strict=True)) for key, row in zip(keys, held, strict=True) if row}

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        number = isinstance(sent, str) and isinstance(held, int | float)
        number = number and field.type in (FieldType.STRING, FieldType.ANY)
        return same_value(field, sent, str(held) if number else held)

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with meanings(self.config.path):
            if self._connection is None:
                self._connection = connected(self.config.path, self.config.timeout)
            return work(self._connection)


def connected(path: Path, timeout: float) -> sqlite3.Connection:
    """A connection to a file that exists; it waits `timeout` seconds for another writer."""
    if not path.is_file():
        raise Halt(f"there is no SQLite database at {path}", hint="create it and its tables first")
    uri = f"{path.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def meanings(path: Path) -> Iterator[None]:
    """What an error of SQLite means for the batch; its transaction has been rolled back."""
    try:
        yield
    except (sqlite3.Error, OverflowError) as error:
        raise meaning(error, path) from None


def meaning(error: Exception, path: Path) -> BackhaulError:
    full = getattr(error, "sqlite_errorcode", 0)
    code, name = full & 0xFF, _UNNAMED.get(full, getattr(error, "sqlite_errorname", ""))
    text = " ".join(str(error).split())[:300]
    if isinstance(error, OverflowError | sqlite3.DataError):
        return Refused(text, code=name, kind=RefusalClass.RECORD)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_INTERRUPT):
        return Unsettled(f"SQLite database {path}: {text}", code=name)
    kind = class_of(_REFUSALS, name)
    if kind is RefusalClass.CONFIGURATION or not name:
        return Forbidden(f"SQLite database {path}: {text}", code=name)
    if kind is RefusalClass.TRANSIENT:
        return NotApplied(f"SQLite database {path}: {text}", code=name)
    return Refused(text, code=name)


def write(connection: sqlite3.Connection, table: Table, batch: Batch) -> list[tuple[int, str]]:
    """Writes a batch in one transaction; position and code of the records that the table did not take."""
    groups = rows.grouped(
        batch, {name for name, field in table.schema.fields.items() if catalog.is_numeric(field)}
    )
    connection.execute("BEGIN IMMEDIATE")
    try:
        for names, group in groups.items() if batch.set_aside and batch.op in (Op.UPSERT, Op.UPDATE) else ():
            Writing(table, batch.identifiers, names).give_up_unique_values(connection, group)
        missed = list(
            Moving(connection, table, batch).run(groups)
            if batch.op is Op.MOVE
            else (
                skipped
                for names, group in groups.items()
                for skipped in Writing(table, batch.identifiers, names).run(connection, batch.op, group)
            )
        )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return missed
