"""PostgreSQL through ADBC: one statement in a read-only snapshot, as Arrow, never held in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import SecretStr

from backhaul.errors import SourceError
from backhaul.extras import require_extra
from backhaul.warehouses.ahead import Ahead
from backhaul.warehouses.postgres_errors import address, explain, is_of_values, kind_of
from backhaul.warehouses.postgres_text import find_failing, is_unconvertible, not_utf8, validated
from backhaul.warehouses.postgres_types import Sent, sent
from backhaul.warehouses.protocol import Column, Warehouse, WarehouseConfig, narrowed
from backhaul.warehouses.stream import Stream

if TYPE_CHECKING:
    import duckdb

_BATCH_BYTES = 2 << 20
_TRY = "try it in the warehouse first"


class PostgresConfig(WarehouseConfig):
    """A PostgreSQL database."""

    dsn: SecretStr
    """postgresql://user:${PASSWORD}@host:5432/database"""


class Postgres(Warehouse):
    """A PostgreSQL database."""

    config: ClassVar[type[WarehouseConfig]] = PostgresConfig
    dialect: ClassVar[str] = "postgres"

    def __init__(self, config: Any, root: Path) -> None:
        super().__init__(config, root)
        require_extra("postgres", "a PostgreSQL warehouse")

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        described, _ = self._described(select)
        return tuple(Column(column.name, column.type, column.spoilt) for column in described)

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> Stream:  # fmt: skip
        import adbc_driver_manager
        import adbc_driver_postgresql.dbapi

        query = narrowed(select, columns, cursor)
        described, encoding = self._described(query)
        taken = ", ".join(column.sql for column in described)

        def why(error: Exception) -> str:
            return self._why(error, query, [column.name for column in described])

        connection = None
        try:
            connection = adbc_driver_postgresql.dbapi.connect(self._address())
            reading = connection.cursor()
            reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            reading.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
            reading.execute(f"SELECT {taken} FROM ({query}) AS model")
            reader = reading.fetch_record_batch()
            batches = Ahead(validated(reader) if encoding == "SQL_ASCII" else reader, reading.adbc_cancel)
        except adbc_driver_manager.Error as error:
            if connection is not None:
                connection.close()
            raise SourceError(f"the model does not run: {why(error)}", hint=_TRY) from None

        def release() -> None:
            batches.close()
            reading.close()
            with suppress(adbc_driver_manager.Error):
                # a pooler closes the server's connection where a client leaves in a transaction
                connection.rollback()
            connection.close()

        def again() -> Stream:
            return self.relation(engine, select, columns=columns, cursor=cursor)

        cast = ", ".join(column.cast for column in described)
        return Stream(engine, reader.schema, batches, cast, why, again, release)

    def _address(self) -> str:
        return address(self.settings.dsn.get_secret_value())

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """A connection in a read-only transaction. It keeps nothing in its session, which a pooler shares with other clients."""
        import psycopg

        with psycopg.connect(self._address(), autocommit=True, prepare_threshold=None) as connection:
            connection.read_only = True
            with connection.transaction():
                yield connection

    def _described(self, select: str) -> tuple[list[Sent], str | None]:
        """The columns of a SELECT, after checking that this user may run it, and the database's encoding; reads no row."""
        import psycopg

        try:
            with self._transaction() as connection:
                encoding = connection.info.parameter_status("server_encoding")
                found = _prepared(connection, select)
                connection.execute(f"SELECT FROM ({select}\n) AS model LIMIT 0".encode())
                kinds = connection.execute(
                    "SELECT oid, typtype, typcategory, typname FROM pg_catalog.pg_type WHERE oid = ANY(%s)",
                    [[oid for _, oid, _ in found]],
                ).fetchall()
        except psycopg.OperationalError as error:
            raise SourceError(explain(error), hint="see `dsn` in backhaul.yml") from None
        except psycopg.Error as error:
            raise SourceError(f"the model does not run: {explain(error)}", hint=_TRY) from None
        known = {row[0]: (_text(row[1]), _text(row[2]), row[3]) for row in kinds}
        return [sent(name, oid, modifier, known.get(oid)) for name, oid, modifier in found], encoding

    def _why(self, error: Exception, select: str, columns: Sequence[str]) -> str:
        """A driver's error in one line; where a value made the read fail, its column and not the value."""
        import psycopg

        if not (is_unconvertible(error) or is_of_values(error)):
            return explain(error)
        try:
            with self._transaction() as connection:
                name, state = find_failing(connection, select, columns)
        except psycopg.Error:
            name = state = None
        return not_utf8(name) if is_unconvertible(error) else kind_of(state, name)


def _prepared(connection: Any, select: str) -> list[tuple[str, int, int]]:
    """(name, type number, type modifier) of each column; the server points at the model's own lines."""
    wire = connection.pgconn
    result = wire.prepare(b"", select.encode())
    if result.error_message:
        raise SourceError(f"the model does not run: {explain(result.error_message.decode())}", hint=_TRY)
    result = wire.describe_prepared(b"")
    return [(result.fname(at).decode(), result.ftype(at), result.fmod(at)) for at in range(result.nfields)]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
