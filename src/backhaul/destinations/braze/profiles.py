"""Users as Braze gives them back: POST /users/export/ids, by what they go by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from backhaul.destinations.braze.answers import body_of
from backhaul.destinations.braze.fields import is_custom
from backhaul.destinations.kit import Http
from backhaul.errors import Unsettled

_AT_ONCE = 50
"""Users of one export; of those by braze_id one."""


async def held_by(
    http: Http, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Users by key; naming the fields is what the faster limit asks for (page: /users/export/ids)."""
    wanted = {"external_id", "braze_id", "user_aliases"}
    wanted |= {
        "custom_attributes" if is_custom(name) else name
        for name in fields
        if "." not in name or is_custom(name)
    }
    size = _size(identifiers)
    parts = [keys[start : start + size] for start in range(0, len(keys), size)]
    found = await asyncio.gather(*(_export(http, identifiers, part, sorted(wanted)) for part in parts))
    return {key: user for part in found for key, user in part.items()}


def lookups(identifiers: tuple[str, ...], users: int) -> int:
    """Requests of `held_by`."""
    return -(-users // _size(identifiers))


def _size(identifiers: tuple[str, ...]) -> int:
    return 1 if identifiers == ("braze_id",) else _AT_ONCE


async def primary_ids(http: Http, external_ids: Sequence[str]) -> set[str]:
    """The primary external_ids of users, who are found by a deprecated one too."""
    asked = {"external_ids": list(external_ids), "fields_to_export": ["external_id"]}
    users = body_of(await http.request("POST", "/users/export/ids", json=asked)).get("users")
    if not isinstance(users, list):
        raise Unsettled("Braze's answer has no list of users")
    return {str(user.get("external_id")) for user in users}


async def _export(
    http: Http, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Raises: Unsettled where Braze says of an external_id neither what it holds nor that it is not there."""
    if len(identifiers) == 2:
        names = [name.partition(".")[2] for name in identifiers]
        asked: dict[str, Any] = {
            "user_aliases": [dict(zip(names, orjson.loads(key), strict=True)) for key in keys]
        }
    else:
        asked = {"braze_id": keys[0]} if identifiers == ("braze_id",) else {"external_ids": list(keys)}
    answer = await http.request("POST", "/users/export/ids", json={**asked, "fields_to_export": fields})
    body = body_of(answer)
    users = body.get("users")
    if not isinstance(users, list):
        raise Unsettled("Braze's answer has no list of users")
    by_name = {_name(key, identifiers): key for key in keys}
    held = {by_name[name]: user for user in users for name in _names_of(user, identifiers) if name in by_name}
    unknown = set(map(str, body.get("invalid_user_ids") or ()))
    if identifiers == ("external_id",) and not held.keys() | unknown >= set(keys):
        raise Unsettled("Braze's export leaves out users without saying that they are not there")
    return held


def _names_of(user: Mapping[str, Any], identifiers: tuple[str, ...]) -> list[Any]:
    """What a user goes by, as `_name` has it."""
    if len(identifiers) == 1:
        return [str(user.get(identifiers[0]))]
    parts = [name.partition(".")[2] for name in identifiers]
    return [tuple(str(alias.get(part)) for part in parts) for alias in user.get("user_aliases") or ()]


def _name(key: str, identifiers: tuple[str, ...]) -> Any:
    """A key of `Batch.keys`: a text, or a tuple of them."""
    return key if len(identifiers) == 1 else tuple(orjson.loads(key))
