"""`forget`: deletes one record at its destination, erases its values in the state, and keeps it from being sent again."""

from __future__ import annotations

import re
import secrets
from contextlib import AsyncExitStack
from typing import Any

import duckdb
import orjson

from backhaul.engine import number
from backhaul.errors import BackhaulError, RunError, StateError, UsageError
from backhaul.ledger.duplicates import key_is, mask
from backhaul.ledger.keys import spellings
from backhaul.ledger.ledger import ALIAS, LedgerView
from backhaul.ledger.plan import CHANGES, DELETE, Plan, Segment, freezing, plan_from
from backhaul.ledger.rewrite import rewrite
from backhaul.mapping.mapping import Mapping
from backhaul.planning.prepare import Prepared
from backhaul.planning.schema_changes import ModelSchema
from backhaul.records.proofs import hashes, lift_one, listed, suppressions
from backhaul.records.why import Why
from backhaul.runs.report import RunOptions, RunReport
from backhaul.runs.sending import Sending
from backhaul.schemas import Schemas
from backhaul.sql import ident, literal
from backhaul.state.protocol import Row
from backhaul.types import Op
from backhaul.workspace import Workspace

_SHORT = 4
"""Values of fewer characters than this are not looked for in what runs said: they would be found everywhere."""


class Forget:
    """The erasure of one record of one sync; `local`: the destination is not asked to delete it."""

    def __init__(self, workspace: Workspace, sync: Any, key: str, *, local: bool = False) -> None:
        self.workspace, self.sync, self.typed, self.local = workspace, sync, key, local
        self.scope = workspace.scope(sync)
        self.keys = spellings(key)
        self.identities: set[str] = set()

    async def do(self) -> dict[str, Any]:
        """Deletes, erases, suppresses; gives the proof. Done again it finishes what was cut off.

        Raises:
            UsageError: nobody knows such a key.
            RunError: the sync runs, or the destination did not delete the record: then nothing was erased.
        """
        state = self.workspace.state
        async with AsyncExitStack() as stack:
            lease = stack.enter_context(self.workspace.lease(self.sync))
            self._refuse_unsettled()
            texts = await self._known()
            engine = stack.enter_context(self.workspace.engine())
            before = {row["hash"] for row in self._forgotten()}
            self._suppress("asked")
            try:
                answer = "not asked" if self.local else await self._delete(engine, stack, lease.check)
            except BackhaulError:
                self._lift(before)
                raise
            plans = self._erase(engine, texts)
            self._suppress(answer)
            state.scrub()
        proofs = [one for one in listed(self.workspace, self.sync) if one["hash"] in self._hashes()]
        return {
            "sync": self.sync.name, "destination": answer, "plans": plans, "proofs": proofs, "not_reached": state.beyond,
        }  # fmt: skip

    def _refuse_unsettled(self) -> None:
        for status in ("delivering", "folded"):
            if self.workspace.state.do("plans_with_status", {"scope": self.scope.id, "status": status}):
                raise RunError(
                    f"an earlier run of {self.sync.name} left changes whose end is not settled",
                    hint=f"`backhaul run {self.sync.name}` first; nothing was erased",
                )

    async def _known(self) -> set[str]:
        """The texts that tell of the record: its key and its values."""
        asked = Why(self.workspace, self.sync, self.typed, offline=True)
        try:
            found = await asked.answer()
        except UsageError:
            forgotten = {row["hash"] for row in self._forgotten()}
            if not forgotten & set(self._hashes()):
                raise
            return self._key_texts()
        self.keys, self.identities = asked.keys, asked.identities
        told = [(found[part] or {}).get("fields") or {} for part in ("model", "ledger")]
        told += [dict(enumerate(pair)) for step in found["history"] for pair in step["fields"].values()]
        values = {value for fields in told for value in fields.values() if isinstance(value, str)}
        return self._key_texts() | {value for value in values if len(value) >= _SHORT}

    def _key_texts(self) -> set[str]:
        return {text for key in self.keys for text in (key, key.strip('"'), mask(key))}

    def _forgotten(self) -> list[Row]:
        return suppressions(self.workspace, self.scope)

    def _salt(self) -> str:
        rows = self.workspace.state.do("forgotten", {"place": self.scope.place})
        return str(rows[0]["salt"]) if rows else secrets.token_hex(16)

    def _hashes(self) -> list[str]:
        return hashes(self._salt(), self.keys)

    def _suppress(self, answer: str) -> None:
        """Keeps the record from being sent again: by its key in this sync, by its identifier in every sync on the object."""
        salt, at = self._salt(), self.workspace.surroundings.now()
        keys = hashes(salt, self.keys)
        rows = [{"hash": one, "record": one, "kind": "key"} for one in keys]
        rows += [
            {"hash": one, "record": keys[0], "kind": "identifier"}
            for one in hashes(salt, sorted(self.identities))
        ]
        about = {
            "place": self.scope.place,
            "sync": self.scope.sync,
            "salt": salt,
            "at": at,
            "answer": answer,
            "actor": self.workspace.surroundings.actor(),
        }
        with self.workspace.state.together():
            for row in rows:
                self.workspace.state.do("keep_forgotten", about | row)

    def _lift(self, stay: set[str]) -> None:
        for one in set(self._hashes()) - stay:
            lift_one(self.workspace, self.scope, one)

    async def _delete(self, engine: duckdb.DuckDBPyConnection, stack: AsyncExitStack, check: Any) -> str:
        """Sends the delete as a run would, with journal, limits and ledger. Gives what became of it."""
        with self.workspace.ledger(self.sync).reading(engine) as view:
            prepared = None if view is None or view.empty else self._plan(engine, view)
        if prepared is None:
            return "never held it"
        sync, around = self.sync, self.workspace.surroundings
        local = f"nothing was erased; `backhaul forget {sync.name} KEY --local` erases here only"
        destination = self.workspace.undelivering(sync.destination)
        if destination.batch_limits(sync.object, Op.DELETE) is None:
            raise RunError(f"{sync.destination} has no delete of {sync.object}", hint=local)
        report = RunReport(around.new_id("r"), sync.name, around.now())
        sending = Sending(self.workspace, sync, RunOptions(), report, erases=True)
        try:
            await sending.deliver(engine, Schemas(self.workspace, sync, stack, check), prepared)
        except BackhaulError:
            known = {row["id"] for row in self.workspace.state.do("plans_of", {"scope": self.scope.id})}
            if prepared.plan.id not in known:
                prepared.plan.path.unlink(missing_ok=True)
            raise
        if report.delivered != 1:
            how = "refused the delete" if report.rejected else "did not say that it deleted the record"
            raise RunError(f"{sync.destination} {how}", hint=local)
        return destination.describe_delete(sync.object, erase=True)

    def _plan(self, engine: duckdb.DuckDBPyConnection, view: LedgerView) -> Prepared | None:
        """A plan of one delete, in the ledger's own shape; None where the ledger does not hold the record."""
        mapping = view.mapping(self.sync.identify)
        where = f"{ALIAS}.acked WHERE {self._is_it(mapping)}"
        if not number(engine, f"SELECT count(*) FROM {where}"):
            return None
        if missing := set(self.sync.identify) - set(view.shape["fields"]):
            raise RunError(f"how the record is identified ({', '.join(missing)}) was never acknowledged",
                           hint="run the sync once with `identify` as it was; nothing was erased")  # fmt: skip
        plan_id = self.workspace.surroundings.new_id("p")
        path = self.workspace.plan_path(plan_id)
        new = [
            f"{ident(field.column) if field.identifier else f'NULL::{field.storage}'} AS {ident(field.column)}"
            for field in mapping.fields
        ]
        old = [f"{ident(field.column)} AS {ident('o.' + field.name)}" for field in mapping.fields]
        keys = [key.column for key in mapping.keys]
        with freezing(path) as part:
            engine.execute(
                f"COPY (SELECT {DELETE} AS _segment, {CHANGES.index('delete')} AS _change, {', '.join(keys)}, "
                f"NULL::UBIGINT AS _hash, {', '.join([*new, *old])}, _remote_id, NULL::VARCHAR AS _error, "
                f"NULL::UTINYINT AS _again FROM {where}) TO {literal(str(part))} (FORMAT parquet)"
            )
        plan = Plan(
            id=plan_id, sync=self.sync.name, scope=self.scope.id, path=path, rows=view.count(),
            changes={"create": 0, "update": 0, "delete": 1}, segments=(Segment(Op.DELETE, 0, 1),), shape=mapping.shape,
            watermark=view.meta.get("watermark"),
        )  # fmt: skip
        return Prepared(plan, mapping, (), view.count(), {}, ModelSchema(()))

    def _is_it(self, mapping: Mapping) -> str:
        return key_is(mapping, self.keys)

    def _erase(self, engine: duckdb.DuckDBPyConnection, texts: set[str]) -> int:
        """Takes the record out of plans, dead letters, what runs said, and the ledger. Gives how many plans went."""
        state, scope = self.workspace.state, self.scope.id
        dropped = 0
        for row in state.do("plans_of", {"scope": scope}):
            path = self.workspace.plan_path(row["id"])
            state.fetch_file(row["id"], path)
            if self._holds(engine, plan_from(row["header"], path)):
                state.drop_plan(row["id"], path)
                dropped += 1
        if not self.workspace.clear():
            raise StateError(
                "another process is planning, so that what a killed one left could not be told from its files",
                hint="do it again when nothing else runs: a plan that no run knows may hold the record",
            )
        state.do_all("raise", [(scope, key) for key in self.keys])
        self._erase_runs(texts)
        self._erase_ledger(engine)
        return dropped

    def _holds(self, engine: duckdb.DuckDBPyConnection, plan: Plan) -> bool:
        """Whether a plan's file has the record; one that cannot be read may have it."""
        mine = self._is_it(Mapping.from_shape(plan.shape))
        try:
            return bool(number(engine, f"SELECT count(*) FROM {plan.rows_sql} WHERE {mine}"))
        except duckdb.Error:
            return True

    def _erase_runs(self, texts: set[str]) -> None:
        told = re.compile("|".join(rf"(?<!\w){re.escape(text)}(?!\w)" for text in sorted(texts)))
        state = self.workspace.state
        for row in state.do("runs", {"sync": self.scope.sync, "limit": 1 << 40}):
            report = orjson.loads(row["report"]) if row["report"] else {}
            said = [row["error"], report.get("hint"), report.get("verified"), report.get("error")]
            if told.search(orjson.dumps(said).decode()) or told.search(" ".join(map(str, said))):
                error = row["error"] and "erased with a record that was forgotten"
                kept = report | {"error": error, "hint": None, "verified": None}
                state.do("rewrite_run", {"id": row["id"], "error": error,
                                         "report": orjson.dumps(kept).decode() if report else None})  # fmt: skip

    def _erase_ledger(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Removes the record's row and writes the file anew, so that no free block of it keeps old bytes."""
        ledger = self.workspace.ledger(self.sync)
        if not ledger.exists(engine):
            return
        with ledger.writing(engine) as view:
            if not view.empty:
                mapping = view.mapping(self.sync.identify)
                engine.execute(f"DELETE FROM {ALIAS}.acked WHERE {self._is_it(mapping)}")
            view.renew()
        rewrite(engine, ledger.path)


def lift(workspace: Workspace, sync: Any, key: str) -> int:
    """Lets a forgotten key be sent again: the next run reads the whole model.

    Raises:
        UsageError: the key was not forgotten.
    """
    scope = workspace.scope(sync)
    with workspace.lease(sync), workspace.engine() as engine:
        rows = suppressions(workspace, scope)
        found = [row["hash"] for row in rows if row["hash"] in hashes(row["salt"], spellings(key))]
        if not found:
            raise UsageError(f"{key!r} is not among the forgotten records of {sync.name}",
                             hint=f"see `backhaul forget {sync.name} --list`")  # fmt: skip
        ledger = workspace.ledger(sync)
        if ledger.exists(engine):
            with ledger.writing(engine) as view:
                view.set("watermark", None)
        for one in found:
            lift_one(workspace, scope, one)
        return len(found)
