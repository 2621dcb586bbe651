"""Members of a list, by Klaviyo's own ids: profiles that are named otherwise are looked up first. Nobody's consent changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from backhaul.destinations.kit import Batch, Http, inner, listed, listing, no_such_object
from backhaul.errors import Halt, Unsettled
from backhaul.types import BatchLimits, Delivered, Field, FieldType, ObjectSchema, Op, Outcomes, Rejected

PREFIX = "lists/"
LIMITS = BatchLimits(1_000, endpoint="lists")
WHO = ("id", "external_id", "email", "phone_number")
_AT_ONCE = 100
"""Profiles of one look-up."""
NOT_THERE = "no-such-profile"


async def described(http: Http, object: str) -> ObjectSchema:
    """Raises: Halt: there is no such list."""
    own = object.removeprefix(PREFIX)
    answer = await http.request("GET", f"/api/lists/{quote(own, safe='')}", allow=(404,))
    if inner(answer.json(), "data", "id") is None:
        known = listed((await http.request("GET", "/api/lists")).json(), "data")
        raise no_such_object(object, [f"{PREFIX}{one.get('id')}" for one in known], "Klaviyo")
    kinds = {"phone_number": FieldType.PHONE}
    fields = {
        name: Field(
            name,
            kinds.get(name, FieldType.STRING),
            unique=True,
            case_insensitive=name == "email",
            trims=name == "email",
        )
        for name in WHO
    }
    return ObjectSchema(object, fields)


async def written(http: Http, batch: Batch) -> Outcomes:
    """A request is taken as a whole (204)."""
    if len(batch.identifiers) != 1 or len(batch.fields) != 1:
        raise Halt(
            "a member of a list is a profile and nothing else", hint="map one identifier and no fields"
        )
    own = batch.object.removeprefix(PREFIX)
    ids = await ids_of(http, batch.identifiers[0], batch.keys)
    data = [{"type": "profile", "id": one} for one in dict.fromkeys(ids.values())]
    if data:
        method = "DELETE" if batch.op is Op.DELETE else "POST"
        path = f"/api/lists/{quote(own, safe='')}/relationships/profiles"
        answer = await http.request(method, path, body=orjson.dumps({"data": data}))
        if answer.status != 204:
            raise Unsettled(f"HTTP {answer.status}, where Klaviyo changes a list with 204")
    if batch.op is Op.DELETE:
        return Outcomes(everything=True)
    said = f"Klaviyo has no profile with this {batch.identifiers[0]}"
    return Outcomes(
        tuple(
            Delivered(key, ids[key]) if key in ids else Rejected(key, NOT_THERE, said) for key in batch.keys
        )
    )


async def ids_of(http: Http, name: str, keys: Sequence[str]) -> dict[str, str]:
    """Klaviyo's ids of the profiles that go by these keys; those that are not there are left out."""
    if name == "id":
        return {key: key for key in keys}
    fold = str.lower if name == "email" else str
    parts = [keys[low : low + _AT_ONCE] for low in range(0, len(keys), _AT_ONCE)]

    async def found(part: Sequence[str]) -> dict[str, str]:
        asked = {"filter": f"any({name},{orjson.dumps(list(part)).decode()})", "page[size]": str(_AT_ONCE)}
        said = (await http.request("GET", "/api/profiles", params=asked)).json()
        own = {fold(str(inner(one, "attributes", name))): str(one.get("id")) for one in listing(said, "data")}
        return {key: own[fold(key)] for key in part if fold(key) in own}

    return {key: one for part in await asyncio.gather(*map(found, parts)) for key, one in part.items()}


async def read(http: Http, object: str, name: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Member by member: the lists that a profile is in."""
    own, held = object.removeprefix(PREFIX), dict[str, dict[str, Any]]()
    for key, one in (await ids_of(http, name, keys)).items():
        answer = await http.request("GET", f"/api/profiles/{quote(one, safe='')}/lists", allow=(404,))
        gone = answer.status == 404
        if not gone and any(item.get("id") == own for item in listing(answer.json(), "data")):
            held[key] = {name: key}
    return held
