"""The embedded state: runs, plans, intents, outcomes, dead letters and budgets in one SQLite file (WAL).

Every commit is forced to the disk (synchronous=FULL). SQL stands in sql/*.sql.
"""

from __future__ import annotations

import fcntl
import functools
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import orjson

from backhaul.errors import StateError

APPLICATION_ID = 0x62686C31


def now() -> str:
    """The time, as it is stored: UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@functools.cache
def queries() -> Mapping[str, str]:
    """The named statements of sql/queries.sql."""
    text = (resources.files("backhaul.state") / "sql" / "queries.sql").read_text()
    blocks = [block.split("\n", 1) for block in text.split("-- ")[1:]]
    return {name.strip(): sql.strip().rstrip(";") for name, sql in blocks}


@functools.cache
def migrations() -> Sequence[str]:
    """The scripts of sql/NNNN_*.sql in order; the schema's version is how many have run."""
    folder = resources.files("backhaul.state") / "sql"
    names = sorted(item.name for item in folder.iterdir() if item.name[:4].isdigit())
    return [(folder / name).read_text() for name in names]


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Names what is wrong with the state file, whatever the driver says.

    Raises:
        StateError: damaged, foreign, read-only, locked, or the disk is full.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(
            f"the state {path.name} {_why(error)}",
            hint="nothing was sent after this; see docs/troubleshooting.md",
        ) from None
    except OSError as error:
        raise StateError(
            f"the state {path.parent.name}/{path.name} cannot be used: {error.strerror or error}",
            hint="see `state` in backhaul.yml",
        ) from None


def _why(error: sqlite3.Error) -> str:
    text = str(error)
    known = {
        "disk is full": "cannot grow: the disk is full",
        "readonly": "is read-only",
        "unable to open": "cannot be opened: the folder is missing or read-only",
        "not a database": "is damaged, or not a backhaul state",
        "malformed": "is damaged",
        "locked": "is locked by another process",
        "disk I/O": "cannot be written: disk error",
    }
    return next((said for part, said in known.items() if part in text), f"cannot be used: {text}")


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the durability that the journal promises."""
    connection = _opened(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    return connection


def _check_owner(path: Path, database: sqlite3.Connection, fresh: bool) -> None:
    """Only reads: what is not ours stays as it is."""
    known = migrations()
    version = database.execute("PRAGMA user_version").fetchone()[0]
    owner = database.execute("PRAGMA application_id").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (version and owner != APPLICATION_ID) or (not version and not fresh and tables):
        raise StateError(f"{path.name} is not a backhaul state; it was left as it is")
    if version > len(known):
        raise StateError(
            f"the state was written by a newer backhaul (schema {version}, this one knows {len(known)})",
            hint="upgrade backhaul; the state was left as it is",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: making the database and changing its journal mode do not wait for each other by themselves."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class State:
    """The state of one project. Methods read or write at once; during delivery the journal writes (journal.py).
    `mask` takes the secrets out of what a destination said, before it is stored."""

    def __init__(self, folder: Path, mask: Callable[[str], str] = str) -> None:
        self.folder = folder
        self.mask = mask
        self.path = folder / "state.db"
        self.plans = folder / "plans"
        with storing(self.path):
            if folder.is_symlink():
                raise StateError(f"the state folder {folder.name} is a symbolic link, which is not followed")
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / ".gitignore").write_text("*\n")
            with _alone(folder):
                self._open()

    def _open(self) -> None:
        fresh = not self.path.exists()
        if fresh:
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        with closing(_opened(self.path)) as database:
            _check_owner(self.path, database, fresh)
        self.db = connect(self.path)
        self._migrate()

    def close(self) -> None:
        self.db.close()

    def _migrate(self) -> None:
        known, version = migrations(), self.db.execute("PRAGMA user_version").fetchone()[0]
        for number, script in enumerate(known[version:], start=version + 1):
            self.db.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
            )

    def do(self, name: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Runs one named statement and gives its rows."""
        with storing(self.path):
            return self.db.execute(queries()[name], values).fetchall()

    def do_all(self, name: str, rows: Sequence[Sequence[Any]]) -> None:
        """Runs one of the statements that take a JSON list of rows."""
        if rows:
            self.do(name, (orjson.dumps(rows).decode(),))

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction around several `do`."""
        with storing(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")

    def drop_plan(self, plan_id: str, file: Path) -> None:
        """Forgets a plan, its journal and its file."""
        with self.together():
            for name in ("drop_plan_intents", "drop_plan_outcomes", "drop_plan"):
                self.do(name, {"id": plan_id})
        file.unlink(missing_ok=True)
