"""The second half of a run: a plan leaves, its outcomes go into the ledger, and a sample is read back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import duckdb

from backhaul.advice import advice, shape
from backhaul.changes import Stage
from backhaul.delivery.batches import read_chunks
from backhaul.delivery.connect import Connection
from backhaul.delivery.delivery import Delivery
from backhaul.delivery.encoding import Encoding
from backhaul.delivery.failures import Systemic
from backhaul.delivery.tally import WAITING
from backhaul.destinations.kit import Unsupported
from backhaul.engine import in_order
from backhaul.errors import BackhaulError, Forbidden, RunError, UsageError
from backhaul.failpoints import failpoint
from backhaul.ledger.fold import Settlement
from backhaul.ledger.lookups import recent
from backhaul.ledger.plan import Plan, Segment
from backhaul.planning.explain import refusals, values_of
from backhaul.planning.prepare import Prepared
from backhaul.runs.following import follow_up
from backhaul.runs.reading_back import read_back
from backhaul.runs.recovery import let_go, settle_plan, settlements
from backhaul.runs.report import RunOptions, RunReport
from backhaul.schemas import Schemas
from backhaul.state.letters import LONGEST_CODE, DeadLetter, burial, check_keys, known_letters
from backhaul.types import BatchLimits, Mode, Op, RefusalClass
from backhaul.verification.spellings import (
    describe_spellings,
    has_spellings,
    take_verified,
    unsettled_spellings,
)
from backhaul.verification.verify import Expected, sample_plan
from backhaul.words import in_one_line
from backhaul.workspace import Workspace

_RESENT = 100
"""Records that were sent again because they differed, and are read back beside the sample."""
_TURNS = 5
"""How often records are sent again that wait for others of their plan: chains of references are as long as that in one run."""
_REASONS = 5


class Sending:
    """One plan of one sync on its way; what becomes of it is added to `report`. `stop()` as in Run. `erases`: its deletes are
    those of `forget`."""

    def __init__(
        self, workspace: Workspace, sync: Any, options: RunOptions, report: RunReport, *, erases: bool = False
    ) -> None:
        self.workspace, self.sync, self.options, self.report = workspace, sync, options, report
        self._erases = erases
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
        check_keys(state, plan.scope, plan.sync)
        connection = await schemas.connect() if plan.total else None
        if connection is not None:
            self._ways(connection.destination, plan)
        if self.stopping:
            raise RunError("stopped before anything was sent")
        failpoint("planned")
        keep_plan(self.workspace, plan, "delivering")
        await asyncio.to_thread(state.keep_file, plan.id, plan.path)
        began = perf_counter()
        report.rejected += bury_refused(engine, self.workspace, plan)
        delivery = None
        if connection is not None:
            delivery = await self._send(engine, connection, prepared)
        settling = perf_counter()
        report.seconds["deliver"] = round(settling - began, 3)
        if delivery is not None and delivery.underway:
            self._judge(delivery)
            return
        sampled = await self._settle(engine, prepared, delivery)
        if connection is not None and delivery is not None:
            delivery = await self._follow(engine, connection, prepared, delivery)
        report.refused += _unsettled(delivery, self._fixes) if delivery is not None else []
        report.seconds["settle"] = round(perf_counter() - settling, 3)
        if connection is not None and sampled and not self.stopping:
            await self._verify(engine, connection, prepared, sampled)
        self._judge(delivery)

    def _sample(
        self, engine: duckdb.DuckDBPyConnection, prepared: Prepared, found: list[Settlement]
    ) -> list[Expected]:
        """What to read back: a sample of what was delivered, and what was sent again because it differed."""
        with self.workspace.ledger(self.sync).reading(engine) as view:
            again = unsettled_spellings(view, prepared.mapping, _RESENT)
        return sample_plan(engine, prepared.plan, found, self.sync.freshness.sample, again)

    async def _settle(
        self, engine: duckdb.DuckDBPyConnection, prepared: Prepared, delivery: Delivery | None
    ) -> list[Expected]:
        """Takes a plan's outcomes into the ledger. Returns a sample of what was delivered."""
        plan, report, state = prepared.plan, self.report, self.workspace.state
        failed = delivery is not None and delivery.failure is not None
        found = settlements(state, plan.id)
        complete = not (report.deferred or report.pending or report.unknown or failed)
        ledger = self.workspace.ledger(self.sync)
        conflicts = await asyncio.to_thread(
            settle_plan, engine, state, ledger, plan, found, complete=complete
        )
        report.delivered -= len(conflicts)
        report.rejected += len(conflicts)
        sampled = []
        if delivery and not failed and self.sync.freshness.sample:
            refused = {item.key for item in conflicts}
            sampled = [one for one in self._sample(engine, prepared, found) if one.pk not in refused]
        failpoint("folded")
        report.refused += self._refused(engine, plan)
        let_go(state, plan.id, plan.path)
        return sampled

    async def _follow(
        self,
        engine: duckdb.DuckDBPyConnection,
        connection: Connection,
        prepared: Prepared,
        delivery: Delivery,
    ) -> Delivery:
        """Sends records again that waited for others of the plan, as long as that brings any of them further. Returns the last
        delivery."""
        first = delivery
        for turn in range(_TURNS):
            rows = delivery.waiting
            helps = delivery.totals.delivered or (turn == 0 and delivery.totals.has_conflicts)
            if not rows or not helps or delivery.failure or delivery.stopping or self.stopping:
                break
            plan_id = self.workspace.surroundings.new_id("p")
            plan = follow_up(engine, prepared.plan, rows, plan_id, self.workspace.plan_path(plan_id))
            prepared = replace(prepared, plan=plan)
            keep_plan(self.workspace, plan, "delivering")
            await asyncio.to_thread(self.workspace.state.keep_file, plan.id, plan.path)
            delivery = await self._send(engine, connection, prepared)
            if delivery.underway:
                break
            await self._settle(engine, prepared, delivery)
        if delivery is not first:
            delivery.totals.take_over(first.totals)
            delivery.exhausted = delivery.exhausted or first.exhausted
        return delivery

    @property
    def _fixes(self) -> Mapping[str, str]:
        return self.workspace.destination_class(self.sync.destination).spec.fixes

    def _refused(self, engine: duckdb.DuckDBPyConnection, plan: Plan) -> list[dict[str, Any]]:
        """What most of a plan's dead letters are about, and what to do. The message has no value of the record."""
        state, found = self.workspace.state, []
        for row in state.do("refusals_of", {"scope": plan.scope, "plan": plan.id}):
            told = {"status": "rejected", "code": row["code"], "field": row["field"], "count": row["records"]}
            for letter in state.do("dead_letters", {"scope": plan.scope, "id": row["id"]}):
                said = state.keeping.open(letter)[0]
                fix = advice(row["code"], said, self._fixes)
                message = in_one_line(shape(said, values_of(engine, plan, letter["key"])))
                found.append({**told, "class": row["class"], "fix": fix, "message": message})
        return found

    async def _send(
        self, engine: duckdb.DuckDBPyConnection, connection: Connection, prepared: Prepared
    ) -> Delivery:
        plan, sync, destination = prepared.plan, self.sync, connection.destination
        letters = known_letters(self.workspace.state, plan.scope, again=plan.follows is not None)
        left = self.options.limit if self.options.limit is not None else plan.total
        if plan.follows is None:
            self.report.pending = max(plan.total - left, 0)
        requests = connection.door.requests
        lag = destination.read_lag_of(sync.object, tuple(sync.identify))
        cleared = self._delivery.refusals.cleared if plan.follows and self._delivery is not None else ()
        ages = recent(engine, self.workspace.ledger(sync), plan, lag)
        async with self.workspace.journal(plan) as journal:
            delivery = self._delivery = Delivery(
                destination, journal, connection.budget, letters=letters, ages=ages, cleared=cleared,
                at_least_once=self._at_least_once(destination), recreates=recreates(sync), erases=self._erases,
                progress=lambda totals: self.options.progress(sync.name, plan.total, totals),
                surroundings=self.workspace.surroundings,
            )  # fmt: skip
            segments = self._ways(destination, plan)
            for endpoint, requests_to_come in _requests(segments, left).items():
                for part in connection.budget.of((endpoint,)):
                    part.expect(requests_to_come)
            try:
                for segment, limits, encoding in segments:
                    if left <= 0 or delivery.stopping or self.stopping:
                        break
                    with in_order(engine):
                        chunks = read_chunks(
                            engine,
                            plan,
                            segment,
                            prepared.mapping,
                            sync.object,
                            encoding,
                            limits,
                        )
                        await delivery.deliver(chunks, limits, left)
                    left -= segment.high - segment.low
                delivery.conclude(whole=plan.follows is None)
            finally:
                self.report.requests += (
                    connection.door.requests - requests if destination.base_url else delivery.totals.writes
                )
                self._sum_up(delivery, plan)
        return delivery

    def _at_least_once(self, destination: Any) -> bool:
        """Whether creates of unknown end are repeated blindly: only where nothing better is offered."""
        searchable = destination.index_lag(self.sync.object) is not None
        return self.sync.unknown == "at_least_once" and not searchable

    def _ways(self, destination: Any, plan: Plan) -> list[tuple[Segment, BatchLimits, Encoding]]:
        """Each segment of a plan with its largest batch, and how its records are written.

        Raises:
            UsageError: the destination has no such operation.
        """
        found, most = [], self.options.limit
        for segment in plan.segments:
            rows = segment.high - segment.low
            rows = rows if most is None else min(rows, most)
            limits = require(destination, self.sync, segment.op, rows)
            encoding = Encoding.choose(
                destination, self.sync.object, segment, tuple(self.sync.identify), rows
            )
            found.append((segment, limits, encoding))
        return found

    def _sum_up(self, delivery: Delivery, plan: Plan) -> None:
        totals, report = delivery.totals, self.report
        rejected = totals.rejected
        if isinstance(delivery.failure, Systemic | Forbidden):
            code = in_one_line(self.workspace.mask(delivery.failure.code), LONGEST_CODE)
            self.workspace.state.do("void_refusals", {"plan": plan.id, "code": code})
            self.workspace.state.do("return_letters", {"scope": plan.scope})
            rejected -= totals.codes[code]
        if totals.stray and totals.unknown:
            key = in_one_line(totals.stray, LONGEST_CODE)
            report.hint = f"the destination answered for {key!r}, which was not sent: does it spell keys in another way?"
        report.delivered += totals.delivered
        report.unknown += totals.unknown
        report.retries += totals.retries
        report.recreated += totals.recreated
        report.rejected += rejected
        settled = totals.delivered + totals.unknown + rejected
        report.deferred = (report.deferred if plan.follows else plan.total - report.pending) - settled

    async def _verify(
        self,
        engine: duckdb.DuckDBPyConnection,
        connection: Connection,
        prepared: Prepared,
        sampled: list[Any],
    ) -> None:
        """Reads a sample back; what differs is sent again by the next run. That it cannot be read undoes no delivery."""
        try:
            verified = await read_back(
                self.workspace, connection, self.sync, prepared.mapping, sampled, lambda: self.stopping
            )
        except Unsupported:
            return
        except BackhaulError as error:
            self.report.hint = f"{len(sampled)} records could not be read back: {error}"
            return
        ledger = self.workspace.ledger(self.sync)
        if verified.mismatches or self._spelled(engine):
            with ledger.writing(engine) as view:
                verified = take_verified(view, prepared.mapping, sampled, verified, self.sync.mode)
        if verified.respelled:
            self.report.hint = describe_spellings(self.sync.destination, verified)
        self.report.verified = verified

    def _spelled(self, engine: duckdb.DuckDBPyConnection) -> bool:
        """Whether the ledger remembers differences."""
        with self.workspace.ledger(self.sync).reading(engine) as view:
            return has_spellings(view)

    def _judge(self, delivery: Delivery | None) -> None:
        report = self.report
        if delivery is not None and delivery.failure is not None:
            raise delivery.failure
        if report.deferred:
            report.status = "deferred"
            why = (
                "stopped"
                if self.stopping
                else delivery and (delivery.exhausted or _at_work(delivery) or _open(delivery))
            )
            report.error = (
                f"{why}; the rest is sent by the next run" if why else "the rest is sent by the next run"
            )
        elif report.rejected or report.unknown or (report.verified and report.verified.mismatches):
            report.status = "partial"
        else:
            report.status = "succeeded"


def _open(delivery: Delivery) -> str:
    """Why most of the records that are deferred were not taken."""
    found = [why for (stage, _), why in delivery.totals.unsettled.items() if stage is Stage.RETRY]
    if not found:
        return ""
    most = max(found, key=lambda why: why.count)
    said = (
        f"{most.reason.code}: {shape(most.reason.message)}"
        if most.reason.code
        else shape(most.reason.message)
    )
    waits = {
        RefusalClass.REFERENCE: "wait for a record that they refer to",
        RefusalClass.CONFLICT: "wait for a value that another record holds",
    }
    return f"{most.count:,} record{'s' * (most.count > 1)} {waits.get(most.reason.kind, 'could not be sent now')} ({said})"


def _unsettled(delivery: Delivery, fixes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Why records were left deferred or unknown, the commonest reason first."""
    found = sorted(delivery.totals.unsettled.items(), key=lambda one: -one[1].count)
    return [
        {
            "status": "unknown" if stage is Stage.UNKNOWN else "waiting" if why.reason.kind in WAITING else "deferred",
            "code": why.reason.code, "field": None, "count": why.count, "class": str(why.reason.kind),
            "fix": advice(why.reason.code, why.reason.message, fixes), "message": in_one_line(shape(why.reason.message)),
        } for (stage, _), why in found[:_REASONS]
    ]  # fmt: skip


def recreates(sync: Any) -> bool:
    """Whether what the destination has lost is made again."""
    return sync.gone == "recreate" or (sync.gone is None and sync.mode in (Mode.UPSERT, Mode.MIRROR))


def require(destination: Any, sync: Any, op: Op, rows: int = 0) -> BatchLimits:
    """The largest batch of an operation that the sync needs for so many rows, whose updates may have to make a record again.

    Raises:
        UsageError: the destination has no such operation.
    """
    limits: BatchLimits | None = destination.batch_limits(sync.object, op, rows)
    if limits is None:
        raise UsageError(f"{destination.spec.name} has no {op} of {sync.object}", hint="choose another mode")
    if op is Op.UPDATE and recreates(sync) and destination.batch_limits(sync.object, Op.UPSERT) is None:
        said = f"{destination.spec.name} has no upsert of {sync.object}, by which `gone: recreate` makes a record again"
        raise UsageError(said, hint="write `gone: reject`, or give the object an upsert")
    return limits


def _at_work(delivery: Delivery) -> str:
    """What to say of jobs that outlast a run."""
    count = delivery.underway
    return (
        f"the destination still works on {count:,} records, the next run asks what became of them"
        if count
        else ""
    )


def _requests(segments: list[tuple[Segment, BatchLimits, Encoding]], rows: int) -> Counter[str]:
    """How many batches the first rows of a plan make, by the endpoint that holds them up."""
    found = Counter[str]()
    for segment, limits, _ in segments:
        taken = min(segment.high - segment.low, rows)
        found[limits.endpoint] += -(-taken // limits.records)
        rows -= taken
    return found


def keep_plan(workspace: Workspace, plan: Plan, status: str) -> None:
    """Records a plan, so that a later run can settle it or a person can have it delivered. An undo that is delivered was
    recorded when it was made."""
    if plan.undo and status == "delivering":
        workspace.state.do("set_plan_status", {"id": plan.id, "status": status})
        return
    workspace.state.do("add_plan", {
        "id": plan.id, "scope": plan.scope, "file": plan.path.name, "header": plan.header().decode(), "status": status,
        "created_at": workspace.surroundings.now(),
    })  # fmt: skip


def bury_refused(engine: duckdb.DuckDBPyConnection, workspace: Workspace, plan: Plan) -> int:
    """Makes dead letters of the records that the mapping refuses. Returns how many."""
    state, refused = workspace.state, refusals(engine, plan)
    letters = [
        DeadLetter(
            one["key"], "upsert", one["code"], one["message"], 0, one["payload"], one["hash"], by_mapping=True,
            field=one["field"],
        ) for one in refused
    ]  # fmt: skip
    state.do_all("bury", [burial(state, plan.scope, plan.id, letter, plan.fingerprint) for letter in letters])
    return len(letters)
