"""Items of Iterable's catalogs.

Facts are from the client Iterable/api-client and its integration tests: items are taken in at once and applied up to a minute
and a half later, so that none is read back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from backhaul.destinations.iterable.answers import code, member
from backhaul.destinations.kit import Batch, Http, inner, no_such_object
from backhaul.errors import Unsettled
from backhaul.types import Delivered, Field, FieldType, ObjectSchema, Op, Outcomes, Rejected

_ID = re.compile(r"[A-Za-z0-9-]{1,255}")
TYPES = {
    "string": FieldType.STRING, "long": FieldType.INTEGER, "double": FieldType.NUMBER, "boolean": FieldType.BOOLEAN,
    "date": FieldType.DATETIME, "object": FieldType.JSON, "geo_location": FieldType.JSON,
}  # fmt: skip


def _path(name: str) -> str:
    return f"/api/catalogs/{quote(name, safe='')}"


async def described(http: Http, name: str, *, open: bool) -> ObjectSchema:
    """The catalog's fields; those without a type of their own take any value.

    Raises:
        Halt: there is no such catalog.
    """
    answer = await http.request("GET", f"{_path(name)}/fieldMappings")
    if answer.status == 404:
        raise no_such_object(f"catalogs/{name}", await _known(http), "Iterable")
    said = member(answer, "params", dict)
    types = inner(said, "definedMappings") or {}
    fields = {name: Field(name, TYPES.get(str(kind), FieldType.ANY)) for name, kind in types.items()}
    fields |= {name: Field(name) for name in inner(said, "undefinedFields") or ()}
    return ObjectSchema(f"catalogs/{name}", fields | {"id": Field("id", unique=True)}, open=open)


async def _known(http: Http) -> Iterable[str]:
    """The catalogs of the first page."""
    said = member(await http.request("GET", "/api/catalogs", params={"pageSize": "100"}), "params", dict)
    return [f"catalogs/{item['name']}" for item in inner(said, "catalogNames") or ()]


async def written(http: Http, batch: Batch, name: str) -> Outcomes:
    """Fields of an item that are not sent stay. A success is of the request as a whole.

    Raises:
        Unsettled: the answer is of another form.
    """
    said = "an item's id is letters, digits and dashes, 255 at most"
    refused = [Rejected(key, "InvalidItemId", said) for key in batch.keys if not _ID.fullmatch(key)]
    sent = {
        key: {name: value for name, value in record.items() if name != "id"}
        for key, record in zip(batch.keys, batch.records(), strict=True)
        if _ID.fullmatch(key)
    }
    if not sent:
        return Outcomes(tuple(refused))
    path = f"{_path(name)}/items"
    if batch.op is Op.DELETE:
        answer = await http.request("DELETE", path, json={"itemIds": list(sent)})
    else:
        answer = await http.request("POST", path, json={"documents": sent, "replaceUploadedFieldsOnly": True})
    if code(answer) != "Success":
        raise Unsettled("Iterable's answer to items of a catalog is not Success")
    return Outcomes((*refused, *map(Delivered, sent)))
