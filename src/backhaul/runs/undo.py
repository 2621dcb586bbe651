"""`undo`: the plan that puts back what a run replaced, frozen like any plan and delivered as it is or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import orjson

from backhaul.changes import Stage, code
from backhaul.engine import in_order, number
from backhaul.errors import PlanMoved, UsageError
from backhaul.ledger.diff import ROW_GROUP
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.fold import Settlement
from backhaul.ledger.ledger import LedgerView
from backhaul.ledger.plan import CHANGES, DELETE, MOVE, SEND, Plan, Segment, freezing, plan_from, rows_of
from backhaul.ledger.replaced import identity
from backhaul.mapping.mapping import Mapping
from backhaul.planning.prepare import Prepared
from backhaul.planning.schema_changes import ModelSchema
from backhaul.runs.recovery import settlements
from backhaul.sql import ident, literal
from backhaul.state.scopes import Scope
from backhaul.types import Mode, Nulls, Op
from backhaul.workspace import Workspace

_NAMED = 5
"""Keys that are named of those left out."""
_ACKNOWLEDGED = code(Stage.ACKNOWLEDGED)

REASONS = {
    "changed": "changed since, or no longer what that run sent",
    "undelivered": "rejected, unknown or never sent by that run",
    "unable": "cannot be put back: the destination cannot delete or rename them, what they held was never known, or it was NULL "
    "and `nulls: skip` leaves it out",
    "taken": "identified as another record is now",
}
"""Why records are left out of an undo."""


def plan_of_run(workspace: Workspace, run: str) -> tuple[str, str]:
    """(sync, plan) of a finished run.

    Raises:
        UsageError: there is no such run, it goes on, or it sent nothing.
    """
    rows = workspace.state.do("run", {"id": run}) if workspace.is_begun else []
    if not rows:
        raise UsageError(f"there is no run {run}", hint="see `backhaul runs`")
    row = rows[0]
    if row["status"] == "running":
        raise UsageError(f"run {run} is going on", hint="undo it when it has ended")
    if not row["plan"] or row["status"] == "held":
        raise UsageError(
            f"run {run} has nothing to undo: no delivery of it is recorded", hint="see `backhaul runs`"
        )
    name = workspace.scopes.names().get(row["sync"])
    if name is None:
        raise UsageError(f"there is no run {run} in this project", hint="see `backhaul runs`")
    return name, row["plan"]


def kept_plan(workspace: Workspace, scope: Scope, run: str, plan_id: str) -> Plan:
    """The kept plan of a run.

    Raises:
        UsageError: it is not kept any more, not settled, or of another account.
    """
    rows = {row["id"]: row for row in workspace.state.do("plans_of", {"scope": scope.id})}
    row = rows.get(plan_id)
    if row is not None and row["status"] != "delivered":
        raise UsageError(
            f"what run {run} sent is not settled", hint=f"settle it with `backhaul run {scope.name}`"
        )
    path = workspace.plan_path(plan_id)
    if row is None or not workspace.state.fetch_file(plan_id, path):
        raise UsageError(
            f"what run {run} replaced is not kept any more",
            hint="see `history` in backhaul.yml for how long it is",
        )
    return plan_from(row["header"], path)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the destination can do to the object."""

    delete: bool
    move: Op | None
    """As in the kit's Destination.moves."""


class Undo:
    """One run's plan turned round, on one engine with the ledger open."""

    def __init__(
        self, engine: duckdb.DuckDBPyConnection, view: LedgerView | None, of: Plan, can: Abilities
    ) -> None:
        self.engine, self.view, self.of, self.can = engine, view, of, can
        self.mapping = Mapping.from_shape(of.shape)
        self.keys = [key.column for key in self.mapping.keys]

    def find(self, found: list[Settlement], doubted: Plan | None = None) -> dict[str, dict[str, Any]]:
        """Fills temp.undoing; returns `{reason: {count, keys}}` of what is left out. `doubted`: an undo of the same run that
        was cut off; what it left in doubt is put back again."""
        _fill(self.engine, found)
        self.engine.execute(f"CREATE OR REPLACE TEMP TABLE undoing AS {self._rows(doubted)}")
        self._find_taken()
        rows = self.engine.execute(
            f"SELECT why, count(*), min({key_json(self.mapping)}, {_NAMED}) FROM temp.main.undoing "
            "WHERE why IS NOT NULL GROUP BY why ORDER BY why"
        ).fetchall()
        return {
            why: {"count": count, "keys": [orjson.loads(key) for key in keys]} for why, count, keys in rows
        }

    def _rows(self, doubted: Plan | None) -> str:
        """The plan's rows with what the ledger says of them now, turned round; `why` they are left out."""
        same = " AND ".join(f"a.{key} = p.{key}" for key in self.keys)
        there = f"a.{self.keys[0]} IS NOT NULL"
        ledger = self.view.current(self.mapping) if self.view is not None else self._nothing()
        doubtful = f"a._state = {code(Stage.UNKNOWN)} AND {self._among(doubted)}" if doubted else "false"
        held = f"(({there} AND a._state = {_ACKNOWLEDGED} AND a._hash = p._hash) OR ({doubtful}))"
        gone = CHANGES.index("delete")
        as_left = f"CASE WHEN p._change = {gone} THEN NOT ({there}) OR ({doubtful}) ELSE {held} END"
        why = (
            f"CASE WHEN NOT p.delivered THEN 'undelivered' WHEN ({as_left}) IS NOT TRUE THEN 'changed' "
            f"WHEN {self._unable()} THEN 'unable' END"
        )
        back = f"CASE p._change WHEN {CHANGES.index('create')} THEN {gone} WHEN {gone} THEN 0 ELSE 1 END"
        hashed = self.mapping.hash_sql()
        return (
            f"SELECT CASE WHEN _change = {gone} THEN {DELETE} WHEN _change = 1 AND {self._renames()} THEN {MOVE} "
            f"ELSE {SEND} END AS _segment, * REPLACE (CASE WHEN _change <> {gone} THEN {hashed} END AS _hash) FROM ("
            f"SELECT ({back})::INTEGER AS _change, {', '.join('p.' + key for key in self.keys)}, NULL::UBIGINT AS _hash, "
            f"{', '.join([*self._new(), *self._old()])}, a._remote_id, NULL::VARCHAR AS _error, NULL::UTINYINT AS _again, "
            f"a._hash AS _was, {why} AS why FROM (SELECT f.*, f.file_row_number IN (SELECT row FROM temp.main.sent) AS delivered "
            f"FROM {self.of.rows_sql} AS f WHERE _segment <= {SEND}) AS p LEFT JOIN ({ledger}) AS a ON {same})"
        )

    def _new(self) -> list[str]:
        """Values to send: those that were replaced; of a delete the identifiers that the record has now."""
        created = CHANGES.index("create")
        return [
            f"CASE WHEN p._change = {created} THEN {'p.' + ident(field.column) if field.identifier else 'NULL'} "
            f"ELSE p.{ident('o.' + field.name)} END::{field.storage} AS {ident(field.column)}"
            for field in self.mapping.fields
        ]

    def _old(self) -> list[str]:
        return [f"a.{ident(field.column)} AS {ident('o.' + field.name)}" for field in self.mapping.fields]

    def _nothing(self) -> str:
        """A ledger without rows."""
        keys = [f"NULL::{key.storage} AS {key.column}" for key in self.mapping.keys]
        values = [f"NULL::{field.storage} AS {ident(field.column)}" for field in self.mapping.fields]
        rest = "NULL::UBIGINT AS _hash, NULL::UTINYINT AS _state, NULL::VARCHAR AS _remote_id"
        return f"SELECT {', '.join([*keys, rest, *values])} WHERE false"

    def _among(self, plan: Plan) -> str:
        """Whether a row is in another plan too."""
        same = " AND ".join(f"d.{key} = p.{key}" for key in self.keys)
        return f"EXISTS (SELECT 1 FROM {plan.rows_sql} AS d WHERE {same})"

    def _unable(self) -> str:
        """Creates where nothing can be deleted, and what held values nobody knows: taken over unseen, or in doubt."""
        unnamed = " OR ".join(f"p.{ident('o.' + field.name)} IS NULL" for field in self.mapping.identifiers)
        moved = " OR ".join(
            f"p.{ident('o.' + field.name)} IS DISTINCT FROM p.{ident(field.column)}"
            for field in self.mapping.identifiers
        )
        update = f"p._change = {CHANGES.index('update')}"
        stuck = {Op.UPDATE: "a._remote_id IS NULL", Op.MOVE: "false"}.get(self.can.move or Op.DELETE, "true")
        rules = [
            f"(p._change <> {CHANGES.index('create')} AND ({unnamed}))",
            f"(p._change <> {CHANGES.index('create')} AND coalesce(p._again, {_ACKNOWLEDGED}) = {code(Stage.UNKNOWN)})",
            f"({update} AND ({moved}) AND {stuck})",
        ]
        if "replaced" in self.of.reasons:  # a delete and a create of one key
            keys = ", ".join(self.keys)
            twice = f"SELECT {keys} FROM {self.of.rows_sql} GROUP BY {keys} HAVING count(*) > 1"
            rules.append(f"({', '.join('p.' + key for key in self.keys)}) IN ({twice})")
        # a NULL that is skipped cannot be put back: what the run wrote in its place would stay
        rules += [
            f"({update} AND p.{ident('o.' + field.name)} IS NULL AND p.{ident(field.column)} IS NOT NULL)"
            for field in self.mapping.fields
            if field.nulls is Nulls.SKIP and not field.identifier
        ]
        if not self.can.delete:
            rules.append(f"p._change = {CHANGES.index('create')}")
        return f"({' OR '.join(rules)})"

    def _renames(self) -> str:
        return "({})".format(
            " OR ".join(
                f"{ident(field.column)} IS DISTINCT FROM {ident('o.' + field.name)}"
                for field in self.mapping.identifiers
            )
        )

    def _find_taken(self) -> None:
        """An identifier that another record has now, and does not give up here, must not be written to."""
        if self.view is None:
            return
        mine = " AND ".join(f"h.{key} = undoing.{key}" for key in self.keys)
        freed = " AND ".join(f"x.{key} = h.{key}" for key in self.keys)
        held = f"SELECT {', '.join(self.keys)}, {identity(self.mapping)} AS n FROM ({self.view.current(self.mapping)})"
        self.engine.execute(
            f"UPDATE temp.main.undoing SET why = 'taken' WHERE why IS NULL AND _segment <> {DELETE} AND EXISTS "
            f"(SELECT 1 FROM ({held}) AS h WHERE h.n = {identity(self.mapping)} AND NOT ({mine}) AND NOT EXISTS "
            f"(SELECT 1 FROM temp.main.undoing AS x WHERE {freed} AND x.why IS NULL AND x._segment < {SEND}))"
        )

    def write(self, workspace: Workspace, run: str, mode: Mode) -> Plan:
        """Freezes temp.undoing as a plan file."""
        plan_id = workspace.surroundings.new_id("p")
        path = workspace.plan_path(plan_id)
        with in_order(self.engine), freezing(path) as part:
            self.engine.execute(
                "COPY (SELECT * EXCLUDE (why) FROM temp.main.undoing WHERE why IS NULL ORDER BY _segment) "
                f"TO {literal(str(part))} (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROW_GROUP})"
            )
        return self._describe(plan_id, path, run, mode)

    def _describe(self, plan_id: str, path: Any, run: str, mode: Mode) -> Plan:
        file = rows_of(path)
        rows = self.engine.execute(
            f"SELECT _segment, min(file_row_number), max(file_row_number) + 1 FROM {file} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        send = Op.UPSERT if mode is Mode.MIRROR else Op(mode.value)
        ops = {DELETE: Op.DELETE, MOVE: self.can.move or Op.UPDATE, SEND: send}
        counts = dict(self.engine.execute(f"SELECT _change, count(*) FROM {file} GROUP BY 1").fetchall())
        told = ", ".join(["_segment", "_change", *self.keys, "_hash", "_was"])
        digest = number(self.engine, f"SELECT coalesce(sum(hash({told})::HUGEINT), 0) FROM {file}")
        return Plan(
            id=plan_id, sync=self.of.sync, scope=self.of.scope, path=path, rows=sum(counts.values()),
            changes={name: counts.get(at, 0) for at, name in enumerate(CHANGES)},
            segments=tuple(Segment(ops[segment], low, high) for segment, low, high in rows),
            digest=f"{digest:x}", incremental=True, shape=self.of.shape, undo=run,
        )  # fmt: skip


def _fill(engine: duckdb.DuckDBPyConnection, found: list[Settlement]) -> None:
    """temp.sent: the numbers of the rows that were acknowledged."""
    engine.execute("CREATE OR REPLACE TEMP TABLE sent (row BIGINT)")
    for item in found:
        if item.status is Stage.ACKNOWLEDGED:
            engine.execute("INSERT INTO temp.main.sent SELECT range FROM range(?, ?)", [item.low, item.high])
            if item.except_rows:
                engine.execute(
                    "DELETE FROM temp.main.sent WHERE row IN (SELECT unnest(?))", [sorted(item.except_rows)]
                )


def plan_undo(
    engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any, run: str, plan_id: str
) -> tuple[Plan, dict[str, dict[str, Any]]]:
    """The plan that undoes a run, and what it leaves out.

    Raises:
        UsageError: values are not kept, or what the run replaced is not.
    """
    scope = workspace.scope(sync)
    of = kept_plan(workspace, scope, run, plan_id)
    destination = workspace.undelivering(sync.destination)
    deletes = destination.batch_limits(sync.object, Op.DELETE) is not None
    can = Abilities(deletes, destination.moves(sync.object, tuple(sync.identify)))
    with workspace.ledger(sync).reading(engine) as view:
        if not sync.ledger.values or (view is not None and view.meta.get("values") == "no"):
            raise UsageError(
                f"run {run} cannot be undone: the ledger of {sync.name} keeps no values (`ledger: {{values: false}}`)"
            )
        known = None if view is None or view.empty else view
        undo = Undo(engine, known, of, can)
        left = undo.find(settlements(workspace.state, of.id), _cut_off(workspace, scope.id, run, known))
        return undo.write(workspace, run, sync.mode), left


def _cut_off(workspace: Workspace, scope: str, run: str, view: LedgerView | None) -> Plan | None:
    """The plan that the ledger took in last, if it was an undo of the same run."""
    # plans of one second sort by chance, and an undo is delivered later than it was made: only the order of folding tells
    last = view.last_folded() if view is not None else None
    for row in workspace.state.do("plans_of", {"scope": scope}):
        if row["id"] == last:
            plan = plan_from(row["header"], workspace.plan_path(row["id"]))
            return plan if plan.undo == run and plan.path.exists() else None
    return None


def reviewed_undo(
    engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any, plan_id: str
) -> Prepared | None:
    """A reviewed plan as it is kept, if it is an undo; None where it is a plan of the model.

    Raises:
        PlanMoved: the ledger row of one of its records is another by now.
        UsageError: its file is gone.
    """
    rows = workspace.state.do("plan", {"id": plan_id})
    plan = plan_from(rows[0]["header"], workspace.plan_path(plan_id)) if rows else None
    if plan is None or plan.undo is None:
        return None
    again = f"backhaul undo {plan.undo}"
    if not plan.path.exists():
        raise UsageError(
            f"the file of plan {plan_id} is not on this machine", hint=f"plan again with `{again}`"
        )
    mapping = Mapping.from_shape(plan.shape)
    with workspace.ledger(sync).reading(engine) as view:
        changed = _moved(engine, None if view is None or view.empty else view, mapping, plan)
    if changed:
        raise PlanMoved(f"plan {plan_id} undoes what is not there any more: {changed:,} of its records changed since; "
                        "nothing was sent", hint=f"look again with `{again}`")  # fmt: skip
    return Prepared(plan, mapping, (), 0, {}, ModelSchema(()))


def _moved(engine: duckdb.DuckDBPyConnection, view: LedgerView | None, mapping: Mapping, plan: Plan) -> int:
    """How many records of a plan have another ledger row than when it was made."""
    if view is None:
        return number(engine, f"SELECT count(*) FROM {plan.rows_sql} WHERE _was IS NOT NULL")
    same = " AND ".join(f"a.{key.column} = p.{key.column}" for key in mapping.keys)
    return number(
        engine,
        f"SELECT count(*) FROM {plan.rows_sql} AS p LEFT JOIN ({view.current(mapping)}) AS a ON {same} "
        f"WHERE a._hash IS DISTINCT FROM p._was",
    )
