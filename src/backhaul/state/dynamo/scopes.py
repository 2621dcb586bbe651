"""Statements about what ledgers belong to: a project's syncs, their scopes, and the accounts that its connections lead to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul.state.dynamo.table import Item, Table, Write, change, delete, put

Values = Mapping[str, Any]


def scope_ids(table: Table, project: str) -> set[str]:
    """The ids of a project's scopes."""
    return {item["sk"] for item in table.query(f"scopes/{project}")}


def sync(table: Table, given: Values) -> list[Item]:
    found = table.get(f"syncs/{given['project']}", given["name"])
    return [found] if found else []


def syncs(table: Table, given: Values) -> list[Item]:
    return [Item(id=item["id"], name=item["sk"]) for item in table.query(f"syncs/{given['project']}")]


def keep_sync(table: Table, given: Values) -> list[Write]:
    return (
        []
        if sync(table, given)
        else [put(f"syncs/{given['project']}", given["name"], {"id": given["id"]}, new=True)]
    )


def drop_sync(table: Table, given: Values) -> list[Write]:
    return [delete(f"syncs/{given['project']}", given["name"])]


def rename_sync(table: Table, given: Values) -> list[Write]:
    pk, found = f"syncs/{given['project']}", table.get(f"syncs/{given['project']}", given["was"])
    return [put(pk, given["name"], {"id": found["id"]}, new=True), delete(pk, given["was"])] if found else []


def scopes(table: Table, given: Values) -> list[Item]:
    return sorted(table.query(f"scopes/{given['project']}"), key=lambda item: (item["made_at"], item["sk"]))


def keep_scope(table: Table, given: Values) -> list[Write]:
    pk, sk = f"scopes/{given['project']}", given["id"]
    if table.get(pk, sk):
        return [change(pk, sk, {"label": given["label"]})]
    return [put(pk, sk, given)]


def accounts(table: Table, given: Values) -> list[Item]:
    found = table.query(f"accounts/{given['project']}", f"{given['destination']}/")
    return sorted(found, key=lambda item: (item["at"], item["address"]))


def keep_account(table: Table, given: Values) -> list[Write]:
    return [
        put(
            f"accounts/{given['project']}",
            f"{given['destination']}/{given['address']}/{given['stated']}",
            given,
        )
    ]


READS = {"sync": sync, "syncs": syncs, "scopes": scopes, "accounts": accounts}
WRITES = {
    "keep_sync": keep_sync,
    "drop_sync": drop_sync,
    "rename_sync": rename_sync,
    "keep_scope": keep_scope,
    "keep_account": keep_account,
}
