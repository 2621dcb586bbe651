"""A simulated Braze's catalogs, after Braze's pages on the asynchronous endpoints of their items: one wrong item refuses the
request. Real Braze applies them later; this one at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backhaul.sandbox.braze.store import is_moment

if TYPE_CHECKING:
    from backhaul.sandbox.braze.api import BrazeSandbox

Item = Mapping[str, Any]
_MOST, _LONGEST_ID, _LONGEST = 50, 250, 5_000
_ID = re.compile(r"[A-Za-z0-9_-]+")
_FITS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "time": is_moment,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}


@dataclass
class Catalog:
    """One catalog: names and types of its fields, and its items by id."""

    name: str
    fields: dict[str, str]
    items: dict[str, Item] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        fields = [{"name": name, "type": kind} for name, kind in self.fields.items()]
        return {"name": self.name, "description": "", "num_items": len(self.items), "fields": fields}


class Wrong(Exception):
    """The request is refused because of an item, a field, or its size."""

    def __init__(self, code: str, message: str, values: list[Any], status: int = 400) -> None:
        super().__init__(message)
        self.code, self.values, self.status = code, values, status

    def error(self) -> dict[str, Any]:
        return {"id": self.code, "message": str(self), "parameters": ["id"], "parameter_values": self.values}


def take(sandbox: BrazeSandbox, name: str, method: str, body: Mapping[str, Any]) -> None:
    """All items, or none. Raises: Wrong."""
    catalog = sandbox.catalogs.get(name)
    if catalog is None:
        raise Wrong("catalog-not-found", "Could not find catalog", [name], 404)
    items = body.get("items")
    if not isinstance(items, list) or not items:
        raise Wrong("invalid-items", "Items must be a list", [])
    if len(items) > _MOST:
        raise Wrong("request-includes-too-many-items", "You can only send 50 items per request", [])
    for item in items:
        _check(sandbox, catalog, item, whole=method == "PUT")
    ids = [item["id"] for item in items]
    if len(set(ids)) < len(ids):
        raise Wrong("ids-not-unique", "Item IDs must be unique", ids)
    for item in items:
        catalog.items.pop(item["id"], None)
        if method == "PUT":
            catalog.items[item["id"]] = item


def _check(sandbox: BrazeSandbox, catalog: Catalog, item: Item, *, whole: bool) -> None:
    """Raises: Wrong."""
    own = item.get("id")
    if own is None:
        raise Wrong("items-missing-ids", "There are items that don't have IDs", [])
    if not isinstance(own, str):
        raise Wrong("ids-not-strings", "Item IDs must be strings", [own])
    if len(own) > _LONGEST_ID:
        raise Wrong("ids-too-large", "Item IDs can't be more than 250 characters", [own])
    if not _ID.fullmatch(own):
        raise Wrong(
            "invalid-ids", "Item IDs can only include letters, numbers, hyphens, and underscores", [own]
        )
    if sandbox.refuses(own) or own == sandbox.faults.poison_key:
        raise Wrong("refused", "Refused by a switch of the sandbox", [own])
    for name, value in item.items() if whole else ():
        if name not in catalog.fields:
            raise Wrong("fields-do-not-match", f"Field {name} does not exist in the catalog", [own])
        if not _FITS[catalog.fields[name]](value):
            raise Wrong("invalid-fields", f"Some of the fields given do not fit the catalog: {name}", [own])
        if isinstance(value, str) and len(value) > _LONGEST:
            raise Wrong("items-too-large", "Item values can't exceed 5,000 characters", [own])
