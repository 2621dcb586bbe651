"""A state that keeps files and ledgers for workers on many disks: a stand-in for a database, in the simulation's SQLite file.
It offers what backhaul.state.protocol.SharedState asks for, and nothing that only PostgreSQL or DynamoDB has."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backhaul.errors import RunError, StateError
from backhaul.state.clock import Machine
from backhaul.state.protocol import Buckets, Fold, SharedState
from backhaul.state.renewal import RenewedLease
from backhaul.state.sqlite import SqliteWriter
from backhaul.state.sqlite_buckets import SqliteBuckets
from backhaul.state.sqlite_connection import storing

from .house import SimState

_LENGTH = 30.0

_TABLES = """
CREATE TABLE IF NOT EXISTS sim_files (name TEXT PRIMARY KEY, body BLOB);
CREATE TABLE IF NOT EXISTS sim_folds (scope TEXT, fold INTEGER, base INTEGER, lineage TEXT, rows INTEGER, body TEXT,
                                      PRIMARY KEY (scope, fold));
CREATE TABLE IF NOT EXISTS sim_leases (sync TEXT PRIMARY KEY, owner TEXT, life INTEGER, fence INTEGER, expires REAL, timeout REAL);
"""


class SimLease(RenewedLease):
    """The real lease but for its thread, which is the worker's own loop here, and its clock, which is the worker's."""

    store = "stand-in"

    def __init__(self, state: SharedSimState, sync: str, fence: int) -> None:
        self._state = state
        self._clock = state.house.time.clock  # type: ignore[assignment]
        super().__init__(sync, fence, _LENGTH, self._clock())

    def _start(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        with suppress(RuntimeError):  # a person's command has no loop, and takes no time
            self._timer = asyncio.get_running_loop().call_later(self.length / 3, self._renew)

    def _renew(self) -> None:
        if self._renewed():
            self._start()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _move_on(self) -> bool:
        if self._state.house.full:
            raise StateError("full")
        moved = self._state.db.execute(
            "UPDATE sim_leases SET expires = ? WHERE sync = ? AND fence = ? AND owner IS NOT NULL",
            (self._state.time + self.length, self.sync, self.fence),
        )
        return bool(moved.rowcount)

    def _let_go(self) -> None:
        """The connection is the state's."""


class FencedWriter(SqliteWriter):
    def __init__(self, state: SharedSimState) -> None:
        super().__init__(state.path)
        self._state = state

    def write(self, groups: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        self._state.confirm()
        super().write(groups)


class SharedSimState(SimState, SharedState):
    """The embedded state, and beside it the files of every worker."""

    held: SimLease | None = None

    @property
    def time(self) -> float:
        """The state's clock."""
        return self.house.time.elapsed

    @contextmanager
    def lease(self, sync: str, *, timeout: float = 60.0, name: str = "") -> Iterator[SimLease]:
        row = self.db.execute("SELECT * FROM sim_leases WHERE sync = ?", (sync,)).fetchone()
        if row is not None and self._is_held(row):
            raise RunError(f"{name or sync} is being run by {row['owner']}")
        fence = row["fence"] + 1 if row is not None else 1
        values = (sync, self.house.name, self.house.lives, fence, self.time + _LENGTH, timeout)
        self.db.execute("INSERT OR REPLACE INTO sim_leases VALUES (?, ?, ?, ?, ?, ?)", values)
        self.held = SimLease(self, sync, fence)
        try:
            yield self.held
        finally:
            self.held.end()
            self.held = None
            self.db.execute("UPDATE sim_leases SET owner = NULL WHERE sync = ? AND fence = ?", (sync, fence))

    def _is_held(self, row: sqlite3.Row) -> bool:
        """A killed process of the same machine holds nothing."""
        gone = row["owner"] == self.house.name and row["life"] < self.house.lives
        return row["owner"] is not None and not gone and self.time <= row["expires"] + row["timeout"]

    def confirm(self) -> None:
        """Before anything is stored: the lease is ours. Nobody comes between that and the storing."""
        if self.held is None:
            return
        ours = self.db.execute(
            "SELECT 1 FROM sim_leases WHERE sync = ? AND fence = ? AND owner IS NOT NULL AND expires > ?",
            (self.held.sync, self.held.fence, self.time),
        ).fetchone()
        if not ours:
            raise self.held.lose()

    def do(self, name: str, values: Any = ()) -> Any:
        self.confirm()
        return super().do(name, values)

    def writer(self) -> SqliteWriter:
        return FencedWriter(self)

    def buckets(self, machine: Machine | None = None) -> Buckets:
        return SqliteBuckets(self.path, Machine("the state's", lambda: self.time, lambda: self.time))

    def _open(self) -> None:
        super()._open()
        self.db.executescript(_TABLES)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self.house.step("state")
        with storing(self.path):
            self.confirm()
            if self.house.full:
                raise sqlite3.OperationalError("database or disk is full")
            yield self.db
        self.house.step("state")

    def folds(self, scope: str) -> list[Fold]:
        rows = self.db.execute(
            "SELECT * FROM sim_folds WHERE scope = ? AND fold >= (SELECT max(fold) FROM sim_folds WHERE scope = ? AND base) "
            "ORDER BY fold", (scope, scope),
        ).fetchall()  # fmt: skip
        return [
            Fold(row["scope"], row["fold"], bool(row["base"]), row["lineage"], row["rows"], row["body"])
            for row in rows
        ]

    def add_fold(self, fold: Fold, file: Path) -> None:
        values = (fold.scope, fold.fold, fold.base, fold.lineage, fold.rows, fold.body)
        with self._writing(), self.together():
            if fold.base:
                self.db.execute("DELETE FROM sim_files WHERE name LIKE ?", (f"ledger/{fold.scope}/%",))
                self.db.execute("DELETE FROM sim_folds WHERE scope = ?", (fold.scope,))
            self.db.execute("INSERT INTO sim_folds VALUES (?, ?, ?, ?, ?, ?)", values)
            self._keep(fold.file, file)

    def keep_file(self, name: str, file: Path) -> None:
        with self._writing():
            self._keep(name, file)

    def _keep(self, name: str, file: Path) -> None:
        self.db.execute("INSERT OR REPLACE INTO sim_files VALUES (?, ?)", (name, file.read_bytes()))

    def fetch_file(self, name: str, file: Path) -> bool:
        if file.exists():
            return True
        row = self.db.execute("SELECT body FROM sim_files WHERE name = ?", (name,)).fetchone()
        if row is None:
            return False
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["body"])
        return True

    def drop_plan(self, plan_id: str, file: Path) -> None:
        with self._writing():
            self.db.execute("DELETE FROM sim_files WHERE name = ?", (plan_id,))
        super().drop_plan(plan_id, file)
