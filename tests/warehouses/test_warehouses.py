"""Every warehouse gives the model's rows, exactly, in one read; what it cannot give it names."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest

from backhaul.engine import open_engine
from backhaul.errors import SourceError
from backhaul.models import model_columns, open_model
from backhaul.testing.duckdb_file import opened
from backhaul.warehouses.duckdb import DuckDB, DuckDBConfig
from backhaul.warehouses.files import Files, FilesConfig
from backhaul.warehouses.postgres import Postgres, PostgresConfig
from backhaul.warehouses.protocol import Warehouse
from backhaul.warehouses.sqlite import Sqlite, SqliteConfig


class Model:
    columns: ClassVar[dict[str, str]] = {}
    primary_key = ()

    def __init__(self, sql: str | None = None, table: str | None = None, file: str | None = None) -> None:
        self.sql, self.table, self.file = sql, table, file


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    engine = open_engine(1 << 30, tmp_path / "spill")
    yield engine
    engine.close()


@pytest.fixture
def duck(tmp_path: Path) -> DuckDB:
    with opened(tmp_path / "w.duckdb") as db:
        db.execute("CREATE SCHEMA marts")
        db.execute("CREATE TABLE marts.customers AS SELECT i AS id, 'c' || i AS name FROM range(10) t(i)")
        db.execute('CREATE TABLE "Odd ""table""" AS SELECT 1 AS "select", 2 AS "two words", 3 AS "ключ"')
    return DuckDB(DuckDBConfig(path=Path("w.duckdb")), tmp_path)


def read(
    warehouse: Warehouse, engine: duckdb.DuckDBPyConnection, model: Model, **options: Any
) -> list[tuple[Any, ...]]:
    relation = open_model(model, warehouse, engine, warehouse.root, **options)
    try:
        return engine.execute(f"SELECT * FROM {relation.sql} ORDER BY 1").fetchall()
    finally:
        relation.close()


def test_duckdb_resolves_the_warehouses_own_names(duck: DuckDB, engine: duckdb.DuckDBPyConnection) -> None:
    assert len(read(duck, engine, Model(table="marts.customers"))) == 10
    assert read(duck, engine, Model(sql="select * from marts.customers where id = 3")) == [(3, "c3")]
    assert read(duck, engine, Model(table='"Odd ""table"""')) == [(1, 2, 3)]
    assert [c.name for c in model_columns(Model(table='"Odd ""table"""'), duck, engine, duck.root)] == [
        "select",
        "two words",
        "ключ",
    ]


def test_a_plain_scan_is_read_in_place_and_anything_else_once(
    duck: DuckDB, engine: duckdb.DuckDBPyConnection
) -> None:
    for sql, spooled in {
        "select id, upper(name) as name from marts.customers where id > 2": False,
        "select id, random() as r from marts.customers": True,
        "select a.id from marts.customers a join marts.customers b using (id)": True,
        "select id, count(*) as n from marts.customers group by id": True,
        "select * from marts.customers limit 3": True,
        "select * from marts.customers using sample 50%": True,
    }.items():
        relation = duck.relation(engine, sql)
        assert (relation.sql == "temp.main.model_rows") is spooled, sql
        first = engine.execute(f"SELECT * FROM {relation.sql} ORDER BY 1").fetchall()
        assert engine.execute(f"SELECT * FROM {relation.sql} ORDER BY 1").fetchall() == first
        relation.close()


def test_closing_lets_others_write(duck: DuckDB, engine: duckdb.DuckDBPyConnection) -> None:
    relation = duck.relation(engine, "select * from marts.customers")
    relation.close()
    with opened(duck.root / "w.duckdb") as db:
        db.execute("INSERT INTO marts.customers VALUES (11, 'c11')")


def test_only_the_columns_asked_for_and_rows_at_or_after_the_cursor(
    duck: DuckDB, engine: duckdb.DuckDBPyConnection
) -> None:
    assert read(duck, engine, Model(table="marts.customers"), columns=["id"], cursor=("id", "8")) == [
        (8,),
        (9,),
    ]


@pytest.mark.parametrize(("sql", "said"), [
    ("select * from marts.custmers", "custmers"),
    ("select idd from marts.customers", "idd"),
    ("selec 1", "LINE 1"),
    ("select 1 as a, 2 as A", "two columns"),
])  # fmt: skip
def test_a_model_that_does_not_run_is_one_line(
    duck: DuckDB, engine: duckdb.DuckDBPyConnection, sql: str, said: str
) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        model_columns(Model(sql=sql), duck, engine, duck.root)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_foreign_is_named(
    tmp_path: Path, engine: duckdb.DuckDBPyConnection
) -> None:
    (tmp_path / "not.duckdb").write_bytes(b"hello" * 1000)
    for name, said in {"gone.duckdb": "there is no", "not.duckdb": "cannot be opened"}.items():
        with pytest.raises(SourceError, match=said):
            DuckDB(DuckDBConfig(path=Path(name)), tmp_path).columns(engine, "select 1")
        with pytest.raises(SourceError, match=r"there is no|cannot be opened"):
            Sqlite(SqliteConfig(path=Path(name)), tmp_path).columns(engine, "select 1")


def test_files_are_tables(tmp_path: Path, engine: duckdb.DuckDBPyConnection) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "people.csv").write_text("id,name\n1,Ann\n2,\n")
    engine.execute(
        f"COPY (SELECT i AS id, i * 2 AS double FROM range(3) t(i)) TO '{tmp_path}/data/numbers.parquet'"
    )
    files = Files(FilesConfig(path=Path("data")), tmp_path)
    assert read(files, engine, Model(table="people")) == [("1", "Ann"), ("2", None)]
    assert read(files, engine, Model(sql="select n.id, p.name from numbers n join people p using (id)")) == [
        (1, "Ann"),
        (2, None),
    ]


def test_sqlite_types_come_from_the_values(tmp_path: Path, engine: duckdb.DuckDBPyConnection) -> None:
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("CREATE TABLE t (id INTEGER, mixed, number, big INTEGER, empty, data BLOB)")
        db.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?, NULL, ?)",
            [(1, 1, 1, 2**62, b"\x00"), (2, "x", 2.5, 1, b"\xff")],
        )
    db.close()
    lite = Sqlite(SqliteConfig(path=Path("s.db")), tmp_path)
    types = {column.name: column.type for column in model_columns(Model(table="t"), lite, engine, tmp_path)}
    assert types == {
        "id": "BIGINT",
        "mixed": "VARCHAR",
        "number": "DOUBLE",
        "big": "BIGINT",
        "empty": "VARCHAR",
        "data": "BLOB",
    }
    assert read(lite, engine, Model(table="t")) == [
        (1, "1", 1.0, 2**62, None, b"\x00"),
        (2, "x", 2.5, 1, None, b"\xff"),
    ]


def test_sqlite_streams_and_counts(tmp_path: Path, engine: duckdb.DuckDBPyConnection) -> None:
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("CREATE TABLE t (id INTEGER)")
        db.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(150_000)])
    db.close()
    relation = Sqlite(SqliteConfig(path=Path("s.db")), tmp_path).relation(engine, "select * from t")
    assert engine.execute(f"SELECT count(*), sum(id) FROM {relation.sql}").fetchall() == [
        (150_000, 150_000 * 149_999 // 2)
    ]
    assert relation.rows == 150_000
    relation.close()


@pytest.fixture
def postgres(postgres_db: str, tmp_path: Path) -> Postgres:
    import psycopg

    with psycopg.connect(postgres_db, autocommit=True) as db:
        db.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
        db.execute("""CREATE TABLE t (id bigint PRIMARY KEY, price numeric(10,2), amount numeric, ok boolean, at timestamptz,
            local timestamp, day date, doc jsonb, tags text[], uid uuid, m mood, span interval, small smallint, f real)""")
        db.execute("""INSERT INTO t VALUES
            (1, 12.50, 3.333333333333333333, true, '2024-05-01 12:00:00+02', '0001-01-01', '9999-12-31', '{"a": [1, null]}',
             '{x,"y,z"}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'glad', '1 day', 7, 0.1),
            (9007199254740993, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)""")
    return Postgres(PostgresConfig(dsn=postgres_db), tmp_path)


def test_postgres_types_arrive_exactly(postgres: Postgres, engine: duckdb.DuckDBPyConnection) -> None:
    columns = 'id, price, amount, ok, CAST("at" AS VARCHAR), "local", day, doc, tags, uid, m, small, f'
    relation = postgres.relation(engine, "select * from t")
    first, second = engine.execute(f"SELECT {columns} FROM {relation.sql} ORDER BY id").fetchall()
    relation.close()
    assert first[:5] == (1, Decimal("12.50"), Decimal("3.333333333333333333"), True, "2024-05-01 10:00:00+00")
    assert (first[5].year, first[6].year) == (1, 9999)
    assert first[7:11] == ('{"a": [1, null]}', '["x","y,z"]', "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "glad")
    assert second == (9007199254740993, *[None] * 12)
    types = {column.name: column.type for column in postgres.columns(engine, "select * from t")}
    assert (types["price"], types["amount"], types["doc"], types["tags"]) == (
        "DECIMAL(10,2)",
        "DECIMAL(38,18)",
        "JSON",
        "JSON",
    )


def test_postgres_counts_what_passes(postgres: Postgres, engine: duckdb.DuckDBPyConnection) -> None:
    relation = postgres.relation(
        engine, "select i as id, 'x' || i as name from generate_series(1, 300000) i", columns=["id"]
    )
    assert engine.execute(f"SELECT count(*), max(id) FROM {relation.sql}").fetchall() == [(300_000, 300_000)]
    assert relation.rows == 300_000
    relation.close()


@pytest.mark.parametrize(("change", "said"), [
    ({"password": "nope", "user": "nobody"}, "does not exist|refuses"),
    ({"port": "1"}, "not running"),
    ({"host": "no.such.host.invalid"}, "host of the dsn"),
    ({"dbname": "nowhere"}, "nowhere"),
])  # fmt: skip
def test_postgres_that_cannot_be_reached_says_why_and_no_secret(
    postgres_db: str, tmp_path: Path, engine: duckdb.DuckDBPyConnection, change: dict[str, str], said: str
) -> None:
    from psycopg.conninfo import make_conninfo

    warehouse = Postgres(PostgresConfig(dsn=make_conninfo(postgres_db, **change)), tmp_path)
    with pytest.raises(SourceError, match=said) as caught:
        warehouse.columns(engine, "select 1")
    assert "nope" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_postgres_names_the_line_that_is_wrong(postgres: Postgres, engine: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(SourceError, match="nme"):
        postgres.columns(engine, "select id,\n nme from t")


def test_a_read_that_breaks_is_no_result(
    postgres: Postgres, postgres_db: str, engine: duckdb.DuckDBPyConnection
) -> None:
    import psycopg

    relation = postgres.relation(
        engine,
        "select i as id, repeat('x', 200) || (select count(*) from t) as x from generate_series(1, 20000000) i",
    )

    def cut() -> None:
        with psycopg.connect(postgres_db, autocommit=True) as db:
            for _ in range(50):
                ended = db.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND pid <> pg_backend_pid()"
                ).fetchall()
                if ended:
                    return
                time.sleep(0.1)

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(duckdb.Error):
        engine.execute(f"SELECT count(*), max(x) FROM {relation.sql}").fetchall()
    thread.join()
    assert relation.failure
    assert "PostgreSQL" in relation.failure
    relation.close()


@pytest.mark.parametrize("kind", ["files", "duckdb"])
@pytest.mark.parametrize("select", ["select a, b from plain", "select a, b from plain where random() >= 0"])
def test_a_model_may_be_read_while_a_read_of_it_is_open(
    tmp_path: Path, engine: duckdb.DuckDBPyConnection, kind: str, select: str
) -> None:
    rows = "select range as a, range * 2 as b from range(3)"
    duckdb.sql(f"copy ({rows}) to '{tmp_path}/plain.parquet'")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as db:
        db.execute(f"create table plain as {rows}")
    made: Any = (
        Files(FilesConfig(path=Path()), tmp_path)
        if kind == "files"
        else DuckDB(DuckDBConfig(path=Path("w.duckdb")), tmp_path)
    )
    first = made.relation(engine, select)
    second = made.relation(engine, select, columns=["a"])
    assert len(made.columns(engine, select)) == 2
    assert engine.execute(f"SELECT a FROM {second.sql} ORDER BY 1").fetchall() == [(0,), (1,), (2,)]
    second.close()
    assert engine.execute(f"SELECT * FROM {first.sql} ORDER BY 1").fetchall() == [(0, 0), (1, 2), (2, 4)]
    first.close()
    assert {name for (name,) in engine.execute("SELECT database_name FROM duckdb_databases()").fetchall()} == {
        "memory", "system", "temp",
    }  # fmt: skip


@pytest.mark.parametrize(
    "made",
    [
        "create view v as select * from read_csv('FILE')", "create view v as from 'FILE'", "create view v as from read_text('FILE')",
        "create macro m() as table from read_blob('FILE'); create view v as from m()",
        "create view inner_v as from 'FILE'; create view v as select 1 as a where exists (from inner_v)",
    ],
)  # fmt: skip
def test_a_view_that_reads_other_files_is_refused_unless_the_project_allows_it(
    tmp_path: Path, engine: duckdb.DuckDBPyConnection, made: str
) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as db:
        db.execute(made.replace("FILE", str(tmp_path / "secret.csv")))
        db.execute("create table t as select 1 as a")
    guarded = DuckDB(DuckDBConfig(path=Path("w.duckdb")), tmp_path)
    for read in (guarded.columns, guarded.relation):
        with pytest.raises(SourceError, match=r"a view or macro of w\.duckdb reads other files"):
            read(engine, "select * from v")
    assert guarded.columns(engine, "select * from t")
    assert guarded.columns(engine, f"select * from '{tmp_path}/secret.csv'")
    trusted = DuckDB(DuckDBConfig(path=Path("w.duckdb"), external_files=True), tmp_path)
    relation = trusted.relation(engine, "select count(*) from v")
    assert engine.execute(f"FROM {relation.sql}").fetchall() == [(1,)]
    relation.close()
