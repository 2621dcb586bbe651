"""The embedded state: runs, plans, intents, outcomes, dead letters and budgets in one SQLite file (WAL).

Every commit is forced to the disk (synchronous=FULL). SQL stands in sql/
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from backhaul.errors import StateError
from backhaul.locks import alone
from backhaul.state.clock import Machine, StateClock, this_machine
from backhaul.state.files import keep_private, preparing
from backhaul.state.lease import hold, is_held
from backhaul.state.protocol import Buckets, Lease, State, before_scopes
from backhaul.state.sqlite_buckets import SqliteBuckets
from backhaul.state.sqlite_connection import ROWS, connect, opened, storing
from backhaul.state.statements import as_json, migrations, queries
from backhaul.surroundings import REAL

APPLICATION_ID = 0x62686C32
_BEFORE = 0x62686C31
"""Of a state whose ledgers did not say which account they are about."""
DIALECT = "sqlite"


def check_owner(path: Path, database: sqlite3.Connection, fresh: bool) -> None:
    """Only reads: what is not ours stays as it is."""
    known = migrations(DIALECT)
    version = database.execute("PRAGMA user_version").fetchone()[0]
    owner = database.execute("PRAGMA application_id").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner == _BEFORE:
        raise before_scopes(path.name)
    if (version and owner != APPLICATION_ID) or (not version and not fresh and tables):
        raise StateError(f"{path.name} is not a backhaul state; it was left as it is")
    if version > len(known):
        raise StateError(
            f"the state was written by a newer backhaul (schema {version}, this one knows {len(known)})",
            hint="upgrade backhaul; the state was left as it is",
        )


def moved_aside(folder: Path) -> Path | None:
    """Where `state restore` put the state that it replaced last; the names are random, so the folders' times tell."""

    def age(aside: Path) -> tuple[bool, float]:
        return (aside / folder.name / "state.db").exists(), aside.stat().st_mtime

    return max(folder.parent.glob(f"{folder.name}-before-*"), key=age, default=None)


def _not_half_restored(folder: Path) -> None:
    """`state restore` moves the old state aside before the new one takes its place: killed in between, it leaves no state."""
    if aside := moved_aside(folder):
        raise StateError(
            f"there is no state in {folder.name}, and {aside.name} holds one that was moved aside",
            hint="restore the backup again, or move that state back; to begin without any, move it elsewhere",
        )


class SqliteState(State):
    """The state of one project in a folder. Statements read or write at once; during delivery the journal writes
    (journal.py)."""

    def __init__(
        self, folder: Path, mask: Callable[[str], str] = str, now: Callable[[], str] = REAL.now
    ) -> None:
        super().__init__(mask, now)
        self.folder = folder
        self.path = folder / "state.db"
        with storing(self.path), preparing(folder):
            if folder.is_symlink():
                raise StateError(f"the state folder {folder.name} is a symbolic link, which is not followed")
            if not self.path.exists():
                _not_half_restored(folder)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            keep_private(folder)
            (folder / ".gitignore").write_text("*\n")
            # making the database and changing its journal mode do not wait for each other by themselves
            with alone(folder):
                self._open()

    def _open(self) -> None:
        fresh = not self.path.exists()
        if fresh:
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        with closing(opened(self.path)) as database:
            check_owner(self.path, database, fresh)
        self.db = connect(self.path)
        self._migrate()

    def close(self) -> None:
        self.db.close()

    def _migrate(self) -> None:
        known, version = migrations(DIALECT), self.db.execute("PRAGMA user_version").fetchone()[0]
        for number, script in enumerate(known[version:], start=version + 1):
            self.db.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
            )

    def do(self, name: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[sqlite3.Row]:
        with storing(self.path):
            return self.db.execute(queries(ROWS)[name], values).fetchall()

    @contextmanager
    def together(self) -> Iterator[None]:
        with storing(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")

    beyond = "backups and snapshots of the state folder"

    def scrub(self) -> None:
        """Writes the file anew without what was deleted, and empties its log.

        Raises:
            StateError: another process reads the state, so that old pages stay in the log.
        """
        with storing(self.path):
            self.db.execute("PRAGMA secure_delete = ON")
            self.db.execute("VACUUM")
            busy = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise StateError("another process reads the state, so that its log could not be emptied",
                             hint="do it again when nothing else runs: what was erased is still in state.db-wal")  # fmt: skip

    def writer(self) -> SqliteWriter:
        return SqliteWriter(self.path)

    def buckets(self, machine: Machine | None = None) -> Buckets:
        return SqliteBuckets(self.path, machine)

    def clock(self) -> float:
        return StateClock(self.machine or this_machine(), self._settle_boot).now()

    def _settle_boot(self, boot: str, began: float) -> float:
        self.do("keep_boot", {"boot": boot, "began": began})
        return float(self.do("boot", {"boot": boot})[0]["began"])

    def lease(self, sync: str, *, timeout: float = 60.0, name: str = "") -> AbstractContextManager[Lease]:
        return hold(self.folder / "locks", sync, name)

    def is_leased(self, sync: str) -> bool:
        return is_held(self.folder / "locks", sync)


class SqliteWriter:
    """Writes list statements; see protocol.Writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with storing(path):
            self._database = connect(path)

    def write(self, groups: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        texts = {name: as_json(rows) for name, rows in groups.items()}
        with storing(self._path):
            try:
                self._database.execute("BEGIN IMMEDIATE")
                for name, text in texts.items():
                    self._database.execute(queries(ROWS)[name], (text,))
                self._database.execute("COMMIT")
            except sqlite3.Error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def close(self) -> None:
        self._database.close()
