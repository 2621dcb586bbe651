"""Statements about runs. Those of a sync are in the order of their beginning; those that have no end are listed apart."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import islice
from typing import Any

from backhaul.state.dynamo.table import Item, Table, Write, change, delete, put

Values = Mapping[str, Any]
_PAGE = 20
_KILLED = "interrupted (the process was killed or crashed); the next run settled what it left"


def _number(n: int) -> str:
    return f"{n:015d}"


def start_run(table: Table, given: Values) -> list[Write]:
    run_id, sync, at = given["id"], given["sync"], given["started_at"]
    n = table.number("runs")
    run = {
        "id": run_id,
        "sync": sync,
        "status": "running",
        "started_at": at,
        "rows": 0,
        "incremental": 0,
        "n": n,
    }
    return [
        put(f"run/{run_id}", "run", {"sync": sync, "n": n, "started_at": at}),
        put(f"runs/{sync}", _number(n), run),
        put(f"running/{sync}", run_id, {"n": n}),
    ]


def finish_run(table: Table, given: Values) -> list[Write]:
    found = table.get(f"run/{given['id']}", "run")
    if found is None:
        return []
    sync, n, plan = found["sync"], _number(found["n"]), given["plan"]
    writes = [
        change(f"runs/{sync}", n, {name: value for name, value in given.items() if name != "id"}),
        delete(f"running/{sync}", given["id"]),
    ]
    if plan:
        known = {"id": given["id"], "sync": sync, "scope": given["scope"]}
        run = {**known, "status": given["status"], "started_at": found["started_at"]}
        writes.append(put(f"plan/{plan}", f"run/{found['started_at']}/{n}", run))
    return writes


def interrupted_runs(table: Table, given: Values) -> list[Write]:
    sync, writes = given["sync"], list[Write]()
    for run in table.query(f"running/{sync}"):
        if run["sk"] != given["id"]:
            ended = {"status": "interrupted", "error": _KILLED, "finished_at": given["at"]}
            writes += [change(f"runs/{sync}", _number(run["n"]), ended), delete(f"running/{sync}", run["sk"])]
    return writes


def rewrite_run(table: Table, given: Values) -> list[Write]:
    found = table.get(f"run/{given['id']}", "run")
    if found is None:
        return []
    values = {"error": given["error"], "report": given["report"]}
    return [change(f"runs/{found['sync']}", _number(found["n"]), values)]


def runs(table: Table, given: Values) -> list[Item]:
    return _newest(table, [given["sync"]], given["limit"])


def runs_of_project(table: Table, given: Values) -> list[Item]:
    return _newest(table, [item["id"] for item in table.query(f"syncs/{given['project']}")], given["limit"])


def _newest(table: Table, syncs: list[str], limit: int) -> list[Item]:
    page = min(limit, 1000) or 1
    each = [table.query(f"runs/{sync}", newest=True, page=page) for sync in syncs]
    return list(islice(heapq.merge(*each, key=lambda run: -run["n"]), limit))


def last_full_rows(table: Table, given: Values) -> list[Item]:
    done = ("succeeded", "partial", "deferred")
    newest = table.query(f"runs/{given['sync']}", newest=True, page=_PAGE)
    full = (run for run in newest if run["status"] in done and not run["incremental"])
    return list(islice((run for run in full if run["scope"] == given["scope"]), 1))


def run(table: Table, given: Values) -> list[Item]:
    found = table.get(f"run/{given['id']}", "run")
    kept = found and table.get(f"runs/{found['sync']}", _number(found["n"]))
    return [kept] if kept else []


def run_of_plan(table: Table, given: Values) -> list[Item]:
    return list(islice(table.query(f"plan/{given['plan']}", "run/", newest=True, page=1), 1))


READS = {
    "runs": runs,
    "runs_of_project": runs_of_project,
    "last_full_rows": last_full_rows,
    "run": run,
    "run_of_plan": run_of_plan,
}
WRITES = {
    "start_run": start_run,
    "finish_run": finish_run,
    "interrupted_runs": interrupted_runs,
    "rewrite_run": rewrite_run,
}
