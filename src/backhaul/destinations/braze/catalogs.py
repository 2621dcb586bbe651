"""Items of Braze's catalogs.

Facts are from Braze's pages on /catalogs and its items (asynchronous endpoints): a request is taken in or refused as a whole, and
applied later, so that no item is read back.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from backhaul.destinations.braze.answers import body_of
from backhaul.destinations.kit import Batch, Http, no_such_object
from backhaul.errors import Halt, Unsettled
from backhaul.types import BatchLimits, Delivered, Field, FieldType, ObjectSchema, Op, Outcomes, Rejected

LIMITS = BatchLimits(50, 3_900_000, endpoint="items")
PREFIX = "catalogs/"
_ID = re.compile(r"[A-Za-z0-9_-]{1,250}")
_TEXT = 5_000
"""Characters of a value."""
_TYPES = {
    "string": FieldType.STRING, "number": FieldType.NUMBER, "boolean": FieldType.BOOLEAN, "time": FieldType.DATETIME,
    "object": FieldType.JSON, "array": FieldType.ARRAY,
}  # fmt: skip


async def described(http: Http, name: str) -> ObjectSchema:
    """The catalog's fields.

    Raises:
        Halt: there is no such catalog.
    """
    listed = body_of(await http.request("GET", "/catalogs")).get("catalogs")
    if not isinstance(listed, list):
        raise Unsettled("Braze's answer has no list of catalogs")
    found = {str(item.get("name")): item.get("fields") or () for item in listed if isinstance(item, dict)}
    if name not in found:
        raise no_such_object(f"{PREFIX}{name}", [f"{PREFIX}{known}" for known in found], "Braze")
    fields = {str(item["name"]): _field(item) for item in found[name]}
    return ObjectSchema(
        f"{PREFIX}{name}", fields | {"id": Field("id", FieldType.STRING, unique=True, max_length=250)}
    )


def _field(item: dict[str, Any]) -> Field:
    kind = _TYPES.get(str(item.get("type")), FieldType.ANY)
    return Field(str(item["name"]), kind, max_length=_TEXT if kind is FieldType.STRING else None)


async def written(http: Http, batch: Batch, name: str) -> Outcomes:
    """Items are replaced whole: a field that is not in an item is empty then.

    Raises:
        Halt: NULLs are to leave fields alone, or items are not named by their ids.
    """
    if batch.identifiers != ("id",):
        raise Halt("Braze knows the items of a catalog by their id", hint="identify by id alone")
    skipped = next((field.name for field in batch.fields if field.skip_null), None)
    if skipped is not None and batch.op is not Op.DELETE:
        raise Halt(
            f"Braze replaces an item whole, and cannot leave {skipped!r} alone where it is NULL",
            hint="use `nulls: clear`, or a default for it",
        )
    said = "an item's id is letters, digits, dashes and underscores, 250 at most"
    refused = [Rejected(key, "invalid-ids", said) for key in batch.keys if not _ID.fullmatch(key)]
    items = {
        key: {name: value for name, value in record.items() if value is not None}
        for key, record in zip(batch.keys, batch.records(), strict=True)
        if _ID.fullmatch(key)
    }
    if items:
        method = "DELETE" if batch.op is Op.DELETE else "PUT"
        path = f"/catalogs/{quote(name, safe='')}/items"
        body_of(await http.request(method, path, json={"items": list(items.values())}))
    return Outcomes((*refused, *map(Delivered, items)))
