"""PostgreSQL: every type arrives as what it is; what is wrong is one line, with the model's own line, and no secret."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.waiting import until

from backhaul.engine import open_engine
from backhaul.errors import SourceError
from backhaul.models import model_columns, only_keys, open_model
from backhaul.warehouses.postgres import Postgres, PostgresConfig
from backhaul.warehouses.postgres_errors import address, explain
from backhaul.warehouses.postgres_types import decimal

SECRET = "p4ss%2Fw0rd"
SPOILT = "\x1f"
"""The end of the names of columns that say what did not fit."""


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


def warehouse(dsn: str) -> Postgres:
    return Postgres(PostgresConfig.model_validate({"dsn": dsn}), Path())


def read(source: Postgres, engine: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    relation = open_model(Model(sql), source, engine, Path())
    try:
        columns = f"COLUMNS(lambda c: NOT ends_with(c, '{SPOILT}'))"
        return engine.execute(f"SELECT CAST({columns} AS VARCHAR) FROM {relation.sql}").fetchall()
    finally:
        relation.close()


ARRIVALS = [
    ("9007199254740993", "BIGINT", "9007199254740993"),
    ("1.5::numeric(10,2)", "DECIMAL(10,2)", "1.50"),
    ("1.5::numeric", "DECIMAL(38,18)", "1.500000000000000000"),
    ("12345::numeric(5,-2)", "DECIMAL(7,0)", "12300"),
    ("0.00123::numeric(3,5)", "DECIMAL(5,5)", ".00123"),
    ("1::numeric(50,2)", "DECIMAL(38,2)", "1.00"),
    ("'NaN'::float8", "DOUBLE", "nan"),
    ("'-Infinity'::float4", "FLOAT", "-inf"),
    ("'infinity'::timestamptz", "TIMESTAMP WITH TIME ZONE", "infinity"),
    ("'-infinity'::timestamptz", "TIMESTAMP WITH TIME ZONE", "-infinity"),
    ("'infinity'::timestamp", "TIMESTAMP", "infinity"),
    ("'-infinity'::timestamp", "TIMESTAMP", "-infinity"),
    ("'294276-12-31'::timestamp", "TIMESTAMP", "infinity"),
    ("'infinity'::date", "DATE", "infinity"),
    ("'-infinity'::date", "DATE", "-infinity"),
    ("'0001-01-01 00:00:00'::timestamp", "TIMESTAMP", "0001-01-01 00:00:00"),
    ("'9999-12-31 23:59:59.999999'::timestamp", "TIMESTAMP", "9999-12-31 23:59:59.999999"),
    ("'2026-03-29 02:30:00+01'::timestamptz", "TIMESTAMP WITH TIME ZONE", "2026-03-29 01:30:00+00"),
    ("null::timestamptz", "TIMESTAMP WITH TIME ZONE", None),
    ("null::date", "DATE", None),
    ("'24:00'::time", "VARCHAR", "24:00:00"),
    ("interval '1 mon 2 days'", "VARCHAR", "1 mon 2 days"),
    ("'\\x00ff'::bytea", "BLOB", "\\x00\\xFF"),
    ("'{\"a\": [1, null]}'::jsonb", "JSON", '{"a": [1, null]}'),
    ("array[1,null]", "JSON", "[1,null]"),
    ("'{}'::int[]", "JSON", "[]"),
    (
        "array['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid]",
        "JSON",
        '["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]',
    ),
    ("array['{\"a\":1}'::jsonb]", "JSON", '[{"a": 1}]'),
    ("array['glad'::mood]", "JSON", '["glad"]'),
    ("row(1, 'x')::pair", "JSON", '{"a":1,"b":"x"}'),
    ("'glad'::mood", "VARCHAR", "glad"),
    ("5::small", "SMALLINT", "5"),
    ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "VARCHAR", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("int4range(1, 5)", "VARCHAR", "[1,5)"),
    ("E'\\u202e\\U0001F600'", "VARCHAR", "\u202e😀"),
    ("null", "VARCHAR", None),
]


def test_every_type_arrives_as_what_it_is(postgres_db: str, engine: duckdb.DuckDBPyConnection) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as db:
        db.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
        db.execute("CREATE TYPE pair AS (a int, b text)")
        db.execute("CREATE DOMAIN small AS smallint")
    source = warehouse(postgres_db)
    sql = "select " + ", ".join(f"{expr} as c{at}" for at, (expr, _, _) in enumerate(ARRIVALS))
    types = [column.type for column in model_columns(Model(sql), source, engine, Path())]
    values = read(source, engine, sql)[0]
    assert list(zip(types, values, strict=True)) == [(kind, value) for _, kind, value in ARRIVALS]


@pytest.mark.parametrize(("precision", "scale", "type_"), [
    (38, 38, "DECIMAL(38,38)"), (1000, 500, "DECIMAL(38,18)"), (30, -10, "DECIMAL(38,0)"), (4, 0, "DECIMAL(4,0)"),
    (28, -10, "DECIMAL(38,0)"), (2, 4, "DECIMAL(4,4)"),
])  # fmt: skip
def test_decimals_of_any_width(precision: int, scale: int, type_: str) -> None:
    assert decimal((precision << 16 | scale & 0x7FF) + 4) == type_


def test_a_numeric_of_no_width_has_eighteen_decimals() -> None:
    assert decimal(-1) == "DECIMAL(38,18)"


@pytest.mark.parametrize("value", ["1e30", "'NaN'", "'Infinity'"])
def test_a_numeric_that_does_not_fit_keeps_its_text_beside_it(
    postgres_db: str, engine: duckdb.DuckDBPyConnection, value: str
) -> None:
    source, model = warehouse(postgres_db), Model(f"select {value}::numeric as price, 1 as n")
    price, number = model_columns(model, source, engine, Path())
    assert (price.type, price.spoilt, number.spoilt) == ("DECIMAL(38,18)", f"price{SPOILT}", None)
    relation = open_model(model, source, engine, Path())
    (row,) = engine.execute(f'SELECT price, "{price.spoilt}" FROM {relation.sql}').fetchall()
    relation.close()
    assert row == (None, "1" + "0" * 30 if value == "1e30" else value.strip("'"))


def test_names_that_need_quoting(postgres_db: str, engine: duckdb.DuckDBPyConnection) -> None:
    sql = 'select 1 as "select", 2 as "a ""b"" %s", 3 as "ключ", 5 % 3 as modulo'
    assert read(warehouse(postgres_db), engine, sql) == [("1", "2", "3", "2")]


@pytest.mark.parametrize(("sql", "said"), [
    ("select id\nfrom t\nwhere foo = 1", r'"foo" does not exist \[LINE 3: where foo = 1\]'),
    ("select * from nowhere", r'"nowhere" does not exist \[LINE 1'),
    ("select 1 as a; drop table t", "multiple commands"),
    ("with d as (delete from t returning *) select * from d", "top level"),
    ("select 1) as model; drop table t; --", "syntax error"),
    ("select 1 as a, 2 as a", "two columns named a"),
    ('select 1 as "A", 2 as a', "two columns named a"),
    ("select from t", "no columns"),
    ("select $1 as a", "parameter"),
    ("select pg_sleep(0), nextval('s') as a", "read-only"),
])  # fmt: skip
def test_a_model_that_is_none_says_where(
    postgres_db: str, engine: duckdb.DuckDBPyConnection, sql: str, said: str
) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as db:
        db.execute("CREATE TABLE t (id int)")
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("CREATE SEQUENCE s")
    source = warehouse(postgres_db)
    with pytest.raises((SourceError, duckdb.Error), match=said):
        model_columns(Model(sql), source, engine, Path())
        read(source, engine, sql)
    with psycopg.connect(postgres_db) as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_a_table_that_this_user_may_not_read(postgres_db: str, engine: duckdb.DuckDBPyConnection) -> None:
    role = f"reader_{os.getpid()}"
    with psycopg.connect(postgres_db, autocommit=True) as db:
        db.execute("CREATE TABLE hidden (id int)")
        db.execute(f"CREATE ROLE {role} LOGIN")
    try:
        with pytest.raises(SourceError, match="permission denied for table hidden"):
            model_columns(
                Model("select * from hidden"),
                warehouse(make_conninfo(postgres_db, user=role)),
                engine,
                Path(),
            )
    finally:
        with psycopg.connect(postgres_db, autocommit=True) as db:
            db.execute(f"DROP ROLE {role}")


def test_a_read_is_one_snapshot(postgres_db: str, engine: duckdb.DuckDBPyConnection) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as db:
        db.execute("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 400000) i")
        relation = warehouse(postgres_db).relation(engine, "select id from t")
        db.execute("DELETE FROM t")
        assert engine.execute(f"SELECT count(*) FROM {relation.sql}").fetchall() == [(400_000,)]
        relation.close()


@pytest.mark.parametrize(("dsn", "said"), [
    ("nonsense", "not a PostgreSQL address"),
    (f"postgresql://u:{SECRET}@127.0.0.1:port/db", "not a PostgreSQL address"),
    (f"postgresql://u:{SECRET}/x@127.0.0.1:1/db", "not a PostgreSQL address|does not exist"),
    (f"postgresql://u:{SECRET}@x@127.0.0.1:1/db", "host of the dsn"),
    (f"postgresql://u:{SECRET}@127.0.0.1:1/db", "not running"),
    (f"postgresql://u:{SECRET}@127.0.0.1:1/db?nope=1", "not a PostgreSQL address"),
])  # fmt: skip
def test_a_dsn_that_leads_nowhere_shows_no_part_of_itself(
    engine: duckdb.DuckDBPyConnection, dsn: str, said: str
) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        warehouse(dsn).columns(engine, "select 1")
    shown = f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert "p4ss" not in shown
    assert "w0rd" not in shown


def test_a_wrong_password_is_not_a_wrong_user_or_database() -> None:
    said = {
        explain(f'connection to server at "127.0.0.1", port 5432 failed: FATAL:  {words}')
        for words in ('password authentication failed for user "u"', 'database "x" does not exist',
                      'no pg_hba.conf entry for host "1.2.3.4"', "sorry, too many clients already")
    }  # fmt: skip
    assert len(said) == 4


def test_a_dsn_keeps_what_it_says() -> None:
    kept = psycopg.conninfo.conninfo_to_dict(address("postgresql://h/db?connect_timeout=3&sslmode=require"))
    assert (kept["connect_timeout"], kept["sslmode"], kept["keepalives_idle"]) == ("3", "require", "30")


@pytest.fixture
def encrypted(postgres_dsn: str, tmp_path: Path) -> Iterator[str]:
    """A server that offers TLS with a certificate that nobody knows."""
    openssl = shutil.which("openssl")
    if openssl is None or os.environ.get("BACKHAUL_TEST_POSTGRES"):
        pytest.skip("needs openssl and a server whose folder is ours")
    with psycopg.connect(postgres_dsn, autocommit=True) as db:
        row = db.execute("SHOW data_directory").fetchone()
        assert row is not None
        data = Path(row[0])
        owner = data.stat()
        for name in ("server", "other"):
            subprocess.run([openssl, "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}",
                            "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt"], check=True, capture_output=True)  # fmt: skip
        for kind in ("key", "crt"):
            shutil.copy(tmp_path / f"server.{kind}", data / f"server.{kind}")
            os.chown(data / f"server.{kind}", owner.st_uid, owner.st_gid)
            (data / f"server.{kind}").chmod(0o600)
        db.execute("ALTER SYSTEM SET ssl = on")
        db.execute("SELECT pg_reload_conf()")
        yield make_conninfo(postgres_dsn, sslrootcert=str(tmp_path / "other.crt"))
        db.execute("ALTER SYSTEM RESET ssl")
        db.execute("SELECT pg_reload_conf()")


def test_a_certificate_that_is_not_trusted(
    encrypted: str, tmp_path: Path, engine: duckdb.DuckDBPyConnection
) -> None:
    for changes, said in (
        ({"sslmode": "verify-ca"}, "certificate is not trusted"),
        ({"sslmode": "verify-ca", "sslrootcert": str(tmp_path / "none.crt")}, "names no root certificate"),
        (
            {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "server.crt")},
            "for another host|not trusted",
        ),
    ):
        with pytest.raises(SourceError, match=said):
            warehouse(make_conninfo(encrypted, **changes)).columns(engine, "select 1")
    trusted = make_conninfo(encrypted, sslmode="verify-ca", sslrootcert=str(tmp_path / "server.crt"))
    assert read(warehouse(trusted), engine, "select 1 as a") == [("1",)]


def test_tls_that_the_server_does_not_offer(postgres_db: str, engine: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(SourceError, match="asks for TLS"):
        warehouse(make_conninfo(postgres_db, sslmode="require")).columns(engine, "select 1")


def test_a_read_that_nobody_waits_for_ends(postgres_db: str, engine: duckdb.DuckDBPyConnection) -> None:
    """Closing a relation in the middle of it cancels what the server still does for it."""
    slow = "select i, pg_sleep(case when i > 300000 then 600 else 0 end)::text as t from generate_series(1, 400000) as g (i)"
    relation = warehouse(postgres_db).relation(engine, slow)
    assert engine.execute(f"SELECT count(*) FROM (SELECT * FROM {relation.sql} LIMIT 10)").fetchall() == [
        (10,)
    ]
    relation.close()
    sleeping = "select 1 from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
    with psycopg.connect(postgres_db, autocommit=True) as db:
        until(lambda: not db.execute(sleeping).fetchall())


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("bigint", "BIGINT", "7"),
        ("numeric(12,2)", "DECIMAL(12,2)", "7.00"),
        ("text", "VARCHAR", "7"),
        ("varchar(9)", "VARCHAR", "7"),
        ("mood", "VARCHAR", "7"),
        ("uuid", "VARCHAR", "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_one_key_is_looked_up_by_the_server(
    postgres_db: str, engine: duckdb.DuckDBPyConnection, column: str, kind: str, value: str
) -> None:
    """Whatever is asked for is no error, and rows with other keys do not come."""
    prefix = value[:-1]
    with psycopg.connect(postgres_db, autocommit=True) as server:
        server.execute("create type mood as enum ('6', '7', '8')")
        values = (
            ", ".join(f"('{prefix}{one}')" for one in "678") if column != "numeric(12,2)" else "(6), (7), (8)"
        )
        server.execute(f"create table k (id {column}); insert into k values {values}".encode())
    for text, count in ((value, 1), ("no'such", 0)):
        only = only_keys("postgres", [[("id", kind, text)]])
        relation = open_model(Model("select * from k"), warehouse(postgres_db), engine, Path(), only=only)
        try:
            engine.execute(f"SELECT * FROM {relation.sql}").fetchall()
            assert relation.rows == count
        finally:
            relation.close()


def test_where_the_server_cannot_say_it_exactly_all_rows_are_read() -> None:
    key = [("id", "BIGINT", "7"), ("day", "DATE", "2026-01-01")]
    assert only_keys("postgres", [key]) == ""
    assert only_keys("sqlite", [key[:1]]) == ""
