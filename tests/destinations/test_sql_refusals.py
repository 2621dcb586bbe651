"""What the databases refuse, by class: whatever the code the record is found, and neighbours of one plan make room for each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import Database


@pytest.fixture(params=["postgres", "mysql", "sqlite"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    dsn = "" if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_db")
    found = Database(request.param, tmp_path, dsn)
    yield found
    if found.project is not None:
        found.project.__exit__()


def rows(*values: tuple[int, str | None]) -> str:
    shown = ", ".join(f"({key}, {'NULL' if value is None else repr(value)})" for key, value in values)
    return f"SELECT * FROM (VALUES {shown}) x(id, v)"


@pytest.mark.parametrize("code", ["AP001", "P0003", "P0004", "XX000", "42703", "0A000"])
def test_i19_whatever_a_trigger_raises_is_the_records(tmp_path: Path, postgres_db: str, code: str) -> None:
    db = Database("postgres", tmp_path, postgres_db)
    db.run(
        "create table thing (id int primary key, v text)",
        f"create function no() returns trigger language plpgsql as $$ begin raise 'credit limit' using errcode = '{code}'; end $$",
        "create trigger no before insert on thing for each row when (new.id = 7) execute function no()",
    )
    report = db.sync("SELECT i AS id, 'x' AS v FROM range(2000) r(i)")
    assert (report.delivered, report.rejected, report.deferred, report.exit_code) == (1999, 1, 0, 3)
    assert report.refused[0]["code"] == code
    assert "credit limit" in report.refused[0]["message"]
    with db.project as found:
        (letter,) = found.dead_letters("s")
        assert (letter["key"], "credit limit" in letter["error"]["message"]) == (7, True)
        assert "credit limit" in found.why("s", "7")["summary"]
        assert "credit limit" in str(found.status()[0]["last_run"])


def test_i19_a_signal_and_an_error_of_a_trigger_are_the_records(tmp_path: Path, mysql_db: str) -> None:
    db = Database("mysql", tmp_path, mysql_db)
    db.run(
        "create table thing (id int primary key, v text)",
        "create trigger no before insert on thing for each row begin if new.id = 7 then signal sqlstate '45000' set mysql_errno = 5001, "
        "message_text = 'credit limit'; end if; end",
    )
    report = db.sync("SELECT i AS id, 'x' AS v FROM range(200) r(i)")
    assert (report.delivered, report.rejected, report.refused[0]["code"]) == (199, 1, "5001")


def test_i19_an_error_inside_a_trigger_of_sqlite_is_the_records(tmp_path: Path) -> None:
    db = Database("sqlite", tmp_path, "")
    db.run(
        "create table thing (id int primary key, v text)",
        "create trigger no before insert on thing when new.id = 7 begin select json_extract('{', '$'); end",
    )
    report = db.sync("SELECT i AS id, 'x' AS v FROM range(200) r(i)")
    assert (report.delivered, report.rejected, report.refused[0]["code"]) == (199, 1, "SQLITE_ERROR")


def test_a_trigger_of_mysql_that_keeps_the_old_value_skips_the_row(tmp_path: Path, mysql_db: str) -> None:
    db = Database("mysql", tmp_path, mysql_db)
    db.run(
        "create table thing (id int primary key, v text, w text)",
        "create trigger keep before update on thing for each row set new.v = if(old.id < 3, old.v, upper(new.v))",
    )
    select = "SELECT i AS id, '{}' AS v, {} AS w FROM range(10) r(i)"
    assert db.sync(select.format("a", "'x'"), fields="v w").delivered == 10
    report = db.sync(select.format("b", "CASE WHEN i = 1 THEN 'y' ELSE 'x' END"))
    assert (report.delivered, report.rejected, report.refused[0]["code"]) == (8, 2, "skipped")
    assert db.run("select v, w from thing where id < 4 order by id") == [
        ("a", "x"),
        ("a", "y"),
        ("a", "x"),
        ("B", "x"),
    ]
    db.run("drop trigger keep")
    db.project.__exit__()


def test_a_null_that_is_left_out_keeps_the_value_of_a_column_that_must_have_one(db: Database) -> None:
    db.run(
        "create table thing (id int primary key, v varchar(9) not null, w int)",
        "insert into thing (id, v) values (1, 'held')",
    )
    fields = {"v": {"value": "v", "null": "skip"}, "w": "w"}
    report = db.sync(
        "SELECT * FROM (VALUES (1, NULL, 5), (2, NULL, 5), (3, 'c', 5)) x(id, v, w)", fields=fields
    )
    assert (report.delivered, report.rejected, report.exit_code) == (2, 1, 3)
    assert db.run("select id, v, w from thing order by id") == [(1, "held", 5), (3, "c", 5)]


VALUES = {
    "postgres": [
        ("interval", "canary 77"), ("macaddr", "canary\n77"), ("bit varying(9)", "canary77"), ("int4range", 'canary: "77'),
        ("point", "canary77"), ("money", "canary77"), ("time", "canary77"), ("bytea", "\\xcanary77"),
    ],
    "mysql": [("time", "canary 77"), ("inet6", "canary77"), ("time(3)", "it's canary77")],
    "sqlite": [("text primary key, v text unique", "canary77"), ("int", "12345678901234567877")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "native", "value"), [(kind, *one) for kind, some in VALUES.items() for one in some]
)
def test_i48_no_error_of_a_database_holds_a_value(
    kind: str, native: str, value: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    db = Database(kind, tmp_path, "" if kind == "sqlite" else request.getfixturevalue(f"{kind}_db"))
    quoted = value.replace("'", "''")
    if "unique" in native:
        db.run(
            "create table thing (id int primary key, v text unique)",
            f"insert into thing values (9, '{quoted}')",
        )
    else:
        db.run(f"create table thing (id int primary key, v {native})")
    report = db.sync(f"SELECT 1 AS id, '{quoted}' AS v")
    assert (report.delivered, report.rejected + report.deferred) == (0, 1)
    (letter,) = db.project.dead_letters("s") or [{"error": report.refused}]
    said = str((report.json(), letter["error"], db.project.status()))
    assert ("canary" if "canary" in value else value) not in said
    db.project.__exit__()


@pytest.mark.parametrize(
    "column", ["varchar(40) unique", "varchar(40) not null unique", "int not null unique", "int unique"]
)
def test_i45_unique_values_move_and_change_places(db: Database, column: str) -> None:
    db.run(f"create table thing (id int primary key, v {column})")

    def names(text: str) -> str:
        return text if "varchar" in column else str(ord(text))

    def values(*pairs: tuple[int, str]) -> str:
        return rows(*((key, names(value)) for key, value in pairs))

    def held() -> list[tuple[Any, ...]]:
        return [(key, str(value)) for key, value in db.run("select id, v from thing order by id")]

    assert db.sync(values((1, "a"), (2, "b"), (3, "c"))).delivered == 3
    report = db.sync(values((1, "b"), (2, "z"), (3, "c")))
    assert (report.status, held()) == ("succeeded", [(1, names("b")), (2, names("z")), (3, names("c"))])
    report = db.sync(values((1, "z"), (2, "c"), (3, "b")))
    assert (report.status, held()) == ("succeeded", [(1, names("z")), (2, names("c")), (3, names("b"))])
    assert sum(db.sync(values((1, "z"), (2, "c"), (3, "b"))).changes.values()) == 0


def test_i45_a_value_of_somebody_else_waits_and_the_rest_is_sent(db: Database) -> None:
    db.run(
        "create table thing (id int primary key, v varchar(40) unique)",
        "insert into thing values (99, 'taken')",
    )
    report = db.sync(rows((1, "a"), (2, "taken"), (3, "c")), mode="upsert")
    assert (report.delivered, report.deferred, report.exit_code) == (2, 1, 3)
    assert (report.refused[0]["status"], report.refused[0]["class"]) == ("waiting", "conflict")
    db.run("delete from thing where id = 99")
    report = db.sync(rows((1, "a"), (2, "taken"), (3, "c")))
    assert (report.status, report.delivered) == ("succeeded", 1)


def test_i45_a_row_waits_for_the_one_that_it_refers_to(db: Database) -> None:
    db.run(
        "create table parent (id int primary key)",
        "create table thing (id int primary key, v int, foreign key (v) references parent (id))",
        "insert into parent values (1)",
    )
    report = db.sync("SELECT i AS id, if(i = 5, 2, 1) AS v FROM range(100) r(i)")
    assert (report.delivered, report.deferred, report.rejected, report.exit_code) == (99, 1, 0, 3)
    assert report.refused[0]["class"] == "reference_missing"
    db.run("insert into parent values (2)")
    report = db.sync("SELECT i AS id, if(i = 5, 2, 1) AS v FROM range(100) r(i)")
    assert (report.status, report.delivered) == ("succeeded", 1)
    with db.project as found:
        assert found.dead_letters("s") == []


def test_null_in_a_column_that_refuses_it_is_rejected_unsent(db: Database) -> None:
    db.run("create table thing (id int primary key, v varchar(40) not null, w int not null default 3)")
    select = "SELECT i AS id, if(i % 2 = 0, NULL, 'x') AS v, if(i = 1, NULL, 2) AS w FROM range(400) r(i)"
    report = db.sync(select, fields="v w", freshness={"sample": 0})
    assert (report.delivered, report.rejected, report.exit_code) == (199, 201, 3)
    assert report.requests == 1
    assert {(one["code"], one["field"]) for one in report.refused} == {("null", "v"), ("null", "w")}
