"""Static lists of the simulated account, and their members (v3).

From the OpenAPI document and recorded answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import web

from backhaul.sandbox.hubspot.answers import Refusal, answer, stamp
from backhaul.sandbox.hubspot.call import Call
from backhaul.sandbox.hubspot.store import ObjectType
from backhaul.sandbox.kit import RECORDS

_LISTS = count(501)


@dataclass(slots=True)
class StaticList:
    """A list, and the ids of its members."""

    name: str
    kind: ObjectType
    processing: str = "MANUAL"
    id: str = field(default_factory=lambda: str(next(_LISTS)))
    members: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        return {
            "listId": self.id, "listVersion": 1, "createdAt": stamp(), "updatedAt": stamp(), "processingStatus": "COMPLETE",
            "processingType": self.processing, "objectTypeId": self.kind.type_id, "name": self.name, "size": len(self.members),
        }  # fmt: skip


def create(call: Call) -> web.Response:
    """A new list."""
    name, kind = call.body.get("name"), call.account.type_named(str(call.body.get("objectTypeId")))
    if not name or kind is None:
        said = "Invalid input JSON on line 1, column 60. Some required fields were not set: [name]"
        raise Refusal("VALIDATION_ERROR", said)
    made = StaticList(str(name), kind, str(call.body.get("processingType")))
    call.account.lists[made.id] = made
    return answer({"list": made.json()})


def get(call: Call) -> web.Response:
    return answer({"list": _list(call).json()})


def change(call: Call) -> web.Response:
    """Members that are there, or are to go and are not, are passed over in silence."""
    found = _list(call)
    if found.processing == "DYNAMIC":
        raise Refusal("VALIDATION_ERROR", "Can not operate manually on a dynamic list")
    add, remove = call.body.get("recordIdsToAdd", []), call.body.get("recordIdsToRemove", [])
    if not isinstance(add, list) or not isinstance(remove, list) or len(add) + len(remove) > 100_000:
        raise Refusal("VALIDATION_ERROR", "Invalid input JSON on line 1, column 1")
    call.request[RECORDS] = len(add) + len(remove)
    missing = [str(item) for item in (*add, *remove) if str(item) not in found.kind.records]
    added = [str(item) for item in add if str(item) not in missing and str(item) not in found.members]
    removed = [str(item) for item in remove if str(item) in found.members]
    found.members.update(dict.fromkeys(added, stamp()))
    for item in removed:
        del found.members[item]
    return answer({"recordsIdsAdded": added, "recordsIdsRemoved": removed, "recordIdsMissing": missing})


def of_record(call: Call) -> web.Response:
    """The lists that a record is in."""
    one = call.request.match_info["id"]
    held = [
        (found, found.members[one])
        for found in call.account.lists.values()
        if found.kind is call.kind and one in found.members
    ]
    results = [
        {"listId": found.id, "listVersion": 1, "firstAddedTimestamp": since, "lastAddedTimestamp": since}
        for found, since in held
    ]  # fmt: skip
    return answer({"total": len(results), "results": results})


def _list(call: Call) -> StaticList:
    given = call.request.match_info["list"]
    found = call.account.lists.get(given)
    if found is None:
        raise Refusal(
            "OBJECT_NOT_FOUND", f"List does not exist with ID {given}.", context={"listId": [given]}
        )
    return found
