"""Every record a sync knows, and its status: the ledger, overlaid with dead letters and with the plan on its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from backhaul.ledger.diff import REFUSE, SEND, key_json
from backhaul.ledger.fold import Settled
from backhaul.ledger.ledger import ALIAS, Ledger, RowState
from backhaul.ledger.plan import CHANGES, Plan, plan_from
from backhaul.mapping.mapping import Mapping
from backhaul.planning.explain import json_of, object_of, parsed
from backhaul.recovery import settlements
from backhaul.sql import literal
from backhaul.state.store import State
from backhaul.types import Nulls

_DELIVERED, _UNKNOWN, _REJECTED = int(Settled.DELIVERED), int(Settled.UNKNOWN), 9
STATUSES = ("acknowledged", "rejected", "pending", "unknown", "held")


def records(
    engine: duckdb.DuckDBPyConnection,
    state: State,
    ledger: Ledger,
    sync: str,
    plans: Any,
    status: str | None = None,
) -> Iterator[dict[str, Any]]:
    """`{key, status, fields, remote_id}` of every record, by key; works while a run is going on.

    `fields` is what was acknowledged, or None.
    """
    _letters(engine, state, sync)
    with ledger.reading(engine) as view:
        sources = []
        if view is not None and not view.empty:
            sources.append(
                _of_ledger(Mapping.from_shape(_full_shape(view.shape)), view.meta.get("values") != "no")
            )
        overlay = _overlay(engine, state, sync, plans)
        if overlay:
            sources.append(overlay)
        sources.append(
            "SELECT key, 'rejected' AS status, NULL AS fields, NULL AS remote_id, 1 AS rank FROM temp.letters"
        )
        newest = (
            "SELECT key, max_by(status, rank) AS status, max(rank) AS rank, "
            "coalesce(max_by(fields, rank), any_value(fields)) AS fields, "
            f"coalesce(max_by(remote_id, rank), any_value(remote_id)) AS remote_id "
            f"FROM ({' UNION ALL '.join(sources)}) GROUP BY key"
        )
        # what the plan on its way says is newer than a dead letter
        shown = (
            "SELECT n.key, CASE WHEN l.key IS NOT NULL AND rank < 3 THEN 'rejected' ELSE n.status END AS status, "
            "n.fields, n.remote_id FROM "
            f"({newest}) AS n LEFT JOIN temp.letters AS l ON l.key = n.key WHERE n.status <> 'deleted'"
        )
        where = f"WHERE status = {literal(status)}" if status else ""
        found = engine.execute(
            f"SELECT * FROM ({shown}) {where} ORDER BY TRY_CAST(key AS DECIMAL(38,6)), key"
        )
        while rows := found.fetchmany(10_000):
            for key, what, fields, remote_id in rows:
                yield {
                    "key": parsed(key),
                    "status": what,
                    "fields": parsed(fields) if fields else None,
                    "remote_id": remote_id,
                }


def counts(engine: duckdb.DuckDBPyConnection, state: State, ledger: Ledger, sync: str) -> dict[str, int]:
    """How many records of each status the ledger and the dead letters hold; reads two columns."""
    found = dict.fromkeys(STATUSES, 0)
    _letters(engine, state, sync)
    found["rejected"] = engine.execute("SELECT count(*) FROM temp.letters").fetchall()[0][0]
    with ledger.reading(engine) as view:
        if view is None or view.empty:
            return found
        mapping = Mapping.from_shape(_full_shape(view.shape))
        names = {RowState.ACKED: "acknowledged", RowState.UNKNOWN: "unknown", RowState.KNOWN: "pending"}
        without = ""
        if found["rejected"]:
            without = f"WHERE {key_json(mapping)} NOT IN (SELECT key FROM temp.letters)"
        for number, count in engine.execute(
            f"SELECT _state, count(*) FROM {ALIAS}.acked {without} GROUP BY 1"
        ).fetchall():
            found[names[RowState(number)]] += count
    return found


def _full_shape(shape: dict[str, Any]) -> dict[str, Any]:
    """A stored shape has storage types only; what reading needs beside them does not matter here."""
    return {
        "keys": shape["keys"],
        "fields": {name: [parts[0], "clear", False, parts[1]] for name, parts in shape["fields"].items()},
    }


def _letters(engine: duckdb.DuckDBPyConnection, state: State, sync: str) -> None:
    keys = [row["key"] for row in state.do("dead_letters", {"sync": sync, "id": None})]
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
    return (
        f"SELECT {key_json(mapping)} AS key, CASE _state WHEN {RowState.UNKNOWN} THEN 'unknown' WHEN {RowState.KNOWN} "
        f"THEN 'pending' ELSE 'acknowledged' END AS status, CASE WHEN _at IS NOT NULL THEN {fields} END AS fields, "
        f"_remote_id AS remote_id, 2 AS rank FROM {ALIAS}.acked"
    )


def _overlay(engine: duckdb.DuckDBPyConnection, state: State, sync: str, plans: Any) -> str:
    """The plan that is being delivered, or the newest held one: what the ledger does not say yet."""
    for status in ("delivering", "held"):
        rows = state.do("plans_with_status", {"sync": sync, "status": status})
        if rows and plans(rows[-1]["id"]).exists():
            plan = plan_from(rows[-1]["header"], plans(rows[-1]["id"]))
            return _of_plan(engine, state, plan, "held" if status == "held" else "pending")
    return ""


def _of_plan(engine: duckdb.DuckDBPyConnection, state: State, plan: Plan, open_status: str) -> str:
    _fates(engine, state, plan)
    mapping = Mapping.from_shape(plan.shape)
    file = f"read_parquet({literal(str(plan.path))}, file_row_number = true)"
    gone = CHANGES.index("delete")
    return (
        f"SELECT {key_json(mapping)} AS key, CASE WHEN _segment = {REFUSE} THEN 'rejected' WHEN s.fate = {_DELIVERED} AND "
        f"_change = {gone} THEN 'deleted' WHEN s.fate = {_DELIVERED} THEN 'acknowledged' WHEN s.fate = {_UNKNOWN} THEN 'unknown' "
        f"WHEN s.fate = {_REJECTED} THEN 'rejected' ELSE {literal(open_status)} END AS status, "
        f"CASE WHEN s.fate = {_DELIVERED} THEN {_object(mapping, 'f.', over='o.')} WHEN _change <> 0 THEN "
        f"{_object(mapping, 'o.')} END AS fields, _remote_id AS remote_id, 3 AS rank FROM {file} AS p LEFT JOIN temp.fates AS s "
        f"ON s.row = p.file_row_number WHERE _segment <= {SEND} OR _segment = {REFUSE}"
    )


def _fates(engine: duckdb.DuckDBPyConnection, state: State, plan: Plan) -> None:
    """temp.fates: what the journal says of a plan's rows; those on which it is silent are not in it."""
    found = settlements(state, plan.id)
    rejected = [
        row
        for outcome in state.do("outcomes", {"plan": plan.id})
        for row in (orjson.loads(outcome["rejected"]) if outcome["rejected"] else [])
    ]
    excepted = [row for item in found for row in item.except_rows]
    names = ("low", "high", "fate")
    ranges = [(item.low, item.high, int(item.status)) for item in found]
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
        f"WHERE fate <> {_DELIVERED} OR low + n NOT IN (SELECT row FROM excepted_now) "
        f"UNION ALL SELECT row, {_REJECTED} FROM rejected_now"
    )
    for name in ("ranges_now", "excepted_now", "rejected_now"):
        engine.unregister(name)
