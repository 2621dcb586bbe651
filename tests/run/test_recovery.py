"""What a killed worker left, as another one finds it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from backhaul.errors import StateError
from backhaul.ledger.ledger import Ledger
from backhaul.ledger.plan import Plan
from backhaul.runs.recovery import settle_earlier
from backhaul.state.scopes import Scope
from backhaul.state.sqlite import SqliteState


def settle(folder: Path, *, intended: bool) -> list[str]:
    """Settles a plan whose file was never kept; gives the plans that are still to be settled."""
    state = SqliteState(folder)
    plan = Plan(
        "p-1",
        "s",
        folder / "p-1.parquet",
        rows=1,
        changes={"create": 1, "update": 0, "delete": 0},
        segments=(),
    )
    state.do("add_plan", {
        "id": plan.id, "scope": "s", "file": plan.path.name, "header": plan.header().decode(), "status": "delivering",
        "created_at": state.now(),
    })  # fmt: skip
    if intended:
        state.do_all("intend", [(plan.id, 0, 1, "upsert", "k", state.now(), None, "{}", 1.0)])
    with duckdb.connect() as engine:
        ledger = Ledger(folder / "ledgers" / "s.duckdb")
        settle_earlier(
            engine, state, ledger, Scope("s", "s", "s", "o"), lambda name: folder / f"{name}.parquet"
        )
    return [row["id"] for row in state.do("plans_with_status", {"scope": "s", "status": "delivering"})]


def test_a_plan_that_was_recorded_and_not_kept_has_sent_nothing(tmp_path: Path) -> None:
    assert settle(tmp_path, intended=False) == []


def test_i5_a_plan_that_may_have_sent_something_is_not_forgotten(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="the file of plan p-1 is gone"):
        settle(tmp_path, intended=True)
