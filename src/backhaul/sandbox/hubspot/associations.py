"""Associations between the simulated account's records (v4).

From the OpenAPI documents, their guides, and recorded answers; the words of a read that finds nothing are from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from backhaul.sandbox.hubspot.answers import Refusal, answer, stamp
from backhaul.sandbox.hubspot.call import Call
from backhaul.sandbox.hubspot.store import ObjectType
from backhaul.sandbox.kit import RECORDS

MOST_MADE, MOST_READ, PAGE = 2_000, 1_000, 500
"""Inputs of a request that makes or removes, and of one that reads (HubSpot's changelog of February 2025); associations of
one record in an answer, from memory."""
_UNLABELLED = {
    ("contacts", "companies"): 279, ("companies", "contacts"): 280, ("contacts", "deals"): 4, ("deals", "contacts"): 3,
    ("deals", "companies"): 341, ("companies", "deals"): 342,
}  # fmt: skip


@dataclass(slots=True)
class Between:
    """All associations, in both directions: (kind, id, kind) to the other ids and their type ids."""

    labels: dict[tuple[str, str], dict[str, int]] = field(
        default_factory=lambda: {
            ("contacts", "companies"): {"Primary": 1},
            ("companies", "contacts"): {"Primary": 2},
        }
    )
    """Type ids of labels, by the two kinds."""
    held: dict[tuple[str, str, str], dict[str, set[int]]] = field(default_factory=dict)

    def types(self, one: str, other: str) -> dict[int, str | None]:
        labels = self.labels.get((one, other), {})
        unlabelled: dict[int, str | None] = (
            {_UNLABELLED[one, other]: None} if (one, other) in _UNLABELLED else {}
        )
        return unlabelled | {number: label for label, number in labels.items()}

    def pairs(self, one: str, other: str) -> Iterator[tuple[str, str]]:
        for (kind, record, to), others in self.held.items():
            if (kind, to) == (one, other):
                yield from ((record, other) for other in others)

    def make(self, one: str, id: str, other: str, to: str, kinds: set[int]) -> None:
        """With its type the association is of the unlabelled one too; the way back has the types of its own."""
        names = [label for number, label in self.types(one, other).items() if number in kinds]
        back = {number for number, label in self.types(other, one).items() if label in names}
        self.held.setdefault((one, id, other), {}).setdefault(to, set()).update(
            kinds | self._plain(one, other)
        )
        self.held.setdefault((other, to, one), {}).setdefault(id, set()).update(
            back | self._plain(other, one)
        )

    def _plain(self, one: str, other: str) -> set[int]:
        return {number for number, label in self.types(one, other).items() if label is None}

    def drop(self, one: str, id: str, other: str, to: str, kinds: set[int] | None = None) -> None:
        """`kinds`: these types alone; else the association with all of its labels."""
        held = self.held.get((one, id, other), {})
        if kinds is None:
            held.pop(to, None)
            self.held.get((other, to, one), {}).pop(id, None)
        elif to in held:
            held[to] -= kinds


def labels(call: Call) -> web.Response:
    one, other = _kinds(call)
    types = call.account.between.types(one.name, other.name)
    results = [
        {"category": "HUBSPOT_DEFINED" if number < 1000 else "USER_DEFINED", "typeId": number, "label": label}
        for number, label in types.items()
    ]
    return answer({"results": results})


def make_default(call: Call) -> web.Response:
    one, other = _kinds(call)
    number = _UNLABELLED.get((one.name, other.name))
    if number is None:
        raise Refusal(
            "VALIDATION_ERROR", f"No default association type from {one.type_id} to {other.type_id}"
        )

    def act(item: Any) -> list[dict[str, Any]]:
        ends = _live(item, one, other)
        call.account.between.make(one.name, ends[0], other.name, ends[1], {number})
        back = _UNLABELLED[other.name, one.name]
        return [_made(*ends, number), _made(ends[1], ends[0], back)]

    return _batch(call, act, 200)


def _made(one: str, other: str, number: int) -> dict[str, Any]:
    spec = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": number}
    return {"from": {"id": one}, "to": {"id": other}, "associationSpec": spec}


def make(call: Call) -> web.Response:
    """With types; each has to be one that the two kinds have."""
    one, other = _kinds(call)
    known = call.account.between.types(one.name, other.name)

    def act(item: Any) -> list[dict[str, Any]]:
        kinds = _types_of(item)
        if not kinds or kinds - known.keys():
            raise Refusal(
                "VALIDATION_ERROR", f"Association types {sorted(kinds)} are not those of these objects"
            )
        ends = _live(item, one, other)
        call.account.between.make(one.name, ends[0], other.name, ends[1], kinds)
        names = [label for number in sorted(kinds) if (label := known[number])]
        return [
            {
                "fromObjectTypeId": one.type_id, "fromObjectId": int(ends[0]), "toObjectTypeId": other.type_id,
                "toObjectId": int(ends[1]), "labels": names,
            }
        ]  # fmt: skip

    return _batch(call, act, 201)


def archive(call: Call) -> web.Response:
    """204 whatever was there; an unlabelled association goes with all its labels."""
    one, other = _kinds(call)
    for item in _inputs(call, MOST_MADE):
        for to in item["to"]:
            call.account.between.drop(one.name, str(item["from"]["id"]), other.name, str(to["id"]))
    return web.Response(status=204)


def archive_labels(call: Call) -> web.Response:
    one, other = _kinds(call)
    plain = _UNLABELLED.get((one.name, other.name))
    for item in _inputs(call, MOST_MADE):
        kinds = _types_of(item)
        ends = str(item["from"]["id"]), str(item["to"]["id"])
        every = None if plain in kinds else kinds
        call.account.between.drop(one.name, ends[0], other.name, ends[1], every)
    return web.Response(status=204)


def read(call: Call) -> web.Response:
    one, other = _kinds(call)
    results, errors = [], []
    known = call.account.between.types(one.name, other.name)
    for item in _inputs(call, MOST_READ):
        start, after = str(item["id"]), int(item.get("after") or 0)
        every = call.account.between.held.get((one.name, start, other.name), {})
        held = [(to, kinds) for to, kinds in every.items() if to in other.records and start in one.records]
        if not held:
            said = f"No {other.label.lower()} is associated with {one.label.lower()} {start}."
            errors.append(
                {
                    "status": "error", "category": "OBJECT_NOT_FOUND", "message": said,
                    "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND", "context": {"fromObjectId": [start]},
                }
            )  # fmt: skip
            continue
        result: dict[str, Any] = {"from": {"id": start}, "to": [
            {"toObjectId": int(to), "associationTypes": [_type(number, known) for number in sorted(kinds)]}
            for to, kinds in held[after : after + PAGE]
        ]}  # fmt: skip
        if len(held) > after + PAGE:
            result["paging"] = {"next": {"after": str(after + PAGE), "link": ""}}
        results.append(result)
    return _answer(call, results, errors, 200)


def _type(number: int, known: dict[int, str | None]) -> dict[str, Any]:
    return {
        "category": "HUBSPOT_DEFINED" if number < 1000 else "USER_DEFINED",
        "typeId": number,
        "label": known.get(number),
    }


def _kinds(call: Call) -> tuple[ObjectType, ObjectType]:
    name = call.request.match_info["to"]
    other = call.account.type_named(name)
    if other is None:
        raise Refusal("VALIDATION_ERROR", f"Unable to infer object type from: {name}")
    return call.kind, other


def _inputs(call: Call, most: int) -> Sequence[Any]:
    inputs = call.body["inputs"]
    if not isinstance(inputs, list) or not 0 < len(inputs) <= most:
        raise Refusal("VALIDATION_ERROR", f"The batch takes 1 to {most} inputs")
    call.request[RECORDS] = len(inputs)
    return inputs


def _types_of(item: Any) -> set[int]:
    return {int(kind["associationTypeId"]) for kind in item["types"]}


def _live(item: Any, one: ObjectType, other: ObjectType) -> tuple[str, str]:
    """Raises: Refusal: one end is not there; the words are recorded."""
    ends = str(item["from"]["id"]), str(item["to"]["id"])
    for kind, end in ((one, ends[0]), (other, ends[1])):
        if end not in kind.records:
            raise Refusal("VALIDATION_ERROR", f"{kind.label.upper()}={end} is not valid")
    return ends


def _batch(call: Call, act: Callable[[Any], list[dict[str, Any]]], status: int) -> web.Response:
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for item in _inputs(call, MOST_MADE):
        try:
            results += act(item)
        except Refusal as refusal:
            errors.append({"status": "error", "category": refusal.category, "message": str(refusal)})
    return _answer(call, results, errors, status)


def _answer(call: Call, results: list[Any], errors: list[Any], status: int) -> web.Response:
    body: dict[str, Any] = {
        "status": "COMPLETE",
        "results": results,
        "startedAt": stamp(),
        "completedAt": stamp(),
    }
    if call.account.writes(call.request):
        body["results"] = call.account.spoil(results)
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
    return answer(body, 207 if errors and not call.dated else status)
