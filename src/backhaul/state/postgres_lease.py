"""One run a sync over all hosts: a row with a fence that grows with every owner and an end that its owner moves on.

The database's clock alone decides. Who cannot move the end on in time sends nothing more and stores nothing more;
who comes next waits until the end has passed and a request sent in its last moment has ended too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backhaul.errors import RunError, StateError
from backhaul.state.postgres_connection import connect, storing, transaction
from backhaul.state.process import is_gone, owner, this_process
from backhaul.state.renewal import RenewedLease

if TYPE_CHECKING:
    import psycopg

# an end further away than the lease is long was not set by this clock, and binds nobody
_FREE = (
    "leases.owner IS NULL OR clock_timestamp() > leases.expires + leases.timeout * interval '1 second' "
    "OR leases.expires > clock_timestamp() + leases.seconds * interval '1 second'"
)
_TAKE = f"""
INSERT INTO leases (sync, owner, process, fence, expires, seconds, timeout)
VALUES (%(sync)s, %(owner)s, %(process)s, 1, clock_timestamp() + %(seconds)s * interval '1 second', %(seconds)s, %(timeout)s)
ON CONFLICT (sync) DO UPDATE SET owner = excluded.owner, process = excluded.process, fence = leases.fence + 1,
    expires = clock_timestamp() + excluded.seconds * interval '1 second', seconds = excluded.seconds, timeout = excluded.timeout
WHERE {_FREE} OR leases.process = %(dead)s
RETURNING fence
"""
_RENEW = (
    "UPDATE leases SET expires = clock_timestamp() + seconds * interval '1 second' "
    "WHERE sync = %s AND fence = %s AND owner IS NOT NULL RETURNING fence"
)
_CONFIRM = "SELECT 1 FROM leases WHERE sync = %s AND fence = %s AND owner IS NOT NULL AND expires > clock_timestamp() FOR SHARE"


class PostgresLease(RenewedLease):
    """A lease on one sync, confirmed in every transaction that stores something of its run."""

    store = "PostgreSQL"

    def __init__(self, dsn: str, sync: str, fence: int, length: float, since: float, name: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[Any] | None = None
        super().__init__(sync, fence, length, since, name)

    def confirm(self, connection: psycopg.Connection[Any]) -> None:
        """Inside a transaction: that the lease is ours, and stays so until it ends.

        Raises:
            LeaseLost
        """
        if not connection.execute(_CONFIRM, [self.sync, self.fence]).fetchone():
            raise self.lose()

    def _move_on(self) -> bool:
        try:
            with storing():
                self._connection = self._connection or connect(self._dsn)
                with transaction(self._connection):
                    return bool(self._connection.execute(_RENEW, [self.sync, self.fence]).fetchone())
        except StateError:
            self._connection = None
            raise

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()


@contextlib.contextmanager
def hold(
    db: psycopg.Connection[Any], dsn: str, sync: str, length: float, timeout: float, name: str
) -> Iterator[PostgresLease]:
    """Holds the sync for this process. `timeout`: the longest that one of its requests may take, in seconds.

    Raises:
        RunError: another process is running it, or may still have a request on its way.
    """
    with storing(), transaction(db):
        # a wait for whoever has the row is not to be taken from the time that the lease lasts
        db.execute("SELECT 1 FROM leases WHERE sync = %s FOR UPDATE", [sync])
        since = time.monotonic()
        values = {"sync": sync, "owner": owner(), "process": this_process(), "seconds": length, "timeout": timeout,
                  "dead": _dead(db, sync)}  # fmt: skip
        row = db.execute(_TAKE, values).fetchone()
        if row is None:
            raise _taken(db, sync, name)
    lease = PostgresLease(dsn, sync, row["fence"], length, since, name)
    try:
        yield lease
    finally:
        lease.end()
        with contextlib.suppress(StateError), storing(), transaction(db):
            db.execute("UPDATE leases SET owner = NULL WHERE sync = %s AND fence = %s", [sync, lease.fence])


def holder(connection: psycopg.Connection[Any], sync: str) -> dict[str, Any] | None:
    """Who runs a sync, and for how long nobody else may: `owner`, `process`, `wait` in seconds."""
    row: dict[str, Any] | None = connection.execute(
        "SELECT owner, process, extract(epoch FROM expires + timeout * interval '1 second' - clock_timestamp())::float AS wait "
        f"FROM leases WHERE sync = %s AND NOT ({_FREE})", [sync],
    ).fetchone()  # fmt: skip
    return row


def _taken(connection: psycopg.Connection[Any], sync: str, name: str) -> RunError:
    found = holder(connection, sync)
    who = found["owner"] if found else "another worker"
    left = f"; if it has died, the sync is free in {max(found['wait'], 1):.0f} s" if found else ""
    return RunError(
        f"{name} is being run by {who}", hint=f"wait for it, or look with `backhaul status`{left}"
    )


def _dead(connection: psycopg.Connection[Any], sync: str) -> str:
    """The process that holds the sync, if it was one of this machine and is no more: then nobody needs to wait."""
    found = holder(connection, sync)
    return str(found["process"]) if found and is_gone(found["process"]) else "nobody"
