"""`why`: the life of one record, from what is kept of it. Reads only; works while a run is going on."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from typing import Any

import duckdb
import orjson

from backhaul.changes import Stage, named
from backhaul.delivery.tally import WAITING_RUNS
from backhaul.destinations.kit import Unsupported
from backhaul.engine_errors import in_one_line
from backhaul.errors import BackhaulError, UsageError
from backhaul.ledger.duplicates import key_is, key_json, key_texts
from backhaul.ledger.keys import spellings
from backhaul.ledger.ledger import ALIAS
from backhaul.ledger.plan import CHANGES, REFUSE, SEND, Plan, plan_from
from backhaul.ledger.replaced import named_identity
from backhaul.mapping.fingerprint import fingerprints, whole_fingerprint
from backhaul.mapping.mapping import SEPARATOR, Mapping, columns_used, compile_mapping
from backhaul.mapping.wire import key_text
from backhaul.models import model_columns, only_keys, open_model
from backhaul.next_steps import SENTENCES, Offer, Step, next_step, offer_of
from backhaul.planning.explain import json_of, object_of, parsed
from backhaul.records.proofs import proof_of
from backhaul.schemas import Schemas
from backhaul.sql import literal
from backhaul.state.protocol import Row
from backhaul.types import Mode, Op
from backhaul.verification.spellings import known_spellings
from backhaul.warehouses.protocol import Relation
from backhaul.workspace import Workspace

_NEAREST = 3
_LONGEST = 40
"""Characters of a key in which one is taken to be wrong."""
_MEASURED = 100_000
"""Rows whose keys are compared with one that is not there."""
Found = dict[str, Any]


def misspelt(text: str) -> set[str]:
    """Every text from which this one differs in one character that is missing, too many, another, or in its neighbour's
    place."""
    letters = string.digits if text.isdigit() else f"{string.ascii_letters}{string.digits}-_.@"
    cuts = [(text[:at], text[at:]) for at in range(min(len(text), _LONGEST) + 1)]
    found = {left + right[1:] for left, right in cuts if right}
    found |= {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
    return found | {
        left + one + rest for left, right in cuts for rest in (right, right[1:]) for one in letters
    }


def _stored(mapping: Mapping, text: str) -> str:
    return f"TRY_CAST({literal(text)} AS {mapping.keys[0].storage})"


class Why:
    """One question about one record of one sync."""

    def __init__(self, workspace: Workspace, sync: Any, key: str, *, offline: bool = False) -> None:
        self.workspace, self.sync, self.typed, self.offline = workspace, sync, key, offline
        self.scope = workspace.scope(sync)
        self.keys = spellings(key)
        self.mapping: str | None = None
        """Fingerprint of the mapping as the files have it; None where it could not be compiled."""
        self.dialect = ""
        self.identities: set[str] = set()
        """What tells the record apart at the destination, as the ledger and the model have it (`replaced.named_identity`)."""

    async def answer(self) -> Found:
        """The life of the record, JSON-ready.

        Raises:
            UsageError: nobody knows such a key; names the nearest.
            StateError: the state or the ledger cannot be read.
        """
        async with AsyncExitStack() as stack:
            engine = stack.enter_context(self.workspace.engine())
            schemas = Schemas(self.workspace, self.sync, stack)
            if not self.offline:
                await self._settle_scope(schemas)
            ledger = self._ledger(engine)
            model = await self._model(engine, schemas)
            history = self._history(engine)
            letter = self._letter()
            forgotten = proof_of(self.workspace, self.scope, self.keys, self.identities)
            known = ledger or history or letter or forgotten
            if not known and model["status"] in ("absent", "unreadable"):
                raise await self._no_key(engine, schemas, model)
            held = await self._held(schemas, (ledger or {}).pop("_named", None) or model.pop("_named", None))
        model.pop("_named", None)
        found = {
            "sync": self.sync.name, "key": parsed(self.keys[0]), "model": model, "ledger": ledger, "history": history,
            "dead_letter": letter, "destination": held, "forgotten": forgotten,
        }  # fmt: skip
        offer = offer_of(self.sync, self.workspace.undelivering(self.sync.destination))
        return {"summary": summary(found, self.sync, offer), **found}

    async def _settle_scope(self, schemas: Schemas) -> None:
        """The ledger of the account that the destination is now; where that cannot be told, of the one that it was."""
        with suppress(BackhaulError):
            self.scope = await schemas.scope()

    def _where(self, mapping: Mapping, prefix: str = "") -> str:
        return key_is(mapping, self.keys, prefix)

    def _take(self, key: str) -> None:
        self.keys = [key]

    def _identify(self, identity: str | None) -> None:
        if identity is not None:
            self.identities.add(identity)

    def _ledger(self, engine: duckdb.DuckDBPyConnection) -> Found | None:
        with self.workspace.ledger(self.sync).reading(engine) as view:
            if view is None or view.empty:
                return None
            mapping = view.mapping(self.sync.identify)
            can_name = set(self.sync.identify) <= set(view.shape["fields"])
            name = key_text(mapping.identifiers) if can_name else "NULL"
            identity = named_identity(mapping) if can_name else "NULL"
            spelled = "_spelled" if view.format > 2 else "NULL"
            rows = engine.execute(
                f"SELECT {key_json(mapping)}, _state, CAST(_at AS VARCHAR), _remote_id, {_object(mapping)}, {name}, "
                f"{spelled}, {identity} FROM {ALIAS}.acked WHERE {self._where(mapping)} LIMIT 1"
            ).fetchall()
            if not rows:
                return None
            key, stage, at, remote_id, fields, named_by, spelled, identity = rows[0]
            self._take(key)
            self._identify(identity)
            values = at is not None and view.meta.get("values") != "no"
            return {"state": str(named(stage)), "acknowledged_at": at and at.replace(" ", "T") + "Z",
                    "remote_id": remote_id, "fields": parsed(fields) if values else None,
                    "spelled": known_spellings(spelled), "_named": named_by}  # fmt: skip

    async def _no_key(self, engine: duckdb.DuckDBPyConnection, schemas: Schemas, model: Found) -> UsageError:
        near = await self._near(engine, schemas)
        if model["status"] == "unreadable":
            hint = f"the model could not be read: {model['error']}"
        else:
            hint = f"the nearest: {', '.join(near)}" if near else "it knows no records at all"
        return UsageError(f"{self.sync.name} knows no record {self.typed!r}", hint=hint)

    async def _near(self, engine: duckdb.DuckDBPyConnection, schemas: Schemas) -> list[str]:
        """Keys (as JSON) that look most like what was typed: of the ledger those that differ in one character, and of ledger
        and model the first rows, because measuring all of a large one takes too long."""
        found: dict[str, int] = {}

        def measure(mapping: Mapping, source: str) -> None:
            rows = engine.execute(
                f"SELECT {key_json(mapping)} AS key, levenshtein(key, {literal(self.keys[0])}) AS far FROM {source} "
                f"ORDER BY far, key LIMIT {_NEAREST}"
            ).fetchall()
            found.update((key, far) for key, far in rows if key is not None)

        with self.workspace.ledger(self.sync).reading(engine) as view:
            if view is not None and not view.empty:
                mapping = view.mapping(self.sync.identify)
                measure(mapping, f"(FROM {ALIAS}.acked LIMIT {_MEASURED})")
                if len(mapping.keys) == 1:
                    alike = f"k0 IN ({', '.join(_stored(mapping, text) for text in misspelt(self.typed))})"
                    measure(mapping, f"{ALIAS}.acked WHERE {alike}")
        with suppress(BackhaulError, duckdb.Error):
            async with self._reading(engine, schemas) as (mapping, read):
                with closing(read(f"LIMIT {_MEASURED}")) as relation:
                    measure(mapping, f"({mapping.desired(relation.sql)})")
        return sorted(found, key=lambda key: (found[key], key))[:_NEAREST]

    async def _model(self, engine: duckdb.DuckDBPyConnection, schemas: Schemas) -> Found:
        try:
            known = self.workspace.state.do("schema", {"scope": self.scope.id})
            offline = self.workspace.destination_class(self.sync.destination).spec.describes_offline
            if self.offline and not known and not offline:
                return {
                    "status": "unreadable",
                    "error": "the destination was never described, and is not asked now",
                }
            async with self._reading(engine, schemas) as (mapping, read):
                self.mapping = whole_fingerprint(fingerprints(mapping))
                texts = [key_texts(mapping, key) for key in self.keys]
                keys = [[(part.name, part.storage, text) for part, text in one] for one in texts if one]
                with closing(read(only_keys(self.dialect, keys))) as relation:
                    return self._desired(engine, mapping, relation.sql)
        except duckdb.Error as error:
            return {"status": "unreadable", "error": in_one_line(error)}
        except BackhaulError as error:
            return {"status": "unreadable", "error": str(error).splitlines()[0]}

    @asynccontextmanager
    async def _reading(
        self, engine: duckdb.DuckDBPyConnection, schemas: Schemas
    ) -> AsyncIterator[tuple[Mapping, Callable[[str], Relation]]]:
        """The mapping, and what reads the model with something at the end of its SELECT."""
        schema, _ = await schemas.remembered()
        root, model = self.workspace.project.root, self.sync.model
        with self.workspace.warehouse(self.sync) as warehouse:
            self.dialect = warehouse.dialect
            columns = model_columns(model, warehouse, engine, root)
            mapping, used = (
                compile_mapping(self.sync, columns, schema, engine),
                columns_used(self.sync, columns),
            )
            yield mapping, lambda only: open_model(model, warehouse, engine, root, columns=used, only=only)

    def _desired(self, engine: duckdb.DuckDBPyConnection, mapping: Mapping, relation: str) -> Found:
        """The record as the model and the mapping give it; the model is read once."""
        rows = engine.execute(
            f"SELECT {key_json(mapping)}, _error, {_object(mapping)}, {key_text(mapping.identifiers)}, "
            f"{named_identity(mapping)} FROM ({mapping.desired(relation)}) WHERE {self._where(mapping)} LIMIT {_NEAREST}"
        ).fetchall()
        if not rows:
            return {"status": "absent"}
        key, error, fields, named_by, identity = rows[0]
        self._take(key)
        self._identify(identity)
        found: Found = {"status": "present", "fields": parsed(fields), "_named": named_by}
        if len(rows) > 1:
            return found | {"status": "unreadable", "error": "several rows have this key"}
        if error:
            field, code, message = error.split(SEPARATOR, 2)
            found |= {"status": "refused", "code": code, "error": f"{field}: {message}"}
        return found

    def _history(self, engine: duckdb.DuckDBPyConnection) -> list[Found]:
        """Every kept plan that holds the record, oldest first."""
        plans = []
        for row in self.workspace.state.do("plans_of", {"scope": self.scope.id}):
            plan = plan_from(row["header"], self.workspace.plan_path(row["id"]))
            if self.workspace.state.fetch_file(plan.id, plan.path):
                plans.append((plan, row))
        return [step for plan, row in plans for step in self._steps(engine, plan, row)]

    def _steps(self, engine: duckdb.DuckDBPyConnection, plan: Plan, row: Any) -> list[Found]:
        mapping = Mapping.from_shape(plan.shape)
        old = object_of({field.name: json_of(field, "o.") for field in mapping.fields})
        try:
            found = engine.execute(
                f"SELECT file_row_number, _segment, _change, {_object(mapping)}, {old}, _error FROM {plan.rows_sql} "
                f"WHERE {self._where(mapping)} "
                f"AND (_segment <= {SEND} OR _segment = {REFUSE})"
            ).fetchall()
        except duckdb.IOException:
            return []  # it was dropped meanwhile
        return [self._step(plan, row, *values) for values in found]

    def _step(
        self, plan: Plan, row: Any, at: int, segment: int, change: int, new: str, old: str, error: str | None
    ) -> Found:
        operation = CHANGES[change]
        before, after = parsed(old), parsed(new)
        fields = {
            name: [before[name], None if operation == "delete" else after[name]]
            for name in after
            if operation != "update" or before[name] != after[name]
        }
        runs = self.workspace.state.do("run_of_plan", {"plan": plan.id})
        step = {"plan": plan.id, "run": runs[0]["id"] if runs else None, "at": row["created_at"], "change": operation,
                "fields": fields}  # fmt: skip
        if segment == REFUSE:
            return step | {"status": "refused", "error": (error or "").replace(SEPARATOR, " ")}
        if row["status"] in ("held", "reviewed"):
            return step | {"status": row["status"]}
        return step | self._fate(plan.id, at)

    def _fate(self, plan: str, row: int) -> Found:
        """What the journal says of one row of a plan."""
        state = self.workspace.state
        answers = state.do("answers", {"plan": plan, "row": row})
        if not answers:
            intents = state.do("intent_of", {"plan": plan, "row": row})
            if intents:
                return {"status": "in_flight", "left_at": intents[0]["at"]}
            return {"status": "unanswered"}
        answer = answers[0]
        found: Found = {
            "status": "delivered", "left_at": answer["left_at"], "answered_at": answer["answered_at"],
            "batch": answer["high"] - answer["low"],
        }  # fmt: skip
        for status in ("pending", "unknown", "rejected"):
            if answer[status] and row in orjson.loads(answer[status]):
                found["status"] = status
        found |= _reason(answer["reasons"], row)
        letters = state.do("letter_of", {"scope": self.scope.id, "key": self.keys[0]})
        if found["status"] == "rejected" and letters and letters[0]["plan"] == plan:
            found |= {
                "code": letters[0]["code"],
                "message": self._message(letters[0]),
                "attempts": letters[0]["attempts"],
            }
        return found

    def _letter(self) -> Found | None:
        for key in self.keys:
            rows = self.workspace.state.do("letter_of", {"scope": self.scope.id, "key": key})
            if rows:
                self._take(key)
                row = rows[0]
                return {
                    "id": row["id"], "op": row["op"], "code": row["code"], "message": self._message(row),
                    "attempts": row["attempts"], "first_failed_at": row["first_failed_at"],
                    "last_failed_at": row["last_failed_at"], "status": row["status"], "class": row["class"],
                    "runs": row["tries"],
                    "remapped": self.mapping not in (None, row["mapping"]) and row["op"] != Op.DELETE,
                }  # fmt: skip
        return None

    def _message(self, letter: Row) -> str:
        try:
            return self.workspace.state.keeping.open(letter)[0] or "what it said is kept no more"
        except UsageError:
            return "what it said is encrypted with a key that is not here"

    async def _held(self, schemas: Schemas, named_by: str | None) -> Found:
        """What the destination holds now: one read-back, reserved in the budget like any request."""
        if self.offline:
            return {"status": "not asked"}
        if named_by is None:
            return {"status": "unreadable", "error": "nobody knows how the destination names it"}
        identifiers = tuple(self.sync.identify)
        names = list(dict.fromkeys([*identifiers, *self.sync.fields]))
        try:
            connection = await schemas.connect()
            if connection.budget.counts_writes:
                await connection.budget.acquire()
            held = await connection.destination.read(self.sync.object, identifiers, [named_by], names)
        except Unsupported as error:
            return {"status": "unreadable", "error": str(error)}
        except BackhaulError as error:
            return {"status": "unreadable", "error": str(error).splitlines()[0]}
        record = held.get(named_by)
        return {"status": "absent"} if record is None else {"status": "present", "fields": record}


def _reason(stored: str | None, row: int) -> Found:
    """Why a row was left pending or unknown, where its answer said so."""
    for code, kind, words, rows in orjson.loads(stored) if stored else ():
        if row in rows:
            return {"code": code, "class": kind, "message": words}
    return {}


def _object(mapping: Mapping) -> str:
    return object_of({field.name: json_of(field, "f.") for field in mapping.fields})


def summary(found: Found, sync: Any, offer: Offer) -> str:
    """One sentence: why the record was or was not sent, and what the next run does."""
    if forgotten := found["forgotten"]:
        where = "" if forgotten["sync"] == sync.name else f" in sync {forgotten['sync']}"
        return (
            f"Forgotten{where} since {forgotten['at']} by {forgotten['by']} (the destination: {forgotten['destination']}); "
            f"it is not sent again, unless `backhaul forget {forgotten['sync']} KEY --lift` allows it."
        )
    letter, model, ledger = found["dead_letter"], found["model"], found["ledger"]
    steps = {step["status"]: step for step in found["history"]}
    if "in_flight" in steps:
        return f"On its way since {steps['in_flight']['left_at']}: no answer is stored yet."
    if letter and letter["status"] == "waiting":
        return (f"Waiting for another record: the destination refused it ({letter['code']}: {letter['message']}). The next run "
                f"sends it again. Runs that tried it: {letter['runs']} of {WAITING_RUNS}.")  # fmt: skip
    if letter and letter["status"] != "replay" and not letter["remapped"]:
        return (f"Not sent again: it was refused ({letter['code']}: {letter['message']}); the next run sends it only if its "
                f"value or the mapping changes, or after `backhaul dead-letters replay {letter['id']}`.")  # fmt: skip
    if model["status"] == "unreadable":
        return f"What the next run does is not known: the model cannot be asked ({model['error']})."
    if model["status"] == "refused":
        return f"Not sent: the mapping refuses it ({model['error']}); the next run does so too, until the model is mended."
    if "held" in steps:
        plan = steps["held"]["plan"]
        return f"Not sent: plan {plan} is held; deliver it with `backhaul run {sync.name} --plan {plan}`."
    if letter and letter["status"] != "replay":
        return f"It was refused ({letter['code']}), and the mapping has changed since: the next run sends it."
    if letter:
        return "Refused before; the next run sends its newest value, as was asked for."
    return _ahead(model, ledger, sync, offer) + _last_reason(found["history"])


def _open(stage: Stage, step: Step, sync: Any) -> str:
    """What is to be said of a record that is not simply sent again."""
    settle = f"`backhaul settle {sync.name} KEY --delivered` or `--not-delivered`"
    if stage is Stage.QUARANTINED:
        return ("Not sent: the destination holds several records where there should be one; remove the duplicates, then "
                f"`backhaul settle {sync.name} KEY --delivered`.")  # fmt: skip
    why = (
        "It was sent, and its outcome is unknown"
        if stage is Stage.UNKNOWN
        else "It was acknowledged before a reset, and a second insert might make a second record"
    )
    return f"{why}; {SENTENCES[step]}{f': {settle}' if step is Step.DECIDE else ''}."


def _last_reason(history: list[Found]) -> str:
    """Why the newest attempt left the record pending or unknown."""
    last = history[-1] if history else {}
    if last.get("status") not in ("pending", "unknown") or not last.get("message"):
        return ""
    said = f"{last['code']}: {last['message']}" if last["code"] else last["message"]
    return f" The last answer: {said}."


def _ahead(model: Found, ledger: Found | None, sync: Any, offer: Offer) -> str:
    stage = Stage(ledger["state"]) if ledger else Stage.DETECTED
    known = bool(ledger and ledger["acknowledged_at"])
    step = next_step(stage, known, sync.mode, offer)
    if ledger and step in (Step.DECIDE, Step.LOOK_UP, Step.REPEAT):
        return _open(stage, step, sync)
    if model["status"] == "absent":
        if ledger is None:
            return "Not in the model and not in the ledger: it was there once; the next run sends nothing."
        if sync.mode is Mode.MIRROR:
            return "It left the model; the next run deletes it."
        return f"It left the model; the next run leaves it where it is, as mode {sync.mode} says."
    if ledger is None:
        return "Never acknowledged; the next run sends it."
    if stage is Stage.UNKNOWN:
        return f"It was sent, and its outcome is unknown; {SENTENCES[step]}."
    if stage is not Stage.ACKNOWLEDGED:
        return f"What was acknowledged does not count any more; {SENTENCES[step]}."
    sent = f"Sent, and acknowledged at {ledger['acknowledged_at']}"
    if ledger["spelled"]:
        sent += f"; the destination stores {', '.join(ledger['spelled'])} in its own spelling"
    if ledger["fields"] is None:
        return f"{sent}; values are not kept, so what the next run sends is not known."
    changed = [name for name, value in model["fields"].items() if value != ledger["fields"].get(name)]
    if changed and sync.mode is not Mode.INSERT:
        return f"{sent}; the model has changed since, and the next run sends {', '.join(changed)}."
    return f"{sent}; nothing has changed since, so the next run sends nothing."
