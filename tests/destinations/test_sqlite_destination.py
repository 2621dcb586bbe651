"""Writing batches into a real SQLite file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from backhaul.destinations.sqlite import Sqlite, SqliteConfig
from backhaul.errors import Halt, NotApplied, Refused
from backhaul.types import Delivered, Field, FieldType, Gone, Op, Outcomes, Rejected

Sql = Callable[[str], list[tuple[Any, ...]]]
EXISTS = "a row with this key exists, with other values"


@dataclass
class Objects:
    """A batch of JSON objects."""

    object: str
    rows: list[dict[str, Any]]
    op: Op = Op.UPSERT
    identifiers: tuple[str, ...] = ("id",)
    idempotency_key: str = "k"
    set_aside: bool = False
    remote_ids: tuple[None, ...] = ()

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(Field(name) for name in dict.fromkeys(name for row in self.rows for name in row))

    @property
    def keys(self) -> list[str]:
        if len(self.identifiers) == 1:
            return [str(row[self.identifiers[0]]) for row in self.rows]
        return [json.dumps([str(row[name]) for name in self.identifiers]) for row in self.rows]

    def text(self) -> bytes:
        return ",".join(json.dumps(row) for row in self.rows).encode()

    def records(self) -> list[dict[str, Any]]:
        return orjson.loads(b"[" + self.text() + b"]")

    def __len__(self) -> int:
        return len(self.rows)


def batch(table: str, *rows: dict[str, Any], **more: Any) -> Objects:
    return Objects(table, list(rows), **more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    sqlite3.connect(tmp_path / "app.db").close()
    return tmp_path / "app.db"


@pytest.fixture
def sql(file: Path) -> Sql:
    def run(text: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            return connection.execute(text).fetchall()

    return run


@pytest.fixture
async def app(file: Path) -> AsyncIterator[Sqlite]:
    found = Sqlite(SqliteConfig(path=file, timeout="300ms"), None)  # type: ignore[arg-type]
    await found.open()
    yield found
    await found.close()


async def test_upsert_inserts_and_updates_listed_columns_only(app, sql):
    sql("create table users (id integer primary key, name text, plan text default 'free', note text)")
    sql("insert into users values (1, 'old', 'gold', 'keep me')")
    assert await app.write(batch("users", {"id": 1, "name": "new"}, {"id": 2, "name": "two"})) == Outcomes(
        everything=True
    )
    assert sql("select * from users order by id") == [(1, "new", "gold", "keep me"), (2, "two", "free", None)]


@pytest.mark.parametrize("op", [Op.UPSERT, Op.UPDATE, Op.INSERT])
async def test_unchanged_rows_are_not_rewritten(app, sql, op):
    sql("create table t (id integer primary key, a text collate nocase, b numeric, c, d json)")
    sql("create table log (id)")
    rows = [
        {"id": 1, "a": 5, "b": "1.50", "c": 1, "d": {"k": [1]}},
        {"id": 2, "a": None, "b": None, "c": "", "d": []},
    ]
    await app.write(batch("t", *rows))
    sql("create trigger noticed after update on t begin insert into log values (new.id); end")
    assert (await app.write(batch("t", *rows, op=op))).everything
    assert sql("select * from log") == []
    if op is not Op.INSERT:
        await app.write(batch("t", rows[0] | {"a": "x"}, rows[1]))
        await app.write(batch("t", rows[0] | {"a": "X"}, rows[1], op=op))
        assert sql("select * from log") == [(1,), (1,)]
        assert sql("select a from t where id = 1") == [("X",)]


async def test_one_bad_row_applies_nothing(app, sql):
    sql("create table t (id integer primary key, age integer check (age > 0), email text unique not null)")
    sql("insert into t values (9, 1, 'held@x')")
    for bad in ({"age": -1, "email": "x"}, {"age": 1, "email": None}, {"age": 1, "email": "held@x"}):
        with pytest.raises(Refused) as refused:
            await app.write(batch("t", {"id": 1, "age": 1, "email": "fine"}, {"id": 2} | bad))
        assert refused.value.code.startswith("SQLITE_CONSTRAINT")
        assert sql("select id from t") == [(9,)]
    with pytest.raises(Refused):
        await app.write(batch("t", {"id": "no number", "age": 1, "email": "y"}))
    assert (await app.write(batch("t", {"id": 1, "age": 1, "email": "fine"}))).everything


async def test_values_are_held_exactly_or_refused(app, sql):
    sql("create table t (id integer primary key, n, d decimal(30,4), s text, j json, b boolean)")
    row = {
        "id": 2**63 - 1,
        "n": 0.1,
        "d": 12.34,
        "s": 'q"\0\n😀',
        "j": {"a": [1, None, 10**25], "ü": 1.5},
        "b": True,
    }
    await app.write(batch("t", row))
    assert sql("select id, n, d, s, j, b from t") == [
        (2**63 - 1, 0.1, 12.34, 'q"\0\n😀', '{"a":[1,null,10000000000000000000000000],"ü":1.5}', 1)
    ]
    schema = await app.describe("t")
    back = await app.read("t", ("id",), [str(2**63 - 1), "1"], list(row))
    assert list(back) == [str(2**63 - 1)]
    for name, value in row.items():
        assert app.same(schema.fields[name], value, back[str(2**63 - 1)][name]), name
    for number in (2**63, -(2**63) - 1, 2**70):
        with pytest.raises(Refused, match="more than 64 bits"):
            await app.write(batch("t", {"id": 1, "n": number}))

    class Long(Objects):
        def text(self) -> bytes:
            return b'{"id": 1, "d": 12345678901234567890.1234}'

    with pytest.raises(Refused, match="more digits"):
        await app.write(Long("t", [{"id": 1, "d": 1}]))
    await app.write(batch("t", {"id": 1, "n": 0.30000000000000004}))
    assert sql("select n from t where id = 1") == [(0.30000000000000004,)]


async def test_null_and_empty_text_differ_and_a_field_left_out_keeps_its_value(app, sql):
    sql("create table t (id integer primary key, a text, b text default 'd')")
    sql("insert into t values (1, 'a', 'b'), (2, 'a', 'b')")
    await app.write(batch("t", {"id": 1, "a": None}, {"id": 2, "b": ""}, {"id": 3, "a": ""}))
    assert sql("select * from t order by id") == [(1, None, "b"), (2, "a", ""), (3, "", "d")]


async def test_odd_names_and_composite_identifiers(app, sql):
    sql(
        'create table "Weird ""Table" ("select" text, "a ""b" int, "ü$." text, "n.m" text, '
        'primary key ("select", "a ""b"))'
    )
    name, two = 'Weird "Table', {"identifiers": ("select", 'a "b')}
    await app.write(
        batch(name, {"select": "x'", 'a "b': 1, "ü$.": "1"}, {"select": "x'", 'a "b': 2, "ü$.": "2"}, **two)
    )
    await app.write(batch(name, {"select": "x'", 'a "b': 2, "ü$.": "'; drop"}, **two))
    await app.write(batch(name, {"select": "x'", 'a "b': 1}, op=Op.DELETE, **two))
    assert sql('select * from "Weird ""Table"') == [("x'", 2, "'; drop", None)]
    key = json.dumps(["x'", "2"])
    assert await app.read(name, two["identifiers"], [json.dumps(["x'", "1"]), key], ["ü$."]) == {
        key: {"ü$.": "'; drop"}
    }


async def test_a_column_with_a_dot_takes_the_nested_value(app, sql):
    sql('create table t (id integer primary key, "address.city" text)')
    nested = batch("t", {"id": 1, "address": {"city": "Oslo"}})
    nested_fields = (Field("id"), Field("address.city"))

    class Nested(Objects):
        fields = nested_fields

    await app.write(Nested("t", nested.rows))
    assert sql("select * from t") == [(1, "Oslo")]


async def test_insert_and_update_refuse_by_record(app, sql):
    sql("create table t (id text primary key, a text, other text)")
    sql("insert into t values ('1', 'same', 'x'), ('2', 'held', 'y')")
    found = await app.write(
        batch("t", {"id": "3", "a": "n"}, {"id": "2", "a": "s"}, {"id": "1", "a": "same"}, op=Op.INSERT)
    )
    assert set(found.items) == {Delivered("3"), Delivered("1"), Rejected("2", "exists", EXISTS)}
    found = await app.write(batch("t", {"id": "2", "a": "u"}, {"id": "9", "a": "z"}, op=Op.UPDATE))
    assert set(found.items) == {Delivered("2"), Gone("9", "not_found", "no row has this key")}
    assert sql("select * from t order by id") == [("1", "same", "x"), ("2", "u", "y"), ("3", "n", None)]


async def test_deleting_what_is_gone_is_fine_and_identifiers_alone_work(app, sql):
    sql("create table t (id text primary key)")
    for op in (Op.UPSERT, Op.INSERT, Op.UPDATE, Op.DELETE, Op.DELETE):
        assert (await app.write(batch("t", {"id": "a"}, {"id": "b"}, op=op))).everything
    assert sql("select * from t") == []


async def test_describe_reads_the_table(app, sql):
    sql(
        "create table t (id integer primary key, email varchar(50) not null unique,"
        " name text not null default '',"
        " both text generated always as (name || 'x'), at datetime, day date, ok boolean, meta json,"
        " n decimal(8,2),"
        " r real, a int, b int, anything, unique (a, b))"
    )
    sql("create unique index part on t (name) where name > ''")
    schema = await app.describe("t")
    fields = schema.fields
    assert not schema.open
    assert fields["id"] == Field(
        "id", FieldType.INTEGER, unique=True, native_type="INTEGER", case_insensitive=False
    )
    assert fields["email"] == Field(
        "email",
        FieldType.STRING,
        required=True,
        nullable=False,
        unique=True,
        native_type="varchar(50)",
        case_insensitive=False,
    )
    assert not fields["name"].required
    assert not fields["name"].nullable
    assert not fields["name"].unique
    assert not fields["a"].unique
    assert not fields["both"].writable
    assert [fields[name].type for name in ("at", "day", "ok", "meta", "n", "r", "anything")] == [
        FieldType.ANY, FieldType.DATE, FieldType.BOOLEAN, FieldType.JSON, FieldType.DECIMAL, FieldType.NUMBER,
        FieldType.ANY,
    ]  # fmt: skip
    with pytest.raises(Halt, match="no object 'tt'") as halted:
        await app.describe("tt")
    assert "'t'" in (halted.value.hint or "")


async def test_no_unique_index_and_unknown_columns_halt(app, sql):
    sql("create table t (id int, a text)")
    with pytest.raises(Halt, match=r"no unique index on exactly \(id\)"):
        await app.write(batch("t", {"id": 1}))
    sql("create table u (id integer primary key)")
    with pytest.raises(Halt, match="no column 'nope'"):
        await app.write(batch("u", {"id": 1, "nope": 2}))


async def test_a_locked_database_is_not_applied(app, sql, file):
    sql("create table t (id integer primary key)")
    await app.describe("t")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(NotApplied, match="locked"):
            await app.write(batch("t", {"id": 1}))
        other.execute("rollback")
    assert (await app.write(batch("t", {"id": 1}))).everything


async def test_a_file_that_is_missing_or_no_database_halts(tmp_path):
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    for name in ("missing.db", "text.db"):
        with pytest.raises(Halt):
            await Sqlite(SqliteConfig(path=tmp_path / name), None).open()  # type: ignore[arg-type]
    assert not (tmp_path / "missing.db").exists()


async def test_a_cancelled_write_ends_before_the_next_begins(app, sql):
    sql("create table t (id integer primary key, a text)")
    await app.describe("t")
    many = batch("t", *({"id": i, "a": "x"} for i in range(20_000)))
    task = asyncio.create_task(app.write(many))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await app.write(batch("t", {"id": 1, "a": "y"}))).everything
    assert sql("select count(*), max(a) from t") in ([(20_000, "y")], [(1, "y")])


@pytest.mark.parametrize(
    ("column", "value", "sent", "other"),
    [
        ("JSON", "[draft", '"[draft"', '"[draft]"'),
        ("JSON", 5, "5", "6"),
        ("JSON", True, "true", "false"),
        ("DATETIME", "2026", "2026", "2027"),
        ("TIMESTAMP", "20260101", "20260101", "20260102"),
    ],
)
async def test_a_value_reads_back_the_same_in_the_form_its_type_keeps(
    app: Sqlite, sql: Sql, column: str, value: Any, sent: str, other: str
) -> None:
    """A column of these types makes a number of a text that looks like one (sqlite.org/datatype3.html, 3)."""
    sql(f"create table t (id integer primary key, v {column})")
    await app.write(batch("t", {"id": 1, "v": value}))
    field = (await app.describe("t")).fields["v"]
    held = (await app.read("t", ("id",), ["1"], ["v"]))["1"]["v"]
    assert app.same(field, sent, held)
    assert not app.same(field, other, held)
    assert not app.same(field, None, held)


@pytest.mark.parametrize("zip_code", ["00701", "+1", "1e3", "1.50"])
async def test_a_text_of_which_the_column_would_make_another_one_is_refused(
    app: Sqlite, sql: Sql, zip_code: str
) -> None:
    """STRING is no name of a text type: its affinity is NUMERIC (sqlite.org/datatype3.html, 3.1)."""
    sql("create table t (id integer primary key, zip STRING)")
    with pytest.raises(Refused, match="zip") as refused:
        await app.write(batch("t", {"id": 1, "zip": "fine"}, {"id": 2, "zip": zip_code}))
    assert refused.value.code == "SQLITE_MISMATCH"
    assert sql("select * from t") == []


async def test_a_text_that_stays_what_it_is_goes_into_a_column_of_numbers(app: Sqlite, sql: Sql) -> None:
    sql("create table t (id integer primary key, zip STRING)")
    for zip_code in ("10701", "AB1 2CD"):
        assert (await app.write(batch("t", {"id": 1, "zip": zip_code}))).everything
        assert sql("select cast(zip as text) from t") == [(zip_code,)]


async def test_a_row_is_found_by_a_key_without_a_type(app: Sqlite, sql: Sql) -> None:
    """It holds a number as a number, which equals no text (sqlite.org/datatype3.html, 4.2)."""
    sql("create table t (id primary key, v)")
    await app.write(batch("t", {"id": 1, "v": "x"}, {"id": "01", "v": "y"}))
    assert await app.read("t", ("id",), ["1", "01", "001"], ["v"]) == {"1": {"v": "x"}, "01": {"v": "y"}}


async def test_a_key_is_case_insensitive_where_its_collation_is(app: Sqlite, sql: Sql) -> None:
    sql("create table t (id text collate nocase primary key, v text unique)")
    fields = (await app.describe("t")).fields
    assert fields["id"].case_insensitive
    assert not fields["v"].case_insensitive


async def test_a_row_that_a_trigger_leaves_out_is_rejected(app: Sqlite, sql: Sql) -> None:
    """RAISE(IGNORE) leaves a row out without an error (sqlite.org/lang_createtrigger.html)."""
    sql("create table t (id integer primary key, v text)")
    sql("create trigger s before insert on t when new.v = 'no' begin select raise(ignore); end")
    found = await app.write(batch("t", {"id": 1, "v": "yes"}, {"id": 2, "v": "no"}))
    assert set(found.items) == {
        Delivered("1"),
        Rejected("2", "skipped", "a trigger of the table left the row as it was"),
    }
    assert sql("select * from t") == [(1, "yes")]
    assert (await app.write(batch("t", {"id": 1, "v": "yes"}, {"id": 3, "v": "yes"}))).everything
