"""PostgreSQL as a warehouse and as a destination: refused, gone, half read (bad inputs 15, 16, 28, 29, 31)."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from bad_project import CANARY, BadProject
from tests.waiting import HANGS

ROWS = "create table t as select i as id, 'n' || i as name, i * 1.5 as v from generate_series(1, 3) x(i)"


@pytest.fixture
def postgres(bad: BadProject, postgres_db: str) -> BadProject:
    """The project reads `t` from PostgreSQL; its dsn has the canary as password."""
    execute(postgres_db, ROWS)
    bad.warehouse = {"type": "postgres", "dsn": "${DSN}"}
    bad.environment["DSN"] = with_password(postgres_db)
    return bad.write()


def with_password(dsn: str, user: str | None = None, host: str | None = None) -> str:
    parts = urlsplit(dsn)
    place = f"{host or parts.hostname or ''}{'' if host or not parts.port else f':{parts.port}'}"
    query = f"?{parts.query}" if parts.query else ""
    return f"postgresql://{user or parts.username}:{quote(CANARY, safe='')}@{place}{parts.path}{query}"


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


@pytest.fixture
def reader(postgres_db: str) -> str:
    """A role that may log in and nothing else."""
    name = postgres_db.rsplit("/", 1)[1].split("?")[0] + "_reader"
    execute(postgres_db, f"create role {name} login password '{CANARY}'")
    return name


def test_the_project_is_sound(postgres: BadProject) -> None:
    postgres.runs()
    assert len(postgres.sink.records) == 3


def test_a_role_that_may_not_read(postgres: BadProject, postgres_db: str, reader: str) -> None:
    postgres.environment["DSN"] = with_password(postgres_db, reader)
    try:
        postgres.write().refuses(1, "permission denied for table t")
    finally:
        execute(postgres_db, f"drop role {reader}")


def test_a_table_that_is_not_there(postgres: BadProject) -> None:
    postgres.model = {"table": "marts.t", "primary_key": "id"}
    postgres.write().refuses(1, 'relation "marts.t" does not exist')


def test_a_column_that_is_not_there(postgres: BadProject) -> None:
    postgres.model = {"sql": "select id, nme as name,\n v from t", "primary_key": "id"}
    postgres.write().refuses(1, 'column "nme" does not exist', "LINE ")


def test_a_mistake_that_shows_only_while_reading(postgres: BadProject, postgres_db: str) -> None:
    execute(postgres_db, "insert into t select i, 'x', 0 from generate_series(4, 50000) x(i)")
    postgres.model = {"sql": "select id, name, 1 / v as v from t", "primary_key": "id"}
    postgres.write().refuses(1, "division by zero")


def test_a_number_that_is_none(postgres: BadProject, postgres_db: str) -> None:
    execute(postgres_db, "update t set v = 'NaN' where id = 2")
    said = postgres.call("run")
    assert said.code == 3, said
    assert "2" not in postgres.sink.records


def test_a_host_that_is_down(postgres: BadProject) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    postgres.environment["DSN"] = f"postgresql://me:{quote(CANARY, safe='')}@127.0.0.1:{port}/db"
    postgres.write().refuses(1, "PostgreSQL is not running at the host and port of the dsn")


def test_a_host_that_does_not_exist(postgres: BadProject) -> None:
    postgres.environment["DSN"] = f"postgresql://me:{quote(CANARY, safe='')}@nowhere.invalid/db"
    postgres.write().refuses(1, "the host of the dsn does not exist")


def answering(reply: Callable[[socket.socket], None]) -> int:
    """A server on 127.0.0.1 that replies once to each connection; gives its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                reply(connection)

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def refuse_password(connection: socket.socket) -> None:
    """What PostgreSQL answers to a wrong password (protocol 3.0: 'N' to SSLRequest, then ErrorResponse)."""
    start = connection.recv(1024)
    if start[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
        connection.sendall(b"N")
        connection.recv(1024)
    said = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "me"\0\0'
    connection.sendall(b"E" + (len(said) + 4).to_bytes(4, "big") + said)


def talk_nonsense(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_wrong_password(postgres: BadProject) -> None:
    port = answering(refuse_password)
    postgres.environment["DSN"] = f"postgresql://me:{quote(CANARY, safe='')}@127.0.0.1:{port}/db"
    postgres.write().refuses(1, "PostgreSQL refuses the user or password")


def test_another_kind_of_server(postgres: BadProject) -> None:
    port = answering(talk_nonsense)
    postgres.environment["DSN"] = f"postgresql://me:{quote(CANARY, safe='')}@127.0.0.1:{port}/db"
    postgres.write().refuses(1)


def test_tls_that_the_server_does_not_have(postgres: BadProject) -> None:
    port = answering(refuse_password)
    dsn = f"postgresql://me:{quote(CANARY, safe='')}@127.0.0.1:{port}/db?sslmode=require"
    postgres.environment["DSN"] = dsn
    postgres.write().refuses(1, "the dsn asks for TLS and PostgreSQL does not offer it")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://",
        "mysql://me:{}@h/db",
        "postgresql://me:{}@h:port/db",
        "host=h password={} nonsense=1",
        "just text {}",
    ],
)
def test_a_dsn_that_is_none(postgres: BadProject, dsn: str) -> None:
    postgres.environment["DSN"] = dsn.format(quote(CANARY, safe=""))
    said = postgres.write().call("run")
    assert said.code in (1, 2), said
    assert postgres.sink.seen == []
    assert 1 <= len([line for line in said.err.splitlines() if line]) <= 3, said.err


@pytest.mark.parametrize("first", [True, False], ids=["first run", "later run"])
def test_a_connection_that_breaks_while_rows_are_read(
    postgres: BadProject, postgres_db: str, first: bool
) -> None:
    """The model is slow on its last rows; meanwhile its session is ended."""
    if not first:
        postgres.sync = {"mode": "mirror"}
        postgres.write().runs()
    execute(postgres_db, "insert into t select i, repeat('x', 500), 0 from generate_series(4, 60000) x(i)")
    slow = "select id, name, v + case when id = 59000 then (select 0 from pg_sleep(600)) else 0 end as v from t where v is not null"
    postgres.model = {"sql": slow, "primary_key": "id"}
    before = postgres.write().held()
    with postgres.start("run") as running:
        deadline = time.monotonic() + HANGS
        ended = 0
        find = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and wait_event = 'PgSleep'"
        with psycopg.connect(postgres_db, autocommit=True) as admin:
            while not ended and time.monotonic() < deadline:
                (ended,) = admin.execute(find).fetchone() or (0,)
                time.sleep(0.05)
        _, err = running.communicate(timeout=HANGS)
    assert ended
    assert running.returncode == 1, err
    assert (
        "PostgreSQL ended the connection while the model was being read" in err
        or "closed the connection" in err
    ), err
    assert len(err.splitlines()) <= 2, err
    assert postgres.held() == before


def to_postgres(bad: BadProject, dsn: str) -> BadProject:
    bad.destination = {"type": "postgres", "dsn": "${APP}"}
    bad.environment["APP"] = dsn
    bad.sync = {"object": "users"}
    return bad.write()


def test_a_destination_table_that_is_not_there(bad: BadProject, postgres_db: str) -> None:
    to_postgres(bad, with_password(postgres_db)).fails("users")


def test_a_destination_role_that_may_not_write(bad: BadProject, postgres_db: str, reader: str) -> None:
    execute(
        postgres_db,
        "create table users (id int primary key, name text, v float8)",
        f"grant select on users to {reader}",
    )
    try:
        to_postgres(bad, with_password(postgres_db, reader)).refuses(1, "no permission to write 'users'")
    finally:
        execute(postgres_db, f"drop owned by {reader}", f"drop role {reader}")


def test_a_destination_that_is_down(bad: BadProject) -> None:
    to_postgres(bad, f"postgresql://me:{quote(CANARY, safe='')}@127.0.0.1:1/db").fails(
        "port 1 failed: Connection refused"
    )


def test_a_destination_with_a_wrong_password(bad: BadProject) -> None:
    port = answering(refuse_password)
    to_postgres(bad, f"postgresql://me:{quote(CANARY, safe='')}@127.0.0.1:{port}/db").fails("password")


def test_records_that_a_constraint_refuses(bad: BadProject, postgres_db: str) -> None:
    """One is rejected with the database's own words; the others arrive."""
    execute(postgres_db, "create table users (id int primary key, name text, v float8 check (v <> 1.5))")
    said = to_postgres(bad, with_password(postgres_db)).call("run")
    assert said.code == 3, said
    (letter,) = bad.letters()
    assert (letter["key"], "users_v_check" in letter["error"]["message"]) == (1, True)
    assert "\n" not in letter["error"]["message"]
    with psycopg.connect(postgres_db) as app:
        assert app.execute("select count(*) from users").fetchone() == (2,)


def test_a_text_that_postgres_cannot_hold(bad: BadProject, postgres_db: str) -> None:
    """A NUL byte (https://www.postgresql.org/docs/current/datatype-character.html)."""
    execute(postgres_db, "create table users (id int primary key, name text, v float8)")
    bad.sql("update t set name = 'a' || chr(0) where id = 1")
    said = to_postgres(bad, with_password(postgres_db)).call("run")
    assert said.code == 3, said
    assert [letter["key"] for letter in bad.letters()] == [1]
    with psycopg.connect(postgres_db) as app:
        assert app.execute("select count(*) from users").fetchone() == (2,)


def test_a_value_that_does_not_fit_its_column(bad: BadProject, postgres_db: str) -> None:
    execute(postgres_db, "create table users (id int primary key, name varchar(3), v smallint)")
    bad.sql(
        "update t set name = 'much too long' where id = 1",
        "update t set v = 40000 where id = 2",
        "update t set v = 1",
    )
    bad.sql("update t set v = 40000 where id = 2")
    said = to_postgres(bad, with_password(postgres_db)).call("run")
    assert said.code == 3, said
    assert sorted(letter["key"] for letter in bad.letters()) == [1, 2]
    assert json.loads(bad.call("status", "--json").out)
