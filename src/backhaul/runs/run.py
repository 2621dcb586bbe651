"""One run, top to bottom: settle what an earlier run left, read, diff, guard, deliver, settle, verify."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from time import perf_counter
from typing import Any

import duckdb
import orjson

from backhaul.engine import hurry, in_thread
from backhaul.errors import BackhaulError, Exhausted, Held, PlanMoved, RunError, UsageError
from backhaul.ledger.lookups import count_undecided
from backhaul.ledger.plan import Plan
from backhaul.next_steps import offer_of
from backhaul.planning.prepare import Prepared, Sources, prepare
from backhaul.planning.schema_changes import note_schema, notices
from backhaul.runs.approval import drop_held, keep_held, moved, needs_review
from backhaul.runs.determinism import nondeterminism_notice
from backhaul.runs.doubt import Doubts
from backhaul.runs.recovery import settle_earlier, settle_plan
from backhaul.runs.report import RunOptions, RunReport
from backhaul.runs.scoping import kept_elsewhere, syncs_beside
from backhaul.runs.sending import Sending
from backhaul.runs.undo import reviewed_undo
from backhaul.schemas import Schemas
from backhaul.state.letters import check_keys, expire, seal_anew
from backhaul.state.scopes import Scope
from backhaul.workspace import Workspace

_PATIENCE = 25.0
"""Seconds after a stop in which what was delivered may still wait for the ledger; the next run takes it in otherwise."""


class Run:
    """One run of one sync. `stop()` may be called at any time: nothing new starts, what is in flight ends."""

    def __init__(self, workspace: Workspace, sync: Any, options: RunOptions) -> None:
        self.workspace, self.sync, self.options = workspace, sync, options
        around = workspace.surroundings
        self.report = RunReport(around.new_id("r"), sync.name, around.now())
        self.stopping = False
        self._doubts: Doubts | None = None
        self._sending: Sending | None = None
        self._engine: duckdb.DuckDBPyConnection | None = None

    def stop(self) -> None:
        self.stopping = True
        if self._doubts is not None:
            self._doubts.stop()
        if self._engine is not None:
            hurry(self._engine, _PATIENCE if self._sending is not None else 0.0)
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
        sync = self.workspace.scopes.sync_id(self.sync.name)
        with self.workspace.lease(self.sync) as self._lease:
            state.do("start_run", {"id": report.id, "sync": sync, "started_at": report.started_at})
            state.do("interrupted_runs", {"sync": sync, "id": report.id, "at": report.started_at})
            try:
                self.workspace.tidy()
                await self._work()
                self._tidy_letters()
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

    def _tidy_letters(self) -> None:
        """Dead letters that are too old keep nothing but that their values are refused; the others are encrypted as wanted."""
        workspace, scope = self.workspace, self.workspace.scope(self.sync).id
        before = workspace.surroundings.moment() - timedelta(seconds=workspace.project.dead_letters.keep)
        self.report.expired = expire(workspace.state, scope, before.isoformat())
        seal_anew(workspace.state, scope)

    def _finish(self, began: float) -> None:
        report = self.report
        report.finished_at = self.workspace.surroundings.now()
        report.seconds["total"] = round(perf_counter() - began, 3)
        mask = self.workspace.mask
        report.error, report.hint = report.error and mask(report.error), report.hint and mask(report.hint)
        self.workspace.state.do("finish_run", {
            "id": report.id, "scope": report.ledger, "status": report.status, "error": report.error,
            "finished_at": report.finished_at,
            "plan": report.plan, "rows": report.rows, "incremental": int(report.incremental),
            "report": orjson.dumps(report.json(), default=str).decode(),
        })  # fmt: skip

    async def _work(self) -> None:
        self._go_on()
        async with AsyncExitStack() as stack:
            engine = self._engine = stack.enter_context(self.workspace.engine())
            schemas = Schemas(self.workspace, self.sync, stack, self._lease.check)
            scope = await self._settle_scope(schemas)
            check_keys(self.workspace.state, scope.id, scope.name)
            self._doubts = Doubts(self.workspace, self.sync, schemas, self.report)
            await self._doubts.collect(engine)
            settled = await asyncio.to_thread(
                settle_earlier,
                engine,
                self.workspace.state,
                self.workspace.ledger(self.sync),
                scope,
                self.workspace.plan_path,
            )
            if settled:
                await self._doubts.let_land()
            await self._doubts.resolve(engine)
            self._go_on()
            prepared = await self._prepare(engine, schemas)
            self._go_on()
            self._describe(prepared)
            if prepared.plan.undo is None:
                note_schema(self.workspace.state, scope.id, prepared.schema, taken=True)
                self._note_nondeterminism(prepared.plan)
                self._guard(prepared)
                self._supersede(prepared)
            if prepared.plan.total or prepared.plan.refused or prepared.plan.forgotten:
                self._sending = Sending(self.workspace, self.sync, self.options, self.report)
                await self._sending.deliver(engine, schemas, prepared)
            else:
                if prepared.plan.watermark or prepared.plan.remapped:
                    ledger = self.workspace.ledger(self.sync)
                    await asyncio.to_thread(
                        settle_plan, engine, self.workspace.state, ledger, prepared.plan, [], complete=True
                    )
                prepared.plan.path.unlink(missing_ok=True)
                self.report.plan = None
                self.report.status = "partial" if self.report.rejected else "succeeded"
            self._count_undecided(engine)

    def _count_undecided(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Records whose outcome is unknown, also those of earlier runs: a run that leaves any has not delivered everything."""
        report, workspace, sync = self.report, self.workspace, self.sync
        if report.status not in ("succeeded", "partial"):
            return
        offer = offer_of(sync, workspace.undelivering(sync.destination))
        report.undecided = count_undecided(engine, workspace.ledger(sync), sync.mode, offer)
        if report.undecided:
            report.status = "partial"
            report.hint = report.hint or (
                f"{report.undecided:,} records have an unknown outcome or several records at the destination: "
                f"`backhaul records {sync.name} --status unknown` and `--status quarantined`"
            )

    async def _settle_scope(self, schemas: Schemas) -> Scope:
        """Says whose ledger this run works on, before anything of it is read."""
        scope = await schemas.scope()
        self.report.ledger, self.report.account = scope.id, scope.label
        self.report.kept = kept_elsewhere(self.workspace, scope)
        self.report.hint = schemas.remark
        self._check_reviewed(scope)
        return scope

    def _check_reviewed(self, scope: Scope) -> None:
        """Raises PlanMoved where the reviewed plan is for another account or object."""
        rows = (
            self.workspace.state.do("plan", {"id": self.options.reviewed[1]}) if self.options.reviewed else []
        )
        if rows and rows[0]["scope"] != scope.id:
            other = {one.id: one.where for one in self.workspace.scopes.all()}.get(
                rows[0]["scope"], "another ledger"
            )
            said = f"plan {rows[0]['id']} is for {other}, and {scope.name} delivers to {scope.where} now; nothing was sent"
            raise PlanMoved(said, hint=f"look again with `backhaul plan {scope.name}`")

    async def _prepare(self, engine: duckdb.DuckDBPyConnection, schemas: Schemas) -> Prepared:
        """Plans with the remembered description of the object; a plan that sends something is made with a fresh one."""
        if self.options.reviewed is not None:
            undo = reviewed_undo(engine, self.workspace, self.sync, self.options.reviewed[1])
            if undo is not None:
                return undo
        return await self.planned_fresh(engine, schemas, lambda plan: bool(plan.total or plan.refused))

    async def planned_fresh(
        self, engine: duckdb.DuckDBPyConnection, schemas: Schemas, wants_fresh: Callable[[Plan], bool]
    ) -> Prepared:
        """A plan made with the remembered description of the object, or with a fresh one where it is wanted or the remembered
        one refuses: only the destination itself says that a field is missing or cannot be written.

        Raises:
            UsageError: the mapping does not fit the object as it is now.
        """
        schema, fresh = await schemas.remembered()
        try:
            prepared = await self.planned(engine, schema)
        except UsageError:
            if fresh:
                raise
            return await self.planned(engine, await schemas.fresh())
        if not fresh and wants_fresh(prepared.plan):
            again = await schemas.fresh()
            if again != schema:
                prepared.plan.path.unlink(missing_ok=True)
                prepared = await self.planned(engine, again)
        return prepared

    async def planned(self, engine: duckdb.DuckDBPyConnection, schema: Any) -> Prepared:
        workspace, sync = self.workspace, self.sync
        plan_id = workspace.surroundings.new_id("p")
        destination = workspace.undelivering(sync.destination)
        with workspace.warehouse(sync) as warehouse:
            sources = Sources(
                sync,
                workspace.scope(sync),
                warehouse,
                workspace.project.root,
                workspace.ledger(sync),
                workspace.state,
                syncs_beside(workspace, sync),
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
                    moves=destination.moves(sync.object, tuple(sync.identify)),
                    offer=offer_of(sync, destination),
                )
            except BackhaulError:
                self._go_on()
                raise

    def _go_on(self) -> None:
        """Raises RunError where a stop was asked for; an interrupt meets nothing where the engine is between statements."""
        if self.stopping:
            raise RunError("stopped before anything was sent") from None

    def _describe(self, prepared: Prepared) -> None:
        plan, report = prepared.plan, self.report
        report.plan, report.rows, report.changes = plan.id, plan.rows, plan.changes
        report.undo = plan.undo
        report.first, report.incremental, report.reasons = plan.first, plan.incremental, plan.reasons
        report.remapped, report.schema_changes = plan.remapped, notices(self.sync, prepared.schema)
        report.suppressed, report.notices = prepared.suppressed, list(prepared.notices)
        report.guards = [
            {"name": guard.name, "ok": guard.ok, "message": guard.message} for guard in prepared.guards
        ]
        report.seconds.update(prepared.seconds)

    def _note_nondeterminism(self, plan: Plan) -> None:
        sync = self.workspace.scopes.sync_id(self.sync.name)
        if notice := nondeterminism_notice(self.workspace.state, sync, plan):
            self.report.notices.append(notice)

    def _guard(self, prepared: Prepared) -> None:
        """Raises Held or PlanMoved before anything is sent."""
        plan, reviewed = prepared.plan, self.options.reviewed
        if reviewed is not None:
            if reviewed[0] != plan.digest:
                plan.path.unlink(missing_ok=True)
                raise moved(self.workspace.state, reviewed[1], plan)
            return
        why = "; ".join(f"{guard.name}: {guard.message}" for guard in prepared.tripped)
        why = why or needs_review(self.sync.approve, plan)
        if why:
            self.report.plan = held = keep_held(self.workspace, plan)
            raise Held(f"held, nothing was sent: {why}",
                       hint=f"review plan {held}, then `backhaul run {self.sync.name} --plan {held}`")  # fmt: skip

    def _supersede(self, prepared: Prepared) -> None:
        """Dead letters that mean nothing any more go, and plans that were held: this run takes their place."""
        self.workspace.state.do_all("raise", [(prepared.plan.scope, key) for key in prepared.stale])
        drop_held(self.workspace, prepared.plan.scope)


def status_of(error: BackhaulError) -> str:
    """What a run is called that this error ended."""
    return "held" if isinstance(error, Held) else "deferred" if isinstance(error, Exhausted) else "failed"
