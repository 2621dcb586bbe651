"""A project and what one can do with it: the Python interface, and everything the command line calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson

from backhaul.config import Project as Config
from backhaul.config import SyncConfig, find_root
from backhaul.config import load as load_config
from backhaul.errors import BackhaulError, Problem, StateError, UsageError
from backhaul.ledger.fold import Settled, Settlement, fold, forget_values
from backhaul.ledger.plan import plan_from
from backhaul.mapping.mapping import Mapping
from backhaul.planning.estimate import estimate
from backhaul.planning.explain import parsed, refusals, sample
from backhaul.planning.prepare import Prepared
from backhaul.records import counts, records
from backhaul.recovery import abandon_earlier, settle_earlier
from backhaul.report import PlanReport, RunOptions, RunReport, describe_plan
from backhaul.run import Run
from backhaul.schemas import Schemas
from backhaul.sending import keep_plan
from backhaul.state.lease import is_leased, lease
from backhaul.verification.verify import Verified, compare, mark_doubtful, sample_ledger
from backhaul.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 5
"""Refused records that a plan shows."""


def load(path: str | Path = ".") -> Project:
    """The project at or above a folder.

    Raises:
        UsageError: there is none, or its files are wrong; names every problem.
    """
    return Project(load_config(find_root(Path(path))))


@dataclass(frozen=True)
class Plan:
    """What a run would send. `changes` is Arrow: `_change` (0 create, 1 update, 2 delete), `k0…` keys, `f.NAME` new
    and `o.NAME` old values."""

    report: PlanReport
    changes: pa.Table


@dataclass(frozen=True)
class FinishedRun:
    """A run that ended, with its counts."""

    report: RunReport
    project: Project

    def __getattr__(self, name: str) -> Any:
        return getattr(self.report, name)

    def dead_letters(self) -> list[dict[str, Any]]:
        """The dead letters of this run's sync."""
        return self.project.dead_letters(self.report.sync)


@dataclass(frozen=True)
class Check:
    """One thing `check` looked at."""

    sync: str
    name: str
    ok: bool
    message: str
    usage: bool = False
    """What is wrong is in the project's files."""


class Project:
    """One project. Every method opens what it needs and closes it again."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.workspace = Workspace(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.workspace.close()

    def sync(self, name: str) -> SyncConfig:
        """One sync by its exact name. Raises: UsageError."""
        if name in self.config.syncs:
            return self.config.syncs[name]
        return self.config.select([name])[0]

    def plan(self, name: str, *, full: bool = False) -> Plan:
        """What a run of one sync would send; sends nothing."""
        import pyarrow.parquet

        report = asyncio.run(self.plan_report(self.sync(name), full=full))
        table = pyarrow.parquet.read_table(self.workspace.plan_path(report.id))
        return Plan(report, table.filter(pyarrow.compute.field("_segment") <= 2))

    async def plan_report(self, sync: SyncConfig, *, full: bool = False) -> PlanReport:
        """Plans one sync, keeps the plan for `run --plan`, and describes it.

        Raises:
            BackhaulError: it cannot be planned.
        """
        run = Run(self.workspace, sync, RunOptions(full=full))
        async with AsyncExitStack() as stack:
            engine = stack.enter_context(self.workspace.engine())
            self._settle_if_idle(engine, sync)
            schemas = Schemas(self.workspace, sync, stack)
            schema, _ = await schemas.remembered()
            prepared = await run.planned(engine, schema)
            keep_plan(self.workspace, prepared.plan, "reviewed")
            return self._describe(engine, sync, prepared)

    def _settle_if_idle(self, engine: Any, sync: SyncConfig) -> None:
        """A plan tells the truth only when what an earlier run left is settled; a run that is going on settles itself."""
        if self.workspace.folder.exists() and not is_leased(self.workspace.locks, sync.name):
            with lease(self.workspace.locks, sync.name):
                settle_earlier(
                    engine,
                    self.workspace.state,
                    self.workspace.ledger(sync),
                    sync.name,
                    self.workspace.plan_path,
                )

    def _describe(self, engine: Any, sync: SyncConfig, prepared: Prepared) -> PlanReport:
        plan, destination = prepared.plan, self.workspace.undelivering(sync.destination)
        cost = estimate(
            plan,
            lambda op: destination.batch_limits(sync.object, op),
            destination.limits,
            destination.concurrency,
            remote=bool(destination.base_url),
        )
        report = describe_plan(prepared, cost, sample(engine, plan), refusals(engine, plan, _SHOWN))
        return replace(report, destination=sync.destination, object=sync.object)

    def run(
        self, name: str, *, full: bool = False, limit: int | None = None, plan: str | None = None
    ) -> FinishedRun:
        """Runs one sync. A failure is in the report's `status` and `error`, not raised."""
        sync = self.sync(name)
        options = RunOptions(
            full=full, limit=limit, reviewed=self.reviewed(plan, sync.name) if plan else None
        )
        return FinishedRun(asyncio.run(Run(self.workspace, sync, options).execute()), self)

    def reviewed(self, reference: str, sync: str) -> tuple[str, str]:
        """(digest, id) of a plan by its id or by the file that `plan --out` wrote.

        Raises:
            UsageError: there is no such plan, or it is another sync's.
        """
        plans = self._plans(reference)
        if sync not in plans:
            raise UsageError(f"plan {reference} is of {', '.join(plans) or 'no sync'}, not of {sync}")
        return plans[sync]

    def planned(self, reference: str) -> list[str]:
        """The syncs that a plan's id or file is of. Raises: UsageError: there is no such plan."""
        return sorted(self._plans(reference))

    def _plans(self, reference: str) -> dict[str, tuple[str, str]]:
        path = Path(reference)
        if path.is_file():
            try:
                document = orjson.loads(path.read_bytes())
                return {
                    plan["sync"]: (plan["digest"], plan["id"]) for plan in document.get("plans", [document])
                }
            except (OSError, orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
                raise UsageError(
                    f"{reference} is not a plan file", hint="write one with `backhaul plan SYNC --out FILE`"
                ) from None
        rows = self.workspace.state.do("plan", {"id": reference})
        if not rows:
            raise UsageError(
                f"there is no plan {reference}", hint="plan again with `backhaul plan`; it prints the id"
            )
        return {rows[0]["sync"]: (plan_from(rows[0]["header"], path).digest, reference)}

    def records(self, name: str, status: str | None = None) -> Iterator[dict[str, Any]]:
        """Every record a sync knows: `{key, status, fields, remote_id}`."""
        sync = self.sync(name)
        with self.workspace.engine() as engine:
            yield from records(
                engine,
                self.workspace.state,
                self.workspace.ledger(sync),
                sync.name,
                self.workspace.plan_path,
                status,
            )

    def status(self, names: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Health of each sync: its records by status, its last run, whether it is running now."""
        found = []
        with self.workspace.engine() as engine:
            for sync in self.config.select(names):
                last = self.runs(sync.name, 1)
                found.append({
                    "sync": sync.name, "destination": sync.destination, "object": sync.object,
                    "schedule": sync.schedule or sync.cron,
                    "running": is_leased(self.workspace.locks, sync.name),
                    "records": counts(engine, self.workspace.state, self.workspace.ledger(sync), sync.name),
                    "last_run": last[0] if last else None,
                })  # fmt: skip
        return found

    def runs(self, sync: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """The newest runs first: the RUN of each, or what is known of one that is going on."""
        found = []
        for row in self.workspace.state.do("runs", {"sync": sync, "limit": limit}):
            report = orjson.loads(row["report"]) if row["report"] else {}
            found.append(
                {
                    **report,
                    **{
                        name: row[name]
                        for name in ("id", "sync", "status", "error", "started_at", "finished_at")
                    },
                }
            )
        return found

    def dead_letters(self, sync: str | None = None, letter: int | None = None) -> list[dict[str, Any]]:
        """`{id, sync, key, op, error: {code, message}, attempts, first_failed_at, last_failed_at, payload}`."""
        rows = self.workspace.state.do("dead_letters", {"sync": sync, "id": letter})
        return [
            {
                "id": row["id"], "sync": row["sync"], "key": orjson.loads(row["key"]), "op": row["op"],
                "error": {"code": row["code"], "message": row["message"]}, "attempts": row["attempts"],
                "first_failed_at": row["first_failed_at"], "last_failed_at": row["last_failed_at"],
                "payload": parsed(row["payload"]), "replay": row["status"] == "replay",
            }
            for row in rows
        ]  # fmt: skip

    def mark_dead_letters(self, letters: Sequence[int], status: str) -> None:
        """`replay`: the next run sends the newest value; `discarded`: never again until the value changes.

        Raises:
            UsageError: there is no such dead letter.
        """
        known = {row["id"] for row in self.workspace.state.do("dead_letters", {"sync": None, "id": None})}
        for letter in letters:
            if letter not in known:
                raise UsageError(f"there is no dead letter {letter}", hint="see `backhaul dead-letters list`")
        with self.workspace.state.together():
            for letter in letters:
                self.workspace.state.do("mark_dead_letter", {"id": letter, "status": status})

    def verify(self, name: str, *, count: int | None = 10, seed: int | None = None) -> Verified:
        """Reads acknowledged records back and compares; what differs is sent again by the next run. `count` None: all."""
        return asyncio.run(
            self._verify(self.sync(name), count, random.randrange(1 << 31) if seed is None else seed)
        )

    async def _verify(self, sync: SyncConfig, count: int | None, seed: int) -> Verified:
        async with AsyncExitStack() as stack:
            engine = stack.enter_context(self.workspace.engine())
            self._settle_if_idle(engine, sync)
            ledger = self.workspace.ledger(sync)
            with ledger.reading(engine) as view:
                if view is None or view.empty:
                    return Verified(0)
                mapping = await self._mapping(engine, sync, stack)
                expected = sample_ledger(engine, mapping, count, seed)
            connection = await Schemas(self.workspace, sync, stack).connect()
            verified = await compare(connection.destination, sync.object, mapping, expected)
            if verified.mismatches and not is_leased(self.workspace.locks, sync.name):
                with lease(self.workspace.locks, sync.name), ledger.writing(engine):
                    mark_doubtful(
                        engine,
                        mapping,
                        [orjson.dumps(mismatch.key).decode() for mismatch in verified.mismatches],
                    )
            return verified

    async def _mapping(self, engine: Any, sync: SyncConfig, stack: AsyncExitStack) -> Mapping:
        from backhaul.mapping.mapping import compile_mapping
        from backhaul.models import model_columns

        schema, _ = await Schemas(self.workspace, sync, stack).remembered()
        with self.workspace.warehouse(sync) as warehouse:
            columns = model_columns(sync.model, warehouse, engine, self.config.root)
            return compile_mapping(sync, columns, schema, engine)

    def baseline(self, name: str) -> int:
        """Takes the model's rows as already delivered, without sending. Returns how many."""
        return asyncio.run(self._baseline(self.sync(name)))

    async def _baseline(self, sync: SyncConfig) -> int:
        run = Run(self.workspace, sync, RunOptions(full=True))
        async with AsyncExitStack() as stack:
            stack.enter_context(lease(self.workspace.locks, sync.name))
            engine = stack.enter_context(self.workspace.engine())
            ledger = self.workspace.ledger(sync)
            settle_earlier(engine, self.workspace.state, ledger, sync.name, self.workspace.plan_path)
            schema, _ = await Schemas(self.workspace, sync, stack).remembered()
            prepared = await run.planned(engine, schema)
            rows = [
                Settlement(Settled.DELIVERED, segment.low, segment.high) for segment in prepared.plan.segments
            ]
            fold(engine, ledger, prepared.mapping, prepared.plan, rows, complete=True)
            prepared.plan.path.unlink(missing_ok=True)
            return prepared.plan.total

    def reset(self, name: str) -> int:
        """Forgets what was acknowledged and keeps the known keys: the next run sends everything. Returns how many."""
        sync = self.sync(name)
        with lease(self.workspace.locks, sync.name), self.workspace.engine() as engine:
            ledger = self.workspace.ledger(sync)
            try:
                settle_earlier(engine, self.workspace.state, ledger, sync.name, self.workspace.plan_path)
            except StateError:
                abandon_earlier(self.workspace.state, sync.name, self.workspace.plan_path)
            return forget_values(engine, ledger)

    async def check(self, sync: SyncConfig) -> list[Check]:
        """Connections, model and fields of one sync; reads the model's keys and sends nothing."""
        found: list[Check] = []
        async with AsyncExitStack() as stack:
            engine = stack.enter_context(self.workspace.engine())
            schemas = Schemas(self.workspace, sync, stack)
            try:
                connection = await schemas.connect()
                schema = await schemas.fresh()
                where = connection.destination.base_url or sync.destination
                found.append(
                    Check(
                        sync.name,
                        "destination",
                        True,
                        f"{sync.destination}: {sync.object} at {where}, {len(schema.fields)} fields",
                    )
                )
                prepared = await Run(self.workspace, sync, RunOptions(full=True)).planned(engine, schema)
                prepared.plan.path.unlink(missing_ok=True)
                found.append(
                    Check(sync.name, "model", True, f"{prepared.plan.rows:,} rows, key unique and never null")
                )
                found.append(
                    Check(
                        sync.name,
                        "fields",
                        True,
                        f"{len(prepared.mapping.fields)} mapped fields fit {sync.object}",
                    )
                )
                for segment in prepared.plan.segments:
                    if connection.destination.batch_limits(sync.object, segment.op) is None:
                        raise UsageError(
                            f"{sync.destination} has no {segment.op} of {sync.object}",
                            hint="choose another mode",
                        )
            except UsageError as error:
                problems = error.problems or (Problem(str(error), hint=error.hint),)
                found += [Check(sync.name, "fields", False, str(problem), usage=True) for problem in problems]
            except BackhaulError as error:
                said = f"{error} ({error.hint})" if error.hint else str(error)
                found.append(Check(sync.name, "model" if found else "destination", False, said))
        return found
