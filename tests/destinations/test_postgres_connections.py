"""What PostgreSQL says about its tables, and what becomes of a batch when it refuses us or goes away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backhaul.destinations.postgres import Postgres, PostgresConfig
from backhaul.destinations.postgres.catalog import quoted
from backhaul.errors import Halt, NotApplied, Refused, Unsettled
from backhaul.types import Field, FieldType, Op

ROLE = "backhaul_test_role"


class One:
    """A batch of one row (1, 'x')."""

    set_aside = False

    op, object, identifiers, keys, idempotency_key = Op.UPSERT, "t", ("id",), ("1",), "k"
    fields = (Field("id"), Field("a"))
    remote_ids = (None,)

    def text(self) -> bytes:
        return b'1,"x"\n'

    def __len__(self) -> int:
        return 1


class Door:
    """A TCP door to the database that can be shut, or stop passing bytes."""

    def __init__(self, path: str, port: int) -> None:
        self.target = (path, port)
        self.port = 0
        self.stop_at: bytes | None = None
        self.writers: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self.target
        opened = (
            asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            if host[:1] == "/"
            else asyncio.open_connection(host, port)
        )
        there, back = await opened
        self.writers += (writer, back)
        await asyncio.gather(self.pass_on(reader, back), self.pass_on(there, writer))

    async def pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if self.stop_at and self.stop_at in data:
                self.shut()
                return
            target.write(data)

    def shut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    async def close(self) -> None:
        self.shut()
        self.server.close()
        await asyncio.sleep(0)


@pytest.fixture
def sql(postgres_db: str) -> Callable[..., list[tuple[Any, ...]]]:
    def run(text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(postgres_db, autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
async def door(postgres_db: str) -> AsyncIterator[Door]:
    with psycopg.connect(postgres_db) as connection:
        found = Door(connection.info.host, connection.info.port)
    await found.open()
    yield found
    await found.close()


def to(dsn: str, **more: Any) -> Postgres:
    return Postgres(PostgresConfig(dsn=dsn, **more), None)  # type: ignore[arg-type]


async def test_describe_reads_the_catalog(postgres_db, sql):
    sql("create type tier as enum ('b', 'a')")
    sql("create domain short as varchar(3) not null default 'x'")
    sql(
        "create table t (id bigint generated always as identity primary key,"
        " email varchar(50) not null unique,"
        " name text not null default '', tier tier, d short, tags text[], at timestamptz,"
        " local timestamp(3), price numeric(8,2),"
        " joined text generated always as (name || 'x') stored, a int, b int, meta jsonb,"
        " unique (a, b), dropped int)"
    )
    sql("alter table t drop column dropped")
    app = to(postgres_db)
    schema = await app.describe("public.t")
    await app.close()
    fields = schema.fields
    assert not schema.open
    assert list(fields) == [
        "id", "email", "name", "tier", "d", "tags", "at", "local", "price", "joined", "a", "b", "meta"
    ]  # fmt: skip
    assert fields["id"] == Field(
        "id",
        FieldType.INTEGER,
        writable=False,
        nullable=False,
        unique=True,
        native_type="bigint",
        case_insensitive=False,
    )
    assert fields["email"] == Field(
        "email",
        FieldType.STRING,
        required=True,
        nullable=False,
        unique=True,
        max_length=50,
        native_type="character varying(50)",
        case_insensitive=False,
    )
    assert not fields["name"].required
    assert fields["tier"].choices == ("b", "a")
    assert (fields["d"].max_length, fields["d"].required, fields["d"].type) == (3, False, FieldType.STRING)
    assert fields["tags"].type is FieldType.ARRAY
    assert (fields["at"].type, fields["local"].type) == (FieldType.DATETIME, FieldType.TIMESTAMP)
    assert (fields["price"].type, fields["meta"].type) == (FieldType.DECIMAL, FieldType.JSON)
    assert not fields["joined"].writable
    assert not fields["a"].unique


async def test_a_missing_table_halts_and_names_the_nearest(postgres_db, sql):
    sql("create schema crm")
    sql("create table crm.accounts (id int)")
    sql('create table "Users" (id int)')
    app = to(postgres_db)
    for wrong, near in [
        ("users", "'Users'"),
        ("crm.acounts", "'crm.accounts'"),
        ("accounts", "'crm.accounts'"),
    ]:
        with pytest.raises(Halt, match="no object") as halted:
            await app.describe(wrong)
        assert near in (halted.value.hint or "")
    await app.close()


@pytest.mark.parametrize(
    ("name", "sql_name"),
    [
        ("users", '"users"'),
        ("Crm.Weird Table", '"Crm"."Weird Table"'),
        ('"a.b"."c""d"', '"a.b"."c""d"'),
        ('public."select"', '"public"."select"'),
    ],
)
def test_table_names_are_quoted(name, sql_name):
    assert quoted(name) == sql_name


@pytest.mark.parametrize("name", ["", "a.b.c", "a.", ".a", '"a', 'a"b"', "a..b"])
def test_what_is_no_table_name_halts(name):
    with pytest.raises(Halt, match="not a table name"):
        quoted(name)


@pytest.fixture
def restricted(postgres_db: str, sql) -> AsyncIterator[str]:
    sql(f"drop role if exists {ROLE}")
    sql(f"create role {ROLE} login password 'pw'")
    yield make_conninfo(postgres_db, user=ROLE, password="pw")
    sql(f"drop owned by {ROLE}; drop role {ROLE}")


async def test_a_role_that_may_only_read_is_told_what_it_lacks(restricted, sql):
    sql("create table t (id int primary key, a text)")
    sql(f"grant select on t to {ROLE}")
    app = to(restricted)
    with pytest.raises(Halt, match="no permission to write 't'") as raised:
        await app.describe("t")
    assert f'GRANT SELECT, INSERT, UPDATE ON "public"."t" TO "{ROLE}"' in (raised.value.hint or "")
    sql(f"grant update on t to {ROLE}")
    assert (await app.describe("t")).fields["a"].writable
    await app.close()


async def test_a_role_that_may_only_touch_that_table(restricted, sql):
    sql("create table t (id int primary key, a text, hidden text)")
    sql(f"grant select (id, a), insert (id, a), update (a) on t to {ROLE}")
    app = to(restricted)
    for _ in range(2):
        assert (await app.write(One())).everything
    fields = (await app.describe("t")).fields
    assert fields["a"].writable
    assert not fields["hidden"].writable
    assert await app.read("t", ("id",), ["1"], ["a"]) == {"1": {"a": "x"}}
    delete = One()
    delete.op, delete.fields, delete.text = Op.DELETE, One.fields[:1], lambda: b"1\n"
    with pytest.raises(Halt, match="permission denied"):
        await app.write(delete)
    sql(f"grant delete on t to {ROLE}")
    assert (await app.write(delete)).everything
    await app.close()
    assert sql("select * from t") == []


async def test_a_row_against_a_policy_of_row_security_is_refused(
    restricted: str, sql: Callable[..., list[tuple[Any, ...]]]
) -> None:
    """Its SQLSTATE is the one of a missing permission (PostgreSQL: src/backend/executor/execMain.c)."""
    sql("create table t (id int primary key, a text)")
    sql(f"grant select, insert, update on t to {ROLE}")
    sql("alter table t enable row level security")
    sql("create policy p on t using (true) with check (a = 'y')")
    app = to(restricted)
    with pytest.raises(Refused, match="row-level security policy") as refused:
        await app.write(One())
    await app.close()
    assert refused.value.code == "42501"
    assert sql("select * from t") == []


async def test_a_role_without_temp_is_told_so(restricted, sql, postgres_db):
    sql("create table t (id int primary key, a text)")
    sql(f"grant select, insert, update on t to {ROLE}")
    sql(f'revoke temporary on database "{sql("select current_database()")[0][0]}" from public')
    app = to(restricted)
    with pytest.raises(Halt, match="temporary tables") as halted:
        await app.write(One())
    assert "TEMPORARY" in (halted.value.hint or "")
    await app.close()


async def test_refused_and_unreachable_are_told_apart_and_hide_the_password(postgres_db):
    for dsn, error in [
        (make_conninfo(postgres_db, dbname="no_such_db"), Halt),
        (make_conninfo(postgres_db, user="no_such_user"), Halt),
        (
            make_conninfo(postgres_db, host="127.0.0.1", hostaddr="127.0.0.1", port=1, password="hunter2"),
            NotApplied,
        ),
        ("postgres//me:hunter2@host", Halt),
        ("host=x passwrd=hunter2", Halt),
    ]:
        with pytest.raises(error) as raised:
            await to(dsn).open()
        assert "hunter2" not in f"{raised.value} {raised.value.hint}"
        assert "\n" not in str(raised.value)
    assert "hunter2" not in repr(PostgresConfig(dsn="postgresql://me:hunter2@host"))


def through(door: Door, dsn: str) -> str:
    return make_conninfo(
        dsn, host="127.0.0.1", hostaddr="127.0.0.1", port=door.port, sslmode="disable", gssencmode="disable"
    )


async def test_a_connection_lost_before_the_commit_applied_nothing(postgres_db, sql, door):
    sql("create table t (id int primary key, a text)")
    app = to(through(door, postgres_db))
    await app.open()
    door.stop_at = b"COPY"
    with pytest.raises(NotApplied):
        await app.write(One())
    door.stop_at = None
    assert (await app.write(One())).everything
    await app.close()


async def test_a_connection_lost_during_the_commit_is_unsettled(postgres_db, sql, door):
    sql("create table t (id int primary key, a text)")
    app = to(through(door, postgres_db))
    await app.describe("t")
    door.stop_at = b"COMMIT\0"
    with pytest.raises(Unsettled):
        await app.write(One())
    door.stop_at = None
    assert (await app.write(One())).everything
    await app.close()


async def test_a_connection_that_the_server_ended_is_replaced(postgres_db, sql):
    sql("create table t (id int primary key, a text)")
    app = to(postgres_db)
    await app.write(One())
    sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'backhaul'")
    with pytest.raises(NotApplied):
        await app.write(One())
    assert (await app.write(One())).everything
    await app.close()


async def test_a_lock_that_does_not_come_is_not_applied_within_the_timeout(postgres_db, sql):
    sql("create table t (id int primary key, a text)")
    app = to(postgres_db, timeout="500ms")
    await app.describe("t")
    with psycopg.connect(postgres_db) as holder:
        holder.execute("lock table t in access exclusive mode")
        with pytest.raises(NotApplied):
            await app.write(One())
        holder.rollback()
    assert (await app.write(One())).everything
    await app.close()


async def test_a_cancelled_write_leaves_nothing_behind(postgres_db, sql):
    sql("create table t (id int primary key, a text)")
    app = to(postgres_db)
    await app.describe("t")
    with psycopg.connect(postgres_db) as holder:
        holder.execute("lock table t in access exclusive mode")
        task = asyncio.create_task(app.write(One()))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sql("select * from t") == []
    assert (await app.write(One())).everything
    await app.close()


async def test_no_more_connections_than_configured(postgres_db, sql):
    sql("create table t (id int primary key, a text)")
    app = to(postgres_db, concurrency=2)
    await app.describe("t")
    await asyncio.gather(*(app.write(One()) for _ in range(10)))
    assert sql("select count(*) from pg_stat_activity where application_name = 'backhaul'") == [(2,)]
    await app.close()


async def test_nothing_stays_in_the_database_but_the_rows(postgres_db, sql):
    sql("create table t (id int primary key, a text)")
    app = to(postgres_db)
    await app.write(One())
    assert not [name for (name,) in sql("select relname from pg_class") if re.search("backhaul", name)]
    await app.close()
