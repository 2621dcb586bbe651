"""Settles what a run left: outcomes become ledger rows; intents without an outcome become doubt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import orjson

from backhaul.errors import StateError
from backhaul.ledger.fold import Settled, Settlement, fold
from backhaul.ledger.ledger import Ledger
from backhaul.ledger.plan import Plan, plan_from
from backhaul.mapping.mapping import Mapping
from backhaul.state.store import State


def settle_earlier(
    engine: duckdb.DuckDBPyConnection,
    state: State,
    ledger: Ledger,
    sync: str,
    plan_path: Callable[[str], Path],
) -> int:
    """The first act of every run: folds the plans that earlier runs were delivering. Returns how many.

    Raises:
        StateError: a plan's file is gone or damaged although its journal is there.
    """
    rows = state.do("plans_with_status", {"sync": sync, "status": "delivering"})
    for row in rows:
        path = plan_path(row["id"])
        plan = plan_from(row["header"], path)
        if path.exists():
            try:
                fold_plan(engine, ledger, plan, settlements(state, plan.id), complete=False)
            except (duckdb.IOException, duckdb.InvalidInputException):
                raise _unreadable(plan, "damaged", sync) from None
        elif not _folded(engine, ledger, plan.id):
            raise _unreadable(plan, "gone", sync)
        state.drop_plan(plan.id, path)
    return len(rows)


def _unreadable(plan: Plan, how: str, sync: str) -> StateError:
    return StateError(
        f"the file of plan {plan.id} is {how}, so what it sent cannot be settled",
        hint=f"restore {plan.path.name}, or `backhaul reset {sync}` to send everything again",
    )


def abandon_earlier(state: State, sync: str, plan_path: Callable[[str], Path]) -> None:
    """Forgets the plans that earlier runs were delivering, unsettled: only for who sends everything again."""
    for row in state.do("plans_with_status", {"sync": sync, "status": "delivering"}):
        state.drop_plan(row["id"], plan_path(row["id"]))


def _folded(engine: duckdb.DuckDBPyConnection, ledger: Ledger, plan_id: str) -> bool:
    with ledger.reading(engine) as view:
        return view is not None and view.has_folded(plan_id)


def settlements(state: State, plan_id: str) -> list[Settlement]:
    """What the journal says of a plan's rows; adjacent ranges that were delivered plainly are one."""
    found: list[Settlement] = []
    for row in state.do("outcomes", {"plan": plan_id}):
        rejected, unknown, pending = (
            orjson.loads(row[name]) if row[name] else [] for name in ("rejected", "unknown", "pending")
        )
        ids = orjson.loads(row["remote_ids"]) if row["remote_ids"] else None
        excepted = frozenset([*rejected, *unknown, *pending])
        last = found[-1] if found else None
        if (
            last
            and not excepted
            and not ids
            and last.high == row["low"]
            and last.status is Settled.DELIVERED
            and not last.except_rows
            and not last.remote_ids
        ):
            found[-1] = Settlement(Settled.DELIVERED, last.low, row["high"])
        else:
            found.append(Settlement(Settled.DELIVERED, row["low"], row["high"], excepted, ids))
        found += [Settlement(Settled.UNKNOWN, number, number + 1) for number in unknown]
    found += [
        Settlement(Settled.UNKNOWN, row["low"], row["high"]) for row in state.do("intents", {"plan": plan_id})
    ]
    return found


def fold_plan(
    engine: duckdb.DuckDBPyConnection, ledger: Ledger, plan: Plan, found: list[Settlement], *, complete: bool
) -> None:
    """Folds with the mapping that the plan was made with."""
    fold(engine, ledger, Mapping.from_shape(plan.shape), plan, found, complete=complete)
