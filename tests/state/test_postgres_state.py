"""The state's database as people set it up: roles, other people's schemas, standbys."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from backhaul.errors import StateError
from backhaul.state.postgres import PostgresState


@pytest.fixture
def role(postgres_db: str) -> Iterator[str]:
    """The DSN of a role that may do nothing."""
    with psycopg.connect(postgres_db, autocommit=True) as admin:
        name = f"role_{admin.info.dbname}"
        admin.execute(f"CREATE ROLE {name} LOGIN")
        yield postgres_db.replace("postgres@", f"{name}@", 1)
        admin.execute(f"DROP OWNED BY {name} CASCADE")
        admin.execute(f"DROP ROLE {name}")


def test_a_role_that_owns_the_schema_needs_nothing_else(postgres_db: str, role: str) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as admin:
        name = psycopg.conninfo.conninfo_to_dict(role)["user"]
        admin.execute(f"CREATE SCHEMA backhaul AUTHORIZATION {name}")
    state = PostgresState(role)
    with state.lease("s"):
        state.do("start_run", {"id": "r", "sync": "s", "started_at": "2026-01-01T00:00:00.000Z"})
    state.close()


def test_a_role_that_may_not_create_the_schema_is_told_so(role: str) -> None:
    with pytest.raises(StateError, match="must own the schema backhaul, or be allowed to create it"):
        PostgresState(role)


def test_a_schema_of_somebody_else_is_left_as_it_is(postgres_db: str) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA backhaul")
        admin.execute("CREATE TABLE backhaul.trucks (id int)")
    with pytest.raises(StateError, match="not a backhaul state"):
        PostgresState(postgres_db)
    with psycopg.connect(postgres_db) as admin:
        rows = admin.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'backhaul'")
        assert rows.fetchone() == (1,)


def test_a_database_that_only_reads_is_named(postgres_db: str) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET default_transaction_read_only = on")
    with pytest.raises(StateError, match="is read-only"):
        PostgresState(postgres_db)


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://u:s3cret@127.0.0.1:1/d", "is not running at its host and port"),
        ("postgresql://u:s3cret@nowhere.invalid/d", "is at a host that does not exist"),
        ("postgresql://u:s3cret@[::1/d", "no PostgreSQL address"),
    ],
)
def test_an_address_that_leads_nowhere(dsn: str, said: str) -> None:
    with pytest.raises(StateError) as error:
        PostgresState(dsn)
    assert said in str(error.value)
    assert "s3cret" not in f"{error.value} {error.value.hint}"


def test_a_server_without_tls_is_named(postgres_db: str) -> None:
    with pytest.raises(StateError, match="does not offer TLS"):
        PostgresState(postgres_db + "?sslmode=require")


def test_a_worker_stopped_in_a_transaction_keeps_nobody_waiting(postgres_db: str) -> None:
    """I26: what it had locked is free seconds later, however long it stays stopped."""
    stopped, other = PostgresState(postgres_db, length=1.0), PostgresState(postgres_db, length=1.0)
    with (
        stopped.lease("s", timeout=0),
        pytest.raises(StateError, match="ended the connection"),
        stopped.together(),
    ):
        stopped.confirm(stopped.db)
        with other.lease("s", timeout=0) as lease:
            lease.check()
        stopped.db.execute("SELECT 1")
    stopped.close()
    other.close()
