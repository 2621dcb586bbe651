"""The state in PostgreSQL, in a schema of its own, `backhaul`: any number of workers on any number of hosts share it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul.errors import StateError
from backhaul.extras import require_extra
from backhaul.state.clock import Machine
from backhaul.state.postgres_buckets import PostgresBuckets
from backhaul.state.postgres_connection import SCHEMA, connect, storing, transaction
from backhaul.state.postgres_lease import PostgresLease, hold, holder
from backhaul.state.protocol import Buckets, Fold, Lease, Row, SharedState, before_scopes
from backhaul.state.statements import as_json, migrations, queries
from backhaul.surroundings import REAL

if TYPE_CHECKING:
    import psycopg

_ROWS, _NAME = "jsonb_array_elements(%s::jsonb) AS given (value)", r"%(\1)s"
_PART = 1 << 20
"""Bytes of a plan's file in one row."""
_LOCK = 0x6261636B
_WITH_VALUES = ("parts", "folds", "plans", "history", "outcomes", "dead_letters", "runs")
"""Tables in which keys and values of records stand."""


class PostgresState(SharedState):
    """The state of one project in a database. Use it from one thread at a time; a writer has a connection of its own."""

    def __init__(
        self,
        dsn: str,
        mask: Callable[[str], str] = str,
        now: Callable[[], str] = REAL.now,
        *,
        length: float = 30.0,
    ) -> None:
        super().__init__(mask, now)
        require_extra("postgres", "a state in PostgreSQL")
        self.dsn = dsn
        self.length = length
        self.held: PostgresLease | None = None
        self._turn = threading.RLock()
        with storing():
            self.db = connect(dsn)
            self._migrate()

    def close(self) -> None:
        self.db.close()

    def _migrate(self) -> None:
        """Brings the schema to this release's version; one process at a time."""
        known = migrations("postgres")
        with transaction(self.db):
            self.db.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            version = self._version()
            if version > len(known):
                raise StateError(
                    f"the state was written by a newer backhaul (schema {version}, this one knows {len(known)})",
                    hint="upgrade backhaul; the state was left as it is",
                )
            if version == len(known):
                return
            # IF NOT EXISTS asks for the right to create schemas even where there is nothing to create
            if not self.db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [SCHEMA]).fetchone():
                self.db.execute(f"CREATE SCHEMA {SCHEMA}")
            for script in known[version:]:
                self.db.execute(script.encode())
            self.db.execute("CREATE TABLE IF NOT EXISTS version (version INTEGER NOT NULL)")
            self.db.execute("DELETE FROM version")
            self.db.execute("INSERT INTO version VALUES (%s)", [len(known)])

    def _version(self) -> int:
        tables = {
            row["table_name"]
            for row in self.db.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [SCHEMA]
            )
        }
        if tables and not {"version", "runs", "intents"} <= tables:
            raise StateError(
                f"the database has a schema {SCHEMA} that is not a backhaul state; it was left as it is"
            )
        if tables and "scopes" not in tables:
            raise before_scopes(f"the state in schema {SCHEMA}")
        row = self.db.execute("SELECT version FROM version").fetchone() if tables else None
        return int(row["version"]) if row else 0

    def do(self, name: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[Row]:
        with self._turn, storing(), transaction(self.db):
            self.confirm(self.db)
            cursor = self.db.execute(queries(_ROWS, _NAME)[name].encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def confirm(self, connection: psycopg.Connection[Any]) -> None:
        """Inside a transaction: nobody takes the lease before it ends, or it is not ours any more (fence)."""
        if self.held is not None:
            self.held.confirm(connection)

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._turn, storing(), transaction(self.db):
            yield

    def writer(self) -> PostgresWriter:
        return PostgresWriter(self)

    def buckets(self, machine: Machine | None = None) -> Buckets:
        return PostgresBuckets(self.dsn)

    def clock(self) -> float:
        with self._turn, storing(), transaction(self.db):
            row = self.db.execute("SELECT extract(epoch FROM clock_timestamp())::float AS at").fetchone()
            return float(row["at"]) if row else 0.0

    @contextmanager
    def lease(self, sync: str, *, timeout: float = 60.0, name: str = "") -> Iterator[Lease]:
        with hold(self.db, self.dsn, sync, self.length, timeout, name or sync) as lease:
            self.held = lease
            try:
                yield lease
            finally:
                self.held = None

    def is_leased(self, sync: str) -> bool:
        with self._turn, storing(), transaction(self.db):
            return holder(self.db, sync) is not None

    def keep_file(self, name: str, file: Path) -> None:
        with self._turn, storing(), transaction(self.db), file.open("rb") as handle:
            self.confirm(self.db)
            self.db.execute("DELETE FROM parts WHERE file = %s", [name])
            for part, body in enumerate(iter(lambda: handle.read(_PART), b"")):
                self.db.execute(
                    "INSERT INTO parts (file, part, body) VALUES (%s, %s, %s)", [name, part, body]
                )

    def fetch_file(self, name: str, file: Path) -> bool:
        if file.exists():
            return True
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = file.with_suffix(f".{os.getpid()}.part")
        with self._turn, storing(), transaction(self.db), partial.open("wb") as handle:
            partial.chmod(0o600)
            part = 0
            while row := self.db.execute(
                "SELECT body FROM parts WHERE file = %s AND part = %s", [name, part]
            ).fetchone():
                handle.write(row["body"])
                part += 1
        if part:
            partial.replace(file)
        else:
            partial.unlink()
        return part > 0

    def drop_plan(self, plan_id: str, file: Path) -> None:
        with self.together():
            self.db.execute("DELETE FROM parts WHERE file = %s", [plan_id])
            super().drop_plan(plan_id, file)

    beyond = "the write-ahead log, replicas and backups of the database"

    def scrub(self) -> None:
        """VACUUM FULL writes a table to a new file (PostgreSQL, VACUUM); the database's log and backups are not reached."""
        with self._turn, storing():
            tables = ", ".join(f"{SCHEMA}.{name}" for name in _WITH_VALUES)
            self.db.execute(f"VACUUM (FULL) {tables}".encode())

    def folds(self, scope: str) -> list[Fold]:
        with self._turn, storing(), transaction(self.db):
            rows = self.db.execute(
                "SELECT scope, fold, base, lineage, rows, body FROM folds WHERE scope = %s AND fold >= "
                "(SELECT max(fold) FROM folds WHERE scope = %s AND base) ORDER BY fold", [scope, scope],
            ).fetchall()  # fmt: skip
        return [Fold(**row) for row in rows]

    def add_fold(self, fold: Fold, file: Path) -> None:
        with self.together():
            if fold.base:
                self.db.execute(
                    "DELETE FROM parts WHERE file IN (SELECT 'ledger/' || scope || '/' || fold FROM folds WHERE scope = %s)",
                    [fold.scope],
                )
                self.db.execute("DELETE FROM folds WHERE scope = %s", [fold.scope])
            self.db.execute(
                "INSERT INTO folds (scope, fold, base, lineage, rows, body) VALUES (%s, %s, %s, %s, %s, %s)",
                [fold.scope, fold.fold, fold.base, fold.lineage, fold.rows, fold.body],
            )
            self.keep_file(fold.file, file)


class PostgresWriter:
    """Writes list statements, each transaction only while the lease is ours; see protocol.Writer."""

    def __init__(self, state: PostgresState) -> None:
        self._state = state
        with storing():
            self._database = connect(state.dsn)

    def write(self, groups: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        texts = {name: as_json(rows) for name, rows in groups.items()}
        with storing(), transaction(self._database):
            self._state.confirm(self._database)
            for name, text in texts.items():
                self._database.execute(
                    queries(_ROWS, _NAME)[name].encode(), (text.replace("\\u0000", "\\ufffd"),)
                )

    def close(self) -> None:
        self._database.close()
