"""Takes a model's rows as already delivered, without sending: on trust, or after reading what the destination holds."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import duckdb

from backhaul.changes import Stage
from backhaul.delivery.connect import insist
from backhaul.destinations.kit import Unsupported
from backhaul.errors import UsageError
from backhaul.ledger.fold import Settlement, fold
from backhaul.ledger.plan import Plan
from backhaul.planning.prepare import Prepared
from backhaul.planning.schema_changes import note_schema
from backhaul.runs.recovery import settle_earlier
from backhaul.runs.report import RunOptions
from backhaul.runs.run import Run
from backhaul.schemas import Schemas
from backhaul.types import Mode, Op
from backhaul.verification.verify import compare, planned_records
from backhaul.workspace import Workspace

_AT_ONCE = 1000
"""Rows of a plan that are compared in one go."""


@dataclass(frozen=True, slots=True)
class Taken:
    """How many records were taken as delivered, and how many were not, because the destination lacks them or holds other
    values: the next run sends these. `left`: known records that left the model, which the next mirror run deletes."""

    records: int
    differ: int = 0
    left: int = 0


async def take_over(workspace: Workspace, sync: Any, *, read: bool) -> Taken:
    """Acknowledges what a full read of the model would send; with `read` only what the destination holds already, equal in
    every mapped field.

    Raises:
        UsageError: the destination is to be read and cannot be.
        BackhaulError: the model or the destination cannot be read now; nothing was taken.
    """
    run = Run(workspace, sync, RunOptions(full=True))
    async with AsyncExitStack() as stack:
        lease = stack.enter_context(workspace.lease(sync))
        engine = stack.enter_context(workspace.engine())
        schemas = Schemas(workspace, sync, stack, lease.check)
        scope = await schemas.scope()
        workspace.begin_anew(scope)
        ledger = workspace.ledger(sync)
        settle_earlier(engine, workspace.state, ledger, scope, workspace.plan_path)
        prepared = await run.planned_fresh(engine, schemas, lambda plan: bool(plan.refused))
        plan = prepared.plan
        rows = await _equal(engine, schemas, prepared) if read else _all(plan)
        taken = sum(item.high - item.low - len(item.except_rows) for item in rows)
        fold(engine, ledger, prepared.mapping, plan, rows, complete=taken == plan.total)
        note_schema(workspace.state, scope.id, prepared.schema, taken=True)
        plan.path.unlink(missing_ok=True)
        left = plan.changes["delete"]
        return Taken(taken, plan.total - taken - left, left)


def _all(plan: Plan) -> list[Settlement]:
    """Everything but deletes: a record that left the model is at the destination until a run deletes it."""
    return [
        Settlement(Stage.ACKNOWLEDGED, segment.low, segment.high)
        for segment in plan.segments
        if segment.op is not Op.DELETE
    ]


async def _equal(engine: duckdb.DuckDBPyConnection, schemas: Schemas, prepared: Prepared) -> list[Settlement]:
    """The rows that the destination holds as the model has them; deletes are left for a run."""
    sync, around = schemas.sync, schemas.workspace.surroundings
    connection = await schemas.connect()
    found = []
    for segment in prepared.plan.segments:
        for low in range(segment.low, segment.high, _AT_ONCE) if segment.op is not Op.DELETE else ():
            high = min(low + _AT_ONCE, segment.high)
            expected = planned_records(engine, prepared.plan, low, high)
            try:
                verified = await insist(
                    lambda some=expected: compare(
                        connection.destination, sync.object, prepared.mapping, some
                    ),  # type: ignore[misc]
                    connection.budget,
                    around,
                )
            except Unsupported:
                raise UsageError(f"{sync.destination} cannot be read, so nobody knows what it holds",
                                 hint=f"`backhaul baseline {sync.name}` takes it on trust") from None  # fmt: skip
            # an insert never changes a record, so one that is there is there
            wrong = {one.pk for one in verified.mismatches if one.missing or sync.mode is not Mode.INSERT}
            other = [low + n for n, one in enumerate(expected) if one.pk in wrong]
            found.append(Settlement(Stage.ACKNOWLEDGED, low, high, frozenset(other)))
    return found
