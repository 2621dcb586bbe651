"""A row that was to change and did not is not delivered: it is rejected as skipped, whatever kept it as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flows import Pipe

from backhaul.testing.duckdb_file import opened

Sql = Callable[[str], list[tuple[Any, ...]]]


def flow(root: Path, destination: dict[str, Any], **sync: Any) -> Pipe:
    """Rows 1 to 10 of the warehouse, delivered, and then all of them changed."""
    with opened(root / "w.duckdb") as warehouse:
        warehouse.execute("CREATE OR REPLACE TABLE c AS SELECT i AS id, 'a' || i AS v FROM range(1, 11) x(i)")
    pipe = Pipe(root, {"type": "duckdb", "path": "w.duckdb"}, destination).write(fields={"v": "v"}, **sync)
    report = pipe.run()
    assert (report.status, report.delivered) == ("succeeded", 10), report.error
    return pipe


def change(pipe: Pipe, statement: str = "UPDATE c SET v = 'b' || id") -> Any:
    with opened(pipe.root / "w.duckdb") as warehouse:
        warehouse.execute(statement)
    return pipe.run()


@pytest.fixture
def postgres(postgres_db: str) -> Sql:
    def run(text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(postgres_db, autocommit=True) as db:
            cursor = db.execute(text)
            return cursor.fetchall() if cursor.description else []

    run("CREATE TABLE t (id int PRIMARY KEY, v text)")
    run("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF OLD.id IN (3, 7) THEN RETURN NULL; END IF; "
        "RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END$$")  # fmt: skip
    return run


@pytest.mark.parametrize("mode", ["upsert", "update"])
def test_a_before_update_trigger_that_returns_null(
    postgres: Sql, postgres_db: str, tmp_path: Path, mode: str
) -> None:
    if mode == "update":
        postgres("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 10) i")
    pipe = flow(tmp_path, {"type": "postgres", "dsn": postgres_db}, mode=mode)
    postgres("CREATE TRIGGER keep BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION keep()")
    report = change(pipe)
    assert (report.status, report.delivered, report.rejected) == ("partial", 8, 2)
    assert {key: code for key, (code, _) in pipe.refusals().items()} == {3: "skipped", 7: "skipped"}
    assert postgres("SELECT id FROM t WHERE v LIKE 'a%'") == [(3,), (7,)]
    postgres("DROP TRIGGER keep ON t")
    assert change(pipe, "UPDATE c SET v = 'c' || id").delivered == 10


def test_a_trigger_that_changes_values_skips_nothing(postgres: Sql, postgres_db: str, tmp_path: Path) -> None:
    pipe = flow(tmp_path, {"type": "postgres", "dsn": postgres_db}, freshness={"sample": 0})
    postgres(
        "CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.v = upper(NEW.v); RETURN NEW; END$$"
    )
    postgres("CREATE TRIGGER up BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION up()")
    assert change(pipe, "UPDATE c SET v = 'b' || id; INSERT INTO c VALUES (11, 'new')").delivered == 11
    assert postgres("SELECT count(*) FROM t WHERE v ~ '^(B|NEW)'") == [(11,)]


def test_a_before_delete_trigger_that_returns_null(postgres: Sql, postgres_db: str, tmp_path: Path) -> None:
    pipe = flow(tmp_path, {"type": "postgres", "dsn": postgres_db}, mode="mirror")
    postgres("CREATE TRIGGER keep BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION keep()")
    report = change(pipe, "DELETE FROM c WHERE id IN (2, 3)")
    assert (report.status, report.delivered, report.rejected) == ("partial", 1, 1)
    assert list(pipe.refusals()) == [3]


def test_a_row_that_row_security_hides(postgres: Sql, postgres_db: str, tmp_path: Path) -> None:
    name = f"role_{postgres_db.rsplit('/', 1)[1]}"
    postgres(f"CREATE ROLE {name} LOGIN")
    try:
        postgres(f"GRANT ALL ON t TO {name}; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (id <> 3 OR v = 'a3') "
                 "WITH CHECK (true)")  # fmt: skip
        pipe = flow(
            tmp_path,
            {"type": "postgres", "dsn": postgres_db.replace("postgres@", f"{name}@", 1)},
            mode="mirror",
        )
        postgres("UPDATE t SET v = 'hidden' WHERE id = 3")
        assert postgres("SELECT * FROM t WHERE id = 3") == [(3, "hidden")]
        report = change(pipe, "DELETE FROM c WHERE id IN (2, 3)")
        assert postgres("SELECT * FROM t WHERE id = 3") == [(3, "hidden")]
        assert (report.status, report.delivered, report.rejected) == ("partial", 1, 1)
        assert pipe.refusals()[3][0] == "skipped"
    finally:
        postgres(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_triggers_of_sqlite_that_ignore(tmp_path: Path) -> None:
    def app(text: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(tmp_path / "app.db") as db:
            return db.execute(text).fetchall()

    app("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    pipe = flow(tmp_path, {"type": "sqlite", "path": str(tmp_path / "app.db")}, mode="mirror")
    for event in ("UPDATE", "DELETE"):
        app(
            f"CREATE TRIGGER keep_{event} BEFORE {event} ON t WHEN OLD.id IN (3, 7) BEGIN SELECT RAISE(IGNORE); END"
        )
    report = change(pipe, "UPDATE c SET v = 'b' || id WHERE id <> 7; DELETE FROM c WHERE id IN (7, 8)")
    assert (report.status, report.delivered, report.rejected) == ("partial", 8, 2)
    assert {key: code for key, (code, _) in pipe.refusals().items()} == {3: "skipped", 7: "skipped"}


def test_known_rows_take_no_number_of_a_sequence(postgres: Sql, postgres_db: str, tmp_path: Path) -> None:
    postgres("DROP TABLE t; CREATE TABLE t (serial bigserial PRIMARY KEY, id int UNIQUE NOT NULL, v text)")
    pipe = flow(tmp_path, {"type": "postgres", "dsn": postgres_db})
    assert change(pipe, "UPDATE c SET v = 'b' || id; INSERT INTO c VALUES (11, 'new')").delivered == 11
    assert postgres("SELECT last_value FROM t_serial_seq") == [(11,)]
