"""PostgreSQL through ADBC: one statement in a read-only snapshot, as Arrow, never held in memory as a whole.

Types are decided from the statement's own description. What ADBC does not carry natively comes as text and is cast in
the engine: numeric(p,s) to DECIMAL(p,s); numeric without precision to DECIMAL(38,18), whose overflow is an error; json and
arrays to JSON; everything else (uuid, enums, intervals, ranges) stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import SecretStr

from backhaul.errors import SourceError
from backhaul.sql import ident
from backhaul.warehouses.protocol import Column, Warehouse, WarehouseConfig, narrowed
from backhaul.warehouses.stream import Stream

if TYPE_CHECKING:
    import duckdb

_BATCH_BYTES = 16 << 20
_NATIVE = {
    16: "BOOLEAN", 20: "BIGINT", 21: "SMALLINT", 23: "INTEGER", 25: "VARCHAR", 1043: "VARCHAR", 1042: "VARCHAR", 19: "VARCHAR",
    700: "FLOAT", 701: "DOUBLE", 1082: "DATE", 1114: "TIMESTAMP", 1184: "TIMESTAMP WITH TIME ZONE", 17: "BLOB", 26: "BIGINT",
}  # fmt: skip
"""Engine types by PostgreSQL's own type numbers (pg_type.dat of the PostgreSQL sources)."""
_NUMERIC, _JSON, _JSONB, _OID = 1700, 114, 3802, 26
_ARRAYS = range(1000, 1300)


class PostgresConfig(WarehouseConfig):
    """A PostgreSQL database."""

    dsn: SecretStr
    """postgresql://user:${PASSWORD}@host:5432/database"""


class Postgres(Warehouse):
    """A PostgreSQL database."""

    config: ClassVar[type[WarehouseConfig]] = PostgresConfig
    dialect: ClassVar[str] = "postgres"

    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        return tuple(Column(name, kind) for name, _, kind in self._described(select))

    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> Stream:  # fmt: skip
        import adbc_driver_manager
        import adbc_driver_postgresql.dbapi

        query = narrowed(select, columns, cursor)
        described = self._described(query)
        sent = ", ".join(f"{pg} AS {ident(name)}" for name, pg, _ in described)
        cast = ", ".join(f"CAST({ident(name)} AS {kind}) AS {ident(name)}" for name, _, kind in described)
        try:
            connection = adbc_driver_postgresql.dbapi.connect(self.settings.dsn.get_secret_value())
            reading = connection.cursor()
            reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            reading.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
            reading.execute(f"SELECT {sent} FROM ({query}) AS model")
            reader = reading.fetch_record_batch()
        except adbc_driver_manager.Error as error:
            raise SourceError(explain(error)) from None

        def release() -> None:
            reading.close()
            connection.close()

        return Stream(engine, reader.schema, reader, cast, explain,
                      lambda: self.relation(engine, select, columns=columns, cursor=cursor), release)  # fmt: skip

    def _described(self, select: str) -> list[tuple[str, str, str]]:
        """(name, SQL that PostgreSQL sends, type in the engine) of each column; reads no row."""
        import psycopg

        try:
            with psycopg.connect(self.settings.dsn.get_secret_value(), connect_timeout=10) as connection:
                cursor = connection.execute(
                    f"SELECT * FROM (\n{select.strip().rstrip(';')}\n) AS model LIMIT 0"
                )
                return [_column(column) for column in cursor.description or ()]
        except psycopg.OperationalError as error:
            raise SourceError(explain(error), hint="is the dsn in backhaul.yml right?") from None
        except psycopg.Error as error:
            raise SourceError(
                f"the model does not run: {explain(error)}", hint="try it in the warehouse first"
            ) from None


def _column(column: Any) -> tuple[str, str, str]:
    name, kind = ident(column.name), column.type_code
    if kind in _NATIVE:
        return column.name, f"{name}::int8" if kind == _OID else name, _NATIVE[kind]
    if kind == _NUMERIC:
        exact = column.precision is not None and column.precision <= 38
        return (
            column.name,
            f"{name}::text",
            f"DECIMAL({column.precision},{column.scale})" if exact else "DECIMAL(38,18)",
        )
    if kind in (_JSON, _JSONB):
        return column.name, f"{name}::text", "JSON"
    if kind in _ARRAYS and kind not in (_OID, 1082, 1083, 1114, 1184, 1186, 1266):
        return column.name, f"to_json({name})::text", "JSON"
    return column.name, f"{name}::text", "VARCHAR"


def explain(error: Exception) -> str:
    """A driver's error in one line: what is wrong, never the DSN."""
    text = str(error)
    known = {
        "password authentication failed": "PostgreSQL refuses the user or password",
        "no password supplied": "PostgreSQL asks for a password and the dsn has none",
        "could not translate host name": "the host of the dsn does not exist",
        "Name or service not known": "the host of the dsn does not exist",
        "failed to resolve host": "the host of the dsn does not exist",
        "Connection refused": "PostgreSQL is not running at the host and port of the dsn",
        "timeout expired": "PostgreSQL does not answer at the host and port of the dsn",
        "certificate verify failed": "PostgreSQL's TLS certificate is not trusted",
        "terminating connection": "PostgreSQL ended the connection while the model was being read",
        "server closed the connection": "PostgreSQL closed the connection while the model was being read",
        "permission denied": "",
        "does not exist": "",
    }
    for part, said in known.items():
        if part in text and said:
            return said
    lines = [
        line.strip()
        for line in text.split("\n")
        if line.strip() and not line.startswith("connection to server")
    ]
    where = next((line for line in lines if line.startswith("LINE ")), "")
    first = lines[0] if lines else type(error).__name__
    first = first.split("FATAL:  ")[-1].split("ERROR:  ")[-1]
    return f"{first} [{where}]" if where and where != first else first
