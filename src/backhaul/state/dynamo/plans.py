"""Statements about plans and the history: a short entry in the list of all, and the whole beside the plan's journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backhaul.state.dynamo.scopes import scope_ids
from backhaul.state.dynamo.table import Item, Table, Write, change, delete, put

Values = Mapping[str, Any]


def _listed(table: Table, kind: str, scope: str) -> Iterable[Item]:
    return table.query(kind, f"{scope}/")


def _whole(table: Table, kind: str, listed: Iterable[Item]) -> list[Item]:
    """What stands beside the journal, of the listed."""
    keys = [(f"plan/{entry['id']}", kind) for entry in listed]
    found = table.all_of(keys)
    return [found[key] for key in keys if key in found]


def add_plan(table: Table, given: Values) -> list[Write]:
    plan_id, scope = given["id"], given["scope"]
    short = {name: given[name] for name in ("id", "scope", "file", "status", "created_at")}
    return [
        put(f"plan/{plan_id}", "plan", given),
        put("plans", f"{scope}/{plan_id}", {**short, "n": table.number("plans")}),
    ]


def plan(table: Table, given: Values) -> list[Item]:
    found = table.get(f"plan/{given['id']}", "plan")
    return [found] if found else []


def plans_with_status(table: Table, given: Values) -> list[Item]:
    entries = [
        entry for entry in _listed(table, "plans", given["scope"]) if entry["status"] == given["status"]
    ]
    return _whole(table, "plan", sorted(entries, key=lambda entry: entry["n"]))


def set_plan_status(table: Table, given: Values) -> list[Write]:
    found = table.get(f"plan/{given['id']}", "plan")
    if found is None:
        return []
    status, there = {"status": given["status"]}, "attribute_exists(pk)"
    return [
        change(f"plan/{given['id']}", "plan", status, condition=there),
        change("plans", f"{found['scope']}/{given['id']}", status, condition=there),
    ]


def drop_plan(table: Table, given: Values) -> list[Write]:
    found = table.get(f"plan/{given['id']}", "plan")
    if found is None:
        return []
    return [delete("plans", f"{found['scope']}/{given['id']}"), delete(f"plan/{given['id']}", "plan")]


def keep_history(table: Table, given: Values) -> list[Write]:
    plan_id = given["id"]
    found = table.get(f"plan/{plan_id}", "plan")
    if found is None or table.get(f"plan/{plan_id}", "history"):
        return []
    scope = found["scope"]
    entry = {"id": plan_id, "scope": scope, "created_at": found["created_at"], "settled_at": given["at"]}
    return [
        put(f"plan/{plan_id}", "history", {**entry, "header": found["header"]}),
        put("history", f"{scope}/{plan_id}", entry),
    ]


def drop_history(table: Table, given: Values) -> list[Write]:
    found = table.get(f"plan/{given['id']}", "history")
    if found is None:
        return []
    return [delete("history", f"{found['scope']}/{given['id']}"), delete(f"plan/{given['id']}", "history")]


def history(table: Table, given: Values) -> list[Item]:
    ours = scope_ids(table, given["project"])
    entries = [
        Item(plan=entry["id"], settled_at=entry["settled_at"])
        for entry in table.query("history")
        if entry["scope"] in ours
    ]
    return sorted(entries, key=lambda entry: (entry["settled_at"], entry["plan"]))


def plans_of(table: Table, given: Values) -> list[Item]:
    live = _whole(table, "plan", _listed(table, "plans", given["scope"]))
    past = _whole(table, "history", _listed(table, "history", given["scope"]))
    both = [*live, *(Item({**entry, "status": "delivered"}) for entry in past)]
    return sorted(both, key=lambda entry: (entry["created_at"], entry["id"]))


def old_plans(table: Table, given: Values) -> list[Item]:
    ours = scope_ids(table, given["project"])
    return [
        entry
        for entry in table.query("plans")
        if entry["status"] in ("reviewed", "held")
        and entry["created_at"] < given["before"]
        and entry["scope"] in ours
    ]


READS = {
    "plan": plan,
    "plans_with_status": plans_with_status,
    "history": history,
    "plans_of": plans_of,
    "old_plans": old_plans,
}
WRITES = {
    "add_plan": add_plan,
    "set_plan_status": set_plan_status,
    "drop_plan": drop_plan,
    "keep_history": keep_history,
    "drop_history": drop_history,
}
