"""`state restore`: puts a backup in the place of the state, without sending too much, too little, or anybody forgotten."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from backhaul.care.backup import Backup, beside, extract, no_backup, quiet
from backhaul.care.check import check_folder
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.ledger import ALIAS
from backhaul.ledger.plan import make_durable
from backhaul.ledger.rewrite import rewrite
from backhaul.records.proofs import suppressions
from backhaul.sql import literal
from backhaul.state.scopes import Scope
from backhaul.state.sqlite import moved_aside
from backhaul.state.sqlite_connection import opened, storing
from backhaul.workspace import Workspace

_CARRIED = ("buckets", "salts", "boots", "forgotten")
"""What is true whatever is restored: what was sent counts in its limits, and whoever was forgotten stays so."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""What SQLite says of a file that is no state of ours; the last where a table is missing."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was in the backup; where the state that was there is now; whether its limits and its forgotten keys were taken
    over (None: there was none)."""

    backup: Backup
    old: Path | None
    carried: bool | None


def restore(
    folder: Path, file: Path, open_at: Callable[[Path], Workspace], prepare: Callable[[Workspace], None]
) -> Restored:
    """Puts the state of a backup in the place of the one that is there, after `prepare` was given it.

    Raises:
        UsageError: it is not a backup, or a damaged or newer one; nothing was changed.
        RunError: a sync is being run.
        StateError: the disk is full, or the backup is of a newer schema; nothing was changed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with storing(file), beside(folder.parent, ".restoring-") as made:
        fresh = made / folder.name
        fresh.mkdir(mode=0o700)
        found = extract(file, fresh)
        workspace = open_at(fresh)
        wrong = [one for one in check_folder(fresh, workspace.project.memory_limit) if not one.ok]
        if wrong:
            raise no_backup(file, f"{wrong[0].file} in it {wrong[0].message}")
        with quiet(folder):
            was = {
                (one.sync, row["hash"])
                for one in workspace.scopes.all()
                for row in suppressions(workspace, one)
            }
            replaced = _replaced(folder)
            carried = _carry(replaced, fresh / "state.db") if replaced else None
            for scope in workspace.scopes.all():
                _erase(workspace, scope, was)
            prepare(workspace)
            workspace.close()
            old = None
            if folder.exists():
                old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}-before-")) / folder.name
                folder.rename(old)
            try:
                fresh.rename(folder)
            except OSError:
                if old is not None:
                    old.rename(folder)
                raise
        make_durable(folder)
    return Restored(found, old, carried)


def _replaced(folder: Path) -> Path | None:
    """The database that is replaced; where a restore was killed between its two moves it is the one that was moved aside."""
    aside = None if (folder / "state.db").exists() else moved_aside(folder)
    found = (folder if aside is None else aside / folder.name) / "state.db"
    return found if found.exists() else None


def _carry(old: Path, fresh: Path) -> bool:
    """Whether it could be read: the state that is replaced may be damaged.

    Raises:
        sqlite3.Error: it is not, but there is no room, or another process has it.
    """
    try:
        with closing(opened(fresh)) as database:
            database.execute("ATTACH ? AS old", [str(old)])
            database.execute("BEGIN")
            for table in _CARRIED:
                if table != "forgotten":
                    database.execute(f"DELETE FROM main.{table}")
                database.execute(f"INSERT OR REPLACE INTO main.{table} SELECT * FROM old.{table}")
            database.execute("COMMIT")
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF not in _DAMAGED:
            raise
        return False
    return True


def _erase(workspace: Workspace, scope: Scope, was: set[tuple[str, str]]) -> None:
    """Takes out of the restored state whoever was forgotten since the backup. Only hashes say who that is, so plans of that
    time go as a whole, and the words of its runs."""
    rows = [row for row in suppressions(workspace, scope) if (scope.sync, row["hash"]) not in was]
    if not rows:
        return
    state, salted = workspace.state, {(row["salt"], row["hash"]) for row in rows}
    for row in state.do("plans_of", {"scope": scope.id}):
        state.drop_plan(row["id"], workspace.plan_path(row["id"]))
    for run in state.do("runs", {"sync": scope.sync, "limit": 1 << 40}):
        state.do("rewrite_run", {"id": run["id"], "error": None, "report": None})
    letters = [row["key"] for row in state.do("dead_letters", {"scope": scope.id, "id": None})]
    state.do_all("raise", [(scope.id, key) for key in letters])
    ledger = workspace.ledger_of(scope)
    with workspace.engine() as engine:
        if ledger.exists(engine):
            with ledger.writing(engine) as view:
                key = key_json(view.mapping())
                same = " OR ".join(
                    f"sha256({literal(salt)} || {key}) = {literal(told)}" for salt, told in sorted(salted)
                )
                engine.execute(f"DELETE FROM {ALIAS}.acked WHERE {same}")
            rewrite(engine, ledger.path)
    state.scrub()
