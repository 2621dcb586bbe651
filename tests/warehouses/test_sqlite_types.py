"""SQLite: a column's type is its declared one, while it fits; no value is rounded, dropped or guessed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import duckdb
import pytest

from backhaul.engine import open_engine
from backhaul.errors import SourceError
from backhaul.models import model_columns
from backhaul.warehouses.sqlite import Sqlite, SqliteConfig

BIG = 2**53 + 1


class Model:
    columns: ClassVar[dict[str, str]] = {}
    primary_key = ()
    table = file = None

    def __init__(self, sql: str) -> None:
        self.sql = sql


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    engine = open_engine(1 << 30, tmp_path / "spill")
    yield engine
    engine.close()


@pytest.fixture
def lite(tmp_path: Path) -> Sqlite:
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute(
            "CREATE TABLE t (id INTEGER, name VARCHAR(9), r REAL, d DATE, b BOOLEAN, n DECIMAL(9,2), j, data BLOB)"
        )
    db.close()
    return Sqlite(SqliteConfig(path=Path("s.db")), tmp_path)


def put(lite: Sqlite, column: str, *values: object) -> None:
    with sqlite3.connect(lite.root / "s.db") as db:
        db.executemany(f"INSERT INTO t ({column}) VALUES (?)", [(value,) for value in values])
    db.close()


def read(lite: Sqlite, engine: duckdb.DuckDBPyConnection, column: str) -> tuple[str, list[object]]:
    select = f"select {column} from t where {column} is not null"
    kind = lite.columns(engine, select)[0].type
    relation = lite.relation(engine, select)
    values = [row[0] for row in engine.execute(f"SELECT * FROM {relation.sql}").fetchall()]
    relation.close()
    return kind, values


def test_an_empty_table_has_the_types_that_a_full_one_has(
    lite: Sqlite, engine: duckdb.DuckDBPyConnection
) -> None:
    declared = {"id": "BIGINT", "name": "VARCHAR", "r": "DOUBLE", "d": "VARCHAR", "b": "BIGINT", "n": "DOUBLE", "j": "VARCHAR",
                "data": "BLOB"}  # fmt: skip
    empty = {column.name: column.type for column in lite.columns(engine, "select * from t")}
    with sqlite3.connect(lite.root / "s.db") as db:
        db.execute("INSERT INTO t VALUES (1, 'a', 1, '2026-01-01', 1, 5, 'x', x'00')")
    db.close()
    assert empty == declared == {c.name: c.type for c in lite.columns(engine, "select * from t")}


@pytest.mark.parametrize(("column", "values", "kind", "arrived"), [
    ("n", (1, 2.5), "DOUBLE", [1.0, 2.5]),
    ("n", (BIG, 2.5), "VARCHAR", [str(BIG), "2.5"]),
    ("id", (1, 2.5), "DOUBLE", [1.0, 2.5]),
    ("id", (BIG, "n/a"), "VARCHAR", [str(BIG), "n/a"]),
    ("j", (0.1 + 0.2, "x"), "VARCHAR", ["0.30000000000000004", "x"]),
    ("j", (-(2**63), 2**63 - 1), "BIGINT", [-(2**63), 2**63 - 1]),
    ("d", (1700000000,), "BIGINT", [1700000000]),
    ("r", (float("inf"), -0.0), "DOUBLE", [float("inf"), -0.0]),
    ("name", ("a\0b", "\u202e😀"), "VARCHAR", ["a\0b", "\u202e😀"]),
])  # fmt: skip
def test_every_value_arrives_as_it_is(
    lite: Sqlite,
    engine: duckdb.DuckDBPyConnection,
    column: str,
    values: tuple[object, ...],
    kind: str,
    arrived: list[object],
) -> None:
    put(lite, column, *values)
    assert read(lite, engine, column) == (kind, arrived)


def test_bytes_beside_text_name_the_column(lite: Sqlite, engine: duckdb.DuckDBPyConnection) -> None:
    put(lite, "j", b"\xff", "x")
    with pytest.raises(SourceError, match="column j holds bytes"):
        read(lite, engine, "j")


def test_text_that_is_not_utf8_names_the_column_and_no_value(
    lite: Sqlite, engine: duckdb.DuckDBPyConnection
) -> None:
    with sqlite3.connect(lite.root / "s.db") as db:
        db.execute("INSERT INTO t (name) VALUES (CAST(x'736563726574ff' AS TEXT))")
    db.close()
    relation = lite.relation(engine, "select name from t")
    with pytest.raises(duckdb.Error):
        engine.execute(f"SELECT * FROM {relation.sql}").fetchall()
    assert relation.failure == "s.db: the column name holds text that is not UTF-8"
    relation.close()


@pytest.mark.parametrize(("sql", "said"), [
    ("select 1 as a, 2 as a", "two columns named a"),
    ("select 1 as A, 2 as a", "two columns named"),
    ('select 1 as ""', "without a name"),
    ("select 1; drop table t", "one statement"),
    ("select nope from t", "nope"),
    ("select ? as x", "parameters"),
])  # fmt: skip
def test_a_model_that_is_none(lite: Sqlite, engine: duckdb.DuckDBPyConnection, sql: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        model_columns(Model(sql), lite, engine, lite.root)


@pytest.mark.parametrize("end", ["", ";", " -- done", " ;; -- done\n/* really */"])
def test_a_model_ends_where_its_select_ends(
    lite: Sqlite, engine: duckdb.DuckDBPyConnection, end: str
) -> None:
    columns = model_columns(Model(f"select ';' as a{end}"), lite, engine, lite.root)
    assert [column.name for column in columns] == ["a"]


def test_one_snapshot_while_another_writes(lite: Sqlite, engine: duckdb.DuckDBPyConnection) -> None:
    with sqlite3.connect(lite.root / "s.db") as db:
        db.execute("PRAGMA journal_mode = wal")
    db.close()
    put(lite, "id", *range(100_000))
    relation = lite.relation(engine, "select id from t")
    put(lite, "id", *range(1000))
    assert engine.execute(f"SELECT count(*) FROM {relation.sql}").fetchall() == [(100_000,)]
    relation.close()
