"""Writing batches into a real MariaDB."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from mysql_rows import Lines, batch, execute, to

from backhaul.destinations.mysql import Mysql
from backhaul.errors import Halt, Refused
from backhaul.types import Delivered, Field, Gone, Op, Outcomes, Rejected

Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
async def app(mysql_db: str) -> AsyncIterator[Mysql]:
    found = to(mysql_db)
    await found.open()
    yield found
    await found.close()


@pytest.fixture
def sql(mysql_db: str) -> Sql:
    return lambda *statements: execute(mysql_db, *statements)


async def test_upsert_inserts_and_updates_listed_columns_only(app: Mysql, sql: Sql) -> None:
    sql("create table users (id int primary key, name text, plan varchar(9) default 'free', note text)")
    sql("insert into users values (1, 'old', 'gold', 'keep me')")
    assert await app.write(batch("users", "id name", (1, "new"), (2, "two"))) == Outcomes(everything=True)
    assert sql("select * from users order by id") == [(1, "new", "gold", "keep me"), (2, "two", "free", None)]


async def test_unchanged_rows_are_not_touched_and_a_change_of_case_is_one(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key, a text, j json, v double)", "create table writes (id int)")
    sql("create trigger log after update on t for each row insert into writes values (new.id)")
    rows = [(1, "x", {"k": 1}, 0.1), (2, None, None, None), (3, "", [], 1e300)]
    await app.write(batch("t", "id a j v", *rows))
    await app.write(batch("t", "id a j v", *rows))
    assert not sql("select * from writes")
    await app.write(batch("t", "id a j v", (1, "X", {"k": 1}, 0.1), *rows[1:]))
    assert sql("select * from writes") == [(1,)]
    assert sql("select a from t where id = 1") == [("X",)]


async def test_existing_rows_use_up_no_numbers(app: Mysql, sql: Sql) -> None:
    """INSERT ... ON DUPLICATE KEY UPDATE alone takes a number of the sequence for every row that is there already."""
    sql("create table t (id int auto_increment primary key, email varchar(50) not null unique, a int)")
    for n in range(3):
        await app.write(batch("t", "email a", ("a", n), ("b", n), identifiers=("email",)))
    await app.write(batch("t", "email a", ("c", 0), identifiers=("email",)))
    last = sql("select id from t where email = 'c'")[0][0]
    assert last <= 4  # InnoDB takes numbers of a bulk insert in powers of two


async def test_one_bad_row_applies_nothing_and_names_its_column_without_its_value(
    app: Mysql, sql: Sql
) -> None:
    sql("create table parent (id int primary key)")
    sql(
        "create table t (id int primary key, age tinyint check (age > 0), name varchar(5) not null, day date, "
        "p int references parent (id), latin varchar(9) character set latin1, j json, price decimal(4,2) unsigned)"
    )
    columns = "id age name day p latin j price"
    good = (1, 1, "good", "2026-01-01", None, None, None, None)
    for change, code, named in [
        ({"age": "secret"}, "1366", "age"),
        ({"age": 300}, "1264", "age"),
        ({"age": -1}, "4025", "age"),
        ({"name": None}, "1048", "name"),
        ({"name": "secret thing"}, "1406", "name"),
        ({"day": "secret"}, "1292", "day"),
        ({"day": "2026-02-30"}, "1292", "day"),
        ({"day": "0000-00-00"}, "1292", "day"),
        ({"p": 7}, "1452", "p"),
        ({"latin": "ключ"}, "1366", "latin"),
        ({"j": "secret{"}, "4025", "j"),
        ({"price": 100}, "1264", "price"),
        ({"price": -1}, "1264", "price"),
    ]:
        bad = tuple({**dict(zip(columns.split(), good, strict=True)), "id": 2, **change}.values())
        with pytest.raises(Refused, match=named) as refused:
            await app.write(batch("t", columns, good, bad, (3, *good[1:])))
        assert refused.value.code == code, change
        assert "secret" not in str(refused.value)
        assert "backhaul_batch" not in str(refused.value)
        assert sql("select count(*) from t") == [(0,)]
    await app.write(batch("t", columns, good))
    assert sql("select count(*) from t") == [(1,)]


async def test_strict_whatever_the_server_says(app: Mysql, sql: Sql) -> None:
    """I2: a lenient server would cut the text and say ok."""
    before = sql("select @@global.sql_mode")[0][0]
    sql("set global sql_mode = ''", "create table t (id int primary key, a varchar(3), n tinyint unsigned)")
    try:
        lenient = to(f"mysql://root@127.0.0.1:{sql('select @@port')[0][0]}/{sql('select database()')[0][0]}")
        for bad in (("abcd", 1), ("a", -1)):
            with pytest.raises(Refused):
                await lenient.write(batch("t", "id a n", (1, *bad)))
        await lenient.close()
    finally:
        sql(f"set global sql_mode = '{before}'")
    assert not sql("select * from t")


async def test_a_row_matched_by_another_unique_key_is_refused_and_not_overwritten(
    app: Mysql, sql: Sql
) -> None:
    """ON DUPLICATE KEY UPDATE would give somebody else's row this record's values (I2, I21)."""
    sql("create table t (id int primary key, email varchar(50) unique, a int)")
    sql("insert into t values (1, 'secret@example.com', 7)")
    found = await app.write(
        batch("t", "id email a", (2, "secret@example.com", 9), (3, "other@example.com", 9))
    )
    taken = Rejected("2", "1062", "another row of the table has a unique value of this record")
    assert found.items == (taken, Delivered("3"))
    assert sql("select * from t order by id") == [(1, "secret@example.com", 7), (3, "other@example.com", 9)]
    found = await app.write(batch("t", "id email a", (2, "secret@example.com", 9), op=Op.INSERT))
    assert found.items == (taken,)
    with pytest.raises(Refused, match="email") as refused:
        await app.write(batch("t", "id email a", (3, "secret@example.com", 9)))
    assert refused.value.code == "1062"
    assert "secret@" not in str(refused.value)


async def test_two_of_one_unique_value_in_a_batch_are_told_apart(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key, email varchar(50) unique)")
    found = await app.write(batch("t", "id email", (1, "x"), (2, "x")))
    assert sorted(type(item).__name__ for item in found.items) == ["Delivered", "Rejected"]
    assert len(sql("select * from t")) == 1


async def test_a_key_that_only_the_collation_takes_for_the_same_is_refused(app: Mysql, sql: Sql) -> None:
    sql("create table t (id varchar(20) collate utf8mb4_unicode_ci primary key, a int)")
    sql("insert into t values ('café', 1), ('Bo', 1)")
    found = await app.write(batch("t", "id a", ("cafe", 2), ("bo", 2), ("café", 3)))
    assert [type(item) for item in found.items] == [Rejected, Delivered, Delivered]
    assert found.items[0].code == "spelling"
    assert sql("select * from t order by id") == [("Bo", 2), ("café", 3)]
    await app.write(batch("t", "id", ("cafe",), op=Op.DELETE))
    found = await app.write(batch("t", "id a", ("cafe", 2), op=Op.UPDATE))
    assert (type(found.items[0]), found.items[0].code) == (Rejected, "spelling")
    assert len(sql("select * from t")) == 2


async def test_odd_names(app: Mysql, sql: Sql, mysql_db: str) -> None:
    database = mysql_db.rsplit("/", 1)[1]
    sql('create table `Weird "Table.x%` (`select` int primary key, `a b` text, `ü%s` text, `position` text)')
    name = f'{database}.`Weird "Table.x%`'
    names = ("select", "a b", "ü%s", "position")
    fields = tuple(Field(column) for column in names)
    rows = [(1, "'; drop table x; --\\", "\"q\"'\\'", "p"), (2, "line\nbreak\0\x1a", "😀,", None)]
    for op in (Op.INSERT, Op.UPSERT, Op.UPDATE):
        assert (await app.write(Lines(name, fields, rows, op, ("select",)))).everything
    clash = Lines(name, fields, [(1, "other", "", "")], Op.INSERT, ("select",))
    held = Rejected("1", "exists", "a row with this key exists, with other values")
    assert (await app.write(clash)).items == (held,)
    assert sql('select * from `Weird "Table.x%` order by 1') == rows
    assert await app.read(name, ("select",), ["2", "9"], ["ü%s", "a b"]) == {
        "2": {"ü%s": "😀,", "a b": "line\nbreak\0\x1a"}
    }
    await app.write(Lines(name, fields[:1], [(1,)], Op.DELETE, ("select",)))
    assert sql('select `select` from `Weird "Table.x%`') == [(2,)]


async def test_composite_identifiers(app: Mysql, sql: Sql) -> None:
    sql("create table seats (org varchar(36), no bigint unsigned, who text, primary key (no, org))")
    big, two = 2**64 - 1, {"identifiers": ("org", "no")}
    await app.write(batch("seats", "org no who", ("a", 1, "a"), ("a", big, "b"), ("b", 1, "c"), **two))
    await app.write(batch("seats", "org no who", ("a", big, "B"), **two))
    await app.write(batch("seats", "org no", ("a", 1), op=Op.DELETE, **two))
    assert sql("select org, no, who from seats order by 1, 2") == [("a", big, "B"), ("b", 1, "c")]
    keys = [json.dumps(["a", str(big)]), json.dumps(["a", str(big - 1)])]
    assert await app.read("seats", ("org", "no"), keys, ["who"]) == {keys[0]: {"who": "B"}}


async def test_every_type_arrives_and_reads_back_the_same(app: Mysql, sql: Sql) -> None:
    sql(
        "create table t (id bigint primary key, flag boolean, bits bit(5), bit1 bit(1), big decimal(65,20), "
        "price decimal(10,2) unsigned, ratio float, v double, day date, at timestamp(6) null, local datetime(3), "
        "whole datetime, m enum('sad', 'it''s ok'), s set('a','b'), j json, fixed char(4), wait time(3), y year, "
        "u uuid, ub bigint unsigned, empty text, nothing text, emoji varchar(9))"
    )
    row = {
        "id": 9007199254740993, "flag": True, "bits": 21, "bit1": True,
        "big": Decimal("123456789012345678901234567890.12345678901"), "price": Decimal("12.345"), "ratio": 0.1,
        "v": 0.1, "day": "0001-02-03", "at": "2026-03-29T01:30:00.123456Z", "local": "2026-03-29T02:30:00.123456",
        "whole": "2026-03-29T02:30:00.9", "m": "it's ok", "s": "a,b", "j": {"a": [1, None, "ü'\\\""], "b": 1.0},
        "fixed": "ab", "wait": "26:00:00.500", "y": 2026, "u": "0B5A6F1C-5F6C-4D3A-8A33-3C9AD1A0C001",
        "ub": 2**64 - 1, "empty": "", "nothing": None, "emoji": "🚚",
    }  # fmt: skip
    await app.write(batch("t", " ".join(row), tuple(row.values())))
    schema = await app.describe("t")
    back = (await app.read("t", ("id",), [str(row["id"])], list(row)))[str(row["id"])]
    assert back["big"] == row["big"]
    assert back["price"] == Decimal("12.35")
    assert back["at"] == datetime.fromisoformat("2026-03-29T01:30:00.123456")
    assert back["day"] == date(1, 2, 3)
    assert (back["flag"], back["bit1"], back["bits"]) == (True, True, 21)
    assert (back["empty"], back["nothing"]) == ("", None)
    for name in row:
        assert app.same(schema.fields[name], row[name], back[name]) or name == "u", name
    assert not app.same(schema.fields["empty"], None, "")
    assert not app.same(schema.fields["big"], row["big"] + Decimal("1e-11"), back["big"])
    assert not app.same(schema.fields["at"], "2026-03-29T01:30:00Z", back["at"])
    assert not app.same(schema.fields["local"], "2026-03-29T02:30:00.121", back["local"])
    assert not app.same(schema.fields["j"], {"a": []}, back["j"])


async def test_insert_refuses_rows_that_exist_with_other_values(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key, a text, other text)")
    sql("insert into t values (1, 'same', 'x'), (2, 'held', 'y')")
    found = await app.write(batch("t", "id a", (3, "new"), (2, "sent"), (1, "same"), op=Op.INSERT))
    clash = Rejected("2", "exists", "a row with this key exists, with other values")
    assert found.items == (Delivered("3"), clash, Delivered("1"))
    assert sql("select * from t order by id") == [(1, "same", "x"), (2, "held", "y"), (3, "new", None)]


async def test_insert_past_a_trigger_that_changes_values_is_delivered(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key, a text)")
    sql("create trigger up before insert on t for each row set new.a = upper(new.a)")
    sql("insert into t values (1, 'a')")
    found = await app.write(batch("t", "id a", (1, "b"), (2, "b"), op=Op.INSERT))
    assert [type(item) for item in found.items] == [Rejected, Delivered]


async def test_update_refuses_rows_that_do_not_exist(app: Mysql, sql: Sql) -> None:
    sql("create table t (id varchar(9) primary key, a text)", "insert into t values ('1', 'x'), ('2', 'x')")
    found = await app.write(batch("t", "id a", ("2", "y"), ("9", "z"), ("1", "x"), op=Op.UPDATE))
    assert found.items == (Delivered("2"), Gone("9", "not_found", "no row has this key"), Delivered("1"))
    assert sql("select * from t order by id") == [("1", "x"), ("2", "y")]


async def test_deleting_what_is_gone_is_fine(app: Mysql, sql: Sql) -> None:
    sql("create table t (id varchar(9) primary key)", "insert into t values ('a')")
    for _ in range(2):
        assert (await app.write(batch("t", "id", ("a",), ("b",), op=Op.DELETE))).everything
    assert not sql("select * from t")


async def test_a_null_that_is_skipped_leaves_the_value(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key, a text, b text)", "insert into t values (1, 'a', 'b')")
    fields = (Field("id"), Field("a", skip_null=True), Field("b"))
    for op in (Op.UPSERT, Op.UPDATE):
        await app.write(Lines("t", fields, [(1, None, None)], op))
        assert sql("select * from t") == [(1, "a", None)]


async def test_zero_is_a_key_and_no_next_number(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int auto_increment primary key, a int)")
    assert (await app.write(batch("t", "id a", (0, 1), (5, 1)))).everything
    assert sql("select id from t order by id") == [(0,), (5,)]


async def test_a_table_of_identifiers_alone(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key)")
    for op in (Op.UPSERT, Op.INSERT, Op.UPDATE):
        assert (await app.write(batch("t", "id", (1,), (2,), op=op))).everything
    assert sql("select * from t order by id") == [(1,), (2,)]


async def test_no_unique_key_on_exactly_the_identifiers_halts(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int, a varchar(99), b int, unique key (id, b), unique key (a(5)))")
    for op in Op:
        with pytest.raises(Halt, match=r"no unique index on exactly \(id\)"):
            await app.write(batch("t", "id b", (1, 1), op=op))
    with pytest.raises(Halt, match=r"no unique index on exactly \(a\)"):
        await app.write(batch("t", "a b", ("x", 1), identifiers=("a",)))


async def test_a_table_without_transactions_halts(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key) engine = MyISAM")
    with pytest.raises(Halt, match="MyISAM, which has no transactions"):
        await app.write(batch("t", "id", (1,)))


async def test_unknown_columns_halt(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key)")
    with pytest.raises(Halt, match="no column 'nope'"):
        await app.write(batch("t", "id nope", (1, "x")))
    with pytest.raises(Halt, match="no column 'nope'"):
        await app.read("t", ("id",), ["1"], ["nope"])


async def test_more_than_a_packet_goes_in_several_statements(app: Mysql, sql: Sql, mysql_db: str) -> None:
    usual = sql("select @@max_allowed_packet")[0][0]
    sql("create table t (id int primary key, a longtext)", "set global max_allowed_packet = 1048576")
    small = to(mysql_db)
    try:
        assert (await small.write(batch("t", "id a", *((n, "é" * 60_000) for n in range(30))))).everything
        with pytest.raises(Refused, match="max_allowed_packet") as refused:
            await small.write(batch("t", "id a", (1, "é" * 600_000)))
    finally:
        sql(f"set global max_allowed_packet = {usual}")
        await small.close()
    assert refused.value.code == "1153"
    assert sql("select count(*), min(char_length(a)) from t") == [(30, 60_000)]


@pytest.mark.parametrize(
    ("column", "sent", "other"),
    [
        ("json", '"[draft] hello"', '"[draft] bye"'),
        ("json", "true", "false"),
        ("json", "5", "6"),
        ("json", "null", '"null"'),
        ("set('a','b')", "b,a", "b"),
        ("set('a','b')", "a,a", "a,b"),
        ("float(7,2)", "1.239", "1.249"),
        ("double(8,2)", "1.239", "1.249"),
    ],
)
async def test_a_value_reads_back_the_same_in_the_form_its_type_keeps(
    app: Mysql, sql: Sql, column: str, sent: str, other: str
) -> None:
    """A SET is kept in the order of its definition and each member once, FLOAT(M,D) and DOUBLE(M,D) are rounded (MySQL
    manual, The SET Type and Floating-Point Types)."""
    sql(f"create table t (id int primary key, v {column})")
    await app.write(batch("t", "id v", (1, sent)))
    field = (await app.describe("t")).fields["v"]
    held = (await app.read("t", ("id",), ["1"], ["v"]))["1"]["v"]
    assert app.same(field, sent, held)
    assert not app.same(field, other, held)
    assert not app.same(field, None, held)


async def test_a_null_in_a_timestamp_that_is_not_null_is_refused(app: Mysql, sql: Sql) -> None:
    """The server would take the current time for it (MySQL manual, explicit_defaults_for_timestamp)."""
    sql("create table t (id int primary key, v timestamp not null)")
    with pytest.raises(Refused, match="'v' cannot be null") as refused:
        await app.write(batch("t", "id v", (1, None), (2, "2026-01-01T00:00:00Z")))
    assert refused.value.code == "1048"
    assert not sql("select * from t")


async def test_a_null_that_is_skipped_leaves_a_timestamp_that_is_not_null(app: Mysql, sql: Sql) -> None:
    sql("create table t (id int primary key, v timestamp not null)")
    sql("insert into t values (1, '2026-01-01 00:00:00')")
    await app.write(Lines("t", (Field("id"), Field("v", skip_null=True)), [(1, None)]))
    assert sql("select v from t") == [(datetime.fromisoformat("2026-01-01T00:00:00"),)]


@pytest.mark.parametrize("name", ["sent", "held", "values", "position"])
async def test_a_table_may_be_named_as_our_own_statements_name_things(
    app: Mysql, sql: Sql, name: str
) -> None:
    sql(f"create table `{name}` (id int primary key, held text, sent text)")
    for last in ("y", "z"):
        assert (await app.write(batch(name, "id held sent", (1, "x", last), (2, "x", "y")))).everything
        assert sql(f"select * from `{name}` order by id") == [(1, "x", last), (2, "x", "y")]


async def test_tables_whose_names_differ_in_case_are_told_apart(app: Mysql, sql: Sql) -> None:
    """As the server does where lower_case_table_names is 0 (MySQL manual, Identifier Case Sensitivity)."""
    sql("create table T (id int primary key, big text)", "create table t (id int primary key, small text)")
    assert set((await app.describe("T")).fields) == {"id", "big"}
    assert set((await app.describe("t")).fields) == {"id", "small"}
