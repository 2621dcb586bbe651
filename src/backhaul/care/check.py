"""`state check`: whether a state in a folder is whole. Only reads: nothing is migrated, repaired or created in it."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from backhaul.engine import attached, number, open_engine
from backhaul.errors import BackhaulError, StateError
from backhaul.ledger.ledger import ALIAS, LedgerView
from backhaul.ledger.plan import rows_of
from backhaul.state.files import ledger_file, plan_file
from backhaul.state.sqlite import check_owner
from backhaul.state.sqlite_connection import storing

_PATIENCE = 10.0
"""Seconds to wait for a ledger that a run is writing."""
_RESTORE = "restore it from a backup; nothing is sent while it is so"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said of one file of the state; where `ok` is false something is wrong, and `hint` says what to do."""

    file: str
    ok: bool
    message: str
    hint: str | None = None


def check_folder(folder: Path, memory_limit: int) -> list[Finding]:
    """Everything that can be said of the state in a folder, in the order state, ledgers, plans."""
    database = folder / "state.db"
    if not database.exists():
        return _without_state(folder)
    try:
        with storing(database), closing(_read_only(database)) as state:
            return [*_state(database, state), *_files(folder, state, memory_limit)]
    except StateError as error:
        return [Finding(database.name, False, str(error), error.hint or _RESTORE)]


def _without_state(folder: Path) -> list[Finding]:
    if any((folder / "ledgers").glob("*.duckdb")):
        return [Finding("state.db", False, "is gone, but there are ledgers", _RESTORE)]
    return [Finding("state.db", True, "there is no state yet; the first run makes one")]


def _read_only(path: Path) -> sqlite3.Connection:
    """Without a log nobody has it open, and SQLite is told so: else it would make one (sqlite.org/uri.html, immutable)."""
    quiet = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{quiet}", uri=True, timeout=30)
    database.row_factory = sqlite3.Row
    return database


def _state(path: Path, state: sqlite3.Connection) -> Iterator[Finding]:
    check_owner(path, state, fresh=False)
    said = [row[0] for row in state.execute("PRAGMA integrity_check(5)")]
    if said != ["ok"]:
        yield Finding(path.name, False, f"is damaged: {said[0].splitlines()[0]}", _RESTORE)
    else:
        version = state.execute("PRAGMA user_version").fetchone()[0]
        yield Finding(path.name, True, f"whole, schema {version}")


def _files(folder: Path, state: sqlite3.Connection, memory_limit: int) -> Iterator[Finding]:
    with (
        tempfile.TemporaryDirectory(prefix="backhaul-") as spill,
        closing(open_engine(memory_limit, Path(spill))) as engine,
    ):
        yield from _ledgers(folder / "ledgers", state, engine)
        yield from _plans(folder / "plans", state, engine)


def _ledgers(folder: Path, state: sqlite3.Connection, engine: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    known, names = {scope for (scope,) in _rows(state, "ledgers", "scope")}, _names(state)
    for scope in sorted(known | {file.stem for file in folder.glob("*.duckdb")}):
        path, sync = ledger_file(folder.parent, scope), names.get(scope, "SYNC")
        if path.exists():
            yield _ledger(path, engine, sync)
        else:
            hint = f"put it back from a backup, or `backhaul baseline {sync}` or `backhaul reset {sync}`"
            yield Finding(f"ledgers/{path.name}", False, "is gone", hint)


def _names(state: sqlite3.Connection) -> dict[str, str]:
    """The name of the sync of each scope."""
    names = {row["id"]: row["name"] for row in _rows(state, "syncs", "id, name")}
    return {scope: names[sync] for scope, sync in _rows(state, "scopes", "id, sync") if sync in names}


def _ledger(path: Path, engine: duckdb.DuckDBPyConnection, sync: str) -> Finding:
    name = f"ledgers/{path.name}"
    hint = f"restore it from a backup, or remove it and `backhaul baseline {sync}` or `backhaul reset {sync}`"
    try:
        with attached(engine, path, ALIAS, patience=_PATIENCE):
            view = LedgerView(engine, path.name)
            if not view.is_intact():
                return Finding(name, False, "is damaged: not all of its rows can be read", hint)
            return Finding(name, True, f"whole, {view.count():,} records")
    except BackhaulError as error:
        own = "newer" in str(error) or "in use" in str(error)
        return Finding(name, False, str(error), error.hint if own else hint)
    except duckdb.Error as error:
        return Finding(name, False, f"is damaged: {str(error).splitlines()[0]}", hint)


def _plans(folder: Path, state: sqlite3.Connection, engine: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    names = _names(state)
    open_plans = {
        plan: (names.get(scope, "SYNC"), status)
        for plan, scope, status in _rows(state, "plans", "id, scope, status")
    }
    kept = [plan for (plan,) in _rows(state, "history", "plan")]
    files = {plan: plan_file(folder.parent, plan) for plan in (*open_plans, *kept)}
    wrong = 0
    for plan, (sync, status) in sorted(open_plans.items()):
        if said := _unreadable(files[plan], engine):
            wrong += 1
            yield Finding(f"plans/{plan}.parquet", False, f"{said} ({status})", _advice(sync, status))
    for plan in kept:
        if said := _unreadable(files[plan], engine):
            wrong += 1
            hint = "nothing is lost at the destination; `undo` and `why` cannot show what this run replaced"
            yield Finding(f"plans/{plan}.parquet", False, f"{said} (delivered)", hint)
    orphans = {file.stem for file in folder.glob("p-*")} - open_plans.keys() - set(kept)
    if orphans:
        yield Finding("plans", True, f"{len(orphans)} files that no run knows; a later run removes them")
    yield Finding("plans", True, f"{len(open_plans) + len(kept) - wrong} plans, whole")


def _advice(sync: str, status: str) -> str:
    if status in ("delivering", "folded"):
        return f"put it back from a backup, or `backhaul reset {sync}` to send everything again"
    return f"`backhaul plan {sync}` makes a new one"


def _unreadable(path: Path, engine: duckdb.DuckDBPyConnection) -> str | None:
    """What is wrong with a plan's file; its footer and its columns of row numbers are read."""
    if not path.exists():
        return "is gone"
    try:
        number(engine, f"SELECT count(*) FROM {rows_of(path)}")
    except duckdb.Error:
        return "is damaged"
    return None


def _rows(state: sqlite3.Connection, table: str, columns: str) -> list[sqlite3.Row]:
    """Rows of a table; none where an earlier release had no such table."""
    there = state.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [table]).fetchone()
    return state.execute(f"SELECT {columns} FROM {table}").fetchall() if there else []
