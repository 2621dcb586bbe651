"""What the engines do alone, without backhaul: `python -m benchmarks.bare NAME …`. Each prints JSON; `seconds` is the statement's time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMNS = ("email", "first_name", "last_name", "health", "plan", "seats", "mrr", "churn", "updated_at")
_TABLE = """
    id bigint, email varchar, first_name varchar, last_name varchar, health double precision, plan varchar, seats integer,
    mrr double precision, churn boolean, updated_at timestamp
"""
_ROWS = """
    SELECT i::BIGINT AS id, 'user' || i || '@example.com' AS email, 'First' || (i % 1000) AS first_name,
        'Last' || (i % 5000) AS last_name, round(((i * 7919) % 1000) / 10.0, 1) AS health,
        CASE i % 3 WHEN 0 THEN 'free' WHEN 1 THEN 'pro' ELSE 'enterprise' END AS plan, (i % 500)::INTEGER AS seats,
        ((i * 31) % 100000) / 100.0 AS mrr, i % 7 = 0 AS churn, TIMESTAMP '2026-01-01' + to_seconds(i % 86400) AS updated_at
    FROM range({rows}) AS numbers (i)
"""


def make_duckdb(path: str, rows: str) -> dict[str, Any]:
    """A DuckDB file with the table `customers`: ten columns."""
    import duckdb

    with duckdb.connect(path) as engine:
        engine.execute(f"CREATE TABLE customers AS {_ROWS.format(rows=int(rows))}")
    return {}


def change(path: str, rows: str, count: str, turn: str) -> dict[str, Any]:
    """Changes so many rows, others in every turn; their e-mail says which turn."""
    import duckdb

    step = int(rows) // int(count)
    with duckdb.connect(path) as engine:
        engine.execute(
            f"UPDATE customers SET email = 'turn{turn}-' || id || '@example.com' WHERE id % {step} = {turn}"
        )
    return {}


def join(warehouse: str, ledger: str) -> dict[str, Any]:
    """The full outer join of a table with a ledger: key and 64-bit hash of the columns. `rows`: how many differ."""
    import duckdb

    engine = duckdb.connect()
    engine.execute(f"ATTACH '{warehouse}' AS warehouse (READ_ONLY)")
    engine.execute(f"ATTACH '{ledger}' AS ledger (READ_ONLY)")
    fields = sorted(("id", *COLUMNS))
    columns = ", ".join("seats::BIGINT" if name == "seats" else name for name in fields)
    names = json.dumps(fields, separators=(",", ":"))
    began = time.perf_counter()
    rows = engine.execute(
        f"SELECT count(*) FROM (SELECT id, hash('{names}', {columns}, NULL::VARCHAR) AS h FROM warehouse.customers) AS m FULL OUTER JOIN "
        "(SELECT k0, _hash FROM ledger.acked) AS l ON m.id = l.k0 WHERE m.h IS DISTINCT FROM l._hash"
    ).fetchall()[0][0]
    return {"seconds": time.perf_counter() - began, "rows": rows}


def make_csv(warehouse: str, file: str) -> dict[str, Any]:
    import duckdb

    with duckdb.connect(warehouse, read_only=True) as engine:
        engine.execute(f"COPY customers TO '{file}' (FORMAT csv, HEADER false)")
    return {}


def make_postgres(dsn: str, file: str = "") -> dict[str, Any]:
    """A new table `customers`, with the rows of a CSV file where one is given."""
    import psycopg

    with psycopg.connect(dsn) as connection:
        connection.execute(
            f"DROP TABLE IF EXISTS customers; CREATE TABLE customers ({_TABLE}, PRIMARY KEY (id))"
        )
        if file:
            _copy(connection, "customers", file)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE customers")
        connection.execute("CHECKPOINT")
    return {}


def _copy(connection: Any, table: str, file: str) -> None:
    with (
        connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy,
        Path(file).open("rb") as rows,
    ):
        while data := rows.read(1 << 20):
            copy.write(data)


def upsert(dsn: str, file: str) -> dict[str, Any]:
    """COPY of a ready CSV file into a temporary table, then one INSERT … ON CONFLICT, in one transaction."""
    import psycopg

    began = time.perf_counter()
    names = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TEMP TABLE staged (LIKE customers) ON COMMIT DROP")
        _copy(connection, "staged", file)
        done = connection.execute(
            f"INSERT INTO customers SELECT * FROM staged ON CONFLICT (id) DO UPDATE SET {names}"
        )
        rows = done.rowcount
    return {"seconds": time.perf_counter() - began, "rows": rows}


def adbc(dsn: str) -> dict[str, Any]:
    """Reads a table through ADBC and throws it away."""
    from adbc_driver_postgresql import dbapi

    began = time.perf_counter()
    with dbapi.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT id, {', '.join(COLUMNS)} FROM customers")
        rows = sum(batch.num_rows for batch in cursor.fetch_record_batch())
    return {"seconds": time.perf_counter() - began, "rows": rows}


_STATEMENTS: tuple[Callable[..., dict[str, Any]], ...] = (
    make_duckdb,
    change,
    join,
    make_csv,
    make_postgres,
    upsert,
    adbc,
)

if __name__ == "__main__":
    chosen = {statement.__name__: statement for statement in _STATEMENTS}[sys.argv[1]]
    print(json.dumps(chosen(*sys.argv[2:])))
