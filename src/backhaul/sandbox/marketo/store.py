"""What a simulated Marketo instance holds: leads, custom objects, static lists, and what it takes for each field."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import count
from typing import Any

from backhaul.sandbox.lag import Lag

Values = dict[str, Any]
_AREA = 30_000
"""Bytes of a text area (guide: Field Types)."""
_EMAIL = re.compile(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:?\d\d)")


class Whole(Exception):
    """The request is refused."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Skipped(Exception):
    """One record is left out."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reasons = [{"code": code, "message": message}]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One field; `length` is of texts."""

    name: str
    kind: str = "string"
    length: int | None = None
    read_only: bool = False
    searchable: bool = False

    def accept(self, value: Any) -> Any:
        """The value as it is held. Raises: Skipped."""
        if value is None or value == "":
            return False if self.kind == "boolean" else None
        large = self.kind == "text" and len(str(value).encode()) > _AREA
        if large or not _fits(self.kind, value) or (self.length and len(str(value)) > self.length):
            said = f"Invalid value for field '{self.name}' and value '{value}'"
            raise Skipped("1003", said)
        if self.kind in ("integer", "percent", "score"):
            return int(value)
        return float(value) if self.kind in ("float", "currency") else value


def _fits(kind: str, value: Any) -> bool:
    text = str(value)
    try:
        if kind in ("integer", "percent", "score"):
            return not isinstance(value, bool) and int(text) is not None
        if kind in ("float", "currency"):
            return not isinstance(value, bool) and float(text) is not None
        if kind == "date":
            return date.fromisoformat(text) is not None
    except ValueError:
        return False
    if kind == "boolean":
        return isinstance(value, bool) or text.lower() in ("true", "false", "1", "0")
    if kind == "datetime":
        return _MOMENT.fullmatch(text) is not None
    return text.isascii() and _EMAIL.fullmatch(text) is not None if kind == "email" else True


def fold(value: Any) -> str:
    """A value as searches compare it: without regard to case. From memory."""
    return str(value).strip().casefold()


def stamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Room:
    """Records of one kind; `keys` are the fields of which an index is kept, alone or several together."""

    def __init__(self, attributes: Sequence[Attribute], keys: Sequence[tuple[str, ...]]) -> None:
        self.lag = Lag(lambda: 0.0)
        self.attributes = {item.name: item for item in attributes}
        self.records: dict[str, Values] = {}
        """By Marketo's own id, as text."""
        self._index: dict[tuple[str, ...], dict[tuple[str, ...], list[str]]] = {key: {} for key in keys}

    def find(self, names: tuple[str, ...], values: Sequence[Any]) -> list[str]:
        """Ids of the records with these values."""
        return list(self._index[names].get(tuple(map(fold, values)), ()))

    def shown(self, names: tuple[str, ...], values: Sequence[Any]) -> list[Values]:
        """The records with these values, as a read shows them."""
        key = tuple(map(fold, values))
        owns = self.lag.shown((names, key), self._index[names].get(key, []))
        records = (self.lag.shown(own, self.records.get(own)) for own in owns)
        return [record for record in records if record is not None]

    def indexed(self, name: str) -> bool:
        return (name,) in self._index

    def put(self, own: str, values: Values) -> None:
        """Raises: Skipped; nothing is changed."""
        accepted = {name: self.attributes[name].accept(value) for name, value in values.items()}
        before = self.records.get(own)
        held = dict(before) if before is not None else {**self._blank(), "createdAt": stamp()}
        held |= accepted
        held["updatedAt"] = stamp()
        self._remember(own, before or {}, held)
        self._remove(own)
        self.records[own] = held
        for place, key in self._places(held):
            self._index[place].setdefault(key, []).append(own)

    def drop(self, own: str) -> bool:
        """Whether it was there."""
        self._remember(own, self.records.get(own, {}), {})
        return self._remove(own)

    def _remember(self, own: str, before: Values, after: Values) -> None:
        """Keeps what reads show of a record that is written now."""
        self.lag.wrote(own, before or None)
        for names, key in {*self._places(before), *self._places(after)}:
            self.lag.wrote((names, key), self._index[names].get(key, []))

    def _remove(self, own: str) -> bool:
        held = self.records.pop(own, None)
        for place, key in self._places(held) if held is not None else ():
            self._index[place][key].remove(own)
        return held is not None

    def _blank(self) -> Values:
        return {name: item.accept(None) for name, item in self.attributes.items()}

    def _places(self, held: Values) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        for names in self._index:
            values = [held.get(name) for name in names]
            if None not in values:
                yield names, tuple(map(fold, values))

    def known(self, values: Mapping[str, Any]) -> None:
        """Raises: Whole: there is no such field. Skipped: it cannot be set."""
        for name in values:
            if name not in self.attributes:
                raise Whole("1006", f"Field '{name}' not found")
            if self.attributes[name].read_only:
                raise Skipped("1003", f"Field '{name}' is read-only")


def lead_attributes() -> list[Attribute]:
    plain = [
        Attribute(name, "string", 255)
        for name in ("firstName", "lastName", "title", "city", "country", "plan")
    ]
    return [
        Attribute("id", "integer", read_only=False, searchable=True),
        Attribute("email", "email", 255, searchable=True),
        Attribute("customerId", "string", 255, searchable=True),
        *plain,
        Attribute("phone", "phone", 255),
        Attribute("website", "url", 255),
        Attribute("notes", "text"),
        Attribute("unsubscribed", "boolean"),
        Attribute("trial", "boolean"),
        Attribute("leadScore", "integer"),
        Attribute("seats", "integer"),
        Attribute("discount", "percent"),
        Attribute("health", "float"),
        Attribute("mrr", "currency"),
        Attribute("dateOfBirth", "date"),
        Attribute("signedUpAt", "datetime"),
        Attribute("createdAt", "datetime", read_only=True),
        Attribute("updatedAt", "datetime", read_only=True),
    ]


@dataclass
class CustomObject:
    """One approved type of custom object."""

    name: str
    dedupe: tuple[str, ...]
    room: Room

    def key(self, item: Mapping[str, Any]) -> list[Any]:
        """Raises: Skipped."""
        for name in self.dedupe:
            if item.get(name) in (None, ""):
                raise Skipped("1002", f"Missing value for the required parameter '{name}'")
        return [item[name] for name in self.dedupe]


def custom_object(name: str, dedupe: tuple[str, ...], own: Sequence[Attribute]) -> CustomObject:
    system = [
        Attribute("marketoGUID", "string", 36, read_only=True),
        Attribute("createdAt", "datetime", read_only=True),
        Attribute("updatedAt", "datetime", read_only=True),
    ]
    return CustomObject(name, dedupe, Room([*system, *own], [dedupe]))


@dataclass
class Instance:
    """Leads, two custom objects, and a static list."""

    leads: Room = field(
        default_factory=lambda: Room(
            lead_attributes(), [(item.name,) for item in lead_attributes() if item.searchable]
        )
    )
    lists: dict[str, tuple[str, set[str]]] = field(default_factory=lambda: {"1001": ("Customers", set())})
    """By id: its name, and the ids of its members."""
    objects: dict[str, CustomObject] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=lambda: count(7149))

    def __post_init__(self) -> None:
        car = custom_object("car_c", ("vin",), [
            Attribute("vin", "string", 36), Attribute("make", "string", 36), Attribute("year", "integer"),
        ])  # fmt: skip
        seat = custom_object("seat_c", ("account", "number"), [
            Attribute("account", "string", 50), Attribute("number", "integer"), Attribute("plan", "string", 255),
        ])  # fmt: skip
        self.objects = {item.name: item for item in (car, seat)}

    def sync_lead(self, action: str, lookup: str, item: Mapping[str, Any]) -> tuple[str, str]:
        """The lead's id, and what became of it. Raises: Whole, Skipped."""
        self.leads.known(item)
        if item.get(lookup) in (None, ""):
            raise Skipped("1002", f"Missing value for the required parameter '{lookup}'")
        if "id" in item and action != "updateOnly":
            raise Skipped("1003", "Field 'id' can be given with updateOnly alone")
        own = [str(item["id"])] if lookup == "id" else self.leads.find((lookup,), [item[lookup]])
        own = [one for one in own if one in self.leads.records]
        if len(own) > 1:
            raise Skipped("1007", "Multiple lead match lookup criteria")
        if own and action == "createOnly":
            raise Skipped("1005", "Lead already exists")
        if not own and action == "updateOnly":
            raise Skipped("1004", "Lead not found")
        number = own[0] if own else str(next(self.ids))
        self.leads.put(number, {**item, "id": int(number)})
        return number, "updated" if own else "created"

    def drop_lead(self, own: str) -> None:
        """Raises: Skipped."""
        if not self.leads.drop(own):
            raise Skipped("1004", "Lead not found")
        for _, members in self.lists.values():
            members.discard(own)

    def sync_custom(self, kind: CustomObject, action: str, item: Mapping[str, Any]) -> tuple[str, str]:
        """The record's GUID, and what became of it. Raises: Whole, Skipped."""
        kind.room.known(item)
        own = kind.room.find(kind.dedupe, kind.key(item))
        if own and action == "createOnly":
            raise Skipped("1017", "Object already exists")
        if not own and action == "updateOnly":
            raise Skipped("1013", "Object not found")
        guid = own[0] if own else str(uuid.uuid4())
        kind.room.put(guid, {**item, "marketoGUID": guid})
        return guid, "updated" if own else "created"

    def drop_custom(self, kind: CustomObject, item: Mapping[str, Any]) -> str:
        """Its GUID. Raises: Skipped."""
        own = kind.room.find(kind.dedupe, kind.key(item))
        if not own:
            raise Skipped("1013", "Object not found")
        kind.room.drop(own[0])
        return own[0]
