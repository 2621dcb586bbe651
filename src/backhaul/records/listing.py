"""Every record a sync knows, and its status: the ledger, overlaid with dead letters and with the plan on its way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from backhaul.changes import Stage, code, named
from backhaul.engine import number
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.ledger import ALIAS, Ledger, LedgerView
from backhaul.ledger.plan import CHANGES, REFUSE, SEND, Plan, plan_from
from backhaul.mapping.mapping import Mapping
from backhaul.next_steps import Offer, offer_of, status_of
from backhaul.planning.explain import json_of, object_of, parsed
from backhaul.runs.recovery import refused_rows, settlements
from backhaul.sql import literal
from backhaul.state.protocol import State
from backhaul.state.scopes import Scope
from backhaul.types import Mode, Nulls

_DELIVERED, _UNKNOWN, _REJECTED = code(Stage.ACKNOWLEDGED), code(Stage.UNKNOWN), code(Stage.REJECTED)
_LETTER, _LEDGER, _UNSENT, _NEWEST = 1, 2, 3, 4
"""Which of those that speak of a record is believed: the highest."""
_KEPT = (Stage.ACKNOWLEDGED, Stage.UNKNOWN, Stage.DETECTED, Stage.RETRY, Stage.QUARANTINED)
"""What a row of the ledger may be."""
_AT_ONCE, _SAMPLES, _MOST_SAMPLES = 20_000, 10, 10_000
"""Records that are read at a time, and keys that are looked at for each page to say where it ends."""
_NOTHING = "SELECT NULL AS k0, NULL AS key, NULL AS status, NULL AS fields, NULL AS remote_id, NULL AS rank WHERE false"
_LOOKED_BACK = 100
"""Plans and runs."""
Plans = Callable[[str], Path]
STATUSES = ("acknowledged", "rejected", "pending", "in_flight", "unknown", "quarantined", "held")
_IN_FLIGHT = 90
"""Stands for the stage that no ledger stores."""
Told = Callable[[Stage, bool], str]
"""The status of a record by its stage and whether it was ever acknowledged."""


def told_by(sync: Any, destination: Any) -> Told:
    """The statuses of a sync's records."""
    offer = offer_of(sync, destination)
    return lambda stage, acknowledged: status_of(stage, acknowledged, sync.mode, offer)


def resent(stage: Stage, acknowledged: bool) -> str:
    """The statuses where a record may be sent again as often as need be."""
    return status_of(stage, acknowledged, Mode.UPSERT, Offer.REPEATABLE)


def records(
    engine: duckdb.DuckDBPyConnection,
    state: State,
    ledger: Ledger,
    scope: Scope,
    plans: Plans,
    status: str | None = None,
    *,
    at_once: int = _AT_ONCE,
    told: Told = resent,
) -> Iterator[dict[str, Any]]:
    """`{key, status, fields, remote_id}` of every record, by key; works while a run is going on.

    `fields` is what was acknowledged, or None. Reads about `at_once` records at a time and detaches the ledger in between, so
    that a reader that is slow or stops does not block a run.
    """
    listing = Listing(engine, state, ledger, scope, plans, told)
    for part in listing.parts(status, at_once):
        for key, what, fields, remote_id in listing.page(part, status):
            yield {
                "key": parsed(key),
                "status": what,
                "fields": parsed(fields) if fields else None,
                "remote_id": remote_id,
            }


def counts(
    engine: duckdb.DuckDBPyConnection, state: State, ledger: Ledger, scope: Scope, plans: Plans, told: Told = resent
) -> dict[str, int]:  # fmt: skip
    """How many records of each status there are, as `records` lists them."""
    return Listing(engine, state, ledger, scope, plans, told).counts()


class Listing:
    """The records of one scope: the ledger's rows, and over them what dead letters and the plan on its way say."""

    def __init__(
        self, engine: duckdb.DuckDBPyConnection, state: State, ledger: Ledger, scope: Scope, plans: Plans, told: Told
    ) -> None:  # fmt: skip
        self._told = told
        self.engine, self.state, self.ledger, self.scope, self.plans = engine, state, ledger, scope, plans
        self._held = self._over = ""
        self._keys: list[str] = []
        self._seen: Any = None

    def parts(self, status: str | None, size: int) -> list[str]:
        """Conditions on keys, in their order, which all records fit into: about so many into each."""
        with self._reading():
            source = self._union("true", status, "k0")
            total = number(self.engine, f"SELECT count(*) FROM ({source})")
            wanted = min(total // size * _SAMPLES, _MOST_SAMPLES)
            if not wanted:
                return ["true"]
            rows = self.engine.execute(
                f"SELECT DISTINCT k0, CAST(k0 AS VARCHAR), typeof(k0) FROM (FROM ({source}) WHERE k0 IS NOT NULL) "
                f"USING SAMPLE reservoir({wanted} ROWS) ORDER BY k0"
            ).fetchall()
        step = max(len(rows) * size // total, 1)
        marks = [f"CAST({literal(text)} AS {storage})" for _, text, storage in rows[step::step]]
        if not marks:
            return ["true"]
        between = [f"k0 >= {low} AND k0 < {high}" for low, high in itertools.pairwise(marks)]
        return [f"k0 < {marks[0]}", *between, f"(k0 >= {marks[-1]} OR k0 IS NULL)"]

    def page(self, part: str, status: str | None) -> list[tuple[str, str, str | None, str | None]]:
        """(key as JSON, status, fields as JSON, remote id) of the records that fit a condition on keys, by key."""
        only = f"WHERE status = {literal(status)}" if status else ""
        with self._reading():
            order = ", ".join([*self._keys, "key"])
            return self.engine.execute(
                f"SELECT key, status, fields, remote_id FROM ({self._select(part, status)}) {only} ORDER BY {order}"
            ).fetchall()

    def counts(self) -> dict[str, int]:
        """How many records of each status there are. Of the ledger's rows that nothing else speaks of one column is read."""
        found = dict.fromkeys(STATUSES, 0)
        with self._reading():
            if self._over:
                rows = self.engine.execute(
                    f"SELECT status, count(*) FROM ({self._select('true', 'touched')}) GROUP BY 1"
                ).fetchall()
                found |= dict(rows)
            if self._held:
                same = " AND ".join(f"a.{key} = t.{key}" for key in self._keys)
                alone = f"ANTI JOIN ({self._over}) AS t ON {same}" if self._over else ""
                for stage, known, count in self.engine.execute(
                    f"SELECT _state, _at IS NOT NULL, count(*) FROM {ALIAS}.acked AS a {alone} GROUP BY 1, 2"
                ).fetchall():
                    found[self._told(named(stage), known)] += count
        return found

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """The ledger attached, and what lies over it; that is made once for each plan that comes or goes."""
        with self.ledger.reading(self.engine) as view:
            kept = None if view is None or view.empty else view
            ways = [
                row["id"]
                for status in ("delivering", "held")
                for row in self.state.do("plans_with_status", {"scope": self.scope.id, "status": status})
            ]
            seen = (ways, kept and kept.last_folded())
            if self._seen is None or seen != self._seen:
                self._open(kept)
                self._seen = seen
            yield

    def _open(self, view: LedgerView | None) -> None:
        overlay, mapping = _overlay(self.engine, self.state, self.scope, self.plans, view)
        self._held = ""
        if view is not None:
            mapping = view.mapping()
            self._held = _of_ledger(mapping, view.meta.get("values") != "no", self._told)
        self._keys = [key.column for key in mapping.keys] if mapping else ["k0"]
        letters = _letters(self.engine, self.state, self.scope, mapping)
        self._over = " UNION ALL ".join(source for source in (overlay, letters) if source)

    def _union(self, part: str, status: str | None, columns: str) -> str:
        """Columns of the rows of all sources that fit a condition on keys. `status`: those of the ledger that cannot have it
        are missing; `touched`: those that nothing else speaks of."""
        keys = self._keys[0] if len(self._keys) == 1 else f"({', '.join(self._keys)})"
        touched = f"{keys} IN (SELECT {keys} FROM ({self._over}))" if self._over else "false"
        rule = "true"
        if status == "touched":
            rule = touched
        elif status not in (None, Stage.ACKNOWLEDGED.value):
            rows = [at for at in itertools.product(_KEPT, (True, False)) if self._told(*at) == status]
            rule = " OR ".join([*(_is_at(stage, known) for stage, known in rows), touched])
            rule = f"({rule})"
        made = [
            f"SELECT {columns} FROM ({source}) WHERE {part} AND {rule}"
            for source, rule in ((self._held, rule), (self._over, "true"))
            if source
        ]
        return " UNION ALL ".join(made) or f"SELECT {columns} FROM ({_NOTHING})"

    def _select(self, part: str, status: str | None) -> str:
        """A SELECT of records that fit a condition on keys: `k0…, key, status, fields, remote_id`."""
        keys = ", ".join(self._keys)
        rows = self._union(part, status, f"{keys}, key, status, fields, remote_id, rank")
        if not self._over:
            return rows
        newest = (
            f"SELECT {keys}, any_value(key) AS key, max_by(status, rank) AS status, max(rank) AS newest, "
            f"bool_or(rank = {_LETTER}) AS refused, coalesce(max_by(fields, rank), any_value(fields)) AS fields, "
            f"coalesce(max_by(remote_id, rank), any_value(remote_id)) AS remote_id "
            f"FROM ({rows}) GROUP BY {keys}, CASE WHEN k0 IS NULL THEN key END"
        )
        # what the plan on its way says is newer than a dead letter
        return (
            f"SELECT {keys}, key, CASE WHEN refused AND newest < {_NEWEST} THEN 'rejected' ELSE status END AS status, "
            f"fields, remote_id FROM ({newest}) WHERE status <> 'deleted'"
        )


def _letters(engine: duckdb.DuckDBPyConnection, state: State, scope: Scope, mapping: Mapping | None) -> str:
    """SQL of the dead letters' keys, as columns too; '' where there are none."""
    keys = [row["key"] for row in state.do("dead_keys", {"scope": scope.id})]
    if not keys:
        return ""
    columns = ["TRY_CAST(key AS DECIMAL(38,6)) AS k0"]
    if mapping is not None:
        several = len(mapping.keys) > 1
        paths = [f"$[{at}]" if several else "$" for at in range(len(mapping.keys))]
        columns = [
            f"TRY_CAST(json_extract_string(key, '{path}') AS {key.storage}) AS {key.column}"
            for path, key in zip(paths, mapping.keys, strict=True)
        ]
    engine.register("letters_now", pa.table({"key": pa.array(keys, pa.string())}))
    engine.execute(
        f"CREATE OR REPLACE TEMP TABLE letters AS SELECT {', '.join(columns)}, key, 'rejected' AS status, "
        f"NULL::VARCHAR AS fields, NULL::VARCHAR AS remote_id, {_LETTER} AS rank FROM letters_now"
    )
    engine.unregister("letters_now")
    return "FROM temp.main.letters"


def _object(mapping: Mapping, prefix: str, *, over: str | None = None) -> str:
    """The fields as a JSON object; `over`: where a skipped NULL leaves another column's value as it is."""
    members = {}
    for field in mapping.fields:
        members[field.name] = json_of(field, prefix)
        if over is not None and field.nulls is Nulls.SKIP:
            members[field.name] = f"coalesce({json_of(field, prefix)}, {json_of(field, over)})"
    return object_of(members)


def _columns(mapping: Mapping, prefix: str = "") -> str:
    return ", ".join(f"{prefix}{key.column} AS {key.column}" for key in mapping.keys)


def _is_at(stage: Stage, known: bool) -> str:
    """SQL of whether a row of the ledger is at a stage, and was acknowledged before or not."""
    return f"(_state = {code(stage)} AND _at IS {'NOT ' if known else ''}NULL)"


def _of_ledger(mapping: Mapping, values: bool, told: Told) -> str:
    fields = _object(mapping, "f.") if values else "NULL"
    cases = " ".join(
        f"WHEN {_is_at(*at)} THEN {literal(told(*at))}" for at in itertools.product(_KEPT, (True, False))
    )
    return (
        f"SELECT {_columns(mapping)}, _state, _at, {key_json(mapping)} AS key, CASE {cases} END AS status, "
        f"CASE WHEN _at IS NOT NULL THEN {fields} END AS fields, "
        f"_remote_id AS remote_id, {_LEDGER} AS rank FROM {ALIAS}.acked"
    )


def _overlay(
    engine: duckdb.DuckDBPyConnection, state: State, scope: Scope, plans: Plans, view: LedgerView | None
) -> tuple[str, Mapping | None]:
    """SQL of what the ledger does not say: a plan that is on its way or held, or what the last one left unsent; and that
    plan's mapping. '' where there is nothing."""
    for status, told_of in (("delivering", "pending"), ("held", "held")):
        rows = state.do("plans_with_status", {"scope": scope.id, "status": status})
        if rows and state.fetch_file(rows[-1]["id"], plans(rows[-1]["id"])):
            plan = plan_from(rows[-1]["header"], plans(rows[-1]["id"]))
            return _of_plan(engine, state, plan, told_of, scope), Mapping.from_shape(plan.shape)
    left = _left_over(state, scope, plans, view) if view is not None else None
    return (_unsent(left) if left else ""), None


def _left_over(state: State, scope: Scope, plans: Plans, view: LedgerView) -> Plan | None:
    """The newest plan of the model that the ledger took in, if changes of it were not sent and no run since found that
    there are none."""
    kept = {row["id"]: row for row in state.do("plans_of", {"scope": scope.id})}
    of_model = (
        (row, plan_from(row["header"], plans(row["id"])))
        for row in map(kept.get, view.folded(_LOOKED_BACK))
        if row
    )
    whole = ((row, plan) for row, plan in of_model if plan.mapping and plan.follows is None)
    row, plan = next(whole, (None, None))
    if row is None or plan is None or not plan.total:
        return None
    runs = state.do("runs", {"sync": scope.sync, "limit": _LOOKED_BACK})
    for run in [run for run in runs if run["scope"] == scope.id]:
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
        f"SELECT {_columns(mapping, 'p.')}, {key_json(mapping, 'p.')} AS key, 'pending' AS status, NULL::VARCHAR AS fields, "
        f"NULL::VARCHAR AS remote_id, {_UNSENT} AS rank "
        f"FROM {plan.rows_sql} AS p LEFT JOIN {ALIAS}.acked AS a ON {same} WHERE _segment <= {SEND} AND "
        f"CASE WHEN p._change = {CHANGES.index('delete')} THEN {there} AND a._state = {_DELIVERED} "
        f"WHEN {there} THEN a._state = {_DELIVERED} AND a._hash <> p._hash ELSE true END"
    )


def _of_plan(
    engine: duckdb.DuckDBPyConnection, state: State, plan: Plan, open_status: str, scope: Scope
) -> str:
    _fates(engine, state, plan, running=state.is_leased(scope.sync))
    mapping = Mapping.from_shape(plan.shape)
    gone = CHANGES.index("delete")
    return (
        f"SELECT {_columns(mapping)}, {key_json(mapping)} AS key, "
        f"CASE WHEN _segment = {REFUSE} THEN 'rejected' WHEN s.fate = {_DELIVERED} AND "
        f"_change = {gone} THEN 'deleted' WHEN s.fate = {_DELIVERED} THEN 'acknowledged' WHEN s.fate = {_UNKNOWN} THEN 'unknown' "
        f"WHEN s.fate = {_IN_FLIGHT} THEN 'in_flight' "
        f"WHEN s.fate = {_REJECTED} THEN 'rejected' ELSE {literal(open_status)} END AS status, "
        f"CASE WHEN s.fate = {_DELIVERED} THEN {_object(mapping, 'f.', over='o.')} WHEN _change <> 0 THEN "
        f"{_object(mapping, 'o.')} END AS fields, _remote_id AS remote_id, {_NEWEST} AS rank FROM {plan.rows_sql} AS p "
        f"LEFT JOIN temp.main.fates AS s ON s.row = p.file_row_number WHERE _segment <= {SEND} OR _segment = {REFUSE}"
    )


def _fates(engine: duckdb.DuckDBPyConnection, state: State, plan: Plan, *, running: bool) -> None:
    """temp.fates: what the journal says of a plan's rows; those on which it is silent are not in it."""
    found = settlements(state, plan.id, open_stage=Stage.IN_FLIGHT if running else Stage.UNKNOWN)
    rejected = refused_rows(state, plan.id)
    excepted = [row for item in found for row in item.except_rows]
    names = ("low", "high", "fate")
    fates = {stage: code(stage) for stage in (Stage.ACKNOWLEDGED, Stage.UNKNOWN)} | {
        Stage.IN_FLIGHT: _IN_FLIGHT
    }
    ranges = [(item.low, item.high, fates[item.status]) for item in found]
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
