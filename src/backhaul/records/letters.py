"""Dead letters as people see them: with the payload that was sent, in groups, and chosen to be replayed or discarded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from backhaul.advice import advice, shape
from backhaul.destinations.kit import Wire
from backhaul.errors import UsageError
from backhaul.ledger.diff import DELETE, MOVE, REFUSE, SEND
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.plan import Plan, plan_from
from backhaul.mapping.mapping import Mapping as Mapped
from backhaul.mapping.wire import delete_fields, record_text
from backhaul.planning.explain import json_of, object_of, parsed
from backhaul.sql import literal
from backhaul.state.protocol import Row
from backhaul.workspace import Workspace

Letter = dict[str, Any]
ACTS = {"replay": "replay_letters", "discarded": "discard_letters"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters: those that fit everything given. `closed`: those that were discarded or have expired."""

    syncs: Sequence[str] | None = None
    code: str | None = None
    field: str | None = None
    group: str | None = None
    ids: Sequence[int] = ()
    closed: bool = False


def letters(workspace: Workspace, choice: Choice) -> list[Letter]:
    """`{id, sync, key, op, error: {code, message}, field, attempts, first_failed_at, last_failed_at, payload, replay, status,
    group, class, fix}` of each. `payload` is None where it is kept no more.

    Raises:
        UsageError: they are encrypted with a key that is not there.
    """
    rows = chosen(workspace, choice)
    told = [_told(workspace, row) for row in rows]
    _fill(workspace, [(one, row) for one, row in zip(told, rows, strict=True) if one["payload"] is None])
    for one in told:
        shape = _shape(one["error"]["message"], one["payload"])
        one["group"] = _group_id(one["destination"], one["error"]["code"], one["field"], shape)
    return [one for one in told if choice.group in (None, one["group"])]


def chosen(workspace: Workspace, choice: Choice) -> list[Row]:
    """The stored letters that fit all of a choice but its group; none is decrypted."""
    name = "closed_letters" if choice.closed else "dead_letters"
    alone = choice.ids[0] if len(choice.ids) == 1 else None
    return [
        row
        for row in workspace.state.do(name, {"sync": None, "id": alone})
        if (choice.syncs is None or row["sync"] in choice.syncs)
        and (choice.code is None or row["code"] == choice.code)
        and (choice.field is None or row["field"] == choice.field)
        and (not choice.ids or row["id"] in choice.ids)
    ]


def _told(workspace: Workspace, row: Row) -> Letter:
    message, payload = workspace.state.keeping.open(row)
    destination, declared = _destination(workspace, row["sync"])
    todo = advice(row["code"], message, declared)
    return {
        "id": row["id"], "sync": row["sync"], "key": orjson.loads(row["key"]), "op": row["op"],
        "error": {"code": row["code"], "message": message}, "field": row["field"], "attempts": row["attempts"],
        "first_failed_at": row["first_failed_at"], "last_failed_at": row["last_failed_at"],
        "payload": parsed(payload) if payload else None, "replay": row["status"] == "replay", "status": row["status"],
        "destination": destination, "class": row["class"], "fix": todo, "runs": row["tries"],
    }  # fmt: skip


def _destination(workspace: Workspace, sync: str) -> tuple[str, Mapping[str, str]]:
    """A sync's destination and what its connector says of codes; of a sync that is no more nobody knows."""
    config = workspace.project.syncs.get(sync)
    if config is None:
        return "?", {}
    return config.destination, workspace.destination_class(config.destination).spec.fixes


def _shape(message: str, record: Any) -> str:
    return shape(message, record.values() if isinstance(record, dict) else ())


def _group_id(*said: str | None) -> str:
    return hashlib.blake2b(orjson.dumps(said), digest_size=3).hexdigest()


def groups(found: Iterable[Letter]) -> list[Letter]:
    """What one destination said with one code about one field in one shape of words, the newest failure first.

    `{group, destination, syncs, code, field, message, class, fix, count, ids, sample: {id, key}, first_failed_at,
    last_failed_at}`, where `message` is the shape.
    """
    made: dict[str, Letter] = {}
    for letter in found:
        group = made.get(letter["group"])
        if group is None:
            group = made[letter["group"]] = _group(letter)
        group["count"] += 1
        group["ids"].append(letter["id"])
        if letter["sync"] not in group["syncs"]:
            group["syncs"].append(letter["sync"])
        group["first_failed_at"] = min(group["first_failed_at"], letter["first_failed_at"])
        group["last_failed_at"] = max(group["last_failed_at"], letter["last_failed_at"])
    return sorted(made.values(), key=lambda group: group["last_failed_at"], reverse=True)


def _group(letter: Letter) -> Letter:
    return {
        **{name: letter[name] for name in ("group", "destination", "field", "class", "fix", "first_failed_at", "last_failed_at")},
        "syncs": [], "code": letter["error"]["code"], "count": 0, "ids": [],
        "message": _shape(letter["error"]["message"], letter["payload"]), "sample": {"id": letter["id"], "key": letter["key"]},
    }  # fmt: skip


def mark(workspace: Workspace, ids: Sequence[int], status: str) -> None:
    """`replay`: the next run sends the newest value; `discarded`: not until the value changes. Also of closed letters.

    Raises:
        UsageError: there is no such dead letter; none was marked.
    """
    known = {row["id"] for closed in (False, True) for row in chosen(workspace, Choice(closed=closed))}
    for one in ids:
        if one not in known:
            raise UsageError(f"there is no dead letter {one}", hint="see `backhaul dead-letters list`")
    workspace.state.do_all(ACTS[status], [(one,) for one in ids])


def _fill(workspace: Workspace, wanted: list[tuple[Letter, Row]]) -> None:
    """Payloads that are kept by reference, from the plans that the letters were refused in."""
    plans: dict[tuple[str, str], list[tuple[Letter, Row]]] = {}
    for letter, row in wanted:
        if row["status"] in ("dead", "replay", "waiting"):
            plans.setdefault((row["sync"], row["plan"]), []).append((letter, row))
    if not plans:
        return
    headers = {
        row["id"]: row["header"]
        for sync in {sync for sync, _ in plans}
        for row in workspace.state.do("plans_of", {"sync": sync})
    }
    with workspace.engine() as engine:
        for (sync, plan_id), some in plans.items():
            path = workspace.plan_path(plan_id)
            if plan_id in headers and workspace.state.fetch_file(plan_id, path):
                plan = plan_from(headers[plan_id], path)
                found = _payloads(engine, plan, _wire(workspace, sync), [row["key"] for _, row in some])
                for letter, row in some:
                    letter["payload"] = parsed(found[row["key"]]) if row["key"] in found else None


def _wire(workspace: Workspace, sync: str) -> Wire:
    """How records are written for a sync's destination; what a CSV line holds is shown as texts by name."""
    config = workspace.project.syncs.get(sync)
    wire = Wire.JSON if config is None else workspace.destination_class(config.destination).spec.wire
    return Wire.TEXT if wire is Wire.CSV else wire


def _payloads(
    engine: duckdb.DuckDBPyConnection, plan: Plan, wire: Wire, keys: Sequence[str]
) -> dict[str, str]:
    """What a plan sent of these records (keys as JSON), or would have sent, as JSON; without those it does not hold. None at
    all where its file cannot be read."""
    mapping = Mapped.from_shape(plan.shape)
    sent = record_text(wire.value, mapping.fields)
    gone = record_text(wire.value, delete_fields(mapping))
    kept = object_of({field.name: json_of(field, "f.") for field in mapping.fields})
    engine.register("letters_now", pa.table({"key": pa.array(keys, pa.string())}))
    try:
        rows = engine.execute(
            f"SELECT {key_json(mapping)} AS key, CASE _segment WHEN {DELETE} THEN {gone} WHEN {REFUSE} THEN {kept} "
            f"ELSE {sent} END FROM read_parquet({literal(str(plan.path))}) "
            f"WHERE _segment IN ({DELETE}, {MOVE}, {SEND}, {REFUSE}) AND key IN (SELECT key FROM letters_now)"
        ).fetchall()
    except duckdb.Error:
        return {}
    finally:
        engine.unregister("letters_now")
    return {key: text.removesuffix(",") for key, text in rows}
