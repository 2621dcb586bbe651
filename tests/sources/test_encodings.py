"""Text arrives as the characters that the database holds, whatever its encoding; what cannot become UTF-8 names its column."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from flows import Pipe
from psycopg.conninfo import make_conninfo

import backhaul
from backhaul.errors import StateError
from backhaul.state.postgres import PostgresState

_NUMBERS = itertools.count(1)


@pytest.fixture
def encoded(postgres_dsn: str) -> Iterator[Callable[[str], str]]:
    """Creates databases of other encodings than UTF8; gives their DSN."""
    made: list[str] = []

    def create(encoding: str) -> str:
        name = f"enc_{os.getpid()}_{next(_NUMBERS)}"
        with psycopg.connect(postgres_dsn, autocommit=True) as admin:
            admin.execute(
                f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            )
        made.append(name)
        return postgres_dsn.rsplit("/", 1)[0] + "/" + name

    yield create
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        for name in made:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def fill(dsn: str, rows: list[tuple[int, bytes]]) -> None:
    """Stores bytes as they are, in the database's own encoding."""
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("CREATE TABLE c (id int PRIMARY KEY, note text, name text)")
        db.execute("CREATE TABLE t (id int PRIMARY KEY, note text, name text)")
        encoding = db.info.parameter_status("server_encoding")
        # SQL_ASCII and the database's own encoding: the server converts nothing
        db.execute(f"SET client_encoding = '{encoding}'")
        for key, text in rows:
            escaped = "".join(f"\\x{byte:02x}" for byte in text)
            db.pgconn.exec_(f"INSERT INTO c VALUES ({key}, 'plain', E'{escaped}')".encode("ascii"))


@pytest.mark.parametrize(("encoding", "text", "codec"), [
    ("LATIN1", "Ã©", "latin-1"), ("LATIN1", "café", "latin-1"), ("EUC_JP", "日本", "euc_jp"), ("SQL_ASCII", "café", "utf-8"),
    ("WIN1252", "€", "cp1252"),
])  # fmt: skip
def test_text_of_another_encoding_arrives_and_is_written(
    encoded: Callable[[str], str], postgres_db: str, tmp_path: Path, encoding: str, text: str, codec: str
) -> None:
    source = encoded(encoding)
    fill(source, [(1, text.encode(codec))])
    fill(postgres_db, [])
    pipe = Pipe(tmp_path, {"type": "postgres", "dsn": source}, {"type": "postgres", "dsn": postgres_db})
    report = pipe.write(fields={"note": "note", "name": "name"}).run()
    assert (report.status, report.delivered) == ("succeeded", 1), report.error
    with psycopg.connect(postgres_db) as db:
        assert db.execute("SELECT name FROM t").fetchall() == [(text,)]


@pytest.mark.parametrize(
    ("encoding", "text", "codec"), [("LATIN1", "café", "latin-1"), ("EUC_JP", "日本", "euc_jp")]
)
def test_text_is_written_in_the_encoding_of_the_database(
    encoded: Callable[[str], str], postgres_db: str, tmp_path: Path, encoding: str, text: str, codec: str
) -> None:
    target = encoded(encoding)
    fill(postgres_db, [(1, text.encode())])
    fill(target, [])
    pipe = Pipe(tmp_path, {"type": "postgres", "dsn": postgres_db}, {"type": "postgres", "dsn": target})
    report = pipe.write(fields={"name": "name"}).run()
    assert (report.status, report.delivered) == ("succeeded", 1), report.error
    assert pipe.project(lambda project: project.verify("s", count=None)).mismatches == ()
    with psycopg.connect(target) as db:
        rows = db.execute("SELECT convert_to(name, getdatabaseencoding()::name) FROM t").fetchall()
    assert rows == [(text.encode(codec),)]


@pytest.mark.parametrize(("encoding", "stored"), [("SQL_ASCII", b"caf\xe9"), ("EUC_JP", b"\xf5\xa1")])
def test_text_that_is_not_utf8_names_its_column_and_leaves_no_plan(
    encoded: Callable[[str], str], postgres_db: str, tmp_path: Path, encoding: str, stored: bytes
) -> None:
    source = encoded(encoding)
    fill(source, [(1, b"ok"), (2, stored)])
    fill(postgres_db, [])
    pipe = Pipe(tmp_path, {"type": "postgres", "dsn": source}, {"type": "postgres", "dsn": postgres_db})
    pipe.write(fields={"note": "note", "name": "name"})
    report = pipe.run()
    assert report.status == "failed"
    assert "the column name holds text that cannot be converted to UTF-8" in str(report.error)
    assert not any(part in str(report.error) for part in ("caf", "0x", "\\x"))
    assert list((tmp_path / ".backhaul" / "plans").glob("*")) == []


def test_a_client_encoding_in_the_dsn_changes_nothing(
    encoded: Callable[[str], str], postgres_db: str, tmp_path: Path
) -> None:
    source = encoded("LATIN1")
    fill(source, [(1, "é".encode("latin-1"))])
    fill(postgres_db, [])
    there = make_conninfo(source, client_encoding="LATIN1")
    back = make_conninfo(postgres_db, client_encoding="LATIN1")
    pipe = Pipe(tmp_path, {"type": "postgres", "dsn": there}, {"type": "postgres", "dsn": back})
    assert pipe.write(fields={"name": "name"}).run().status == "succeeded"
    with backhaul.load(tmp_path) as project:
        assert project.verify("s", count=None).mismatches == ()
    with psycopg.connect(postgres_db) as db:
        assert db.execute("SELECT name FROM t").fetchall() == [("é",)]


def test_a_state_needs_a_database_that_stores_every_character(encoded: Callable[[str], str]) -> None:
    with pytest.raises(StateError, match="has the encoding LATIN1"):
        PostgresState(encoded("LATIN1"))
