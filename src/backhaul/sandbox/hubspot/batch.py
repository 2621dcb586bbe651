"""The batch endpoints: upsert, update, create, archive, read.

A property that does not exist or cannot be written refuses the whole request; a value that is not valid refuses its
input, beside the results of the others: 207 in v3, a plain 200 or 201 in dated versions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from backhaul.sandbox.hubspot.answers import Refusal, answer, input_error, stamp
from backhaul.sandbox.hubspot.call import Call
from backhaul.sandbox.hubspot.store import Record
from backhaul.sandbox.kit import RECORDS

Input = Mapping[str, Any]
Write = tuple[Record, dict[str, Any]]
"""A record that was written, and what its result says besides."""


def upsert(call: Call) -> web.Response:
    inputs = _inputs(call, "id")
    name = _id_property(call, inputs, "upsert")
    if name is None:
        raise Refusal("VALIDATION_ERROR", "Some required fields were not set: [idProperty]")

    def act(item: Input, properties: dict[str, str]) -> Write:
        found = call.kind.find(name, str(item["id"]))
        if found is None:
            return created(call, {name: str(item["id"]), **properties}), {"new": True}
        call.kind.update(found, properties)
        return found, {"new": False}

    return _write(call, inputs, act, 200)


def update(call: Call) -> web.Response:
    inputs = _inputs(call, "id")
    name = _id_property(call, inputs, "update")
    if name is None:
        # an e-mail as the id of a batch/update without idProperty: no error, and nothing changes
        # (HubSpot/hubspot-api-nodejs#548)
        inputs = [item for item in inputs if str(item["id"]).isdigit()]

    def act(item: Input, properties: dict[str, str]) -> Write:
        found = call.kind.find(name, str(item["id"]))
        if found is None:
            raise Refusal(
                "OBJECT_NOT_FOUND",
                f"Could not get {call.kind.label} {item['id']}: it may be deleted or not exist",
            )
        call.kind.update(found, properties)
        return found, {}

    return _write(call, inputs, act, 200)


def create(call: Call) -> web.Response:
    """What exists already refuses the whole request, which names the first of them only."""
    inputs = _inputs(call, "properties")
    for item in call.kind.identifying():
        values = [str((entry["properties"] or {}).get(item.name) or "") for entry in inputs]
        _no_twins([item.fold(value) for value in values if value])
        for value in values:
            found = call.kind.find(item.name, value) if value else None
            if found is not None:
                raise Refusal("CONFLICT", f"{call.kind.label} already exists. Existing ID: {found.id}")
    return _write(call, inputs, lambda _, properties: (created(call, properties), {}), 201)


def archive(call: Call) -> web.Response:
    """204 whatever was there."""
    for item in _inputs(call, "id"):
        found = call.kind.find(None, str(item["id"]))
        if found is not None:
            call.kind.remove(found)
    return web.Response(status=204)


def read(call: Call) -> web.Response:
    inputs, name = _inputs(call, "id", twins=True), call.body.get("idProperty")
    if name is not None and name not in {item.name for item in call.kind.identifying()}:
        raise Refusal(
            "VALIDATION_ERROR", f"Unable to perform read by non-unique {call.kind.type_id} property {name}"
        )
    found: dict[str, Record] = {}
    missing: list[str] = []
    for item in inputs:
        record = call.kind.find(name, str(item["id"]))
        if record is None:
            missing.append(str(item["id"]))
        else:
            found[record.id] = record
    results = [
        record.json(call.shown(record, call.body.get("properties"), name)) for record in found.values()
    ]
    said = f"Could not get some {call.kind.label.upper()} objects, they may be deleted or not exist. Check that ids are valid."
    lost = Refusal("OBJECT_NOT_FOUND", said, context={"ids": missing})
    if missing and not results and call.account.nothing_found == 404:
        raise lost
    return _batch(call, results, [input_error(lost, {})] if missing else [], 200)


def _inputs(call: Call, needed: str, *, twins: bool = False) -> list[Input]:
    """The inputs of a batch. Raises: Refusal where the batch as such is wrong."""
    inputs = call.body.get("inputs")
    if not isinstance(inputs, list) or not all(
        isinstance(item, dict) and item.get(needed) is not None for item in inputs
    ):
        raise Refusal(
            "VALIDATION_ERROR",
            f"Invalid input JSON on line 1, column 1. Some required fields were not set: [inputs, {needed}]",
        )
    call.request[RECORDS] = len(inputs)
    if not 0 < len(inputs) <= call.account.batch_size:
        raise Refusal(
            "VALIDATION_ERROR", f"The batch has {len(inputs)} inputs; it takes 1 to {call.account.batch_size}"
        )
    if not twins:
        _no_twins([str(item["id"]).strip().lower() for item in inputs if "id" in item])
    poison = call.account.faults.poison_key
    if poison and not twins and any(poison in _keys(call, item) for item in inputs):
        raise Refusal("VALIDATION_ERROR", "Property values were not valid")
    return inputs


def _no_twins(ids: Sequence[str]) -> None:
    twice = [item for item, times in Counter(ids).items() if times > 1]
    if twice:
        said = f"Duplicate IDs found in batch input: [{', '.join(twice)}]. IDs must be unique"
        raise Refusal("VALIDATION_ERROR", said, context={"ids": twice})


def _id_property(call: Call, inputs: Sequence[Input], what: str) -> str | None:
    """The property that a batch's ids are values of; None: they are record ids.

    batch/update takes no e-mail here (HubSpot/hubspot-api-nodejs#548), and nothing takes hs_object_id
    (segmentio/action-destinations#3957).
    """
    names = {item.get("idProperty") for item in inputs}
    if len(names) > 1:
        raise Refusal("VALIDATION_ERROR", "All inputs of a batch have to use one idProperty")
    (name,) = names
    unique = {item.name for item in call.kind.identifying()}
    if what == "update" and not call.account.updates_by_email:
        unique -= {"email"} if call.kind.is_email("email") else set()
    if name is not None and name not in unique:
        raise Refusal(
            "VALIDATION_ERROR", f"Unable to perform {what} by non-unique {call.kind.type_id} property {name}"
        )
    return name


def created(call: Call, properties: dict[str, str]) -> Record:
    """A new record. Raises: Refusal, also where a required property is not set."""
    kind = call.kind
    missing = (
        [name for name in kind.required if not properties.get(name)] if call.dated or kind.custom else []
    )
    if missing:
        raise Refusal(
            "VALIDATION_ERROR",
            f"Error creating {kind.label}. Some required properties were not set: [{', '.join(missing)}]",
        )
    return kind.create(properties)


def _write(
    call: Call, inputs: Sequence[Input], act: Callable[[Input, dict[str, str]], Write], status: int
) -> web.Response:
    every = [call.texts(item.get("properties") or {}) for item in inputs]
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for item, properties in zip(inputs, every, strict=True):
        try:
            if call.account.refuses(*_keys(call, item)):
                raise Refusal("VALIDATION_ERROR", "Refused by a switch of the sandbox")
            record, more = act(item, properties)
        except Refusal as refusal:
            errors.append(input_error(refusal, item))
            continue
        trace = item.get("objectWriteTraceId")
        untraced = trace is None or (not call.account.traces_merged and _is_merged(call, item, record))
        more |= {} if untraced else {"objectWriteTraceId": str(trace)}
        results.append(record.json(call.written(record, properties)) | more)
    return _batch(call, results, errors, status)


def _is_merged(call: Call, item: Input, record: Record) -> bool:
    """Whether an input names a record that was merged into the one that was written."""
    return item.get("idProperty") is None and str(item.get("id", record.id)) != record.id


def _keys(call: Call, item: Input) -> list[str]:
    """What an input's record goes by, for the switches: its identifying values, then its id."""
    properties = item.get("properties") or {}
    values = [str(properties[known.name]) for known in call.kind.identifying() if properties.get(known.name)]
    return [*values, *([str(item["id"])] if "id" in item else [])]


def _batch(
    call: Call, results: list[dict[str, Any]], errors: list[dict[str, Any]], status: int
) -> web.Response:
    body: dict[str, Any] = {
        "status": "COMPLETE",
        "results": results,
        "startedAt": stamp(),
        "completedAt": stamp(),
    }
    if call.account.writes(call.request) or call.account.faults.reads:
        body["results"] = call.account.spoil(results)
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
        status = status if call.dated else 207
    return answer(body, status)
