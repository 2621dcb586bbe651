"""The endpoints of a simulated Marketo: leads, static lists, usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backhaul.sandbox.marketo.call import ACTIONS, MOST, Call, described, each, fields_known, names_of, page
from backhaul.sandbox.marketo.store import Skipped, Values, Whole


def sync_leads(call: Call) -> dict[str, Any]:
    action, lookup = call.body.get("action", ACTIONS[0]), call.body.get("lookupField", "email")
    instance = call.sandbox.instance
    if action not in ACTIONS:
        raise Whole("1003", f"Invalid value '{action}' for action")
    if not instance.leads.indexed(lookup):
        raise Whole("1011", f"Field '{lookup}' not supported")
    items = call.inputs()
    fields_known(instance.leads, items)

    def act(item: Values) -> Mapping[str, Any]:
        known = instance.leads.records.get(str(item.get("id")), {})
        call.refused(item.get(lookup), item.get("customerId"), known.get("customerId"))
        own, status = instance.sync_lead(action, lookup, item)
        return {"id": int(own), "status": status}

    return each(call, items, act, unique=(lookup,))


def delete_leads(call: Call) -> dict[str, Any]:
    items = call.inputs() if call.body else [{"id": own} for own in call.asked("id")]
    leads = call.sandbox.instance.leads.records
    call.counted([leads.get(str(item.get("id")), item) for item in items])

    def act(item: Values) -> Mapping[str, Any]:
        call.refused(leads.get(str(item.get("id")), {}).get("customerId"))
        call.sandbox.instance.drop_lead(str(item.get("id")))
        return {"id": int(item["id"]), "status": "deleted"}

    return each(call, items, act)


def find_leads(call: Call) -> dict[str, Any]:
    by, values = call.one("filterType"), call.asked("filterValues")
    leads = call.sandbox.instance.leads
    if not by or not values:
        raise Whole("1002", "filterType and filterValues are required")
    if not leads.indexed(by):
        raise Whole("1011", f"Field '{by}' not supported")
    if len(values) > MOST:
        raise Whole("1003", f"Too many values: at most {MOST}")
    found = {lead["id"]: lead for value in values for lead in leads.shown((by,), [value])}
    if len(found) > 1000:
        raise Whole("1003", "Too many results match the filter")
    return page(call, list(found.values()), names_of(call, leads))


def lead(call: Call) -> dict[str, Any]:
    leads = call.sandbox.instance.leads
    own = call.request.match_info["id"]
    found = leads.lag.shown(own, leads.records.get(own))
    if found is None:
        raise Whole("1004", "Lead not found")
    return page(call, [found], names_of(call, leads))


def describe(call: Call) -> dict[str, Any]:
    listed = []
    for number, item in enumerate(call.sandbox.instance.leads.attributes.values(), 1):
        rest = {"name": item.name, "readOnly": item.read_only}
        listed.append({"id": number, **described(item), "rest": rest})
    return {"result": listed}


def describe2(call: Call) -> dict[str, Any]:
    attributes = call.sandbox.instance.leads.attributes.values()
    fields = [
        {"name": item.name, **described(item), "updateable": not item.read_only, "crmManaged": False}
        for item in attributes
    ]
    searchable = [[item.name] for item in attributes if item.searchable]
    return {"result": [{"name": "API Lead", "searchableFields": searchable, "fields": fields}]}


def _list(call: Call) -> set[str]:
    """The members. Raises: Whole."""
    own = call.request.match_info["list"]
    if own not in call.sandbox.instance.lists:
        raise Whole("1013", f"List {own} not found")
    return call.sandbox.instance.lists[own][1]


def static_list(call: Call) -> dict[str, Any]:
    _list(call)
    own = call.request.match_info["list"]
    at = "2026-01-01T00:00:00Z"
    name = call.sandbox.instance.lists[own][0]
    return {"result": [{"id": int(own), "name": name, "createdAt": at, "updatedAt": at}]}


def members(call: Call) -> dict[str, Any]:
    leads = call.sandbox.instance.leads
    held = [leads.records[own] for own in sorted(_list(call))]
    return page(call, held, names_of(call, leads))


def _of_list(call: Call, act: Callable[[set[str], str], str]) -> dict[str, Any]:
    """What becomes of each lead that was named. Raises: Whole."""
    held, leads = _list(call), call.sandbox.instance.leads.records
    items = call.body.get("input") or [{"id": int(own)} for own in call.asked("id")]
    call.counted([leads.get(str(item.get("id")), item) for item in items])

    def one(item: Values) -> Mapping[str, Any]:
        own = str(item["id"])
        if own not in leads:
            raise Skipped("1004", "Lead not found")
        call.refused(leads[own].get("customerId"))
        return {"id": int(own), "status": act(held, own)}

    return each(call, items, one)


def add(call: Call) -> dict[str, Any]:
    def act(held: set[str], own: str) -> str:
        held.add(own)
        return "added"

    return _of_list(call, act)


def remove(call: Call) -> dict[str, Any]:
    def act(held: set[str], own: str) -> str:
        if own not in held:
            raise Skipped("1015", "Lead not in list")
        held.discard(own)
        return "removed"

    return _of_list(call, act)


def is_member(call: Call) -> dict[str, Any]:
    return _of_list(call, lambda held, own: "memberof" if own in held else "notmemberof")


def usage(call: Call) -> dict[str, Any]:
    used = call.sandbox.daily.count - call.sandbox.daily.remaining
    return {
        "result": [
            {"date": "2026-01-01", "total": used, "users": [{"userId": "api@example.com", "count": used}]}
        ]
    }
