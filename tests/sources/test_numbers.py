"""Numbers of a warehouse that no column of the destination or the engine holds as they are."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from flows import Pipe


def create_text_table(root: Path) -> dict[str, str]:
    with sqlite3.connect(root / "app.db") as app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT)")
    return {"type": "sqlite", "path": str(root / "app.db")}


def test_a_numeric_without_scale_keeps_its_own_digits(postgres_db: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as db:
        db.execute("CREATE TABLE x (id int, v numeric)")
        db.execute("INSERT INTO x VALUES (1, 1), (1, 2), (2, 19.99), (3, 1), (3, 1), (3, 2), (4, 1.50)")
    pipe = Pipe(tmp_path, {"type": "postgres", "dsn": postgres_db}, create_text_table(tmp_path))
    pipe.write(
        fields={"a": "a", "b": "b"}, model={"sql": "select id, avg(v) as a, sum(v) as b from x group by id"}
    )
    report = pipe.run()
    assert (report.status, report.rejected) == ("succeeded", 0), report.error
    with sqlite3.connect(tmp_path / "app.db") as app:
        held = app.execute("SELECT * FROM t ORDER BY id").fetchall()
    assert held == [(1, "1.5", "3"), (2, "19.99", "19.99"), (3, "1.3333333333333333", "4"), (4, "1.5", "1.5")]


def test_a_numeric_that_would_be_rounded_rejects_its_record(postgres_db: str, tmp_path: Path) -> None:
    pipe = Pipe(tmp_path, {"type": "postgres", "dsn": postgres_db}, create_text_table(tmp_path))
    sql = "select 1 as id, 1::numeric / 3 as a union all select 2, 0.5 union all select 3, 1.50000000000000000000000"
    report = pipe.write(fields={"a": "a"}, model={"sql": sql}).run()
    assert (report.delivered, report.rejected) == (2, 1)
    (code, message) = pipe.refusals()[1]
    assert code == "type"
    assert message.endswith("in column a does not fit DECIMAL(38,18)")
    declared = "select id, round(a, 4)::numeric(10,4) as a from (" + sql + ") x"
    assert pipe.write(model={"sql": declared}).run().status == "succeeded"


def test_a_decimal_of_a_parquet_file_is_exact_or_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    wide = pa.array([None, None], pa.decimal256(60, 5))
    pq.write_table(pa.table({"id": [1, 2], "price": wide, "a": ["x", "y"]}), tmp_path / "data" / "c.parquet")
    pipe = Pipe(tmp_path, {"type": "files", "path": "data"}, create_text_table(tmp_path))
    report = pipe.write(fields={"a": "a", "b": "price"}).run()
    assert "c.parquet: the column price is DECIMAL(60,5); only 38 digits can be read exactly" in str(
        report.error
    )
    assert pipe.write(fields={"a": "a"}, model={"sql": "select id, a from c"}).run().status == "succeeded"
    duckdb.execute(
        f"COPY (SELECT 1 AS id, 1.23456::DECIMAL(38,5) AS price, 'x' AS a) TO '{tmp_path}/data/c.parquet'"
    )
    assert pipe.write(fields={"a": "a", "b": "price"}, model={"table": "c"}).run().status == "succeeded"
