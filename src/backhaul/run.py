"""One run, top to bottom: settle what an earlier run left, read, diff, guard, deliver, settle, verify."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import duckdb
import orjson

from backhaul.delivery.batches import read_chunks
from backhaul.delivery.connect import Connection, insist
from backhaul.delivery.delivery import Delivery, Systemic
from backhaul.delivery.tally import Totals
from backhaul.destinations.kit import Unsupported
from backhaul.engine import in_order, in_thread
from backhaul.errors import BackhaulError, Exhausted, Held, PlanMoved, RunError, UsageError
from backhaul.ledger.plan import Plan, Segment
from backhaul.planning.explain import refusals
from backhaul.planning.prepare import Prepared, Sources, prepare
from backhaul.recovery import fold_plan, settle_earlier, settlements
from backhaul.report import RunReport
from backhaul.schemas import Schemas
from backhaul.state.journal import Journal
from backhaul.state.lease import lease
from backhaul.state.store import now
from backhaul.types import BatchLimits
from backhaul.verification.verify import compare, mark_doubtful, sample_plan
from backhaul.workspace import Workspace


@dataclass(frozen=True)
class RunOptions:
    """`reviewed` is the digest and id of a plan that must be delivered exactly."""

    full: bool = False
    limit: int | None = None
    reviewed: tuple[str, str] | None = None
    progress: Callable[[str, int, Totals], None] = lambda sync, total, totals: None


def new_id(prefix: str) -> str:
    """A new id that sorts by time: `r-20261123-021500-1a2b3c`."""
    return f"{prefix}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Run:
    """One run of one sync. `stop()` may be called at any time: nothing new starts, what is in flight ends."""

    def __init__(self, workspace: Workspace, sync: Any, options: RunOptions) -> None:
        self.workspace, self.sync, self.options = workspace, sync, options
        self.report = RunReport(new_id("r"), sync.name, now())
        self.stopping = False
        self._delivery: Delivery | None = None
        self._engine: duckdb.DuckDBPyConnection | None = None

    def stop(self) -> None:
        self.stopping = True
        if self._delivery is not None:
            self._delivery.stop()
        elif self._engine is not None:
            self._engine.interrupt()

    async def execute(self) -> RunReport:
        """Runs; every failure ends in the report.

        Raises:
            RunError: another process runs this sync; nothing was recorded.
            StateError: the state cannot be opened.
        """
        began, state, report = perf_counter(), self.workspace.state, self.report
        with lease(self.workspace.locks, self.sync.name):
            state.do("start_run", {"id": report.id, "sync": report.sync, "started_at": report.started_at})
            state.do("interrupted_runs", {"sync": report.sync, "id": report.id, "at": report.started_at})
            try:
                self.workspace.tidy()
                await self._work()
            except BackhaulError as error:
                report.status = status_of(error)
                report.error, report.hint = str(error), error.hint
                report.usage = isinstance(error, UsageError)
            except duckdb.InterruptException:
                report.status, report.error = "failed", "stopped before anything was sent"
            except BaseException:
                report.status, report.error = "failed", "ended by an unexpected error"
                self._finish(began)
                raise
            self._finish(began)
        return report

    def _finish(self, began: float) -> None:
        report = self.report
        report.finished_at = now()
        report.seconds["total"] = round(perf_counter() - began, 3)
        mask = self.workspace.state.mask
        report.error, report.hint = report.error and mask(report.error), report.hint and mask(report.hint)
        self.workspace.state.do("finish_run", {
            "id": report.id, "status": report.status, "error": report.error, "finished_at": report.finished_at,
            "plan": report.plan, "rows": report.rows, "incremental": report.incremental,
            "report": orjson.dumps(report.json()).decode(),
        })  # fmt: skip

    async def _work(self) -> None:
        async with AsyncExitStack() as stack:
            engine = self._engine = stack.enter_context(self.workspace.engine())
            await asyncio.to_thread(
                settle_earlier,
                engine,
                self.workspace.state,
                self.workspace.ledger(self.sync),
                self.sync.name,
                self.workspace.plan_path,
            )
            schemas = Schemas(self.workspace, self.sync, stack)
            prepared = await self._prepare(engine, schemas)
            self._describe(prepared)
            self._guard(prepared)
            self._supersede(prepared)
            if prepared.plan.total or prepared.plan.refused or prepared.plan.forgotten:
                await self._deliver(engine, schemas, prepared)
            else:
                if prepared.plan.watermark:
                    await asyncio.to_thread(
                        fold_plan, engine, self.workspace.ledger(self.sync), prepared.plan, [], complete=True
                    )
                prepared.plan.path.unlink(missing_ok=True)
                self.report.plan, self.report.status = None, "succeeded"

    async def _prepare(self, engine: duckdb.DuckDBPyConnection, schemas: Schemas) -> Prepared:
        """Plans with the remembered description of the object; a plan that sends something is made with a fresh one."""
        schema, fresh = await schemas.remembered()
        prepared = await self.planned(engine, schema)
        if prepared.plan.total and not fresh:
            again = await schemas.fresh()
            if again != schema:
                prepared.plan.path.unlink(missing_ok=True)
                prepared = await self.planned(engine, again)
        return prepared

    async def planned(self, engine: duckdb.DuckDBPyConnection, schema: Any) -> Prepared:
        workspace, sync, plan_id = self.workspace, self.sync, new_id("p")
        kind = workspace.destination_class(sync.destination)
        with workspace.warehouse(sync) as warehouse:
            sources = Sources(
                sync, warehouse, workspace.project.root, workspace.ledger(sync), workspace.state
            )
            full = self.options.full or self.options.reviewed is not None
            try:
                return await in_thread(
                    engine,
                    prepare,
                    engine,
                    sources,
                    schema,
                    plan_id,
                    workspace.plan_path(plan_id),
                    full=full,
                    moves=kind.spec.moves,
                )
            except BackhaulError:
                if self.stopping:
                    raise RunError("stopped before anything was sent") from None
                raise

    def _describe(self, prepared: Prepared) -> None:
        plan, report = prepared.plan, self.report
        report.plan, report.rows, report.changes = plan.id, plan.rows, plan.changes
        report.first, report.incremental, report.reasons = plan.first, plan.incremental, plan.reasons
        report.guards = [
            {"name": guard.name, "ok": guard.ok, "message": guard.message} for guard in prepared.guards
        ]
        report.seconds.update(prepared.seconds)

    def _guard(self, prepared: Prepared) -> None:
        """Raises Held or PlanMoved before anything is sent."""
        plan, reviewed = prepared.plan, self.options.reviewed
        if reviewed is not None:
            if reviewed[0] != plan.digest:
                plan.path.unlink(missing_ok=True)
                raise PlanMoved(f"plan {reviewed[1]} is not what the model and the ledger give now; nothing was sent",
                                hint=f"look again with `backhaul plan {self.sync.name}`")  # fmt: skip
            return
        why = "; ".join(f"{guard.name}: {guard.message}" for guard in prepared.tripped)
        approve = self.sync.approve
        if (
            not why
            and plan.total
            and (approve == "always" or (approve == "first" and (plan.first or "mapping" in plan.reasons)))
        ):
            why = f"approve: {approve} asks for a review"
        if why:
            keep_plan(self.workspace, plan, "held")
            raise Held(f"held, nothing was sent: {why}",
                       hint=f"review plan {plan.id}, then `backhaul run {self.sync.name} --plan {plan.id}`")  # fmt: skip

    def _supersede(self, prepared: Prepared) -> None:
        """Dead letters that mean nothing any more go, and plans that were held: this run takes their place."""
        state = self.workspace.state
        state.do_all("raise", [(self.sync.name, key) for key in prepared.stale])
        for row in state.do("plans_with_status", {"sync": self.sync.name, "status": "held"}):
            state.drop_plan(row["id"], self.workspace.plan_path(row["id"]))

    async def _deliver(self, engine: duckdb.DuckDBPyConnection, schemas: Schemas, prepared: Prepared) -> None:
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


def status_of(error: BackhaulError) -> str:
    """What a run is called that this error ended."""
    return "held" if isinstance(error, Held) else "deferred" if isinstance(error, Exhausted) else "failed"


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
