"""Every record a sync knows, and its status: the ledger, overlaid with dead letters and with the plan on its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from backhaul.ledger.diff import SEND, key_json
from backhaul.ledger.fold import Settled
from backhaul.ledger.ledger import ALIAS, Ledger, RowState
from backhaul.ledger.plan import Plan, plan_from
from backhaul.mapping.mapping import Mapping
from backhaul.planning.explain import parsed
from backhaul.recovery import settlements
from backhaul.sql import ident, literal
from backhaul.state.store import State
from backhaul.types import FieldType

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
            "SELECT key, max_by(status, rank) AS status, coalesce(max_by(fields, rank), any_value(fields)) AS fields, "
            f"coalesce(max_by(remote_id, rank), any_value(remote_id)) AS remote_id "
            f"FROM ({' UNION ALL '.join(sources)}) GROUP BY key"
        )
        shown = (
            "SELECT n.key, CASE WHEN l.key IS NOT NULL AND n.status <> 'pending' THEN 'rejected' ELSE n.status END AS status, "
            f"n.fields, n.remote_id FROM ({newest}) AS n LEFT JOIN temp.letters AS l ON l.key = n.key"
        )
        where = f"WHERE status = {literal(status)}" if status else ""
        found = engine.execute(
            f"SELECT * FROM ({shown}) {where} ORDER BY TRY_CAST(key AS DECIMAL(38,6)), key"
        )
        while rows := found.fetchmany(10_000):
            for key, what, fields, remote_id in rows:
                yield {
                    "key": orjson.loads(key),
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


def _object(mapping: Mapping, prefix: str) -> str:
    pairs = []
    for field in mapping.fields:
        column = ident(prefix + field.name)
        json = f"{column}::JSON" if field.field.type in (FieldType.JSON, FieldType.ARRAY) else column
        pairs.append(f"{literal(field.name)}, {json}")
    return f"CAST(json_object({', '.join(pairs)}) AS VARCHAR)"


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
    found = settlements(state, plan.id)
    fates = [
        (row, item.status == Settled.DELIVERED)
        for item in found for row in range(item.low, item.high) if row not in item.except_rows
    ]  # fmt: skip
    table = pa.table(
        {
            "row": pa.array([row for row, _ in fates], pa.int64()),
            "ok": pa.array([ok for _, ok in fates], pa.bool_()),
        }
    )
    engine.register("fates_now", table)
    engine.execute("CREATE OR REPLACE TEMP TABLE fates AS SELECT * FROM fates_now")
    engine.unregister("fates_now")
    mapping = Mapping.from_shape(plan.shape)
    file = f"read_parquet({literal(str(plan.path))}, file_row_number = true)"
    return (
        f"SELECT {key_json(mapping)} AS key, CASE WHEN s.ok THEN 'acknowledged' WHEN s.row IS NOT NULL THEN 'unknown' "
        f"ELSE {literal(open_status)} END AS status, CASE WHEN s.ok THEN {_object(mapping, 'f.')} WHEN _change <> 0 THEN "
        f"{_object(mapping, 'o.')} END AS fields, _remote_id AS remote_id, 3 AS rank FROM {file} AS p LEFT JOIN temp.fates AS s "
        f"ON s.row = p.file_row_number WHERE _segment <= {SEND}"
    )
