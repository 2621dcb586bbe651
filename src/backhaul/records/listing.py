"""Every record a sync knows, and its status: the ledger, overlaid with dead letters and with the plan on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from backhaul.changes import Stage, code, named
from backhaul.engine import number
from backhaul.ledger.diff import REFUSE, SEND
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.ledger import ALIAS, Ledger, LedgerView
from backhaul.ledger.plan import CHANGES, Plan, plan_from
from backhaul.mapping.mapping import Mapping
from backhaul.planning.explain import json_of, object_of, parsed
from backhaul.runs.recovery import refused_rows, settlements
from backhaul.sql import literal
from backhaul.state.protocol import State
from backhaul.types import Nulls

_DELIVERED, _UNKNOWN, _REJECTED = code(Stage.ACKNOWLEDGED), code(Stage.UNKNOWN), code(Stage.REJECTED)
_UNSENT, _NEWEST = 3, 4
"""Ranks above the dead letters' (1) and the ledger's (2)."""
_LOOKED_BACK = 100
"""Plans and runs."""
Plans = Callable[[str], Path]
STATUSES = ("acknowledged", "rejected", "pending", "unknown", "quarantined", "held")


def told(stage: Stage) -> str:
    """What people are told of a record at this stage: what waits to be sent is pending, wherever it waits."""
    return stage.value if stage.value in STATUSES else "pending"


def records(
    engine: duckdb.DuckDBPyConnection,
    state: State,
    ledger: Ledger,
    sync: str,
    plans: Plans,
    status: str | None = None,
) -> Iterator[dict[str, Any]]:
    """`{key, status, fields, remote_id}` of every record, by key; works while a run is going on.

    `fields` is what was acknowledged, or None.
    """
    with ledger.reading(engine) as view:
        select = _select(engine, state, view, _overlay(engine, state, sync, plans, view), sync)
        where = f"WHERE status = {literal(status)}" if status else ""
        found = engine.execute(
            f"SELECT * FROM ({select}) {where} ORDER BY TRY_CAST(key AS DECIMAL(38,6)), key"
        )
        while rows := found.fetchmany(10_000):
            for key, what, fields, remote_id in rows:
                yield {
                    "key": parsed(key),
                    "status": what,
                    "fields": parsed(fields) if fields else None,
                    "remote_id": remote_id,
                }


def _select(
    engine: duckdb.DuckDBPyConnection, state: State, view: LedgerView | None, overlay: str, sync: str
) -> str:
    """A SELECT of every record: `key, status, fields, remote_id`."""
    _letters(engine, state, sync)
    sources = []
    if view is not None and not view.empty:
        sources.append(_of_ledger(view.mapping(), view.meta.get("values") != "no"))
    if overlay:
        sources.append(overlay)
    sources.append(
        "SELECT key, 'rejected' AS status, NULL AS fields, NULL AS remote_id, 1 AS rank FROM temp.main.letters"
    )
    newest = (
        "SELECT key, max_by(status, rank) AS status, max(rank) AS rank, "
        "coalesce(max_by(fields, rank), any_value(fields)) AS fields, "
        f"coalesce(max_by(remote_id, rank), any_value(remote_id)) AS remote_id "
        f"FROM ({' UNION ALL '.join(sources)}) GROUP BY key"
    )
    # what the plan on its way says is newer than a dead letter
    return (
        f"SELECT n.key, CASE WHEN l.key IS NOT NULL AND rank < {_NEWEST} THEN 'rejected' ELSE n.status END AS status, "
        "n.fields, n.remote_id FROM "
        f"({newest}) AS n LEFT JOIN temp.main.letters AS l ON l.key = n.key WHERE n.status <> 'deleted'"
    )


def counts(
    engine: duckdb.DuckDBPyConnection, state: State, ledger: Ledger, sync: str, plans: Plans
) -> dict[str, int]:
    """How many records of each status there are, as `records` lists them; reads two columns where no plan is on its way."""
    found = dict.fromkeys(STATUSES, 0)
    with ledger.reading(engine) as view:
        overlay = _overlay(engine, state, sync, plans, view)
        if overlay:
            select = _select(engine, state, view, overlay, sync)
            return found | dict(
                engine.execute(f"SELECT status, count(*) FROM ({select}) GROUP BY 1").fetchall()
            )
        _letters(engine, state, sync)
        found["rejected"] = number(engine, "SELECT count(*) FROM temp.main.letters")
        if view is None or view.empty:
            return found
        without = ""
        if found["rejected"]:
            without = f"WHERE {key_json(view.mapping())} NOT IN (SELECT key FROM temp.main.letters)"
        for stage, count in engine.execute(
            f"SELECT _state, count(*) FROM {ALIAS}.acked {without} GROUP BY 1"
        ).fetchall():
            found[told(named(stage))] += count
    return found


def _letters(engine: duckdb.DuckDBPyConnection, state: State, sync: str) -> None:
    keys = [row["key"] for row in state.do("dead_keys", {"sync": sync})]
    table = pa.table({"key": pa.array(keys, pa.string())})
    engine.register("letters_now", table)
    engine.execute("CREATE OR REPLACE TEMP TABLE letters AS SELECT * FROM letters_now")
    engine.unregister("letters_now")


def _object(mapping: Mapping, prefix: str, *, over: str | None = None) -> str:
    """The fields as a JSON object; `over`: where a skipped NULL leaves another column's value as it is."""
    members = {}
    for field in mapping.fields:
        members[field.name] = json_of(field, prefix)
        if over is not None and field.nulls is Nulls.SKIP:
            members[field.name] = f"coalesce({json_of(field, prefix)}, {json_of(field, over)})"
    return object_of(members)


def _of_ledger(mapping: Mapping, values: bool) -> str:
    fields = _object(mapping, "f.") if values else "NULL"
    kept = [Stage.ACKNOWLEDGED, Stage.UNKNOWN, Stage.DETECTED, Stage.RETRY, Stage.QUARANTINED]
    cases = " ".join(f"WHEN {code(stage)} THEN {literal(told(stage))}" for stage in kept)
    return (
        f"SELECT {key_json(mapping)} AS key, CASE _state {cases} END AS status, "
        f"CASE WHEN _at IS NOT NULL THEN {fields} END AS fields, "
        f"_remote_id AS remote_id, 2 AS rank FROM {ALIAS}.acked"
    )


def _overlay(
    engine: duckdb.DuckDBPyConnection, state: State, sync: str, plans: Plans, view: LedgerView | None
) -> str:
    """SQL of what the ledger does not say: a plan that is on its way or held, or what the last one left unsent; '' where
    there is nothing."""
    for status, told_of in (("delivering", "pending"), ("held", "held")):
        rows = state.do("plans_with_status", {"sync": sync, "status": status})
        if rows and state.fetch_file(rows[-1]["id"], plans(rows[-1]["id"])):
            plan = plan_from(rows[-1]["header"], plans(rows[-1]["id"]))
            return _of_plan(engine, state, plan, told_of)
    left = _left_over(state, sync, plans, view) if view is not None and not view.empty else None
    return _unsent(left) if left else ""


def _left_over(state: State, sync: str, plans: Plans, view: LedgerView) -> Plan | None:
    """The newest plan of the model that the ledger took in, if changes of it were not sent and no run since found that
    there are none."""
    kept = {row["id"]: row for row in state.do("plans_of", {"sync": sync})}
    of_model = (
        (row, plan_from(row["header"], plans(row["id"])))
        for row in map(kept.get, view.folded(_LOOKED_BACK))
        if row
    )
    whole = ((row, plan) for row, plan in of_model if plan.mapping and plan.follows is None)
    row, plan = next(whole, (None, None))
    if row is None or plan is None or not plan.total:
        return None
    for run in state.do("runs", {"sync": sync, "limit": _LOOKED_BACK}):
        if run["plan"] == plan.id:
            report = orjson.loads(run["report"] or b"{}")
            if not (report.get("deferred") or report.get("pending")):
                return None
            break
        if run["started_at"] < row["created_at"]:
            break
        if not run["plan"] and run["status"] in ("succeeded", "partial"):
            return None
    return plan if state.fetch_file(plan.id, plan.path) else None


def _unsent(plan: Plan) -> str:
    """The rows of a folded plan that the ledger does not show as done: nothing says so but that they are not there."""
    mapping = Mapping.from_shape(plan.shape)
    same = " AND ".join(f"a.{key.column} = p.{key.column}" for key in mapping.keys)
    there = f"a.{mapping.keys[0].column} IS NOT NULL"
    return (
        f"SELECT {key_json(mapping, 'p.')} AS key, 'pending' AS status, NULL AS fields, NULL AS remote_id, {_UNSENT} AS rank "
        f"FROM {plan.rows_sql} AS p LEFT JOIN {ALIAS}.acked AS a ON {same} WHERE _segment <= {SEND} AND "
        f"CASE WHEN p._change = {CHANGES.index('delete')} THEN {there} AND a._state = {_DELIVERED} "
        f"WHEN {there} THEN a._state = {_DELIVERED} AND a._hash <> p._hash ELSE true END"
    )


def _of_plan(engine: duckdb.DuckDBPyConnection, state: State, plan: Plan, open_status: str) -> str:
    _fates(engine, state, plan)
    mapping = Mapping.from_shape(plan.shape)
    gone = CHANGES.index("delete")
    return (
        f"SELECT {key_json(mapping)} AS key, CASE WHEN _segment = {REFUSE} THEN 'rejected' WHEN s.fate = {_DELIVERED} AND "
        f"_change = {gone} THEN 'deleted' WHEN s.fate = {_DELIVERED} THEN 'acknowledged' WHEN s.fate = {_UNKNOWN} THEN 'unknown' "
        f"WHEN s.fate = {_REJECTED} THEN 'rejected' ELSE {literal(open_status)} END AS status, "
        f"CASE WHEN s.fate = {_DELIVERED} THEN {_object(mapping, 'f.', over='o.')} WHEN _change <> 0 THEN "
        f"{_object(mapping, 'o.')} END AS fields, _remote_id AS remote_id, {_NEWEST} AS rank FROM {plan.rows_sql} AS p "
        f"LEFT JOIN temp.main.fates AS s ON s.row = p.file_row_number WHERE _segment <= {SEND} OR _segment = {REFUSE}"
    )


def _fates(engine: duckdb.DuckDBPyConnection, state: State, plan: Plan) -> None:
    """temp.fates: what the journal says of a plan's rows; those on which it is silent are not in it."""
    found = settlements(state, plan.id)
    rejected = refused_rows(state, plan.id)
    excepted = [row for item in found for row in item.except_rows]
    names = ("low", "high", "fate")
    ranges = [(item.low, item.high, code(item.status)) for item in found]
    columns = zip(*ranges, strict=True) if ranges else ((), (), ())
    engine.register(
        "ranges_now",
        pa.table(
            {name: pa.array(list(column), pa.int64()) for name, column in zip(names, columns, strict=True)}
        ),
    )
    engine.register("excepted_now", pa.table({"row": pa.array(excepted, pa.int64())}))
    engine.register("rejected_now", pa.table({"row": pa.array(rejected, pa.int64())}))
    engine.execute(
        "CREATE OR REPLACE TEMP TABLE fates AS "
        "SELECT low + n AS row, fate FROM (SELECT low, fate, unnest(range(high - low)) AS n FROM ranges_now) "
        f"WHERE CASE WHEN fate = {_DELIVERED} THEN low + n NOT IN (SELECT row FROM excepted_now) "
        "ELSE low + n NOT IN (SELECT row FROM rejected_now) END "
        f"UNION ALL SELECT row, {_REJECTED} FROM rejected_now"
    )
    for name in ("ranges_now", "excepted_now", "rejected_now"):
        engine.unregister(name)
