"""HubSpot's associations between two records.

Facts are from the OpenAPI document (associations v4), its guide and recorded answers. They go by record ids; an end that is
named by a unique property is looked up first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from backhaul.destinations.hubspot.answers import NOT_THERE, body_of, context, refused
from backhaul.destinations.hubspot.fields import RECORD_ID
from backhaul.destinations.hubspot.finding import Account, ids_of, lookups
from backhaul.destinations.hubspot.moving import Moves
from backhaul.destinations.kit import Answer, Batch, inner, listed, no_such_object
from backhaul.errors import Halt, Refused
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    FieldType,
    ObjectSchema,
    Op,
    Outcome,
    Outcomes,
    PlannedBatch,
    RefusalClass,
    Rejected,
)

Pair = tuple[str, str]
"""The record ids of an association's two ends."""
_NAMED = re.compile(r"=(\d+) is not valid")
"""How a refused association names the end that is wrong, in its message alone (recorded)."""


@dataclass(frozen=True, slots=True)
class Associations:
    """Associations from one kind of record to another; of the default type, or with a label."""

    account: Account
    one: str
    other: str
    label: str
    moves: Moves[Pair] = field(default_factory=Moves)
    batch: ClassVar[BatchLimits] = BatchLimits(records=2_000)
    """Workato's guide to this endpoint says 2,000."""

    def extra_requests(self, identifiers: Sequence[str], planned: PlannedBatch) -> int:
        """Both ends are looked up, as often as they could be told apart; an association that moves is taken away first."""
        moved = planned.op is not Op.DELETE and planned.updates > 0
        return self._lookups(identifiers, planned.records) + bool(self.label) + moved

    def read_requests(self, identifiers: Sequence[str], records: int) -> int:
        return self._lookups(identifiers, records) + bool(self.label) + 1

    def _lookups(self, identifiers: Sequence[str], records: int) -> int:
        return sum(lookups(end.partition(".")[2] or RECORD_ID, records) for end in identifiers)

    def _path(self, *more: str) -> str:
        return self.account.path("associations", self.one, self.other, *more)

    async def _post(self, action: str, inputs: Sequence[Any]) -> Answer:
        return await self.account.http.request(
            "POST", self._path("batch", *action.split("/")), json={"inputs": inputs}
        )

    async def describe(self, object: str) -> ObjectSchema:
        await self._types()
        fields: list[Field] = []
        for end, kind in (("from", self.one), ("to", self.other)):
            described = await self.account.describe(kind)
            fields.append(Field(end, FieldType.STRING, unique=True))
            fields += [
                Field(
                    f"{end}.{field.name}",
                    field.type,
                    unique=True,
                    case_insensitive=field.case_insensitive,
                    trims=field.trims,
                )
                for field in described.fields.values()
                if field.unique and field.name != RECORD_ID
            ]
        return ObjectSchema(object, {field.name: field for field in fields})

    async def _types(self) -> list[dict[str, Any]]:
        """The association type that the label stands for; none where there is no label.

        Raises:
            Halt: there is no such label.
        """
        if not self.label:
            return []
        answer = await self.account.http.request("GET", self._path("labels"))
        known = {str(item["label"]): item for item in listed(body_of(answer), "results") if item.get("label")}
        if self.label not in known:
            raise no_such_object(
                self.label, known, f"HubSpot has no such label from {self.one} to {self.other}; it"
            )
        found = known[self.label]
        return [{"associationCategory": found["category"], "associationTypeId": found["typeId"]}]

    async def write(self, batch: Batch) -> Outcomes:
        """An update is of a record whose ends have changed: the association it had goes first."""
        pairs = await self._pairs(batch.identifiers, batch.keys)
        known = dict(zip(batch.keys, map(_pair, batch.remote_ids), strict=True))
        types = await self._types()
        if batch.op is Op.DELETE:
            gone = [known[key] or pairs.get(key) for key in batch.keys]
            await self._archive([pair for pair in gone if pair], types)
            return Outcomes(tuple(map(Delivered, batch.keys)))
        said = f"HubSpot has no record at one end of this association from {self.one} to {self.other}"
        missing = [
            Rejected(key, NOT_THERE, said, RefusalClass.REFERENCE) for key in batch.keys if key not in pairs
        ]
        async with self.moves.giving(pairs.values(), known.values()) as left:
            await self._archive(left, types)
            return Outcomes((*missing, *await self._associate(pairs, types)))

    async def _associate(self, pairs: Mapping[str, Pair], types: Sequence[Any]) -> list[Outcome]:
        if not pairs:
            return []
        inputs: list[dict[str, Any]] = [
            {"from": {"id": one}, "to": {"id": other}} for one, other in dict.fromkeys(pairs.values())
        ]
        if types:
            answer = await self._post("create", [{**item, "types": types} for item in inputs])
        else:
            answer = await self._post("associate/default", inputs)
        return [_as_reference(outcome) for outcome in _outcomes(body_of(answer), pairs)]

    async def _archive(self, pairs: Iterable[Pair], types: Sequence[Any]) -> None:
        """204 whatever there was; where the default type goes, every label between the two goes with it.

        Raises:
            Refused: some of them could not be removed.
        """
        given = list(dict.fromkeys(pairs))
        if not given:
            return
        if types:
            inputs = [{"from": {"id": one}, "to": {"id": other}, "types": types} for one, other in given]
            answer = await self._post("labels/archive", inputs)
        else:
            inputs = [{"from": {"id": one}, "to": [{"id": other}]} for one, other in given]
            answer = await self._post("archive", inputs)
        for error in listed(body_of(answer), "errors") if answer.body else ():
            raise Refused(str(error.get("message")), code=str(error.get("category")))

    def _ends(self, identifiers: Sequence[str]) -> Pair:
        """The names of both ends among the identifiers."""
        ones = [name for name in identifiers if name.partition(".")[0] == "from"]
        others = [name for name in identifiers if name.partition(".")[0] == "to"]
        if len(ones) != 1 or len(others) != 1 or len(identifiers) != 2:
            raise Halt(
                "an association is identified by its two ends",
                hint="identify: {from.email: email, to.hs_unique_id: account_id}, or `from` and `to` with record ids",
            )
        return ones[0], others[0]

    async def _pairs(self, identifiers: Sequence[str], keys: Sequence[str]) -> dict[str, Pair]:
        """The record ids of both ends, by key; a key of which one end is not there is left out."""
        one, other = self._ends(identifiers)
        ends = {}
        for key in keys:
            named = dict(zip(identifiers, orjson.loads(key), strict=True))
            ends[key] = named[one], named[other]
        ones = await self._ids(self.one, one, (first for first, _ in ends.values()))
        others = await self._ids(self.other, other, (second for _, second in ends.values()))
        return {
            key: (ones[first], others[second])
            for key, (first, second) in ends.items()
            if first in ones and second in others
        }

    async def _ids(self, kind: str, end: str, values: Iterable[str]) -> Mapping[str, str]:
        return await ids_of(self.account, kind, end.partition(".")[2] or RECORD_ID, values)

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        pairs = await self._pairs(identifiers, keys)
        held = await self._held({one for one, _ in pairs.values()})
        return {
            key: dict(zip(identifiers, orjson.loads(key), strict=True))
            for key, pair in pairs.items()
            if pair in held
        }

    async def _held(self, ones: Iterable[str]) -> set[Pair]:
        """Every association of these records; a long list comes in pages."""
        held: set[Pair] = set()
        inputs = [{"id": one} for one in ones]
        types = {item["associationTypeId"] for item in await self._types()}
        while inputs:
            results = listed(body_of(await self._post("read", inputs[:1000])), "results")
            inputs = inputs[1000:]
            for result in results:
                one = str(inner(result, "from", "id"))
                held |= {
                    (one, str(to.get("toObjectId")))
                    for to in listed(result, "to")
                    if not types or types & {kind.get("typeId") for kind in listed(to, "associationTypes")}
                }
                after = inner(result, "paging", "next", "after")
                inputs += [{"id": one, "after": str(after)}] if after else []
        return held


def _pair(remote_id: str | None) -> Pair | None:
    """The two ends of an association that an earlier run made."""
    one, _, other = (remote_id or "").partition(":")
    return (one, other) if other else None


def _outcomes(body: Mapping[str, Any], pairs: Mapping[str, Pair]) -> list[Outcome]:
    """One outcome for each association that the answer names: by its ends, or, refused, by the end that is wrong. Errors
    that name nobody are those of the associations that are left, where they are as many and of one kind."""
    made = {_ends_of(result) for result in listed(body, "results")}
    outcomes: list[Outcome] = [Delivered(key, ":".join(pair)) for key, pair in pairs.items() if pair in made]
    left = {key: pair for key, pair in pairs.items() if pair not in made}
    nameless = []
    for error in listed(body, "errors"):
        wrong = set(_NAMED.findall(str(error.get("message"))))
        wrong |= {one for name in ("fromObjectId", "toObjectId", "objectId") for one in context(error, name)}
        named = [key for key, pair in left.items() if wrong & set(pair)]
        outcomes += [outcome for key in named for outcome in refused(key, error)]
        left = {key: pair for key, pair in left.items() if key not in named}
        nameless += [] if named else [error]
    if len(nameless) == len(left) and len({str(error.get("category")) for error in nameless}) == 1:
        said = "; ".join(dict.fromkeys(str(error.get("message") or "") for error in nameless))
        outcomes += [it for key in left for it in refused(key, {**nameless[0], "message": said})]
    return outcomes


def _as_reference(outcome: Outcome) -> Outcome:
    """An association that is refused for want of an end waits for it."""
    if isinstance(outcome, Rejected) and outcome.code == NOT_THERE:
        return Rejected(outcome.key, outcome.code, outcome.message, RefusalClass.REFERENCE)
    return outcome


def _ends_of(result: Mapping[str, Any]) -> Pair:
    """The ends of an association that was made: of the default type, or with a label."""
    one, other = inner(result, "from", "id"), inner(result, "to", "id")
    if one is None or other is None:
        one, other = result.get("fromObjectId"), result.get("toObjectId")
    return str(one), str(other)
