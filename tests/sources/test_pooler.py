"""Behind a pooler in transaction mode every transaction may run in another session of the server, and other applications use that
session next: backhaul leaves nothing in it, and needs nothing from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from flows import Pipe

SETTINGS = ("default_transaction_read_only", "search_path", "synchronous_commit", "idle_in_transaction_session_timeout",
            "statement_timeout", "TimeZone", "DateStyle")  # fmt: skip


@contextmanager
def applications(dsn: str, count: int = 3) -> Iterator[list[str]]:
    """Clients of the same pool that insert all the time; what they were refused."""
    refused: list[str] = []
    stop = threading.Event()

    def insert() -> None:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as app:
            while not stop.is_set():
                try:
                    app.execute("INSERT INTO events (at) VALUES (now())")
                except psycopg.Error as error:
                    refused.append(str(error))

    threads = [threading.Thread(target=insert) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield refused
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def settings_of(dsn: str) -> set[tuple[str, ...]]:
    """The settings of every session that the pool has."""
    clients = [psycopg.connect(dsn, autocommit=True, prepare_threshold=None) for _ in range(3)]
    try:
        found = set()
        for client in clients:
            client.execute("BEGIN")
            values = [client.execute(f"SHOW {name}").fetchone() for name in SETTINGS]
            found.add(tuple(value[0] for value in values if value))
        return found
    finally:
        for client in clients:
            client.close()


def create_tables(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(
            "CREATE TABLE c AS SELECT i AS id, 'n' || i AS name, 1.5::numeric AS price FROM generate_series(1, 500) i"
        )
        db.execute("CREATE TABLE t (id int PRIMARY KEY, name text, price numeric)")
        db.execute("CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz)")


def test_warehouse_destination_and_state_share_a_pool_with_busy_applications(
    postgres_db: str, pooled_db: str, tmp_path: Path
) -> None:
    create_tables(postgres_db)
    place = {"type": "postgres", "dsn": pooled_db}
    pipe = Pipe(tmp_path, place, place, settings={"state": pooled_db})
    pipe.write(mode="mirror", fields={"name": "name", "price": "price"})
    untouched = settings_of(pooled_db)
    with applications(pooled_db) as refused:
        first = pipe.run()
        with psycopg.connect(postgres_db, autocommit=True) as db:
            db.execute("UPDATE c SET name = 'other' WHERE id <= 20")
            db.execute("DELETE FROM c WHERE id > 490")
        second = pipe.run()
        checked = pipe.project(lambda project: project.verify("s", count=None))
    assert (first.status, first.delivered) == ("succeeded", 500), first.error
    assert (second.status, second.delivered) == ("succeeded", 30), second.error
    assert checked.mismatches == ()
    assert refused == []
    assert settings_of(pooled_db) == untouched
    with psycopg.connect(postgres_db) as db:
        assert db.execute("TABLE c EXCEPT TABLE t").fetchall() == []
        assert db.execute("SELECT count(*) FROM t").fetchone() == (490,)
