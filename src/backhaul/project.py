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
from backhaul.delivery.address import remarks
from backhaul.errors import BackhaulError, Problem, UsageError
from backhaul.ledger.plan import plan_from
from backhaul.ledger.unfilled import unfilled_notices
from backhaul.mapping.mapping import Mapping
from backhaul.planning.explain import refusal_groups, refusal_text, sample
from backhaul.planning.prepare import Prepared
from backhaul.planning.schema_changes import ModelSchema, model_schema, note_schema, notices, versions
from backhaul.records.forget import Forget, lift
from backhaul.records.health import count_records, health, list_runs
from backhaul.records.letters import ALL, Choice, groups, letters, mark
from backhaul.records.listing import records, told_by
from backhaul.records.proofs import listed
from backhaul.records.settle import Chosen, settle
from backhaul.records.why import Why
from backhaul.runs.approval import no_plan
from backhaul.runs.baseline import Taken, take_over
from backhaul.runs.cost import cost_of
from backhaul.runs.reading_back import read_back
from backhaul.runs.recovery import settle_earlier
from backhaul.runs.report import PlanReport, RunOptions, RunReport, describe_plan
from backhaul.runs.reset import Reset, reset
from backhaul.runs.run import Run
from backhaul.runs.scoping import bind, kept_elsewhere, orphans, other_writers, rename
from backhaul.runs.sending import keep_plan, require
from backhaul.runs.undo import plan_of_run, plan_undo
from backhaul.schemas import Schemas
from backhaul.state.scopes import Scope
from backhaul.verification.spellings import take_verified, without_spellings
from backhaul.verification.verify import Verified, count_open, sample_ledger, seconds_since_last
from backhaul.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from backhaul.care.backup import Backup
    from backhaul.care.check import Finding
    from backhaul.care.restore import Restored

_DATABASE = "use the database's own backups (pg_dump --schema=backhaul, point-in-time recovery)"


def load(path: str | Path = ".", *, env_file: Path | None = None) -> Project:
    """The project at or above a folder; its variables are those of `env_file` instead of `.env`.

    Raises:
        UsageError: there is none, or its files are wrong; names every problem.
    """
    return Project(load_config(find_root(Path(path)), env_file=env_file))


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
    warning: bool = False
    """It works, and somebody should know."""


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
            schemas = Schemas(self.workspace, sync, stack)
            await schemas.scope()
            self._settle_if_idle(engine, sync)
            prepared = await run.planned_fresh(engine, schemas, lambda plan: bool(plan.refused))
            keep_plan(self.workspace, prepared.plan, "reviewed")
            return self._describe(engine, sync, prepared)

    def _settle_if_idle(self, engine: Any, sync: SyncConfig) -> None:
        """A plan tells the truth only when what an earlier run left is settled; a run that is going on settles itself."""
        workspace = self.workspace
        if workspace.is_begun and not workspace.is_leased(sync):
            with workspace.lease(sync):
                scope, ledger = workspace.scope(sync), workspace.ledger(sync)
                settle_earlier(engine, workspace.state, ledger, scope, workspace.plan_path)

    def _describe(self, engine: Any, sync: SyncConfig, prepared: Prepared) -> PlanReport:
        plan, destination = prepared.plan, self.workspace.undelivering(sync.destination)
        cost = cost_of(engine, sync, destination, plan)
        report = describe_plan(prepared, cost, sample(engine, plan), refusal_groups(engine, plan))
        said, scope = notices(sync, prepared.schema), self.workspace.scope(sync)
        kept = kept_elsewhere(self.workspace, scope)
        report = replace(report, account=scope.label, ledger=scope.id, kept=kept)
        return replace(
            report, destination=sync.destination, object=sync.object, schema_changes=said,
            records=count_records(engine, self.workspace, sync),
        )  # fmt: skip

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
                plans = [
                    (plan["sync"], plan["digest"], plan["id"]) for plan in document.get("plans", [document])
                ]
                if not all(isinstance(text, str) for plan in plans for text in plan):
                    raise TypeError
                return {sync: (digest, plan) for sync, digest, plan in plans}
            except (OSError, orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
                raise UsageError(
                    f"{reference} is not a plan file", hint="write one with `backhaul plan SYNC --out FILE`"
                ) from None
        rows = self.workspace.state.do("plan", {"id": reference})
        if not rows:
            raise no_plan(self.workspace, reference)
        names = {scope.id: scope.name for scope in self.workspace.scopes.all()}
        if rows[0]["scope"] not in names:
            raise UsageError(f"plan {reference} is of another project on this state")
        return {names[rows[0]["scope"]]: (plan_from(rows[0]["header"], path).digest, reference)}

    def records(self, name: str, status: str | None = None) -> Iterator[dict[str, Any]]:
        """Every record a sync knows: `{key, status, fields, remote_id}`."""
        sync = self.sync(name)
        with self.workspace.engine() as engine:
            workspace = self.workspace
            ledger, scope = workspace.ledger(sync), workspace.scope(sync)
            told = told_by(sync, workspace.undelivering(sync.destination))
            yield from records(engine, workspace.state, ledger, scope, workspace.plan_path, status, told=told)

    def status(self, names: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Health of each sync: its records by status, its last run, whether it is running now."""
        with self.workspace.engine() as engine:
            return [health(engine, self.workspace, sync) for sync in self.config.select(names)]

    def orphans(self) -> dict[str, list[str]]:
        """State without a sync: objects and accounts of its ledgers, by the name that the sync had."""
        return {name: [one.where for one in scopes] for name, scopes in orphans(self.workspace).items()}

    def runs(self, sync: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """The newest runs first: the RUN of each, or what is known of one that is going on or was interrupted."""
        return list_runs(self.workspace, sync, limit)

    def dead_letters(
        self, sync: str | None = None, letter: int | None = None, *, choice: Choice | None = None,
        limit: int | None = None, payloads: bool = True,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """`{id, sync, key, op, error: {code, message}, attempts, first_failed_at, last_failed_at, payload, …}`, at most
        `limit`; `payload` is None where it is kept no more, or not asked for."""
        asked = choice or Choice(None if sync is None else (sync,), ids=() if letter is None else (letter,))
        return letters(self.workspace, asked, limit=ALL if limit is None else limit, payloads=payloads)

    def dead_letter_groups(
        self, choice: Choice | None = None, *, limit: int | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """The dead letters counted by what is wrong, the newest failure first, at most `limit`; and how many groups there
        are."""
        return groups(self.workspace, choice or Choice(), limit)

    def mark_dead_letters(self, letters: Sequence[int], status: str) -> None:
        """`replay`: the next run sends the newest value; `discarded`: not until the value changes.

        Raises:
            UsageError: there is no such dead letter.
        """
        mark(self.workspace, letters, status)

    def undo(self, run: str) -> PlanReport:
        """Plans to put back what a run replaced, keeps the plan for `run --plan`, and describes it; sends nothing.

        Raises:
            UsageError: there is no such run, it sent nothing, or what it replaced is not kept.
        """
        name, plan_id = plan_of_run(self.workspace, run)
        sync = self.sync(name)
        with self.workspace.engine() as engine:
            self._settle_if_idle(engine, sync)
            plan, left = plan_undo(engine, self.workspace, sync, run, plan_id)
            keep_plan(self.workspace, plan, "reviewed")
            prepared = Prepared(plan, Mapping.from_shape(plan.shape), (), 0, {}, ModelSchema(()))
            report = self._describe(engine, sync, prepared)
        return replace(report, undo={"run": run, "left_out": left})

    def why(self, name: str, key: str, *, offline: bool = False) -> dict[str, Any]:
        """The life of one record; `key` as typed. `offline`: the destination is not asked.

        Raises:
            UsageError: there is no such key; names the nearest.
        """
        return asyncio.run(Why(self.workspace, self.sync(name), key, offline=offline).answer())

    def verify(self, name: str, *, count: int | None = 10, seed: int | None = None) -> Verified:
        """Reads acknowledged records back and compares; what differs is sent again by the next run. `count` None: all."""
        return asyncio.run(
            self._verify(self.sync(name), count, random.randrange(1 << 31) if seed is None else seed)
        )

    async def _verify(self, sync: SyncConfig, count: int | None, seed: int) -> Verified:
        async with AsyncExitStack() as stack:
            engine = stack.enter_context(self.workspace.engine())
            schemas = Schemas(self.workspace, sync, stack)
            await schemas.scope()
            self._settle_if_idle(engine, sync)
            ledger = self.workspace.ledger(sync)
            with ledger.reading(engine) as view:
                if view is None or view.empty:
                    return Verified(0)
                mapping = await self._mapping(engine, schemas)
                expected, unsettled = sample_ledger(view, mapping, count, seed), count_open(engine)
                age = seconds_since_last(view)
            connection = await schemas.connect()
            verified = await read_back(self.workspace, connection, sync, mapping, expected, age=age)
            if verified.mismatches and not self.workspace.is_leased(sync):
                with self.workspace.lease(sync), ledger.writing(engine) as view:
                    verified = take_verified(view, mapping, expected, verified, sync.mode)
            elif verified.mismatches:
                with ledger.reading(engine) as view:
                    verified = without_spellings(view, mapping, expected, verified)[0] if view else verified
            return replace(verified, open=unsettled)

    async def _mapping(self, engine: Any, schemas: Schemas) -> Mapping:
        from backhaul.mapping.mapping import compile_mapping
        from backhaul.models import model_columns

        sync = schemas.sync
        schema, _ = await schemas.remembered()
        with self.workspace.warehouse(sync) as warehouse:
            columns = model_columns(sync.model, warehouse, engine, self.config.root)
            return compile_mapping(sync, columns, schema, engine)

    def baseline(self, name: str, *, read: bool = False) -> Taken:
        """Takes the model's rows as already delivered, without sending; with `read` only those that the destination holds
        as they are."""
        return asyncio.run(take_over(self.workspace, self.sync(name), read=read))

    def schema_changes(self, name: str) -> list[dict[str, Any]]:
        """Every version of the model's columns that runs have found, oldest first: `{version, at, taken, columns, changes}`."""
        return versions(self.workspace.state, self.workspace.scope(self.sync(name)).id)

    def accept_schema(self, name: str) -> int:
        """Takes the model's columns as they are now for those that runs go on with. Returns how many are not as before."""
        from backhaul.models import model_columns

        sync = self.sync(name)
        with self.workspace.engine() as engine, self.workspace.warehouse(sync) as warehouse:
            columns = model_columns(sync.model, warehouse, engine, self.config.root)
        scope = self.workspace.scope(sync).id
        found = model_schema(self.workspace.state, scope, sync, columns)
        note_schema(self.workspace.state, scope, found, taken=True)
        return len(found.changes)

    def reset(self, name: str) -> Reset:
        """Forgets what was acknowledged and keeps the known keys: the next run sends everything, dead letters too.

        Raises:
            StateError: the destination still works on records that an earlier run handed over.
        """
        sync = self.sync(name)
        return reset(self.workspace, self.workspace.scope(sync), sync)

    def bind(self, name: str, *, same: bool) -> Scope:
        """Says whether the destination is the account of before (`same`) or another. See runs/scoping.py for what it raises."""
        return asyncio.run(bind(self.workspace, self.sync(name), same=same))

    def rename(self, old: str, new: str) -> list[Scope]:
        """Gives the state of a sync to its new name. See runs/scoping.py for what it raises."""
        return rename(self.workspace, old, new)

    def forget(self, name: str, key: str, *, local: bool = False) -> dict[str, Any]:
        """Erases one record: `{sync, destination, plans, proofs}`; `local`: without a delete at the destination.

        Raises:
            UsageError: there is no such key.
            RunError: the sync runs, or the destination did not delete it: nothing was erased.
        """
        return asyncio.run(Forget(self.workspace, self.sync(name), key, local=local).do())

    def settle(
        self, name: str, key: str | None = None, *, delivered: bool, remote_id: str | None = None, where: str | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """Says of unknown or quarantined records whether the destination holds them. One by its key: `{sync, key, was,
        delivered}`; without a key all that wait for a decision, or those that `where` (SQL over keys and fields) holds for:
        `{sync, records, delivered}`.

        Raises:
            UsageError: the record does not wait for a decision.
        """
        chosen = Chosen(key, where)
        return settle(self.workspace, self.sync(name), chosen, delivered=delivered, remote_id=remote_id)

    def forgotten(self, name: str) -> list[dict[str, Any]]:
        """The proofs of forgotten records: `{hash, at, destination}`."""
        return listed(self.workspace, self.sync(name))

    def lift(self, name: str, key: str) -> None:
        """Lets a forgotten record be sent again. Raises: UsageError: it was not forgotten."""
        lift(self.workspace, self.sync(name), key)

    def check_state(self) -> list[Finding]:
        """Whether the state is whole, file by file; changes nothing.

        Raises:
            UsageError: the state is in a database.
        """
        from backhaul.care.check import check_folder

        return check_folder(
            self._state_folder("check", "`backhaul status` says whether it can be used"),
            self.config.memory_limit,
        )

    def back_up_state(self, file: Path) -> Backup:
        """Writes the state into one file, while no sync runs. See care/backup.py for what it raises."""
        from backhaul.care.backup import back_up

        return back_up(self._state_folder("backup", _DATABASE), file, self.workspace.surroundings.now())

    def restore_state(self, file: Path, *, as_is: bool = False) -> Restored:
        """Puts a backup in the place of the state. Every sync is reset, so that the next run sends again what may have changed
        since; `as_is`: nothing was delivered since it was made. See care/restore.py for what it raises."""
        from backhaul.care.restore import restore

        def open_at(folder: Path) -> Workspace:
            return Workspace(self.config.model_copy(update={"state": str(folder)}))

        def prepare(restored: Workspace) -> None:
            for scope in () if as_is else restored.scopes.all():
                reset(restored, scope, self.config.syncs.get(scope.name))

        folder = self._state_folder("restore", _DATABASE)
        return restore(folder, file, open_at, prepare)

    def compact_state(self) -> tuple[int, int]:
        """Gives room back: bytes before and after. See care/compact.py for what it raises."""
        from backhaul.care.compact import compact

        self._state_folder("compact", "a database gives room back by itself")
        return compact(self.workspace)

    def _state_folder(self, command: str, hint: str) -> Path:
        if "://" in self.config.state:
            raise UsageError(
                f"`state {command}` is for a state in a folder; this one is in a database", hint=hint
            )
        return self.workspace.folder

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
                found += [
                    Check(sync.name, "address", True, said, warning=True)
                    for said in await remarks(connection.destination.base_url)
                ]
                prepared = await Run(self.workspace, sync, RunOptions(full=True)).planned(engine, schema)
                rows = [refusal_text(one) for one in refusal_groups(engine, prepared.plan)]
                rows += unfilled_notices(engine, prepared.plan, prepared.mapping)
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
                found += [
                    Check(sync.name, "writers", True, said, warning=True)
                    for said in other_writers(self.workspace, sync)
                ]
                found += [Check(sync.name, "rows", True, said, warning=True) for said in rows]
                for segment in prepared.plan.segments:
                    require(connection.destination, sync, segment.op)
            except UsageError as error:
                problems = error.problems or (Problem(str(error), hint=error.hint),)
                found += [Check(sync.name, "fields", False, str(problem), usage=True) for problem in problems]
            except BackhaulError as error:
                said = f"{error} ({error.hint})" if error.hint else str(error)
                found.append(Check(sync.name, "model" if found else "destination", False, said))
        return found
