"""The health of one sync: its records by status, what happens to the open ones next, its last run."""

from __future__ import annotations

from typing import Any

import duckdb
import orjson

from backhaul.changes import Stage
from backhaul.next_steps import next_step, offer_of
from backhaul.records.listing import counts, told_by
from backhaul.runs.scoping import kept_elsewhere
from backhaul.workspace import Workspace

INTERRUPTED = "interrupted (the process was killed or crashed); the next run settles what it left"


def health(engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any) -> dict[str, Any]:
    """JSON-ready."""
    last = list_runs(workspace, sync.name, 1)
    running, scope = workspace.is_leased(sync), workspace.scope(sync)
    return {
        "sync": sync.name, "destination": sync.destination, "object": sync.object,
        "account": scope.label, "kept": kept_elsewhere(workspace, scope),
        "running": running, "records": count_records(engine, workspace, sync), "unknown_next": unknown_next(workspace, sync),
        "last_run": last[0] if last else None,
    }  # fmt: skip


def unknown_next(workspace: Workspace, sync: Any) -> str:
    """The next step of a record that was never acknowledged and whose outcome is unknown."""
    offer = offer_of(sync, workspace.undelivering(sync.destination))
    return next_step(Stage.UNKNOWN, False, sync.mode, offer).value


def count_records(engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any) -> dict[str, int]:
    """A sync's records by status."""
    told = told_by(sync, workspace.undelivering(sync.destination))
    scope = workspace.scope(sync)
    return counts(engine, workspace.state, workspace.ledger(sync), scope, workspace.plan_path, told)


def list_runs(workspace: Workspace, sync: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest runs first: the RUN of each, or what is known of one that is going on or was interrupted."""
    state, scopes = workspace.state, workspace.scopes
    known = scopes.names()
    if sync is None:
        rows = state.do("runs_of_project", {"project": scopes.project, "limit": limit})
    else:
        rows = state.do("runs", {"sync": scopes.known_id(sync) or "", "limit": limit})
    found, leased = [], dict[str, bool]()
    for row in rows:
        report = orjson.loads(row["report"]) if row["report"] else {}
        told = {name: row[name] for name in ("id", "status", "error", "started_at", "finished_at")}
        if told["status"] == "running":
            if row["sync"] not in leased:
                leased[row["sync"]] = state.is_leased(row["sync"])
            if not leased[row["sync"]]:
                told |= {"status": "interrupted", "error": INTERRUPTED}
        found.append({**report, **told, "sync": known[row["sync"]]})
    return found
