"""One request to a simulated Marketo, and what its endpoints share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from backhaul.sandbox.kit import RECORDS
from backhaul.sandbox.marketo.store import Attribute, Room, Skipped, Values, Whole, fold

if TYPE_CHECKING:
    from backhaul.sandbox.marketo.api import MarketoSandbox

MOST = 300
_ALWAYS = ("id", "email", "updatedAt", "createdAt", "lastName", "firstName")
ACTIONS = ("createOrUpdate", "createOnly", "updateOnly")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, its address and its form taken together."""

    sandbox: MarketoSandbox
    request: web.Request
    method: str
    query: Sequence[tuple[str, str]]
    body: Mapping[str, Any]

    def asked(self, name: str) -> list[str]:
        """Values of a parameter, given several times or with commas between."""
        return [one for key, value in self.query if key == name for one in value.split(",") if one]

    def one(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.query if key == name), default)

    def inputs(self) -> list[Values]:
        """Raises: Whole."""
        items = self.body.get("input")
        if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
            raise Whole("1003", "input cannot be blank")
        self.counted(items)
        return items

    def counted(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Raises: Whole."""
        if len(items) > MOST:
            raise Whole("1003", f"Too many records: at most {MOST}")
        self.request[RECORDS] = len(items)
        poison = self.sandbox.faults.poison_key
        if poison and any(poison in map(str, item.values()) for item in items):
            raise Whole("709", "Refused by a switch of the sandbox")

    def refused(self, *keys: Any) -> None:
        """Raises: Skipped where a switch refuses the record."""
        if self.sandbox.refuses(*[str(key) for key in keys if key is not None]):
            raise Skipped("1003", "Refused by a switch of the sandbox")


Endpoint = Callable[[Call], dict[str, Any]]


def each(
    call: Call, items: Iterable[Values], act: Callable[[Values], Mapping[str, Any]], *, numbered: bool = False,
    unique: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The results of many records, each by itself; of those with the same values of the fields `unique` the first is taken."""
    found, known = [], set[tuple[str, ...]]()
    for place, item in enumerate(items):
        seq = {"seq": place} if numbered else {}
        try:
            key = tuple(fold(item.get(name)) for name in unique)
            if key and key in known:
                raise Skipped("1036", "Duplicate object found in input")
            known.add(key)
            found.append({**seq, **act(item)})
        except Skipped as skipped:
            named = {"id": item["id"]} if call.request.path.startswith("/rest/v1/lists/") else {}
            found.append({**seq, **named, "status": "skipped", "reasons": skipped.reasons})
    return {"result": call.sandbox.spoil(found)}


def fields_known(room: Room, items: Sequence[Values]) -> None:
    """One unknown field refuses the request. From memory. Raises: Whole."""
    for name in {name for item in items for name in item}:
        if name not in room.attributes:
            raise Whole("1006", f"Field '{name}' not found")


def names_of(call: Call, room: Room) -> Sequence[str]:
    """Raises: Whole."""
    names = call.asked("fields") or _ALWAYS
    for name in names:
        if name not in room.attributes:
            raise Whole("1006", f"Field '{name}' not found")
    return names


def page(call: Call, found: Sequence[Values], names: Sequence[str]) -> dict[str, Any]:
    """Leads with the fields that were asked for, and their id; a null is left out (guide: Leads)."""
    size, start = call.sandbox.page_size, int(call.one("nextPageToken", "0"))
    part = found[start : start + size]
    shown = [
        {"id": lead["id"], **{name: lead[name] for name in names if lead.get(name) is not None}}
        for lead in part
    ]
    more = start + size < len(found)
    return {"result": shown, "moreResult": more, **({"nextPageToken": str(start + size)} if more else {})}


def described(item: Attribute) -> dict[str, Any]:
    length = {"length": item.length} if item.length else {}
    return {"displayName": item.name, "dataType": item.kind, **length}
