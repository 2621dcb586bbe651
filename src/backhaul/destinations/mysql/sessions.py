"""Connections to MySQL or MariaDB: one transaction at a time on each, under settings that change no value silently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiomysql
from pymysql.err import MySQLError

from backhaul.destinations.mysql.address import address
from backhaul.destinations.mysql.answers import lost, meaning, not_connected
from backhaul.errors import Halt

_CONNECT = 10.0
"""Seconds for a connection to be made."""
_MODES = (
    "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,"
    "NO_AUTO_VALUE_ON_ZERO,ANSI_QUOTES,NO_BACKSLASH_ESCAPES"
)
"""Strict: what does not fit is an error. NO_AUTO_VALUE_ON_ZERO: 0 in a key stays 0. The last two: quotes as in standard SQL."""


class Session:
    """One connection inside a transaction."""

    def __init__(self, cursor: Any, packet: int) -> None:
        self._cursor = cursor
        self.packet = packet
        """Bytes that one statement may have."""

    async def run(self, sql: str) -> int:
        """Runs a statement; the number of rows that it changed."""
        return int(await self._cursor.execute(sql))

    async def rows(self, sql: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        await self._cursor.execute(sql, values)
        return list(await self._cursor.fetchall())


class Sessions:
    """At most `size` connections, opened when needed and kept. `timeout` is of one transaction, in s."""

    def __init__(self, dsn: str, size: int, timeout: float) -> None:
        self._dsn, self._timeout = dsn, timeout
        self._slots = asyncio.Semaphore(size)
        self._idle: list[tuple[Any, int]] = []
        wait = max(int(timeout * 0.8), 1)
        self._settings = (
            f"SET SESSION sql_mode = '{_MODES}', time_zone = '+00:00', sql_notes = 0, foreign_key_checks = 1, "
            f"unique_checks = 1, innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {wait}"
        )

    @property
    def address(self) -> str:
        """host:port/database, without a secret; empty where the DSN is none."""
        try:
            given = address(self._dsn)
        except Halt:
            return ""
        return f"{given['unix_socket'] or given['host']}:{given['port']}/{given['db'] or ''}"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A session whose transaction is committed at the end, and rolled back on any error.

        Raises:
            NotApplied: no connection, a deadlock, a lock, a time limit: nothing was committed.
            Throttled: the server has no connection to spare.
            Unsettled: the connection was lost while the commit was on its way.
            Refused: the server refused the rows.
            Halt: the server refuses us.
        """
        committing = clean = False
        held: tuple[Any, int] | None = None
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout):
                    held = await self._connected()
                    async with held[0].cursor() as cursor:
                        await cursor.execute("START TRANSACTION")
                        yield Session(cursor, held[1])
                        committing = True
                        await cursor.execute("COMMIT")
                clean = True
            except MySQLError as error:
                raise meaning(error, committing=committing) from None
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                raise lost(str(error) or f"no answer within {self._timeout:g} s", committing) from None
            finally:
                if held is not None:
                    self._give_back(held, clean)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop()[0].ensure_closed()

    async def _connected(self) -> tuple[Any, int]:
        while self._idle:
            kept = self._idle.pop()
            if not kept[0].closed:
                return kept
        where = address(self._dsn)
        try:
            opened = await aiomysql.connect(
                **where, charset="utf8mb4", autocommit=True, connect_timeout=_CONNECT, program_name="backhaul"
            )
        except (MySQLError, OSError, RuntimeError, asyncio.IncompleteReadError) as error:
            raise not_connected(error) from None
        try:
            async with opened.cursor() as cursor:
                await cursor.execute(self._settings)
                # with REPEATABLE READ two batches of different keys would wait for each other's gaps
                await cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                await cursor.execute("SELECT @@max_allowed_packet")
                (packet,) = await cursor.fetchone()
        except BaseException:
            opened.close()
            raise
        return opened, int(packet)

    def _give_back(self, held: tuple[Any, int], clean: bool) -> None:
        """A connection whose transaction did not end well is closed, which rolls it back."""
        if clean:
            self._idle.append(held)
        else:
            held[0].close()
