"""An expression that fails for a row is named with its field; the row's value is quoted nowhere, and kept nowhere."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from bad_project import BadProject

VALUE = "ada.private@example.com"
OF_ENGINE = [
    "email::int", "email::bigint", "email::decimal(3,1)", "email::double", "email::date", "email::time", "email::timestamp",
    "email::timestamptz", "email::interval", "email::uuid", "email::json", "email::boolean", "email::int[]",
    "email::struct(a int)", "email::map(varchar, int)", "email::bit::varchar", "email::enum('a', 'b')", "strptime(email, '%Y')",
    "json_extract(email, '$.a')", "date_part(email, date '2026-01-01')", "date_trunc(email, date '2026-01-01')",
    "from_base64(email)::varchar", "unhex(email)::varchar", "regexp_matches('x', '[' || email)", "format('{' || email, 1)",
    "(8123456789 + length(email))::int", "(n * 8123456789)::tinyint",
]  # fmt: skip
OF_POSTGRES = [
    "email::int", "email::numeric", "email::date", "email::timestamptz", "email::uuid", "email::json", "email::jsonb", "email::interval",
    "email::boolean", "email::inet", "decode(email, 'hex')::text", "to_date(email, 'YYYY')", "to_number(email, '99')",
    "(email || '(')::text ~ ('(' || email)", "ascii(email) / (length(email) - length(email))", "refuses(email)", "email::mood",
]  # fmt: skip
OF_SQLITE = [
    "json_extract(email, '$.a')",
    "json_extract('{}', email)",
    "abs(-9223372036854775808 + length(email) * 0)",
]


def silent(bad: BadProject, *named: str, commands: tuple[str, ...] = ("run",)) -> None:
    for words in commands:
        said = bad.call(*words.split())
        assert VALUE not in said.out + said.err, words
        assert "8123456789" not in (said.out + said.err).replace("(8123456789 +", "").replace(
            "n * 8123456789", ""
        ), words
        if words == "run":
            assert said.code in (1, 2)
            assert all(part in said.err for part in named), said.err
    kept = b"".join(path.read_bytes() for path in bad.state.rglob("*") if path.is_file())
    assert VALUE.encode() not in kept


@pytest.mark.parametrize("expression", [one for one in OF_ENGINE if not one.startswith("date_trunc")])
def test_a_mapping_that_fails(bad: BadProject, expression: str) -> None:
    bad.sql(
        f"create or replace table t as select i as id, '{VALUE}' as email, i as n, 'Ada' as name from range(3) x(i)"
    )
    bad.sync = {"fields": {"name": "name", "contact": expression}}
    silent(bad.write(), f"contact: {expression}: a ")


@pytest.mark.parametrize("expression", [*OF_ENGINE, "error(email)"])
def test_a_model_that_fails(bad: BadProject, expression: str) -> None:
    bad.sql(
        f"create or replace table t as select i as id, '{VALUE}' as email, i as n, 'Ada' as name from range(3) x(i)"
    )
    bad.model = {"sql": f"select distinct id, name, {expression} as v from t", "primary_key": "id"}
    silent(bad.write(), "the model does not run: a ")


def test_a_model_that_is_read_in_place_and_fails(bad: BadProject) -> None:
    bad.sql(
        f"create or replace table t as select i as id, '{VALUE}' as email, 'Ada' as name from range(3) x(i)"
    )
    bad.model = {"sql": "select id, name, email::date as v from t", "primary_key": "id"}
    commands = ("run", "run --json", "plan", "check", "status --json", "why users 1 --offline")
    silent(bad.write(), "a value cannot be converted", "email::date", commands=commands)


@pytest.mark.parametrize("expression", OF_POSTGRES)
def test_a_postgres_model_that_fails(bad: BadProject, postgres_db: str, expression: str) -> None:
    import psycopg

    with psycopg.connect(postgres_db, autocommit=True) as database:
        database.execute("create type mood as enum ('good')")
        database.execute(
            "create function refuses(t text) returns text language plpgsql as $$ begin raise exception 'no %', t; end $$"
        )
        database.execute("create table t (id int, email text, name text)")
        database.execute("insert into t select i, %s, 'Ada' from generate_series(1, 3) i", [VALUE])
    bad.warehouse = {"type": "postgres", "dsn": postgres_db}
    bad.model = {"sql": f"select id, name, {expression} as v from t", "primary_key": "id"}
    named = "a value of a row makes it fail" if "refuses" in expression else "the column v fails for a row"
    silent(bad.write(), f"{named}: ", "SQLSTATE")


@pytest.mark.parametrize("expression", OF_SQLITE)
def test_a_sqlite_model_that_fails(bad: BadProject, tmp_path: Path, expression: str) -> None:
    with sqlite3.connect(tmp_path / "w.db") as database:
        database.execute("create table t (id integer, email text, name text)")
        database.execute("insert into t values (1, ?, 'Ada')", [VALUE])
    database.close()
    bad.warehouse = {"type": "sqlite", "path": "w.db"}
    bad.model = {"sql": f"select id, name, {expression} as v from t", "primary_key": "id"}
    silent(bad.write(), "")
