"""I21: the identifier of a known row changes in an SQL destination: the row keeps the columns that the sync does not write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import Database

KEYS = {"number": "number integer not null unique", "email": "email varchar(60) not null unique"}


@pytest.fixture(params=["postgres", "mysql", "sqlite"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    dsn = "" if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_db")
    found = Database(request.param, tmp_path, dsn)
    yield found
    if found.project is not None:
        found.project.__exit__()


def value(column: str, number: int) -> Any:
    return number if column == "number" else f"{number}@example.com"


def rows(column: str, *pairs: tuple[int, int, str]) -> str:
    """The SELECT of key, identifier and name."""
    kind = "integer" if column == "number" else "varchar"
    shown = ", ".join(f"({key}, {value(column, number)!r}::{kind}, '{name}')" for key, number, name in pairs)
    return f"SELECT * FROM (VALUES {shown}) x(id, who, name)"


def begun(db: Database, column: str, *pairs: tuple[int, int, str], extra: str = "", **sync: Any) -> None:
    """The table after a first run; its column `note`, which no sync writes, names the identifier of then."""
    db.run(f"create table thing ({KEYS[column]}, name varchar(60), note varchar(60){extra})")
    assert db.sync(rows(column, *pairs), identify={column: "who"}, fields="name", **sync).delivered == len(
        pairs
    )
    db.run(f"update thing set note = {column}")


def held(db: Database, column: str) -> list[tuple[Any, ...]]:
    """Identifier, name and the number of the identifier that the row had at first."""
    return [
        (
            who if column == "number" else int(who.partition("@")[0]),
            name,
            note and int(str(note).partition("@")[0]),
        )
        for who, name, note in db.run(f"select {column}, name, note from thing order by 3")
    ]


@pytest.mark.parametrize("column", KEYS)
@pytest.mark.parametrize("mode", ["mirror", "upsert"])
def test_i21_a_row_keeps_its_other_columns(db: Database, column: str, mode: str) -> None:
    begun(db, column, (1, 1, "a"), (2, 2, "b"), (3, 3, "c"), mode=mode)
    report = db.sync(rows(column, (1, 9, "a"), (2, 2, "B"), (3, 3, "c")))
    assert (report.status, report.changes, report.delivered) == (
        "succeeded",
        {"create": 0, "update": 2, "delete": 0},
        2,
    )
    assert held(db, column) == [(9, "a", 1), (2, "B", 2), (3, "c", 3)]
    assert db.sync(rows(column, (1, 9, "a"), (2, 2, "B"), (3, 3, "c"))).requests == 0


@pytest.mark.parametrize("column", KEYS)
def test_i21_rows_swap_identifiers_and_pass_them_on(db: Database, column: str) -> None:
    begun(db, column, (1, 1, "a"), (2, 2, "b"), (3, 3, "c"), (4, 4, "d"))
    report = db.sync(rows(column, (1, 2, "a"), (2, 1, "b"), (3, 4, "c"), (4, 5, "d")))
    assert (report.status, report.delivered) == ("succeeded", 4)
    assert held(db, column) == [(2, "a", 1), (1, "b", 2), (4, "c", 3), (5, "d", 4)]


def test_a_row_that_is_not_there_is_made_and_one_that_was_moved_is_updated(db: Database) -> None:
    begun(db, "number", (1, 1, "a"), (2, 2, "b"))
    db.run("delete from thing where number = 1", "update thing set number = 8 where number = 2")
    report = db.sync(rows("number", (1, 7, "a"), (2, 8, "B")))
    assert (report.delivered, report.recreated) == (2, 1)
    assert sorted(held(db, "number"), key=str) == sorted([(7, "a", None), (8, "B", 2)], key=str)


def test_an_identifier_that_a_row_of_somebody_else_has_is_not_taken_from_it(db: Database) -> None:
    begun(db, "number", (1, 1, "a"), (2, 2, "b"))
    db.run("insert into thing values (9, 'theirs', '9')")
    report = db.sync(rows("number", (1, 9, "a"), (2, 3, "b")))
    assert (report.status, report.delivered) == ("deferred", 1)
    assert held(db, "number") == [(1, "a", 1), (3, "b", 2), (9, "theirs", 9)]


def test_i19_one_row_that_refuses_its_identifier_stops_no_other(db: Database) -> None:
    begun(db, "number", *((key, key, "x") for key in range(1, 7)), extra=", check (number <> 13)")
    report = db.sync(rows("number", *((key, key + 10, "x") for key in range(1, 7))))
    assert (report.delivered, report.rejected) == (5, 1)
    assert [who for who, _, _ in held(db, "number")] == [11, 12, 3, 14, 15, 16]


def test_i45_a_row_that_others_refer_to_waits(db: Database) -> None:
    begun(db, "number", (1, 1, "a"), (2, 2, "b"))
    db.run(
        "create table child (thing integer, foreign key (thing) references thing (number))",
        "insert into child values (1)",
    )
    report = db.sync(rows("number", (1, 7, "a"), (2, 8, "b")))
    assert (report.delivered, report.status) == (1, "deferred")
    assert {item["class"] for item in report.refused} == {"reference_missing"}
    db.run("delete from child")
    assert db.sync(rows("number", (1, 7, "a"), (2, 8, "b"))).status == "succeeded"
    assert held(db, "number") == [(7, "a", 1), (8, "b", 2)]
    db.run("drop table child")


def test_an_attempt_whose_answer_was_lost_is_not_done_twice(db: Database) -> None:
    """The rows are where a first attempt moved them, and the ledger does not know."""
    begun(db, "number", (1, 1, "a"), (2, 2, "b"), (3, 3, "c"))
    db.run("update thing set number = -number", "update thing set number = 2 where number = -1",
           "update thing set number = 1 where number = -2", "update thing set number = 4 where number = -3")  # fmt: skip
    assert db.sync(rows("number", (1, 2, "a"), (2, 1, "b"), (3, 4, "c"))).status == "succeeded"
    assert held(db, "number") == [(2, "a", 1), (1, "b", 2), (4, "c", 3)]


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_trigger_that_skips_the_move_is_said(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    db = Database(kind, tmp_path, "" if kind == "sqlite" else request.getfixturevalue("postgres_db"))
    begun(db, "number", (1, 1, "a"), (2, 2, "b"))
    if kind == "sqlite":
        db.run("create trigger no before update on thing when old.number = 1 begin select raise(ignore); end")
    else:
        db.run("create function no() returns trigger language plpgsql as $$ begin "
               "if old.number = 1 then return null; end if; return new; end $$",
               "create trigger no before update on thing for each row execute function no()")  # fmt: skip
    report = db.sync(rows("number", (1, 7, "a"), (2, 8, "b")))
    assert (report.delivered, report.rejected, report.recreated) == (1, 1, 0)
    assert held(db, "number") == [(1, "a", 1), (8, "b", 2)]
    db.project.__exit__()
