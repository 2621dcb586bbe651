"""Settles what a run left: outcomes become ledger rows; intents without an outcome become doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson

from backhaul.changes import Stage
from backhaul.errors import StateError
from backhaul.ledger.fold import Settlement, fold
from backhaul.ledger.ledger import Ledger
from backhaul.ledger.plan import Plan, plan_from
from backhaul.ledger.remote_conflicts import CODE, Conflict
from backhaul.mapping.mapping import Mapping
from backhaul.planning.explain import json_of, object_of
from backhaul.state.letters import DeadLetter, burial
from backhaul.state.protocol import State
from backhaul.state.scopes import Scope
from backhaul.types import Op


class JobsUnderway(StateError):
    """The destination still works on records that an earlier run handed over: only a run asks for their outcomes."""

    def __init__(self, sync: str) -> None:
        super().__init__(
            f"the destination still works on records of {sync} that an earlier run handed over",
            hint=f"`backhaul run {sync}` asks what became of them; nothing was changed",
        )


def settle_earlier(
    engine: duckdb.DuckDBPyConnection,
    state: State,
    ledger: Ledger,
    scope: Scope,
    plan_path: Callable[[str], Path],
) -> int:
    """The first act of every run: folds the plans that earlier runs were delivering. Returns how many.

    Raises:
        StateError: a plan's file is gone or damaged although its journal is there; or a job of it was not collected.
    """
    rows = state.do("plans_with_status", {"scope": scope.id, "status": "delivering"})
    for row in rows:
        path = plan_path(row["id"])
        plan = plan_from(row["header"], path)
        if any(intent["job"] for intent in state.do("intents", {"plan": plan.id})):
            raise JobsUnderway(scope.name)
        if state.fetch_file(row["id"], path):
            try:
                settle_plan(engine, state, ledger, plan, settlements(state, plan.id), complete=False)
            except (duckdb.IOException, duckdb.InvalidInputException):
                raise _unreadable(plan, "damaged", scope.name) from None
        elif not settlements(state, plan.id):  # killed before the file was kept, and so before anything left
            state.drop_plan(plan.id, path)
            continue
        elif not _folded(engine, ledger, plan.id):
            raise _unreadable(plan, "gone", scope.name)
        let_go(state, plan.id, path)
    return len(rows)


def let_go(state: State, plan_id: str, path: Path) -> None:
    """Moves a folded plan into the history, but for creates in doubt: their rows and keys are needed to send them again."""
    if any(row["op"] == Op.INSERT for row in state.do("intents", {"plan": plan_id})):
        with state.together():
            state.do("drop_plan_outcomes", {"id": plan_id})
            state.do("set_plan_status", {"id": plan_id, "status": "folded"})
    else:
        state.retire_plan(plan_id, path)


def _unreadable(plan: Plan, how: str, sync: str) -> StateError:
    return StateError(
        f"the file of plan {plan.id} is {how}, so what it sent cannot be settled",
        hint=f"restore {plan.path.name}, or `backhaul reset {sync}` to send everything again",
    )


def abandon_earlier(state: State, scope: str, plan_path: Callable[[str], Path]) -> None:
    """Forgets the plans that earlier runs were delivering, unsettled: only for who sends everything again."""
    for status in ("delivering", "folded"):
        for row in state.do("plans_with_status", {"scope": scope, "status": status}):
            state.drop_plan(row["id"], plan_path(row["id"]))


def _folded(engine: duckdb.DuckDBPyConnection, ledger: Ledger, plan_id: str) -> bool:
    with ledger.reading(engine) as view:
        return view is not None and view.has_folded(plan_id)


def settlements(state: State, plan_id: str, *, open_stage: Stage = Stage.UNKNOWN) -> list[Settlement]:
    """What the journal says of a plan's rows; adjacent ranges that were delivered plainly are one. Rows whose intent has no
    outcome are at `open_stage`: in flight as long as their run goes on."""
    found: list[Settlement] = []
    for row in state.do("outcomes", {"plan": plan_id}):
        rejected, unknown, pending = (
            orjson.loads(row[name]) if row[name] else [] for name in ("rejected", "unknown", "pending")
        )
        ids = row["remote_ids"]
        excepted = frozenset([*rejected, *unknown, *pending])
        last = found[-1] if found else None
        if (
            last
            and not excepted
            and not ids
            and last.high == row["low"]
            and last.status is Stage.ACKNOWLEDGED
            and not last.except_rows
            and not last.remote_ids
        ):
            found[-1] = Settlement(Stage.ACKNOWLEDGED, last.low, row["high"])
        else:
            found.append(Settlement(Stage.ACKNOWLEDGED, row["low"], row["high"], excepted, ids))
        found += [Settlement(Stage.UNKNOWN, number, number + 1) for number in unknown]
    found += [
        Settlement(open_stage, row["low"], row["high"])
        for row in state.do("intents", {"plan": plan_id})
        if not any(item.low <= row["low"] < item.high for item in found if item.status is Stage.ACKNOWLEDGED)
    ]
    return found


def refused_rows(state: State, plan_id: str) -> list[int]:
    """The rows of a plan that the destination refused."""
    return rows_listed(state, plan_id, "rejected")


def rows_listed(state: State, plan_id: str, name: str) -> list[int]:
    """The rows of a plan whose outcome is `rejected`, `unknown` or `pending`."""
    return [
        number
        for row in state.do("outcomes", {"plan": plan_id})
        if row[name]
        for number in orjson.loads(row[name])
    ]


def settle_plan(
    engine: duckdb.DuckDBPyConnection, state: State, ledger: Ledger, plan: Plan, found: list[Settlement],
    *, complete: bool,
) -> list[Conflict]:  # fmt: skip
    """Folds with the mapping that the plan was made with. Returns the conflicts, of which dead letters are made."""
    conflicts = fold(engine, ledger, Mapping.from_shape(plan.shape), plan, found, complete=complete)
    reject_conflicts(engine, state, plan, conflicts)
    return conflicts


def reject_conflicts(
    engine: duckdb.DuckDBPyConnection, state: State, plan: Plan, conflicts: Sequence[Conflict]
) -> None:
    """Makes rejections of rows that were delivered to another key's record: a dead letter each, and their outcomes."""
    if not conflicts:
        return
    mapping, rows = Mapping.from_shape(plan.shape), {item.row: item for item in conflicts}
    payload = object_of({field.name: json_of(field, "f.") for field in mapping.fields})
    values = engine.execute(
        f"SELECT file_row_number, CAST(_hash AS VARCHAR), {payload} FROM {plan.rows_sql} "
        f"WHERE file_row_number IN ({', '.join(map(str, rows))})"
    ).fetchall()
    letters = [
        DeadLetter(rows[row].key, _operation(plan, row), CODE, rows[row].message, 1, text, hashed)
        for row, hashed, text in values
    ]
    with state.together():
        state.do_all("settle", _with_rejections(state, plan.id, sorted(rows)))
        state.do_all(
            "bury", [burial(state, plan.scope, plan.id, letter, plan.fingerprint) for letter in letters]
        )


def _operation(plan: Plan, row: int) -> str:
    return next(str(segment.op) for segment in plan.segments if segment.low <= row < segment.high)


def _with_rejections(state: State, plan: str, rows: Sequence[int]) -> list[Sequence[Any]]:
    """The stored outcomes that hold these rows, with the rows among the rejected."""
    found: dict[int, tuple[Any, list[int]]] = {}
    for row in rows:
        for answer in state.do("answers", {"plan": plan, "row": row}):
            found.setdefault(answer["low"], (answer, []))[1].append(row)
    return [
        (plan, low, answer["high"], answer["remote_ids"],
         orjson.dumps(sorted([*orjson.loads(answer["rejected"] or "[]"), *more])).decode(),
         answer["unknown"], answer["pending"], answer["left_at"], answer["answered_at"], answer["reasons"])
        for low, (answer, more) in found.items()
    ]  # fmt: skip
