"""One run, top to bottom: settle what an earlier run left, read, diff, guard, deliver, settle, verify."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import duckdb
import orjson

from backhaul.engine import in_thread
from backhaul.errors import BackhaulError, Exhausted, Held, PlanMoved, RunError, UsageError
from backhaul.planning.prepare import Prepared, Sources, prepare
from backhaul.recovery import fold_plan, settle_earlier
from backhaul.report import RunOptions, RunReport
from backhaul.schemas import Schemas
from backhaul.sending import Sending, keep_plan
from backhaul.state.lease import lease
from backhaul.state.store import now
from backhaul.workspace import Workspace


def new_id(prefix: str) -> str:
    """A new id that sorts by time: `r-20261123-021500-1a2b3c`."""
    return f"{prefix}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Run:
    """One run of one sync. `stop()` may be called at any time: nothing new starts, what is in flight ends."""

    def __init__(self, workspace: Workspace, sync: Any, options: RunOptions) -> None:
        self.workspace, self.sync, self.options = workspace, sync, options
        self.report = RunReport(new_id("r"), sync.name, now())
        self.stopping = False
        self._sending: Sending | None = None
        self._engine: duckdb.DuckDBPyConnection | None = None

    def stop(self) -> None:
        self.stopping = True
        if self._sending is not None:
            self._sending.stop()
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
                self._sending = Sending(self.workspace, self.sync, self.options, self.report)
                await self._sending.deliver(engine, schemas, prepared)
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


def status_of(error: BackhaulError) -> str:
    """What a run is called that this error ended."""
    return "held" if isinstance(error, Held) else "deferred" if isinstance(error, Exhausted) else "failed"
