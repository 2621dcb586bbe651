"""Statements about single facts: what a scope's object and model look like, which records were forgotten, the state's salt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backhaul.state.dynamo.table import Item, Table, Write, delete, put

Values = Mapping[str, Any]


def one(kind: str, name: str) -> Callable[[Table, Values], list[Item]]:
    """Reads the one item of a kind that the given value names."""

    def read(table: Table, given: Values) -> list[Item]:
        found = table.get(kind, given[name])
        return [found] if found else []

    return read


def keep(kind: str, name: str) -> Callable[[Table, Values], list[Write]]:
    """Stores the item of a kind that the given value names."""
    return lambda table, given: [put(kind, given[name], given)]


def keep_first(kind: str, name: str) -> Callable[[Table, Values], list[Write]]:
    """Stores the item unless there is one."""

    def write(table: Table, given: Values) -> list[Write]:
        return [] if table.get(kind, given[name]) else [put(kind, given[name], given, new=True)]

    return write


def salt(table: Table, given: Values) -> list[Item]:
    return list(table.query("salt"))


def keep_salt(table: Table, given: Values) -> list[Write]:
    return [] if salt(table, {}) else [put("salt", "salt", given, new=True)]


def forget_ledger(table: Table, given: Values) -> list[Write]:
    return [delete("ledgers", given["scope"])]


def model_schemas(table: Table, given: Values) -> list[Item]:
    return list(table.query(f"model_schemas/{given['scope']}"))


def keep_model_schema(table: Table, given: Values) -> list[Write]:
    pk, sk = f"model_schemas/{given['scope']}", f"{given['version']:09d}"
    return [] if table.get(pk, sk) else [put(pk, sk, given, new=True)]


def forgotten(table: Table, given: Values) -> list[Item]:
    found = table.query(f"forgotten/{given['place']}")
    return sorted(found, key=lambda item: (item["at"], item["hash"], item["sync"]))


def keep_forgotten(table: Table, given: Values) -> list[Write]:
    pk, sk = f"forgotten/{given['place']}", f"{given['sync']}/{given['hash']}"
    earlier = table.get(pk, sk)
    return [put(pk, sk, {**given, "salt": earlier["salt"] if earlier else given["salt"]})]


def lift_forgotten(table: Table, given: Values) -> list[Write]:
    found = table.query(f"forgotten/{given['place']}", f"{given['sync']}/")
    return [delete(item["pk"], item["sk"]) for item in found if item["record"] == given["record"]]


READS = {
    "salt": salt,
    "bucket": one("bucket", "bucket"),
    "boot": one("boot", "boot"),
    "schema": one("schema", "scope"),
    "ledger": one("ledgers", "scope"),
    "model_schemas": model_schemas,
    "forgotten": forgotten,
}
WRITES = {
    "keep_salt": keep_salt,
    "keep_bucket": keep("bucket", "bucket"),
    "keep_boot": keep_first("boot", "boot"),
    "keep_schema": keep("schema", "scope"),
    "keep_ledger": keep_first("ledgers", "scope"),
    "forget_ledger": forget_ledger,
    "keep_model_schema": keep_model_schema,
    "keep_forgotten": keep_forgotten,
    "lift_forgotten": lift_forgotten,
}
