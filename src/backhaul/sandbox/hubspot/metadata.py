"""The endpoints of properties and of custom object types."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from backhaul.sandbox.hubspot.account import custom
from backhaul.sandbox.hubspot.answers import Refusal, answer
from backhaul.sandbox.hubspot.call import Call
from backhaul.sandbox.hubspot.property import defined
from backhaul.sandbox.hubspot.store import ObjectType


def properties(call: Call) -> web.Response:
    return answer({"results": [item.json() for item in call.kind.properties.values()]})


def one_property(call: Call) -> web.Response:
    name = call.request.match_info["name"]
    if name not in call.kind.properties:
        raise Refusal("OBJECT_NOT_FOUND", f"No property with the name {name} exists for {call.kind.label}")
    return answer(call.kind.properties[name].json())


def add_property(call: Call) -> web.Response:
    added, kind = defined(call.body), call.kind
    if added.name in kind.properties:
        raise Refusal("OBJECT_ALREADY_EXISTS", f"A property named '{added.name}' already exists.")
    if (
        added.unique
        and sum(item.unique for item in kind.properties.values()) >= call.account.unique_properties
    ):
        raise Refusal(
            "VALIDATION_ERROR", f"{kind.label} has {call.account.unique_properties} unique properties already"
        )
    kind.properties[added.name] = added
    return answer(added.json(), 201)


def schemas(call: Call) -> web.Response:
    return answer({"results": [_schema(kind) for kind in call.account.types.values() if kind.custom]})


def one_schema(call: Call) -> web.Response:
    return answer(_schema(call.kind))


def add_schema(call: Call) -> web.Response:
    """Defines a custom object type."""
    body = call.body
    if (
        not body.get("name")
        or not isinstance(body.get("labels"), dict)
        or not isinstance(body.get("properties"), list)
    ):
        raise Refusal(
            "VALIDATION_ERROR",
            "Invalid input JSON on line 1, column 1. Some required fields were not set: [name, labels, properties]",
        )
    fields = [defined({"groupName": f"{body['name']}_information", **item}) for item in body["properties"]]
    number = 1001 + sum(kind.custom for kind in call.account.types.values())
    label, required = (
        str(body["labels"].get("singular", body["name"])),
        tuple(body.get("requiredProperties") or ()),
    )
    kind = custom(number, str(body["name"]), label, *fields, required=required)
    if call.account.type_named(kind.full_name) is not None:
        raise Refusal("OBJECT_ALREADY_EXISTS", f"An object type named '{body['name']}' already exists.")
    call.account.types[kind.name] = kind
    return answer(_schema(kind), 201)


def _schema(kind: ObjectType) -> dict[str, Any]:
    name = kind.full_name.split("_", 1)[1] if kind.custom else kind.label.upper()
    return {
        "id": kind.type_id.split("-")[1],
        "objectTypeId": kind.type_id,
        "name": name,
        "fullyQualifiedName": kind.full_name or name,
        "labels": {"singular": kind.label, "plural": f"{kind.label}s"},
        "primaryDisplayProperty": kind.shown[0] if kind.shown else None,
        "secondaryDisplayProperties": list(kind.shown[1:]),
        "requiredProperties": list(kind.required),
        "searchableProperties": list(kind.shown),
        "properties": [item.json() for item in kind.properties.values()],
        "associations": [],
        "archived": False,
        "createdAt": "2020-06-30T15:57:35.997Z",
        "updatedAt": "2020-06-30T15:57:35.997Z",
    }
