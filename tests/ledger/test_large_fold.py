"""A fold of more rows than are taken at once: what became of each is found beside its own key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World, sync

from backhaul.changes import Stage, code
from backhaul.ledger.fold import Settlement
from backhaul.ledger.ledger import ALIAS
from backhaul.ledger.plan import Plan

ROWS, BATCH = 1_010_000, 10_000
SYNC = sync(identify={"id": "id"}, fields={"a": "a"})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.engine.execute(f"INSERT INTO memory.main.t SELECT i, 'x', i % 7, 'p' FROM range({ROWS}) AS r(i)")
    yield made
    made.close()


def outcomes(world: World, plan: Plan) -> tuple[list[Settlement], int]:
    """Batches whose ids name their rows' keys, every hundredth key refused, the last batch of unknown end; and how many were
    refused."""
    keys = [
        row[0]
        for row in world.engine.execute(f"SELECT k0 FROM {plan.rows_sql} ORDER BY file_row_number").fetchall()
    ]
    settled, refused = [], 0
    for low in range(0, ROWS - BATCH, BATCH):
        excepted = frozenset(row for row in range(low, low + BATCH) if keys[row] % 100 == 0)
        ids = json.dumps([None if row in excepted else f"r{keys[row]}" for row in range(low, low + BATCH)])
        settled.append(Settlement(Stage.ACKNOWLEDGED, low, low + BATCH, excepted, ids))
        refused += len(excepted)
    return [*settled, Settlement(Stage.UNKNOWN, ROWS - BATCH, ROWS)], refused


@pytest.mark.parametrize("known", [False, True], ids=["first", "changed"])
def test_each_row_is_settled_by_its_own_outcome(world: World, known: bool) -> None:
    if known:
        world.settle(world.plan(SYNC), [Settlement(Stage.ACKNOWLEDGED, 0, ROWS)])
        world.engine.execute("UPDATE memory.main.t SET a = a + 1")
    plan = world.plan(SYNC)
    settled, refused = outcomes(world, plan)
    world.settle(plan, settled)
    with world.ledger.reading(world.engine) as view:
        assert view is not None
        held = world.engine.execute(
            f"SELECT _state, _remote_id = 'r' || k0, count(*) FROM {ALIAS}.acked GROUP BY ALL"
        ).fetchall()
    assert {(state, own): count for state, own, count in held} == {
        (code(Stage.ACKNOWLEDGED), True): ROWS - BATCH - refused,
        (code(Stage.UNKNOWN), None): BATCH,
    } | ({(code(Stage.ACKNOWLEDGED), None): refused} if known else {})
