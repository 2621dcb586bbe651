"""The second half of a run: a plan leaves, its outcomes go into the ledger, and a sample is read back."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import duckdb
import orjson

from backhaul.delivery.batches import read_chunks
from backhaul.delivery.connect import Connection, insist
from backhaul.delivery.delivery import Delivery, Systemic
from backhaul.destinations.kit import Unsupported
from backhaul.engine import in_order
from backhaul.errors import BackhaulError, RunError, UsageError
from backhaul.ledger.plan import Plan, Segment
from backhaul.planning.explain import refusals
from backhaul.planning.prepare import Prepared
from backhaul.recovery import fold_plan, settlements
from backhaul.report import RunOptions, RunReport
from backhaul.schemas import Schemas
from backhaul.state.journal import Journal
from backhaul.state.store import now
from backhaul.types import BatchLimits
from backhaul.verification.verify import compare, mark_doubtful, sample_plan
from backhaul.workspace import Workspace


class Sending:
    """One plan of one sync on its way; what becomes of it is added to `report`. `stop()` as in Run."""

    def __init__(self, workspace: Workspace, sync: Any, options: RunOptions, report: RunReport) -> None:
        self.workspace, self.sync, self.options, self.report = workspace, sync, options, report
        self.stopping = False
        self._delivery: Delivery | None = None

    def stop(self) -> None:
        self.stopping = True
        if self._delivery is not None:
            self._delivery.stop()

    async def deliver(self, engine: duckdb.DuckDBPyConnection, schemas: Schemas, prepared: Prepared) -> None:
        """Sends, settles, verifies.

        Raises:
            RunError: what ended the delivery; what was settled before is in the ledger.
        """
        plan, report, state = prepared.plan, self.report, self.workspace.state
        connection = await schemas.connect() if plan.total else None
        if connection is not None:
            self._batch_limits(connection, plan)
        if self.stopping:
            raise RunError("stopped before anything was sent")
        keep_plan(self.workspace, plan, "delivering")
        began = perf_counter()
        report.rejected = bury_refused(engine, self.workspace, plan)
        delivery = None
        if connection is not None:
            delivery = await self._send(engine, connection, prepared)
        settling = perf_counter()
        report.seconds["deliver"] = round(settling - began, 3)
        found = settlements(state, plan.id)
        sampled = (
            sample_plan(engine, plan, found, self.sync.freshness.sample, plan.rows)
            if delivery and not delivery.failure
            else []
        )
        complete = (
            report.deferred == 0
            and report.pending == 0
            and report.unknown == 0
            and not (delivery and delivery.failure)
        )
        await asyncio.to_thread(
            fold_plan, engine, self.workspace.ledger(self.sync), plan, found, complete=complete
        )
        state.drop_plan(plan.id, plan.path)
        report.seconds["settle"] = round(perf_counter() - settling, 3)
        if connection is not None and sampled and not self.stopping:
            await self._verify(engine, connection, prepared, sampled)
        self._judge(delivery)

    async def _send(
        self, engine: duckdb.DuckDBPyConnection, connection: Connection, prepared: Prepared
    ) -> Delivery:
        plan, sync, destination = prepared.plan, self.sync, connection.destination
        dead = frozenset(row["key"] for row in self.workspace.state.do("dead_keys", {"sync": sync.name}))
        left = self.options.limit if self.options.limit is not None else plan.total
        self.report.pending = max(plan.total - left, 0)
        requests = connection.door.requests
        async with Journal(self.workspace.state, sync.name, plan.id) as journal:
            delivery = self._delivery = Delivery(
                destination, journal, connection.budget, dead_keys=dead,
                progress=lambda totals: self.options.progress(sync.name, plan.total, totals),
            )  # fmt: skip
            try:
                for segment, limits in self._batch_limits(connection, plan):
                    if left <= 0 or delivery.stopping or self.stopping:
                        break
                    wire = destination.spec.wire
                    with in_order(engine):
                        chunks = read_chunks(
                            engine, plan, segment, prepared.mapping, sync.object, wire, limits
                        )
                        await delivery.deliver(chunks, limits, left)
                    left -= segment.high - segment.low
            finally:
                self.report.requests = (
                    connection.door.requests - requests if destination.base_url else delivery.totals.writes
                )
                self._sum_up(delivery, plan)
        return delivery

    def _batch_limits(self, connection: Connection, plan: Plan) -> list[tuple[Segment, BatchLimits]]:
        """Each segment of a plan with its largest batch.

        Raises:
            UsageError: the destination has no such operation.
        """
        found = []
        for segment in plan.segments:
            limits = connection.destination.batch_limits(self.sync.object, segment.op)
            if limits is None:
                said = f"{connection.destination.spec.name} has no {segment.op} of {self.sync.object}"
                raise UsageError(said, hint="choose another mode")
            found.append((segment, limits))
        return found

    def _sum_up(self, delivery: Delivery, plan: Plan) -> None:
        totals, report = delivery.totals, self.report
        report.delivered, report.unknown, report.retries = totals.delivered, totals.unknown, totals.retries
        report.rejected += totals.rejected
        if isinstance(delivery.failure, Systemic):
            self.workspace.state.do("void_refusals", {"plan": plan.id, "code": delivery.failure.code})
            report.rejected -= totals.codes[delivery.failure.code]
        settled = totals.delivered + totals.unknown + report.rejected - plan.refused
        report.deferred = plan.total - report.pending - settled

    async def _verify(
        self,
        engine: duckdb.DuckDBPyConnection,
        connection: Connection,
        prepared: Prepared,
        sampled: list[Any],
    ) -> None:
        """Reads a sample back; what differs is sent again by the next run. That it cannot be read undoes no delivery."""
        try:
            verified = await insist(
                lambda: compare(connection.destination, self.sync.object, prepared.mapping, sampled),
                connection.budget,
            )
        except Unsupported:
            return
        except BackhaulError as error:
            self.report.hint = f"{len(sampled)} records could not be read back: {error}"
            return
        self.report.verified = verified
        if verified.mismatches:
            keys = [orjson.dumps(mismatch.key).decode() for mismatch in verified.mismatches]
            with self.workspace.ledger(self.sync).writing(engine):
                mark_doubtful(engine, prepared.mapping, keys)

    def _judge(self, delivery: Delivery | None) -> None:
        report = self.report
        if delivery is not None and delivery.failure is not None:
            raise delivery.failure
        if report.deferred:
            report.status = "deferred"
            report.error = (
                "stopped; the rest is sent by the next run"
                if self.stopping
                else "the rest is sent by the next run"
            )
        elif report.rejected or report.unknown or (report.verified and report.verified.mismatches):
            report.status = "partial"
        else:
            report.status = "succeeded"


def keep_plan(workspace: Workspace, plan: Plan, status: str) -> None:
    """Records a plan, so that a later run can settle it or a person can have it delivered."""
    workspace.state.do("add_plan", {
        "id": plan.id, "sync": plan.sync, "file": plan.path.name, "header": plan.header().decode(), "status": status,
        "created_at": now(),
    })  # fmt: skip


def bury_refused(engine: duckdb.DuckDBPyConnection, workspace: Workspace, plan: Plan) -> int:
    """Makes dead letters of the records that the mapping refuses. Returns how many."""
    refused = refusals(engine, plan)
    at = now()
    workspace.state.do_all("bury", [
        (
            plan.sync, letter["key"], "upsert", letter["code"], letter["message"], 0, at, at, letter["payload"],
            letter["hash"], 1, plan.id,
        ) for letter in refused
    ])  # fmt: skip
    return len(refused)
