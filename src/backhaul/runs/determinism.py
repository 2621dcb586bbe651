"""Whether a model gives other values for every row each time it is read."""

from __future__ import annotations

from typing import Any

import orjson

from backhaul.ledger.plan import Plan
from backhaul.state.protocol import State

_RUNS = 3
_LOOKED_BACK = 10
"""Runs among which the earlier ones are looked for."""
_FEWEST = 10
"""Rows. Of fewer, all may well change every time."""


def nondeterminism_notice(state: State, sync: str, plan: Plan) -> str:
    """What to say of a plan that updates every known row as the runs before it did; '' where it does not. `sync`: its id."""
    told = {
        "rows": plan.rows, "changes": plan.changes, "rejected": plan.refused,
        "reasons": plan.reasons, "remapped": plan.remapped, "incremental": plan.incremental,
    }  # fmt: skip
    if plan.rows < _FEWEST or not _changes_every_row(told):
        return ""
    rows = state.do("runs", {"sync": sync, "limit": _LOOKED_BACK})
    reports = [orjson.loads(row["report"]) for row in rows if row["report"] and row["scope"] == plan.scope]
    earlier = [report for report in reports if not report["undo"]][: _RUNS - 1]
    if len(earlier) < _RUNS - 1 or not all(_delivered_every_row(report) for report in earlier):
        return ""
    updated = plan.changes["update"]
    return (
        f"{updated:,} of {plan.rows:,} rows changed in each of the last {_RUNS} runs; is the model deterministic? "
        "now() and random() make every row differ from what was delivered"
    )


def _changes_every_row(report: dict[str, Any]) -> bool:
    """Whether the values of all rows that were known differ, and nothing but the values is the reason."""
    changes = report["changes"]
    known = report["rows"] - changes["create"] - report["rejected"]
    again = report["reasons"] or report["remapped"] or report["incremental"]
    return not again and changes["update"] >= max(known, _FEWEST)


def _delivered_every_row(report: dict[str, Any]) -> bool:
    """Only what was acknowledged can have changed since: what waits is sent again with the same values."""
    waiting = report["deferred"] or report["pending"] or report["unknown"]
    return report["status"] in ("succeeded", "partial") and not waiting and _changes_every_row(report)
