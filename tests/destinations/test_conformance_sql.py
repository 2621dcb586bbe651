from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from mysql_rows import execute

from backhaul.testing.conformance import Case, DestinationSuite

NO_ANSWERS = "a database answers for a transaction as a whole: there is no answer to lose records in"
NO_THROTTLING = "a database throttles nobody"
CASE = Case(object="people", identify="id", text="name", number="score")


class PostgresRemote:
    """A real PostgreSQL table. Faults are a trigger that raises, or a door that is shut."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection: Mapping[str, Any] = {"type": "postgres", "dsn": dsn}
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute(
                "CREATE TABLE people (id text PRIMARY KEY, name text, score bigint, other text DEFAULT 'ours')"
            )
            db.execute(
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation USING MESSAGE = 'not welcome'; END $$"
            )

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        with psycopg.connect(self.dsn) as db:
            return {
                row[0]: {"name": row[1], "score": row[2]}
                for row in db.execute("SELECT id, name, score FROM people")
            }

    def requests(self) -> int:
        with psycopg.connect(self.dsn) as db:
            row = db.execute(
                "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'people'"
            ).fetchone()
            return int(row[0]) if row else 0

    def lose(self, key: str) -> None:
        with psycopg.connect(self.dsn) as db:
            db.execute("DELETE FROM people WHERE id = %s", [key])

    def fault(self, name: str | None, key: str = "") -> None:
        with psycopg.connect(self.dsn, autocommit=True) as db:
            db.execute("DROP TRIGGER IF EXISTS refuse ON people")
            db.execute(f"ALTER DATABASE {db.info.dbname} CONNECTION LIMIT {0 if name == 'outage' else -1}")
            if name in ("poison", "reject_all"):
                when = f"WHEN (NEW.id = '{key}')" if key else ""
                db.execute(
                    f"CREATE TRIGGER refuse BEFORE INSERT ON people FOR EACH ROW {when} EXECUTE FUNCTION no()"
                )
            elif name not in (None, "outage"):
                pytest.xfail(NO_ANSWERS)


class TestPostgres(DestinationSuite):
    case = CASE
    gaps: ClassVar[Mapping[str, str]] = {
        "a_used_up_quota_defers_and_rejects_nobody": "a database asks for no payment",
        "one_bad_record_does_not_block_its_batch": NO_ANSWERS,
        "lost_and_incomplete_answers_are_made_good": NO_ANSWERS,
        "an_answer_that_names_nobody_delivers_nobody": NO_ANSWERS,
        "throttling_is_waited_out": NO_THROTTLING,
        "an_outage_rejects_nobody": "a superuser is never kept out by a connection limit; lost connections have tests of their own",
    }

    @pytest.fixture
    def remote(self, postgres_db: str) -> PostgresRemote:
        return PostgresRemote(postgres_db)


class SqliteRemote:
    """A real SQLite file. Faults are a trigger that raises, or another writer that keeps the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection: Mapping[str, Any] = {"type": "sqlite", "path": str(path), "timeout": "300ms"}
        self.blocker: sqlite3.Connection | None = None
        with sqlite3.connect(path) as db:
            db.execute(
                "CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT, score INTEGER, other TEXT DEFAULT 'ours')"
            )
            db.execute("CREATE TABLE writes (n INTEGER)")
            for event in ("INSERT", "UPDATE", "DELETE"):
                db.execute(
                    f"CREATE TRIGGER count_{event} AFTER {event} ON people BEGIN INSERT INTO writes VALUES (1); END"
                )
        db.close()

    def _all(self, query: str) -> list[Any]:
        db = sqlite3.connect(self.path)
        rows = db.execute(query).fetchall()
        db.close()
        return rows

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            row[0]: {"name": row[1], "score": row[2]}
            for row in self._all("SELECT id, name, score FROM people")
        }

    def requests(self) -> int:
        return int(self._all("SELECT count(*) FROM writes")[0][0])

    def lose(self, key: str) -> None:
        db = sqlite3.connect(self.path)
        db.execute("DELETE FROM people WHERE id = ?", [key])
        db.commit()
        db.close()

    def fault(self, name: str | None, key: str = "") -> None:
        if self.blocker is not None:
            self.blocker.close()
            self.blocker = None
        db = sqlite3.connect(self.path)
        db.execute("DROP TRIGGER IF EXISTS refuse")
        if name in ("poison", "reject_all"):
            when = f"WHEN NEW.id = '{key}'" if key else ""
            db.execute(
                f"CREATE TRIGGER refuse BEFORE INSERT ON people {when} BEGIN SELECT RAISE(ABORT, 'not welcome'); END"
            )
        db.commit()
        db.close()
        if name == "outage":
            self.blocker = sqlite3.connect(self.path, isolation_level=None)
            self.blocker.execute("BEGIN EXCLUSIVE")
        elif name not in (None, "poison", "reject_all"):
            pytest.xfail(NO_ANSWERS)


class TestSqlite(DestinationSuite):
    case = CASE
    gaps: ClassVar[Mapping[str, str]] = {
        "a_used_up_quota_defers_and_rejects_nobody": "a database asks for no payment",
        "one_bad_record_does_not_block_its_batch": NO_ANSWERS,
        "lost_and_incomplete_answers_are_made_good": NO_ANSWERS,
        "an_answer_that_names_nobody_delivers_nobody": NO_ANSWERS,
        "throttling_is_waited_out": NO_THROTTLING,
    }

    @pytest.fixture
    def remote(self, tmp_path: Path) -> SqliteRemote:
        return SqliteRemote(tmp_path / "product.db")


class MysqlRemote:
    """A real MariaDB table. Faults are a trigger that signals, or an account that may have no connection."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection: Mapping[str, Any] = {"type": "mysql", "dsn": dsn.replace("root@", "app@")}
        name = dsn.rsplit("/", 1)[1]
        execute(
            dsn,
            "CREATE TABLE people (id varchar(100) COLLATE utf8mb4_bin PRIMARY KEY, name text, score bigint, "
            "other varchar(9) DEFAULT 'ours')",
            "CREATE TABLE writes (n int)",
            *(
                f"CREATE TRIGGER count_{event} AFTER {event} ON people FOR EACH ROW INSERT INTO writes VALUES (1)"
                for event in ("INSERT", "UPDATE", "DELETE")
            ),
            "CREATE USER IF NOT EXISTS app@127.0.0.1",
            f"GRANT CREATE TEMPORARY TABLES ON {name}.* TO app@127.0.0.1",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.people TO app@127.0.0.1",
        )

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        rows = execute(self.dsn, "SELECT id, name, score FROM people")
        return {row[0]: {"name": row[1], "score": row[2]} for row in rows}

    def requests(self) -> int:
        return int(execute(self.dsn, "SELECT count(*) FROM writes")[0][0])

    def lose(self, key: str) -> None:
        execute(self.dsn, f"DELETE FROM people WHERE id = '{key}'")

    def fault(self, name: str | None, key: str = "") -> None:
        execute(self.dsn, "DROP TRIGGER IF EXISTS refuse")
        execute(self.dsn, f"ALTER USER app@127.0.0.1 ACCOUNT {'LOCK' if name == 'outage' else 'UNLOCK'}")
        if name in ("poison", "reject_all"):
            when = f"NEW.id = '{key}'" if key else "TRUE"
            execute(
                self.dsn,
                f"CREATE TRIGGER refuse BEFORE INSERT ON people FOR EACH ROW IF {when} "
                "THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not welcome'; END IF",
            )
        elif name not in (None, "outage"):
            pytest.xfail(NO_ANSWERS)


class TestMysql(DestinationSuite):
    case = CASE
    gaps: ClassVar[Mapping[str, str]] = {
        "a_used_up_quota_defers_and_rejects_nobody": "a database asks for no payment",
        "one_bad_record_does_not_block_its_batch": NO_ANSWERS,
        "lost_and_incomplete_answers_are_made_good": NO_ANSWERS,
        "an_answer_that_names_nobody_delivers_nobody": NO_ANSWERS,
        "throttling_is_waited_out": NO_THROTTLING,
    }

    @pytest.fixture
    def remote(self, mysql_db: str) -> MysqlRemote:
        return MysqlRemote(mysql_db)
