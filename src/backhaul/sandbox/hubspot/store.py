"""The simulated account's records, with an index for every unique property: no lookup walks through the records."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from backhaul.sandbox.hubspot.answers import Refusal, stamp
from backhaul.sandbox.hubspot.property import Property, invalid

_IDS = count(30_001)
OTHER_EMAILS = "hs_additional_emails"
_MERGED_IDS = "hs_merged_object_ids"


@dataclass(slots=True)
class Record:
    """One CRM record. A cleared property is held as an empty string."""

    id: str
    properties: dict[str, str]
    created_at: str = field(default_factory=stamp)
    updated_at: str = ""
    changed: float = 0.0
    """Monotonic seconds of the last write."""
    archived: bool = False

    def values(self) -> dict[str, str]:
        """Everything it holds, HubSpot's own properties included."""
        own = {"hs_object_id": self.id, "createdate": self.created_at, "lastmodifieddate": self.updated_at}
        return self.properties | own | {"hs_lastmodifieddate": self.updated_at}

    def json(self, properties: Mapping[str, str | None]) -> dict[str, Any]:
        return {
            "id": self.id, "properties": properties, "createdAt": self.created_at, "updatedAt": self.updated_at,
            "archived": self.archived,
        }  # fmt: skip


@dataclass(slots=True)
class ObjectType:
    """One kind of record. `name` is what URLs call it: contacts, companies, deals, 2-1001."""

    name: str
    type_id: str
    label: str
    properties: dict[str, Property]
    full_name: str = ""
    required: tuple[str, ...] = ()
    """Properties that a new record needs, where the version or the kind enforces it."""
    shown: tuple[str, ...] = ()
    """Properties that a read gives without being asked."""
    records: dict[str, Record] = field(default_factory=dict)
    """Live ones, by id; the last one written is the last."""
    archive: dict[str, Record] = field(default_factory=dict)
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)
    """Ids of records that were merged away, and the ids of what they are now."""

    @property
    def custom(self) -> bool:
        return self.type_id.startswith("2-")

    @property
    def modified(self) -> str:
        """What this kind calls the time of its last change."""
        return "lastmodifieddate" if self.name == "contacts" else "hs_lastmodifieddate"

    def names(self) -> Iterator[str]:
        """Every spelling by which a URL may call it, in lower case."""
        yield from (self.name.lower(), self.type_id, self.label.lower())
        if self.full_name:
            yield from (self.full_name.lower(), f"p_{self.full_name.lower().split('_', 1)[1]}")

    def identifying(self) -> list[Property]:
        """Properties by whose value a record can be found."""
        return [item for item in self.properties.values() if item.unique or self.is_email(item.name)]

    def is_email(self, name: str | None) -> bool:
        return name == "email" and self.name == "contacts"

    def find(self, name: str | None, value: str) -> Record | None:
        """A live record by its id, or by an identifying property."""
        if name is None:
            return self.records.get(self.merged.get(value, value))
        found = self.indexes.get(name, {}).get(self.properties[name].fold(value))
        return self.records.get(found) if found is not None else None

    def accepted(self, properties: Mapping[str, str], record: Record | None = None) -> dict[str, str]:
        """The properties as they would be stored in a record (None: a new one).

        Raises:
            Refusal: a value is not valid, or belongs to another record.
        """
        held = record.properties if record is not None else {}
        stored = {
            name: self.properties[name].accept(value, held.get(name, ""))
            for name, value in properties.items()
        }
        for item in self.identifying():
            other = self.find(item.name, stored[item.name]) if stored.get(item.name) else None
            if other is not None and other is not record:
                raise self.taken(item.name, other)
        return stored

    def taken(self, name: str, other: Record) -> Refusal:
        if self.is_email(name):
            return Refusal("CONFLICT", f"{self.label} already exists. Existing ID: {other.id}")
        return invalid(
            name,
            "CONFLICTING_UNIQUE_VALUE",
            f"{other.id} already has that value of {name}. Existing ID: {other.id}",
        )

    def create(self, properties: Mapping[str, str]) -> Record:
        """Raises: Refusal."""
        stored = self.accepted(properties)
        record = Record(str(next(_IDS)), {})
        self._store(record, stored)
        return record

    def update(self, record: Record, properties: Mapping[str, str]) -> None:
        """A contact whose e-mail becomes one of its others keeps the old one as another. Raises: Refusal."""
        stored, was, others = (
            self.accepted(properties, record),
            record.properties.get("email", ""),
            self.other_emails(record),
        )
        self._store(record, stored)
        if stored.get("email") in others:
            self.add_emails(record, [was, *(one for one in others if one != stored["email"])])

    def merge(self, primary: Record, other: Record) -> None:
        """Makes one contact of two: the primary one keeps its id and values, and answers to the other's id and e-mail."""
        email = other.properties.get("email", "")
        others = [*self.other_emails(primary), email, *self.other_emails(other)]
        ids = [*filter(None, primary.properties.get(_MERGED_IDS, "").split(";")), other.id]
        self.remove(other)
        del self.archive[other.id]
        self.merged |= {old: primary.id for old in self.merged if self.merged[old] == other.id}
        self.merged[other.id] = primary.id
        values = {name: value for name, value in other.properties.items() if not primary.properties.get(name)}
        primary.properties |= {**values, _MERGED_IDS: ";".join(ids)}
        self.add_emails(primary, [one for one in others if one])

    def other_emails(self, record: Record) -> list[str]:
        return [one for one in record.properties.get(OTHER_EMAILS, "").split(";") if one]

    def add_emails(self, record: Record, emails: Iterable[str]) -> None:
        """Gives a contact further e-mails, as people do on its page."""
        item = self.properties["email"]
        record.properties[OTHER_EMAILS] = ";".join(dict.fromkeys(map(item.fold, emails)))
        for one in self.other_emails(record):
            self.indexes.setdefault("email", {})[one] = record.id

    def remove(self, record: Record) -> None:
        """Archives a record; its unique values are free again."""
        self._unindex(record, (item.name for item in self.identifying()))
        for one in self.other_emails(record):
            self.indexes["email"].pop(one, None)
        record.archived = True
        self.archive[record.id] = self.records.pop(record.id)

    def _store(self, record: Record, stored: Mapping[str, str]) -> None:
        self._unindex(record, stored)
        record.properties.update(stored)
        record.updated_at, record.changed = stamp(), time.monotonic()
        self.records.pop(record.id, None)
        self.records[record.id] = record
        for item in self.identifying():
            value = record.properties.get(item.name)
            if value:
                self.indexes.setdefault(item.name, {})[item.fold(value)] = record.id

    def _unindex(self, record: Record, names: Iterable[str]) -> None:
        for name in names:
            value = record.properties.get(name)
            if name in self.indexes and value:
                self.indexes[name].pop(self.properties[name].fold(value), None)
