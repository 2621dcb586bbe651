"""The endpoints of a simulated Marketo: custom objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul.sandbox.marketo.call import ACTIONS, MOST, Call, described, each, fields_known
from backhaul.sandbox.marketo.store import CustomObject, Values, Whole


def _kind(call: Call) -> CustomObject:
    """Raises: Whole."""
    name = call.request.match_info["object"]
    if name not in call.sandbox.instance.objects:
        raise Whole("1013", f"Object '{name}' not found")
    return call.sandbox.instance.objects[name]


def custom_objects(call: Call) -> dict[str, Any]:
    return {"result": [_type(kind) for kind in call.sandbox.instance.objects.values()]}


def _type(kind: CustomObject) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    return {
        "name": kind.name, "apiName": kind.name, "displayName": kind.name, "pluralName": f"{kind.name}s",
        "description": "", "createdAt": at, "updatedAt": at, "status": "approved", "version": "approved",
        "idField": "marketoGUID", "dedupeFields": list(kind.dedupe), "relationships": [],
        "searchableFields": [list(kind.dedupe), ["marketoGUID"]],
    }  # fmt: skip


def describe_custom(call: Call) -> dict[str, Any]:
    kind = _kind(call)
    fields = [
        {
            "name": item.name,
            **described(item),
            "updateable": not item.read_only and item.name not in kind.dedupe,
        }
        for item in kind.room.attributes.values()
    ]
    return {"result": [{**_type(kind), "fields": fields}]}


def sync_custom(call: Call) -> dict[str, Any]:
    kind, action = _kind(call), call.body.get("action", ACTIONS[0])
    items = call.inputs()
    if action not in ACTIONS or call.body.get("dedupeBy", "dedupeFields") != "dedupeFields":
        raise Whole("1003", "Invalid action, or one that the simulation does not have")
    fields_known(kind.room, items)

    def act(item: Values) -> Mapping[str, Any]:
        call.refused(*kind.key(item))
        guid, status = call.sandbox.instance.sync_custom(kind, action, item)
        return {"status": status, "marketoGUID": guid}

    return each(call, items, act, numbered=True, unique=kind.dedupe)


def delete_custom(call: Call) -> dict[str, Any]:
    kind, items = _kind(call), call.inputs()
    if call.body.get("deleteBy", "dedupeFields") != "dedupeFields":
        raise Whole("1003", "The simulation deletes by dedupeFields alone")

    def act(item: Values) -> Mapping[str, Any]:
        call.refused(*kind.key(item))
        return {"status": "deleted", "marketoGUID": call.sandbox.instance.drop_custom(kind, item)}

    return each(call, items, act, numbered=True)


def find_custom(call: Call) -> dict[str, Any]:
    """By one field as a form, by several together as JSON."""
    kind = _kind(call)
    compound = call.body.get("input")
    if compound is not None:
        wanted = [[item.get(name) for name in kind.dedupe] for item in compound]
        names = list(call.body.get("fields") or kind.dedupe)
    elif (call.one("filterType"),) in (kind.dedupe, ("dedupeFields",)) and len(kind.dedupe) == 1:
        wanted = [[value] for value in call.asked("filterValues")]
        names = call.asked("fields") or list(kind.dedupe)
    else:
        raise Whole("1003", f"Invalid filterType '{call.one('filterType')}'")
    if len(wanted) > MOST:
        raise Whole("1003", f"Too many values: at most {MOST}")
    for name in names:
        if name not in kind.room.attributes:
            raise Whole("1006", f"Field '{name}' not found")
    found = [record for values in wanted for record in kind.room.shown(kind.dedupe, values)]
    shown = ("marketoGUID", *names)
    return {
        "result": [{"seq": n, **{name: item.get(name) for name in shown}} for n, item in enumerate(found)]
    }
