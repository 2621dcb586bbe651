"""Connections to PostgreSQL: one transaction at a time on each, and what its errors mean for a batch."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from backhaul.destinations.kit import class_of
from backhaul.destinations.postgres.codes import REFUSALS
from backhaul.errors import BackhaulError, Forbidden, Halt, NotApplied, Refused, Unsettled
from backhaul.types import RefusalClass

_DEFAULTS = {"connect_timeout": "10", "fallback_application_name": "backhaul"}
_LOST = ("08", "57P")
_POLICY = "ExecWithCheckOptions"
"""What says that a row is against a policy of row security (PostgreSQL: src/backend/executor/execMain.c)."""
_NOT_NOW = re.compile(
    r"starting up|shutting down|recovery|too many|slots are reserved|remaining connection", re.IGNORECASE
)
_VALUE = re.compile(
    r': ".*"$|(?<=value )".*"(?= (is out of range|for )\b)|^".*"(?= is not a valid )', re.DOTALL
)
"""Where a message quotes a value (PostgreSQL's own messages of class 22)."""
_COPY_COLUMN = re.compile(r"COPY backhaul_batch, line \d+, column ([^:]+)")


class Sessions:
    """At most `size` connections, opened when needed and kept. `timeout` is of one transaction, in s."""

    def __init__(self, dsn: str, size: int, timeout: float) -> None:
        self._dsn, self._timeout = dsn, timeout
        self._slots = asyncio.Semaphore(size)
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        # ISO dates and UTC whatever the role's own settings: that is how the wire writes them
        self._begin = (
            f"BEGIN; SET LOCAL statement_timeout = {max(int(timeout * 1000), 1)}; "
            "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'"
        )

    @property
    def address(self) -> str:
        """host:port/database, without a secret; empty where the DSN is none."""
        try:
            given = conninfo_to_dict(self._dsn)
        except psycopg.Error:
            return ""
        where = given.get("host") or given.get("hostaddr") or given.get("service") or "localhost"
        return f"{where}:{given.get('port') or 5432}/{given.get('dbname') or given.get('user') or ''}"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncCursor[Any]]:
        """A cursor in a transaction that is committed at the end, and rolled back on any error.

        Raises:
            NotApplied: no connection, a lock, a time limit: nothing was committed.
            Unsettled: the connection was lost while the commit was on its way.
            Refused: the server refused the rows.
            Halt: the server refuses us.
        """
        committing = False
        connection: psycopg.AsyncConnection[Any] | None = None
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout):
                    connection = self._idle.pop() if self._idle else await self._connect()
                    cursor = connection.cursor()
                    await cursor.execute(self._begin)
                    yield cursor
                    committing = True
                    await cursor.execute("COMMIT")
            except psycopg.Error as error:
                raise meaning(error, committing=committing) from None
            except (TimeoutError, OSError) as error:
                raise lost(str(error) or f"no answer within {self._timeout:g} s", committing) from None
            finally:
                if connection is not None:
                    await self._give_back(connection)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        try:
            given = conninfo_to_dict(self._dsn)
            missing = {name: value for name, value in _DEFAULTS.items() if name not in given}
            # what is written is UTF-8, and the server converts it to the encoding of its database
            conninfo = make_conninfo(self._dsn, **{**missing, "client_encoding": "UTF8"})
        except psycopg.ProgrammingError:
            # libpq quotes the string in its message, password and all
            raise Halt(
                "dsn is not a PostgreSQL connection string", hint="postgresql://user@host/database"
            ) from None
        try:
            return await psycopg.AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            raise not_connected(error) from None

    async def _give_back(self, connection: psycopg.AsyncConnection[Any]) -> None:
        status = connection.info.transaction_status
        if status is TransactionStatus.INERROR:
            try:
                await connection.execute("ROLLBACK")
            except psycopg.Error:
                status = TransactionStatus.UNKNOWN
        if status in (TransactionStatus.IDLE, TransactionStatus.INERROR):
            self._idle.append(connection)
        else:
            await connection.close()


def not_connected(error: psycopg.OperationalError) -> BackhaulError:
    """A server that answers with FATAL refuses us, unless it says that it is only busy."""
    text = one_line(str(error))
    refuses = "FATAL" in text or "certificate" in text or "does not support SSL" in text
    if refuses and not _NOT_NOW.search(text):
        return Halt(
            f"PostgreSQL refuses the connection: {text}", hint="check user, password and database in the dsn"
        )
    return NotApplied(f"PostgreSQL is not reachable: {text}", code="08001")


def meaning(error: psycopg.Error, *, committing: bool) -> BackhaulError:
    """What an error of the server means for the batch; one before the commit has undone everything."""
    state = error.sqlstate or ""
    text = described(error)
    if not state and isinstance(error, psycopg.DataError):
        return Refused(text, code="22000")
    if not state or state.startswith(_LOST):
        return lost(text, committing, state)
    kind = class_of(REFUSALS, state)
    if state == "42501" and error.diag.source_function == _POLICY:
        return Refused(text, code=state, kind=RefusalClass.RECORD)
    if kind is RefusalClass.CREDENTIAL:
        return Halt(f"PostgreSQL refuses: {text} (SQLSTATE {state})")
    if kind is RefusalClass.CONFIGURATION:
        hint = "grant TEMPORARY on the database to this role" if "temporary tables" in text else None
        return Forbidden(f"PostgreSQL refuses: {text} (SQLSTATE {state})", hint=hint, code=state)
    return NotApplied(text, code=state) if kind is RefusalClass.TRANSIENT else Refused(text, code=state)


def lost(text: str, committing: bool, state: str = "") -> BackhaulError:
    kind = Unsettled if committing else NotApplied
    return kind(f"the connection to PostgreSQL was lost: {text}", code=state or "08006")


def described(error: psycopg.Error) -> str:
    """The server's message, column and constraint, without the row's values: its DETAIL stays out, and so does what follows
    `invalid input syntax for type integer`."""
    diag = error.diag
    text = one_line(_VALUE.sub("", diag.message_primary or str(error)))
    column = diag.column_name
    if not column and diag.context and (found := _COPY_COLUMN.search(diag.context)):
        column = found[1]
    if column and f'"{column}"' not in text:
        text += f" (column {column})"
    if diag.constraint_name and diag.constraint_name not in text:
        text += f" (constraint {diag.constraint_name})"
    return text


def one_line(text: str, limit: int = 300) -> str:
    return " ".join(text.split())[:limit]
