"""Creates whose end nobody knows: what a run does about them before it plans.

One that left with an idempotency key is sent again under it, as it was, within the key's life. One that can be looked up
is, once the index lag is over: one record is adopted, none makes it a create again, several are quarantined. Any other
stays unknown and is shown to a person, unless the sync says `unknown: at_least_once`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import duckdb

from backhaul.changes import Event, Stage, after, code, named
from backhaul.delivery.batches import PlanBatch, rebuild_batches
from backhaul.delivery.connect import Connection, insist
from backhaul.delivery.delivery import Delivery
from backhaul.errors import Exhausted, Halt, SendError
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.fold import Settlement, resettle
from backhaul.ledger.ledger import ALIAS, Ledger
from backhaul.ledger.lookups import Asked, asked, release, take_in
from backhaul.ledger.plan import Plan, plan_from
from backhaul.mapping.mapping import Mapping
from backhaul.next_steps import Step, next_step, offer_of
from backhaul.runs.recovery import let_go, reject_conflicts, rows_listed, settlements
from backhaul.runs.report import RunReport
from backhaul.runs.sending import recreates
from backhaul.schemas import Schemas
from backhaul.state.letters import known_letters
from backhaul.state.protocol import Row
from backhaul.types import Mode
from backhaul.workspace import Workspace

PATIENCE = 60.0
"""Seconds that a run waits for an index; what takes longer is looked up by a later run."""
_AT_ONCE = 100
Creates = list[tuple[PlanBatch, Sequence[int]]]


class Doubts:
    """The creates of one sync that are in doubt. `stop()` as in Run."""

    def __init__(self, workspace: Workspace, sync: Any, schemas: Schemas, report: RunReport) -> None:
        self.workspace, self.sync, self.schemas, self.report = workspace, sync, schemas, report
        self.ledger, self.scope = workspace.ledger(sync), workspace.scope(sync)
        self._stop = asyncio.Event()
        self._delivery: Delivery | None = None

    def stop(self) -> None:
        self._stop.set()
        if self._delivery is not None:
            self._delivery.stop()

    async def collect(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Settles in the journal what earlier runs handed over as jobs.

        Raises:
            Exhausted: a job is not over; nothing new may be planned meanwhile.
            RunError: the destination refuses us.
        """
        state = self.workspace.state
        for row in state.do("plans_with_status", {"scope": self.scope.id, "status": "delivering"}):
            plan = plan_from(row["header"], self.workspace.plan_path(row["id"]))
            groups = jobs_by_batch(state.do("intents", {"plan": plan.id}))
            if not groups or not state.fetch_file(plan.id, plan.path):
                continue
            mapping = Mapping.from_shape(plan.shape)
            async with self._delivering(plan) as delivery:
                for intents in groups:
                    batches = rebuild_batches(engine, plan, mapping, self.sync.object, intents)
                    jobs = [(batch, one["job"]) for batch, one in zip(batches, intents, strict=True)]
                    await delivery.collect(batches[0], [(batch, job) for batch, job in jobs if job])
            self.report.delivered += delivery.totals.delivered
            self.report.rejected += delivery.totals.rejected
            self.report.recreated += delivery.totals.recreated
            if delivery.underway:
                said = f"the destination still works on {delivery.underway:,} records that an earlier run handed over"
                raise Exhausted(said)

    async def let_land(self) -> None:
        """Waits until what an earlier run sent, and nobody heard of again, is applied or never will be."""
        with suppress(TimeoutError):
            late = self.workspace.destination_class(self.sync.destination).spec.late
            await asyncio.wait_for(self._stop.wait(), late)

    async def resolve(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Settles what can be settled now.

        Raises:
            RunError: the destination refuses us, or does not answer.
        """
        destination = self.workspace.undelivering(self.sync.destination)
        life = destination.idempotency_life
        resumable = await self._resume(engine, life)
        if self.sync.mode is not Mode.INSERT:
            return
        step = next_step(Stage.UNKNOWN, False, self.sync.mode, offer_of(self.sync, destination, keyed=False))
        if step is Step.LOOK_UP:
            try:
                await self._look_up(engine, destination.index_lag(self.sync.object) or 0.0, resumable)
            except (Halt, SendError) as error:
                self.report.hint = f"inserts with an unknown outcome could not be looked up: {error}"
        elif step is Step.SEND:
            release(engine, self.ledger, resumable)

    async def _resume(self, engine: duckdb.DuckDBPyConnection, life: float | None) -> set[str]:
        """Sends creates with a living key again. Returns the primary keys (JSON) of those that stay in doubt."""
        state, left = self.workspace.state, set[str]()
        for row in state.do("plans_with_status", {"scope": self.scope.id, "status": "folded"}):
            plan = plan_from(row["header"], self.workspace.plan_path(row["id"]))
            if life is not None and state.fetch_file(plan.id, plan.path):
                self._settle(engine, plan)
                creates = repeatable(self.workspace, self.sync, engine, plan, life)
                if creates:
                    try:
                        await self._send(plan, creates)
                    finally:
                        delivered, rejected = self._settle(engine, plan)
                        self.report.delivered += delivered
                        self.report.rejected += rejected
                left |= {
                    key
                    for batch, rows in repeatable(self.workspace, self.sync, engine, plan, life)
                    for key in map(batch.primary_key, rows)
                }
            else:
                state.do("drop_plan_intents", {"id": plan.id})
            let_go(state, plan.id, plan.path)
        return left

    def _settle(self, engine: duckdb.DuckDBPyConnection, plan: Plan) -> tuple[int, int]:
        """Takes into the ledger what the journal says of creates that were sent again. Returns how many were taken, and how
        many refused."""
        state = self.workspace.state
        found = [item for item in settlements(state, plan.id) if item.status is Stage.ACKNOWLEDGED]
        unknown = set(rows_listed(state, plan.id, "unknown"))
        for stage, name in ((Stage.REJECTED, "rejected"), (Stage.RETRY, "pending")):
            rows = [row for row in rows_listed(state, plan.id, name) if row not in unknown]
            found += [Settlement(stage, row, row + 1) for row in rows]
        if not found:
            return 0, 0
        taken, refused, conflicts = resettle(engine, self.ledger, Mapping.from_shape(plan.shape), plan, found)
        reject_conflicts(engine, state, plan, conflicts)
        state.do("drop_plan_outcomes", {"id": plan.id})
        return taken, refused + len(conflicts)

    async def _send(self, plan: Plan, creates: Creates) -> None:
        async with self._delivering(plan) as delivery:
            await delivery.resume(creates)

    @asynccontextmanager
    async def _delivering(self, plan: Plan) -> AsyncIterator[Delivery]:
        """The delivery of an earlier run's plan; its requests are counted."""
        connection = await self.schemas.connect()
        requests = connection.door.requests
        letters = known_letters(self.workspace.state, self.scope.id)
        async with self.workspace.journal(plan) as journal:
            delivery = self._delivery = Delivery(
                connection.destination, journal, connection.budget, letters=letters, recreates=recreates(self.sync),
                surroundings=self.workspace.surroundings,
            )  # fmt: skip
            if self._stop.is_set():
                delivery.stop()
            try:
                yield delivery
            finally:
                self.report.requests += connection.door.requests - requests
                self.report.retries += delivery.totals.retries

    async def _look_up(self, engine: duckdb.DuckDBPyConnection, lag: float, resumable: set[str]) -> None:
        rows = asked(engine, self.ledger, tuple(self.sync.identify))
        wait = max((lag - row.age for row in rows), default=0.0)
        if 0 < wait <= PATIENCE:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait)
        due = [row for row in rows if (row.age >= lag or wait <= PATIENCE) and row.pk not in resumable]
        if not due or self._stop.is_set():
            return
        connection = await self.schemas.connect()
        for start in range(0, len(due), _AT_ONCE):
            some = due[start : start + _AT_ONCE]
            take_in(engine, self.ledger, await self._verdicts(connection, some))

    async def _verdicts(
        self, connection: Connection, rows: Sequence[Asked]
    ) -> list[tuple[str, Stage, str | None]]:
        """Where each row is after a look-up: its primary key (JSON), its stage, and the id it was found by."""
        identifiers, keys = tuple(self.sync.identify), [row.key for row in rows]
        found = await insist(
            lambda: connection.destination.lookup(self.sync.object, identifiers, keys),
            connection.budget,
            self.workspace.surroundings,
        )
        verdicts = []
        for row in rows:
            ids = found.get(row.key, ())
            event = Event.ABSENT if not ids else Event.FOUND if len(ids) == 1 else Event.TWINS
            stage = named(row.stage)
            if stage in (Stage.UNKNOWN, Stage.DETECTED) or event is Event.TWINS:
                stage = after(stage, event)
            verdicts.append((row.pk, stage, ids[0] if len(ids) == 1 else None))
        return verdicts


def repeatable(
    workspace: Workspace, sync: Any, engine: duckdb.DuckDBPyConnection, plan: Plan, life: float
) -> Creates:
    """The requests of a plan that may be sent again under their keys, which live for `life` seconds, each with those of its
    rows that are unknown; the others' intents end."""
    state, now, found = workspace.state, workspace.state.clock(), Creates()
    for intent in state.do("intents", {"plan": plan.id}):
        left = intent["clock"] + life - now
        (batch,) = rebuild_batches(engine, plan, Mapping.from_shape(plan.shape), sync.object, [intent])
        rows = _unknown(workspace.ledger(sync), engine, plan, batch) if left > 0 else []
        if rows:
            found.append((batch, rows))
        else:
            state.do_all("end_intent", [(plan.id, intent["low"])])
    return found


def jobs_by_batch(intents: Iterable[Row]) -> list[list[Row]]:
    """Intents with jobs, each after that of the batch whose rows it shares: what was refused as a whole, or had to be made
    again, was handed over in parts."""
    groups: list[list[Row]] = []
    for intent in sorted(intents, key=lambda one: (one["low"], -one["high"])):
        if groups and intent["low"] < groups[-1][0]["high"]:
            groups[-1].append(intent)
        else:
            groups.append([intent])
    return [group for group in groups if any(intent["job"] for intent in group)]


def _unknown(ledger: Ledger, engine: duckdb.DuckDBPyConnection, plan: Plan, batch: PlanBatch) -> list[int]:
    mapping = Mapping.from_shape(plan.shape)
    with ledger.reading(engine) as view:
        if view is None or view.empty:
            return []
        rows = engine.execute(
            f"SELECT file_row_number - {batch.low} FROM {plan.rows_sql} AS p WHERE file_row_number >= {batch.low} AND "
            f"file_row_number < {batch.high} AND {key_json(mapping, 'p.')} IN (SELECT {key_json(mapping)} "
            f"FROM {ALIAS}.acked WHERE _state = {code(Stage.UNKNOWN)} AND _at IS NULL) ORDER BY 1"
        ).fetchall()
    return [row for (row,) in rows]
