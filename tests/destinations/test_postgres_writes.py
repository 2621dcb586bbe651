"""Writing batches into a real PostgreSQL."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from backhaul.destinations.postgres import Postgres, PostgresConfig
from backhaul.destinations.postgres.statements import MESSAGES
from backhaul.errors import Halt, Refused
from backhaul.project import load
from backhaul.types import Delivered, Field, Gone, Op, Outcomes, Rejected

Sql = Callable[[str], list[tuple[Any, ...]]]


@dataclass
class Lines:
    """Rows as the mapping writes CSV: text quoted, NULL an empty cell, arrays and objects as JSON text."""

    object: str
    fields: tuple[Field, ...]
    rows: list[tuple[Any, ...]]
    op: Op = Op.UPSERT
    identifiers: tuple[str, ...] = ("id",)
    idempotency_key: str = "k"
    set_aside: bool = False
    remote_ids: tuple[None, ...] = ()

    @property
    def keys(self) -> list[str]:
        count = len(self.identifiers)
        return [str(row[0]) if count == 1 else json.dumps([str(v) for v in row[:count]]) for row in self.rows]

    def text(self) -> bytes:
        return "".join(",".join(map(cell, row)) + "\n" for row in self.rows).encode()

    def records(self) -> list[dict[str, Any]]:
        raise AssertionError("a CSV wire has no records")

    def __len__(self) -> int:
        return len(self.rows)


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value)
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="").writerow([text])
    return out.getvalue()


def batch(table: str, columns: str, *rows: tuple[Any, ...], **more: Any) -> Lines:
    return Lines(table, tuple(Field(name) for name in columns.split()), list(rows), **more)


@pytest.fixture
async def app(postgres_db: str) -> AsyncIterator[Postgres]:
    found = Postgres(PostgresConfig(dsn=postgres_db), None)  # type: ignore[arg-type]
    await found.open()
    yield found
    await found.close()


@pytest.fixture
def sql(postgres_db: str) -> Sql:
    def run(text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(postgres_db, autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    return run


async def test_upsert_inserts_and_updates_listed_columns_only(app, sql):
    sql("create table users (id int primary key, name text, plan text default 'free', note text)")
    sql("insert into users values (1, 'old', 'gold', 'keep me')")
    found = await app.write(batch("users", "id name", (1, "new"), (2, "two")))
    assert found == Outcomes(everything=True)
    assert sql("select * from users order by id") == [(1, "new", "gold", "keep me"), (2, "two", "free", None)]


async def test_unchanged_rows_are_not_rewritten(app, sql):
    sql("create table t (id int primary key, a text, j json, tags text[])")
    rows = [(1, "x", {"k": 1}, ["p", "q"]), (2, None, None, None), (3, "", [], [])]
    await app.write(batch("t", "id a j tags", *rows))
    before = sql("select id, xmin::text from t order by id")
    await app.write(batch("t", "id a j tags", rows[0], rows[1], (3, "changed", [], [])))
    after = sql("select id, xmin::text from t order by id")
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False]


async def test_one_bad_row_applies_nothing_and_names_its_column(app, sql):
    sql("create table t (id int primary key, age int check (age > 0), name varchar(5) not null)")
    for bad, state, named in [
        ((2, "old", "x"), "22P02", "age"),
        ((2, -1, "x"), "23514", "t_age_check"),
        ((2, 1, None), "23502", "name"),
        ((2, 1, "too long"), "22001", "name"),
        ((2, 1, "\0"), "22021", "0x00"),
        ((2, 99999999999, "x"), "22003", "age"),
    ]:
        with pytest.raises(Refused, match=named) as refused:
            await app.write(batch("t", "id age name", (1, 1, "good"), bad, (3, 3, "fine")))
        assert refused.value.code == state
        assert "good" not in str(refused.value)
        assert "Failing row" not in str(refused.value)
        assert sql("select count(*) from t") == [(0,)]
    await app.write(batch("t", "id age name", (1, 1, "good")))
    assert sql("select count(*) from t") == [(1,)]


async def test_another_unique_constraint_refuses_the_batch_without_showing_the_value(app, sql):
    sql("create table t (id int primary key, email text unique)")
    sql("insert into t values (1, 'secret@example.com')")
    with pytest.raises(Refused, match="t_email_key") as refused:
        await app.write(batch("t", "id email", (2, "secret@example.com")))
    assert refused.value.code == "23505"
    assert "secret@" not in str(refused.value)


async def test_a_deferred_constraint_that_fails_at_commit_refuses_too(app, sql):
    sql("create table parent (id int primary key)")
    sql("create table t (id int primary key, p int references parent deferrable initially deferred)")
    with pytest.raises(Refused) as refused:
        await app.write(batch("t", "id p", (1, 7)))
    assert refused.value.code == "23503"


async def test_odd_names(app, sql):
    sql('create schema "Größe"')
    sql(
        'create table "Größe"."Weird ""Table.x%" '
        '("select" int primary key, "a b" text, "ü%s" text, position text)'
    )
    name = '"Größe"."Weird ""Table.x%"'
    names = ("select", "a b", "ü%s", "position")
    fields = tuple(Field(column) for column in names)
    rows = [(1, "'; drop table x; --", '"q"', "p"), (2, "line\nbreak", "😀,", None)]
    for op in (Op.INSERT, Op.UPSERT, Op.UPDATE):
        assert (await app.write(Lines(name, fields, rows, op, ("select",)))).everything
    clash = Lines(name, fields, [(1, "other", "", "")], Op.INSERT, ("select",))
    assert (await app.write(clash)).items == (
        Rejected("1", "exists", "a row with this key exists, with other values"),
    )
    assert sql(f"select * from {name} order by 1") == rows
    assert await app.read(name, ("select",), ["2", "9"], ["ü%s", "a b"]) == {
        "2": {"ü%s": "😀,", "a b": "line\nbreak"}
    }
    await app.write(Lines(name, fields[:1], [(1,)], Op.DELETE, ("select",)))
    assert sql(f'select "select" from {name}') == [(2,)]


async def test_composite_identifiers(app, sql):
    sql("create schema crm")
    sql("create table crm.seats (org uuid, no int, who text, primary key (no, org))")
    org, other = "0b5a6f1c-5f6c-4d3a-8a33-3c9ad1a0c001", "0b5a6f1c-5f6c-4d3a-8a33-3c9ad1a0c002"
    two = {"identifiers": ("org", "no")}
    await app.write(batch("crm.seats", "org no who", (org, 1, "a"), (org, 2, "b"), (other, 1, "c"), **two))
    await app.write(batch("crm.seats", "org no who", (org, 2, "B"), **two))
    gone = batch("crm.seats", "org no", (org, 1), op=Op.DELETE, **two)
    await app.write(gone)
    assert sql("select org::text, no, who from crm.seats order by 1, 2") == [(org, 2, "B"), (other, 1, "c")]
    keys = [json.dumps([org, "2"]), json.dumps([org, "1"])]
    assert await app.read("crm.seats", ("org", "no"), keys, ["who"]) == {keys[0]: {"who": "B"}}


async def test_every_type_arrives_and_reads_back_the_same(app, sql):
    sql("create type mood as enum ('sad', 'it''s ok')")
    sql("create domain score as numeric(6,2) check (value >= 0)")
    sql(
        "create table t (id bigint primary key, flag boolean, big numeric, price numeric(10,2), ratio real,"
        " day date,"
        " at timestamptz, local timestamp, m mood, s score, j jsonb, raw json, tags text[], nums int[],"
        " amounts numeric(8,2)[], u uuid, fixed char(4), wait interval, empty text, nothing text)"
    )
    row = {
        "id": 9007199254740993, "flag": True, "big": Decimal("123456789012345678901234567890.123456789"),
        "price": Decimal("12.345"), "ratio": 0.1, "day": "0001-02-03", "at": "2026-03-29T01:30:00.123456Z",
        "local": "2026-03-29T02:30:00", "m": "it's ok", "s": Decimal("7.50"),
        "j": {"a": [1, None, "ü"], "b": 1.0},
        "raw": {"z": 1}, "tags": ['a"b', "c,d", None, "", "{x}", "NULL"], "nums": [1, None, -3],
        "amounts": [1.5, 2], "u": "0B5A6F1C-5F6C-4D3A-8A33-3C9AD1A0C001", "fixed": "ab",
        "wait": "1 day 02:00:00",
        "empty": "", "nothing": None,
    }  # fmt: skip
    await app.write(batch("t", " ".join(row), tuple(row.values())))
    schema = await app.describe("t")
    back = (await app.read("t", ("id",), [str(row["id"])], list(row)))[str(row["id"])]
    assert back["big"] == row["big"]
    assert back["price"] == Decimal("12.35")
    assert back["at"] == datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
    assert back["day"] == date(1, 2, 3)
    assert back["tags"] == row["tags"]
    assert back["amounts"] == [Decimal("1.50"), Decimal("2.00")]
    assert (back["empty"], back["nothing"]) == ("", None)
    for name in set(row) - {"wait"}:
        assert app.same(schema.fields[name], row[name], back[name]), name
    assert not app.same(schema.fields["empty"], None, "")
    assert not app.same(
        schema.fields["big"], Decimal("123456789012345678901234567890.123456788"), back["big"]
    )
    assert not app.same(schema.fields["at"], "2026-03-29T01:30:00Z", back["at"])
    assert not app.same(schema.fields["tags"], ["a"], back["tags"])
    before = sql("select xmin::text from t")
    await app.write(batch("t", " ".join(row), tuple(row.values())))
    assert sql("select xmin::text from t") == before


async def test_insert_refuses_rows_that_exist_with_other_values(app, sql):
    sql("create table t (id int primary key, a text, other text)")
    sql("insert into t values (1, 'same', 'x'), (2, 'held', 'y')")
    found = await app.write(batch("t", "id a", (3, "new"), (2, "sent"), (1, "same"), op=Op.INSERT))
    assert set(found.items) == {
        Delivered("3"),
        Delivered("1"),
        Rejected("2", "exists", "a row with this key exists, with other values"),
    }
    assert not found.everything
    assert sql("select * from t order by id") == [(1, "same", "x"), (2, "held", "y"), (3, "new", None)]


async def test_insert_past_a_trigger_that_changes_values_is_delivered(app, sql):
    sql("create table t (id int primary key, a text)")
    sql(
        "create function up() returns trigger language plpgsql as "
        "$$begin new.a = upper(new.a); return new; end$$"
    )
    sql("create trigger up before insert on t for each row execute function up()")
    sql("insert into t values (1, 'a')")
    found = await app.write(batch("t", "id a", (1, "b"), (2, "b"), op=Op.INSERT))
    assert [type(item) for item in found.items] == [Rejected, Delivered]


async def test_update_refuses_rows_that_do_not_exist(app, sql):
    sql("create table t (id text primary key, a text)")
    sql("insert into t values ('1', 'x'), ('2', 'x')")
    found = await app.write(batch("t", "id a", ("2", "y"), ("9", "z"), ("1", "x"), op=Op.UPDATE))
    assert set(found.items) == {
        Delivered("2"),
        Delivered("1"),
        Gone("9", "not_found", "no row has this key"),
    }
    assert sql("select * from t order by id") == [("1", "x"), ("2", "y")]


async def test_deleting_what_is_gone_is_fine(app, sql):
    sql("create table t (id text primary key)")
    sql("insert into t values ('a')")
    for _ in range(2):
        assert (await app.write(batch("t", "id", ("a",), ("b",), op=Op.DELETE))).everything
    assert sql("select * from t") == []


async def test_a_null_that_is_skipped_leaves_the_value(app, sql):
    sql("create table t (id int primary key, a text, b text)")
    sql("insert into t values (1, 'a', 'b')")
    fields = (Field("id"), Field("a", skip_null=True), Field("b"))
    for op in (Op.UPSERT, Op.UPDATE):
        await app.write(Lines("t", fields, [(1, None, None)], op))
        assert sql("select * from t") == [(1, "a", None)]
    before = sql("select xmin::text from t")
    await app.write(Lines("t", fields, [(1, None, None)]))
    assert sql("select xmin::text from t") == before


async def test_a_table_of_identifiers_alone(app, sql):
    sql("create table t (id int primary key)")
    for op in (Op.UPSERT, Op.INSERT, Op.UPDATE):
        assert (await app.write(batch("t", "id", (1,), (2,), op=op))).everything
    assert sql("select * from t order by id") == [(1,), (2,)]


async def test_citext_keys_and_values_keep_their_case(app, sql):
    try:
        sql("create extension citext")
    except psycopg.Error:
        pytest.skip("the citext extension is not installed")
    sql("create table t (email citext primary key, name citext)")
    await app.write(batch("t", "email name", ("A@x.org", "Bo"), identifiers=("email",)))
    await app.write(batch("t", "email name", ("a@x.org", "BO"), identifiers=("email",)))
    assert sql("select email::text, name::text from t") == [("A@x.org", "BO")]


async def test_no_unique_index_on_the_identifiers_halts(app, sql):
    sql("create table t (id int, a text, b int)")
    sql("create unique index on t (a) where a > ''")
    sql("create unique index on t (id, b)")
    for op in Op:
        with pytest.raises(Halt, match=r"no unique index on exactly \(id\)"):
            await app.write(batch("t", "id a", (1, "x"), op=op))


async def test_unknown_columns_and_read_of_unknown_columns_halt(app, sql):
    sql("create table t (id int primary key)")
    with pytest.raises(Halt, match="no column 'nope'"):
        await app.write(batch("t", "id nope", (1, "x")))
    with pytest.raises(Halt, match="no column 'nope'"):
        await app.read("t", ("id",), ["1"], ["nope"])


@pytest.mark.parametrize(
    ("column", "sent", "other"),
    [
        ("jsonb", '"[draft] hello"', '"[draft] bye"'),
        ("jsonb", "true", '"true"'),
        ("jsonb", "5", '"5"'),
        ("jsonb", "null", '"null"'),
        ("jsonb[]", '["1","true","x"]', '[1,true,"x"]'),
        ("uuid[]", '["0b5a6f1c-5f6c-4d3a-8a33-3c9ad1a0c001"]', "[]"),
        ("inet[]", '["10.0.0.1"]', '["10.0.0.2"]'),
        ("bytea[]", r'["\\xdead"]', r'["\\xdeae"]'),
        ("timestamp[]", '["2026-01-01 00:00:00"]', '["2026-01-01 00:00:01"]'),
        ("timestamptz[]", '["2026-01-01 00:00:00+00"]', '["2026-01-01 00:00:00+01"]'),
        ("bytea", r"\xdead", r"\xdeae"),
        ("interval", "1 day", "2 days"),
        ("int4range", "[1,5)", "[1,6)"),
        ("timestamp(0)", "2026-01-01T00:00:00.6", "2026-01-01T00:00:02.6"),
        ("timestamptz(3)", "2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:00.125Z"),
        ("numeric", "NaN", "0"),
        ("mood[]", '["sad"]', '["ok"]'),
        ("price", "12.345", "12.34"),
        ("code", "ab", "ac"),
    ],
)
async def test_a_value_reads_back_the_same_in_the_form_its_type_keeps(
    app: Postgres, sql: Sql, column: str, sent: str, other: str
) -> None:
    sql(
        "create type mood as enum ('sad', 'ok'); create domain price as numeric(10,2); "
        "create domain code as char(4)"
    )
    sql(f"create table t (id int primary key, v {column})")
    await app.write(batch("t", "id v", (1, sent)))
    field = (await app.describe("t")).fields["v"]
    held = (await app.read("t", ("id",), ["1"], ["v"]))["1"]["v"]
    assert app.same(field, sent, held)
    assert not app.same(field, other, held)
    assert not app.same(field, None, held)


@pytest.fixture
def any_case(sql: Sql) -> str:
    """A collation that takes 'a' and 'A' for the same (PostgreSQL documentation, Nondeterministic Collations)."""
    try:
        sql("create collation any_case (provider=icu, locale='und-u-ks-level2', deterministic=false)")
    except psycopg.Error:
        pytest.skip("this PostgreSQL has no such collations")
    return "any_case"


async def test_a_change_of_case_is_written_whatever_the_collation(
    app: Postgres, sql: Sql, any_case: str
) -> None:
    sql(f"create table t (id int primary key, v text collate {any_case})")
    for name in ("ada", "Ada"):
        await app.write(batch("t", "id v", (1, name)))
        assert sql("select v from t") == [(name,)]


async def test_a_key_is_case_insensitive_where_its_collation_is(
    app: Postgres, sql: Sql, any_case: str
) -> None:
    sql(f"create table t (id text collate {any_case} primary key, v text)")
    fields = (await app.describe("t")).fields
    assert fields["id"].case_insensitive
    assert not fields["v"].case_insensitive


async def test_a_row_that_a_trigger_leaves_out_is_rejected(app: Postgres, sql: Sql) -> None:
    """A BEFORE trigger that returns NULL leaves its row out without an error (PostgreSQL documentation, Overview of Trigger
    Behavior)."""
    sql("create table t (id int primary key, v text)")
    sql(
        "create function f() returns trigger language plpgsql as "
        "$$begin if new.v = 'no' then return null; end if; return new; end$$"
    )
    sql("create trigger f before insert or update on t for each row execute function f()")
    found = await app.write(batch("t", "id v", (1, "yes"), (2, "no")))
    said = MESSAGES["skipped"]
    assert set(found.items) == {Delivered("1"), Rejected("2", "skipped", said)}
    assert sql("select * from t") == [(1, "yes")]
    assert (await app.write(batch("t", "id v", (1, "yes"), (3, "yes")))).everything


def test_a_number_that_a_trigger_changes_is_a_mismatch_in_the_report(
    postgres_db: str, sql: Sql, tmp_path: Path
) -> None:
    sql("create table t (id int primary key, v numeric)")
    sql(
        "create function f() returns trigger language plpgsql as $$begin new.v = new.v + 1; return new; end$$"
    )
    sql("create trigger f before insert or update on t for each row execute function f()")
    duckdb.connect(str(tmp_path / "w.duckdb")).close()
    (tmp_path / "backhaul.yml").write_text(json.dumps({
        "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
        "destinations": {"app": {"type": "postgres", "dsn": postgres_db}},
    }))  # fmt: skip
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "s.yml").write_text(json.dumps({
        "name": "s", "model": {"sql": "select 1 as id, 12.34::decimal(10,2) as v", "primary_key": "id"},
        "destination": "app", "object": "t", "mode": "upsert", "identify": {"id": "id"}, "fields": {"v": "v"},
    }))  # fmt: skip
    project = load(tmp_path)
    run = project.run("s")
    assert (run.status, run.delivered) == ("partial", 1)
    assert run.verified.mismatches[0].fields["v"][1] == Decimal("13.34")
    kept = project.runs("s")[0]
    assert kept["status"] == "partial"
    assert kept["verified"]["mismatches"][0]["fields"]["v"][1] == "13.34"
