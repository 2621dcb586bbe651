"""HubSpot's records by what identifies them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backhaul.destinations.hubspot.answers import NOT_THERE, OTHER_EMAILS, body_of, context
from backhaul.destinations.hubspot.fields import RECORD_ID, fold, is_email
from backhaul.destinations.kit import Http, listed, listing
from backhaul.errors import Unsettled
from backhaul.types import ObjectSchema

_AT_ONCE = 100
"""Records that one request reads."""


class Account(Protocol):
    """What is needed of the connection."""

    http: Http

    def path(self, room: str, *more: str) -> str: ...

    async def describe(self, object: str) -> ObjectSchema: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What batch/read says of keys: records it holds, and keys that it says are not there. Another key is neither."""

    held: Mapping[str, Mapping[str, Any]]
    gone: tuple[str, ...]

    def whole(self, keys: Sequence[str]) -> Found:
        """Itself, where it says of every key whether it is there.

        Raises:
            Unsettled: it is silent about some, which may be there or not.
        """
        silent = set(keys) - set(self.held) - set(self.gone)
        if silent:
            raise Unsettled(
                f"HubSpot's answer leaves out {len(silent)} of {len(keys)} records it was asked for"
            )
        return self


async def find(
    account: Account, object: str, name: str, keys: Sequence[str], fields: Sequence[str] = ()
) -> Found:
    """Records by key through batch/read, which is up to date where search lags. A contact is held under its other
    e-mails too.

    Raises:
        Unsettled: HubSpot could not read some of them.
    """
    more = [OTHER_EMAILS] if is_email(object, name) else []
    body: dict[str, Any] = {
        "inputs": [{"id": key} for key in keys],
        "properties": list(dict.fromkeys([name, *fields, *more])),
        "propertiesWithHistory": [],
    }
    body |= {} if name == RECORD_ID else {"idProperty": name}
    answer = await account.http.request("POST", account.path("objects", object, "batch", "read"), json=body)
    if answer.status == 404:
        return Found({}, tuple(keys))
    said, asked = body_of(answer), {fold(object, name, key): key for key in keys}
    held = {
        asked[spelling]: record
        for record in listing(said, "results")
        if record.get("id") is not None
        for spelling in (fold(object, name, value) for value in _identifiers(record, name, more))
        if spelling in asked
    }
    lost: list[str] = []
    for error in listed(said, "errors"):
        if error.get("category") != NOT_THERE:
            raise Unsettled(
                f"HubSpot could not read every record: {error.get('message')}",
                code=str(error.get("category")),
            )
        lost += [fold(object, name, value) for value in context(error, "ids")]
    gone = (asked[it] for it in dict.fromkeys(lost) if it in asked)
    return Found(held, tuple(key for key in gone if key not in held))


async def ids_of(account: Account, object: str, name: str, values: Iterable[str]) -> Mapping[str, str]:
    """Record ids by the values of a unique property; a value that nobody has is left out. Record ids stand for
    themselves.

    Raises:
        Unsettled: HubSpot does not say of each whether it is there.
    """
    folded = {value: fold(object, name, value) for value in values}
    asked = list(dict.fromkeys(folded.values()))
    found = dict(zip(asked, asked, strict=True)) if name == RECORD_ID else {}
    for start in range(0, 0 if found else len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        some = (await find(account, object, name, part)).whole(part)
        found |= {key: str(record["id"]) for key, record in some.held.items()}
    return {value: found[spelling] for value, spelling in folded.items() if spelling in found}


def lookups(name: str, values: int) -> int:
    """Requests of `ids_of`, where all values differ."""
    return 0 if name == RECORD_ID else -(-values // _AT_ONCE)


def properties_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record holds; nothing where the answer is of another form."""
    found = record.get("properties")
    return found if isinstance(found, dict) else {}


def _identifiers(record: Mapping[str, Any], name: str, more: Sequence[str]) -> list[str]:
    """What a record answers to: its identifier, and a contact's other e-mails (joined by semicolons)."""
    values = properties_of(record)
    own = record.get("id") if name == RECORD_ID else values.get(name)
    others = (one for other in more for one in str(values.get(other) or "").split(";"))
    return [one for one in ("" if own is None else str(own), *others) if one]
