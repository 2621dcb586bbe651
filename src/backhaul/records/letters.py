"""Dead letters as people see them: with the payload that was sent, in groups, and chosen to be replayed or discarded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from backhaul.advice import advice, shape
from backhaul.destinations.kit import Wire
from backhaul.errors import UsageError
from backhaul.ledger.duplicates import key_is, key_json
from backhaul.ledger.plan import DELETE, MOVE, REFUSE, SEND, Plan, plan_from
from backhaul.mapping.mapping import Mapping as Mapped
from backhaul.mapping.wire import delete_fields, record_text
from backhaul.planning.explain import json_of, object_of, parsed
from backhaul.sql import literal
from backhaul.state.protocol import Row
from backhaul.workspace import Workspace

Letter = dict[str, Any]
ALL = 1 << 40
"""More letters than there are."""
_FEW = 50
"""Keys that are looked up rather than joined."""
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


def letters(workspace: Workspace, choice: Choice, *, limit: int = ALL, payloads: bool = True) -> list[Letter]:
    """`{id, sync, key, op, error: {code, message}, field, attempts, first_failed_at, last_failed_at, payload, replay, status,
    group, class, fix}` of each. `payload` is None where it is kept no more, or not asked for.

    Raises:
        UsageError: they are encrypted with a key that is not there.
    """
    names = _names(workspace, choice.syncs)
    rows = _chosen(workspace, choice, names, limit)
    found = [_letter(workspace, row, names[row["scope"]]) for row in rows]
    if payloads:
        _fill(workspace, [(one, row) for one, row in zip(found, rows, strict=True) if one["payload"] is None])
    return found


Names = Mapping[str, str]
"""The syncs of scopes, by the scopes' ids."""


def _names(workspace: Workspace, syncs: Sequence[str] | None) -> Names:
    """The scopes that these syncs work on now; None: all syncs, also those that are no more."""
    known = workspace.project.syncs
    scopes = [
        workspace.scope(config) for name, config in sorted(known.items()) if syncs is None or name in syncs
    ]
    if syncs is None:
        scopes += [scope for scope in workspace.scopes.all() if scope.name not in known]
    return {scope.id: scope.name for scope in scopes}


def _chosen(workspace: Workspace, choice: Choice, names: Names, limit: int = ALL) -> list[Row]:
    """The stored letters of these scopes that fit a choice; none is decrypted."""
    found: list[Row] = []
    for asked in _questions(workspace, choice, names):
        rows = workspace.state.do("chosen_letters", {**asked, "limit": limit - len(found)})
        found += [row for row in rows if row["scope"] in names]
    return found


def numbers(workspace: Workspace, choice: Choice) -> list[int]:
    """The ids of the letters that fit a choice; reads nothing else of them."""
    names = _names(workspace, choice.syncs)
    if choice.ids:
        return [row["id"] for row in _chosen(workspace, choice, names)]
    asked = _questions(workspace, choice, names)
    return [row["id"] for one in asked for row in workspace.state.do("letter_numbers", one)]


def _questions(workspace: Workspace, choice: Choice, names: Names) -> Iterator[dict[str, Any]]:
    """What the state is asked for: one statement takes one scope, one id and one group at most."""
    asked: dict[str, Any] = {
        "id": None, "code": choice.code, "field": choice.field, "shape": None, "closed": int(choice.closed),
    }  # fmt: skip
    if choice.group is not None:
        for row in _group_rows(workspace, choice, names):
            yield asked | {name: row[name] for name in ("scope", "code", "field", "shape")}
        return
    if choice.ids:
        yield from (asked | {"scope": None, "id": number} for number in choice.ids)
    else:
        yield from (asked | {"scope": scope} for scope in names)


def _group_rows(workspace: Workspace, choice: Choice, names: Names) -> list[Row]:
    """What is counted together in the state, newest failure first: one scope, code, field and shape of message."""
    return [
        row
        for row in workspace.state.do("letter_groups")
        if row["scope"] in names
        and choice.code in (None, row["code"])
        and choice.field in (None, row["field"])
        and choice.group in (None, _group_id(workspace, row, names[row["scope"]]))
    ]


def _letter(workspace: Workspace, row: Row, sync: str) -> Letter:
    message, payload = workspace.state.keeping.open(row)
    destination, declared = _destination(workspace, sync)
    todo = advice(row["code"], message, declared)
    return {
        "id": row["id"], "sync": sync, "key": orjson.loads(row["key"]), "op": row["op"],
        "error": {"code": row["code"], "message": message}, "field": row["field"], "attempts": row["attempts"],
        "first_failed_at": row["first_failed_at"], "last_failed_at": row["last_failed_at"],
        "payload": parsed(payload) if payload else None, "replay": row["status"] == "replay", "status": row["status"],
        "destination": destination, "group": _group_id(workspace, row, sync), "class": row["class"], "fix": todo,
        "runs": row["tries"],
    }  # fmt: skip


def _destination(workspace: Workspace, sync: str) -> tuple[str, Mapping[str, str]]:
    """A sync's destination and what its connector says of codes; `?` for a sync that was removed from the project."""
    config = workspace.project.syncs.get(sync)
    if config is None:
        return "?", {}
    return config.destination, workspace.destination_class(config.destination).spec.fixes


def _group_id(workspace: Workspace, row: Row, sync: str) -> str:
    destination = _destination(workspace, sync)[0]
    about = orjson.dumps((destination, row["code"], row["field"], row["shape"]))
    return hashlib.blake2b(about, digest_size=3).hexdigest()


def groups(workspace: Workspace, choice: Choice, limit: int | None = None) -> tuple[list[Letter], int]:
    """Refusals of one destination with one code, field and shape of message, the newest failure first; and how many groups
    there are. The state counts them; of each that is shown (`limit`) one letter is read.

    `{group, destination, syncs, code, field, message, class, fix, count, sample: {id, key}, first_failed_at,
    last_failed_at}`, where `message` is the shape.
    """
    made: dict[str, Letter] = {}
    if choice.closed:
        return [], 0  # nothing is left of their messages
    names = _names(workspace, choice.syncs)
    for row in _group_rows(workspace, choice, names):
        sync = names[row["scope"]]
        name, first = _group_id(workspace, row, sync), row["first_failed_at"]
        group = made.setdefault(name, {
            "group": name, "destination": _destination(workspace, sync)[0], "syncs": [], "code": row["code"],
            "field": row["field"], "count": 0, "sample": {"id": row["id"]}, "first_failed_at": first,
            "last_failed_at": row["last_failed_at"],
        })  # fmt: skip
        group["syncs"].append(sync)
        group["count"] += row["letters"]
        group["first_failed_at"] = min(group["first_failed_at"], first)
    shown = list(made.values())[:limit]
    samples = letters(workspace, Choice(ids=tuple(group["sample"]["id"] for group in shown))) if shown else []
    read = {letter["id"]: letter for letter in samples}
    return [_with_sample(group, read[group["sample"]["id"]]) for group in shown], len(made)


def _with_sample(group: Letter, letter: Letter) -> Letter:
    record = letter["payload"].values() if isinstance(letter["payload"], dict) else ()
    return group | {
        "message": shape(letter["error"]["message"], record), "class": letter["class"], "fix": letter["fix"],
        "sample": {"id": letter["id"], "key": letter["key"]},
    }  # fmt: skip


def mark(workspace: Workspace, ids: Sequence[int], status: str) -> None:
    """`replay`: the next run sends the newest value; `discarded`: not until the value changes. Also of closed letters.

    Raises:
        UsageError: there is no such dead letter; none was marked.
    """
    every = dict.fromkeys(("code", "field", "shape", "closed"))
    asked = [every | {"scope": scope} for scope in _names(workspace, None)]
    known = {row["id"] for one in asked for row in workspace.state.do("letter_numbers", one)}
    for one in ids:
        if one not in known:
            raise UsageError(f"there is no dead letter {one}", hint="see `backhaul dead-letters list`")
    workspace.state.do_all(ACTS[status], [(one,) for one in ids])


def _fill(workspace: Workspace, wanted: list[tuple[Letter, Row]]) -> None:
    """Payloads that are kept by reference, from the plans that the letters were refused in."""
    plans: dict[tuple[str, str], list[tuple[Letter, Row]]] = {}
    for letter, row in wanted:
        if row["status"] in ("dead", "replay", "waiting"):
            plans.setdefault((letter["sync"], row["plan"]), []).append((letter, row))
    if not plans:
        return
    headers = {
        row["id"]: row["header"]
        for scope in {row["scope"] for _, row in wanted}
        for row in workspace.state.do("plans_of", {"scope": scope})
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
    # of a few the engine reads only where they can be
    matching = key_is(mapping, keys) if len(keys) <= _FEW else "key IN (SELECT key FROM letters_now)"
    try:
        rows = engine.execute(
            f"SELECT {key_json(mapping)} AS key, CASE _segment WHEN {DELETE} THEN {gone} WHEN {REFUSE} THEN {kept} "
            f"ELSE {sent} END FROM read_parquet({literal(str(plan.path))}) "
            f"WHERE _segment IN ({DELETE}, {MOVE}, {SEND}, {REFUSE}) AND {matching}"
        ).fetchall()
    except duckdb.Error:
        return {}
    finally:
        engine.unregister("letters_now")
    return {key: text.removesuffix(",") for key, text in rows}
