"""A connection to the state's PostgreSQL, and what is wrong where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from backhaul.errors import StateError

if TYPE_CHECKING:
    import psycopg

SCHEMA = "backhaul"
_SETTINGS = {"connect_timeout": "10", "application_name": "backhaul", "keepalives_idle": "10",
             "keepalives_interval": "5", "keepalives_count": "3"}  # fmt: skip
"""Where the address does not say otherwise (libpq, connection parameters): a dead host is noticed in seconds."""
LOCAL = (
    f"SELECT set_config('search_path', '{SCHEMA}, pg_temp', true), set_config('synchronous_commit', 'on', true), "
    "set_config('idle_in_transaction_session_timeout', '5s', true)"
)
"""Settings of one transaction, never of the session: behind a pooler the session is shared with other applications. The last one
frees the locks of a worker that is stopped in the middle of a transaction."""
_KNOWN = {
    "password authentication failed": "refuses the user or password",
    "no password supplied": "asks for a password, and `state` has none",
    "no pg_hba.conf entry": "does not let this user in from here (pg_hba.conf)",
    "could not translate host name": "is at a host that does not exist",
    "Name or service not known": "is at a host that does not exist",
    "failed to resolve host": "is at a host that does not exist",
    "Connection refused": "is not running at its host and port",
    "timeout expired": "does not answer at its host and port",
    "certificate verify failed": "has a TLS certificate that is not trusted",
    "does not match host name": "has a TLS certificate for another host",
    "does not support SSL": "does not offer TLS, which `state` asks for",
    "the database system is starting up": "is starting up: run again in a moment",
    "the database system is shutting down": "is shutting down",
    "too many clients": "has no connection left",
    "permission denied": "does not let this role write: it must own the schema backhaul, or be allowed to create it",
    "read-only transaction": "is read-only (a standby, or default_transaction_read_only)",
    "No space left on device": "cannot grow: the disk is full",
    "could not extend file": "cannot grow: the disk is full",
    "terminating connection": "ended the connection",
    "server closed the connection": "closed the connection",
    "consuming input failed": "closed the connection",
    "the connection is closed": "closed the connection",
    "the connection is lost": "closed the connection",
}


@contextmanager
def storing() -> Iterator[None]:
    """Names what is wrong with the database, never its address.

    Raises:
        StateError
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        text = str(error)
        lines = text.strip().splitlines() or ["does not answer"]
        said = next(
            (said for part, said in _KNOWN.items() if part in text), f"cannot be used: {lines[0][:200]}"
        )
        raise StateError(
            f"the state's PostgreSQL {said}", hint="nothing was sent after this; see docs/troubleshooting.md"
        ) from None


def connect(dsn: str) -> psycopg.Connection[Any]:
    """Open a connection that keeps nothing in its session: no settings and no prepared statements.

    Raises:
        StateError: the address is malformed, or the database cannot store every character.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.rows import dict_row

    try:
        address = make_conninfo(dsn, **{**_SETTINGS, **conninfo_to_dict(dsn), "client_encoding": "UTF8"})
    except psycopg.Error:
        raise StateError("`state` is no PostgreSQL address",
                         hint="write it as postgresql://user:${PASSWORD}@host:5432/database") from None  # fmt: skip
    connection = psycopg.connect(address, autocommit=True, row_factory=dict_row, prepare_threshold=None)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        connection.close()
        raise StateError(f"the state's database has the encoding {encoding}, which cannot store every key",
                         hint="use a database created with ENCODING 'UTF8'")  # fmt: skip
    return connection


@contextmanager
def transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Open a transaction with the settings of LOCAL; inside another one, a savepoint."""
    from psycopg import Error
    from psycopg.pq import TransactionStatus

    if connection.info.transaction_status is TransactionStatus.INTRANS:
        with connection.transaction():
            yield
        return
    connection.execute(f"BEGIN; {LOCAL}".encode())
    try:
        yield
    except BaseException:
        with suppress(Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
