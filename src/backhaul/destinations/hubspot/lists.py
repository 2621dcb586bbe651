"""The members of HubSpot's static lists.

Facts are from the OpenAPI document (lists v3) and recorded answers. They go by record ids; a member that is named by a
unique property is looked up first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from backhaul.destinations.hubspot.answers import NOT_THERE, body_of
from backhaul.destinations.hubspot.fields import RECORD_ID
from backhaul.destinations.hubspot.finding import Account, ids_of, lookups
from backhaul.destinations.hubspot.moving import Moves
from backhaul.destinations.kit import Batch, inner, listed, paged
from backhaul.errors import Halt
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    FieldType,
    ObjectSchema,
    Op,
    Outcomes,
    PlannedBatch,
    RefusalClass,
    Rejected,
)


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one static list."""

    account: Account
    list: str
    moves: Moves[str] = field(default_factory=Moves)
    batch: ClassVar[BatchLimits] = BatchLimits(records=10_000)
    """A request takes 100,000, from memory; this many are answered in seconds."""

    def extra_requests(self, identifiers: Sequence[str], planned: PlannedBatch) -> int:
        """The list is asked what it is of, and its members are looked up."""
        return 1 + lookups(identifiers[0], planned.records)

    def read_requests(self, identifiers: Sequence[str], records: int) -> int:
        return 1 + lookups(identifiers[0], records) + records

    async def _kind(self) -> str:
        """The type id of the records in the list.

        Raises:
            Halt: there is no such list, or HubSpot fills it itself.
        """
        answer = await self.account.http.request("GET", self.account.path("lists", self.list))
        if answer.status == 404:
            raise Halt(f"HubSpot has no list {self.list!r}", hint="lists go by their id, as in lists/42")
        found = body_of(answer)
        if inner(found, "list", "processingType") == "DYNAMIC":
            raise Halt(f"list {self.list} is dynamic: HubSpot fills it itself", hint="name a static list")
        return str(inner(found, "list", "objectTypeId"))

    async def describe(self, object: str) -> ObjectSchema:
        fields = (await self.account.describe(await self._kind())).fields.values()
        unique = {field.name: field for field in fields if field.unique and field.name != RECORD_ID}
        return ObjectSchema(object, {RECORD_ID: Field(RECORD_ID, FieldType.STRING, unique=True), **unique})

    async def write(self, batch: Batch) -> Outcomes:
        """An answer of 200 leaves out in silence who was a member already; who does not exist is in a list of its own."""
        (name,) = batch.identifiers
        found = await ids_of(self.account, await self._kind(), name, batch.keys)
        ids = {key: found.get(key) for key in batch.keys}
        known = dict(zip(batch.keys, batch.remote_ids, strict=True))
        if batch.op is Op.DELETE:
            await self._change((), [one for key in ids if (one := known[key] or ids[key])])
            return Outcomes(tuple(map(Delivered, batch.keys)))
        add = [one for one in ids.values() if one]
        async with self.moves.giving(add, known.values()) as left:
            lost = await self._change(add, left)
        return Outcomes(
            tuple(
                Rejected(key, NOT_THERE, f"HubSpot has no record with this {name}", RefusalClass.REFERENCE)
                if one is None or one in lost
                else Delivered(key, one)
                for key, one in ids.items()
            )
        )

    async def _change(self, add: Sequence[str], remove: Sequence[str]) -> set[str]:
        """The ids that HubSpot does not know."""
        if not add and not remove:
            return set()
        body = {"recordIdsToAdd": list(dict.fromkeys(add)), "recordIdsToRemove": list(dict.fromkeys(remove))}
        path = self.account.path("lists", self.list, "memberships", "add-and-remove")
        said = body_of(await self.account.http.request("PUT", path, json=body))
        return {str(one) for one in said.get("recordIdsMissing") or ()}

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Record by record: the lists that it is in."""
        kind = await self._kind()
        found = await ids_of(self.account, kind, identifiers[0], keys)
        held = {}
        for key, one in found.items():
            path = self.account.path("lists", "records", kind, one, "memberships")
            async for found_in in paged(partial(self._lists, path)):
                if str(found_in.get("listId")) == self.list:
                    held[key] = {identifiers[0]: key}
                    break
        return held

    async def _lists(self, path: str, after: str) -> tuple[Sequence[dict[str, Any]], str | None]:
        """One page of the lists that a record is in, and where the next one is."""
        answer = await self.account.http.request("GET", path, params={"after": after} if after else None)
        if answer.status == 404:
            return [], None
        said = body_of(answer)
        following = inner(said, "paging", "next", "after")
        return listed(said, "results"), None if following is None else str(following)
