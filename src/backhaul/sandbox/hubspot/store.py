"""The simulated account: object types, their properties, and records as HubSpot keeps them (every value a string)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_LONGEST = 65_536


def stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Property:
    """A property's definition."""

    name: str
    type: str = "string"
    field_type: str = "text"
    label: str = ""
    options: tuple[str, ...] = ()
    unique: bool = False
    read_only: bool = False
    calculated: bool = False

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name, "label": self.label or self.name, "type": self.type, "fieldType": self.field_type,
            "groupName": "information", "description": "", "hidden": False, "archived": False, "formField": True,
            "options": [{"label": value.title(), "value": value, "hidden": False, "displayOrder": n} for n, value in enumerate(self.options)],
            "hasUniqueValue": self.unique, "calculated": self.calculated, "externalOptions": False,
            "modificationMetadata": {"archivable": True, "readOnlyDefinition": False, "readOnlyValue": self.read_only or self.calculated},
        }  # fmt: skip

    def fault(self, value: str) -> str | None:
        """Why HubSpot would refuse this value; None where it takes it."""
        if value == "":
            return None
        if len(value) > _LONGEST and self.type == "string":
            return f"{value[:20]}… is too long. The maximum length is {_LONGEST} characters"
        check = {"number": _number, "date": _date, "datetime": _datetime, "bool": _bool}.get(self.type)
        if check is not None and not check(value):
            return f"{value} was not a valid {self.type}"
        if self.type == "enumeration":
            chosen = value.split(";") if self.field_type == "checkbox" else [value]
            wrong = [item for item in chosen if item not in self.options]
            if wrong:
                return f"{wrong[0]} was not one of the allowed options: {list(self.options)}"
        return (
            f"Email address {value} is invalid"
            if self.name == "email" and not _EMAIL.fullmatch(value)
            else None
        )


def _number(value: str) -> bool:
    return re.fullmatch(r"-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", value) is not None


def _bool(value: str) -> bool:
    return value in ("true", "false")


def _date(value: str) -> bool:
    """YYYY-MM-DD, or milliseconds at midnight UTC."""
    if re.fullmatch(r"-?\d+", value):
        return int(value) % 86_400_000 == 0
    return re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is not None and _iso(value)


def _datetime(value: str) -> bool:
    return re.fullmatch(r"-?\d+", value) is not None or _iso(value)


def _iso(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


@dataclass
class Record:
    """One CRM record."""

    id: str
    properties: dict[str, str | None]
    created_at: str
    updated_at: str
    archived: bool = False

    def json(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        shown = (
            dict(self.properties) if names is None else {name: self.properties.get(name) for name in names}
        )
        shown |= {"hs_object_id": self.id, "createdate": self.created_at, "lastmodifieddate": self.updated_at}
        return {
            "id": self.id,
            "properties": shown,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "archived": self.archived,
        }


class Refusal(Exception):  # noqa: N818 - the vendor's word to the client
    """What the API would answer for one record."""

    def __init__(self, category: str, message: str) -> None:
        super().__init__(message)
        self.category = category


@dataclass
class ObjectType:
    """One kind of record, with an index for every unique property."""

    name: str
    properties: dict[str, Property]
    unknown_properties: str = "refuse"
    """`refuse`: a 400 for the request. `drop`: left out in silence."""
    records: dict[str, Record] = field(default_factory=dict)
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)
    next_id: int = 1

    def unique_names(self) -> list[str]:
        return [name for name, item in self.properties.items() if item.unique or name == "email"]

    def find(self, name: str | None, value: str) -> Record | None:
        """A live record by its id, or by a unique property."""
        if name in (None, "hs_object_id"):
            found = self.records.get(value)
        else:
            found = self.records.get(self.indexes.get(str(name), {}).get(_folded(str(name), value), ""))
        return found if found is not None and not found.archived else None

    def unknown(self, properties: Mapping[str, Any]) -> list[str]:
        return [
            name
            for name in properties
            if name not in self.properties
            or self.properties[name].read_only
            or self.properties[name].calculated
        ]

    def check(self, properties: Mapping[str, Any]) -> dict[str, str]:
        """The properties as they would be stored. Raises: Refusal."""
        checked: dict[str, str] = {}
        for name, value in properties.items():
            if name not in self.properties:
                continue
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            fault = self.properties[name].fault(text)
            if fault:
                raise Refusal(
                    "VALIDATION_ERROR",
                    f'Property values were not valid: [{{"isValid":false,"message":"{fault}","name":"{name}"}}]',
                )
            checked[name] = text.strip().lower() if name == "email" else text
        return checked

    def create(self, properties: Mapping[str, Any]) -> Record:
        """Raises: Refusal."""
        checked = self.check(properties)
        self._conflicts(checked, None)
        record = Record(str(self.next_id), {}, stamp(), stamp())
        self.next_id += 1
        self.records[record.id] = record
        self._store(record, checked)
        return record

    def update(self, record: Record, properties: Mapping[str, Any]) -> Record:
        """Raises: Refusal."""
        checked = self.check(properties)
        self._conflicts(checked, record)
        self._store(record, checked)
        record.updated_at = stamp()
        return record

    def archive(self, record: Record) -> None:
        record.archived = True
        for name in self.unique_names():
            self.indexes.get(name, {}).pop(_folded(name, record.properties.get(name) or ""), None)

    def _conflicts(self, checked: Mapping[str, str], mine: Record | None) -> None:
        for name in self.unique_names():
            other = self.find(name, checked[name]) if checked.get(name) else None
            if other is not None and other is not mine:
                kind = self.name[:-1].title() if self.name.endswith("s") else "Object"
                raise Refusal("CONFLICT", f"{kind} already exists. Existing ID: {other.id}")

    def _store(self, record: Record, checked: Mapping[str, str]) -> None:
        for name in self.unique_names():
            if name in checked:
                index = self.indexes.setdefault(name, {})
                index.pop(_folded(name, record.properties.get(name) or ""), None)
                if checked[name]:
                    index[_folded(name, checked[name])] = record.id
        for name, value in checked.items():
            record.properties[name] = value or None


def _folded(name: str, value: str) -> str:
    return value.strip().lower() if name == "email" else value


def _text(*names: str) -> dict[str, Property]:
    return {name: Property(name) for name in names}


def _kept(*names: str) -> dict[str, Property]:
    return {name: Property(name, "datetime", "date", read_only=True) for name in names}


def standard_types() -> dict[str, ObjectType]:
    """The object types of a fresh account, with the properties that matter most."""
    own = _kept("createdate", "lastmodifieddate") | {
        "hs_object_id": Property("hs_object_id", "number", "number", read_only=True)
    }
    stages = (
        "subscriber",
        "lead",
        "marketingqualifiedlead",
        "salesqualifiedlead",
        "opportunity",
        "customer",
        "evangelist",
        "other",
    )
    return {
        "contacts": ObjectType("contacts", own | _text("email", "firstname", "lastname", "phone", "company", "website", "jobtitle", "city", "country") | {
            "lifecyclestage": Property("lifecyclestage", "enumeration", "radio", options=stages)}),
        "companies": ObjectType("companies", own | _text("name", "domain", "phone", "city", "country", "industry") | {
            "annualrevenue": Property("annualrevenue", "number", "number"),
            "numberofemployees": Property("numberofemployees", "number", "number")}),
        "deals": ObjectType("deals", own | _text("dealname", "dealstage", "pipeline") | {
            "amount": Property("amount", "number", "number"), "closedate": Property("closedate", "datetime", "date")}),
        "2-1001": ObjectType("2-1001", own | _text("name", "status") | {"external_id": Property("external_id", unique=True)}),
    }  # fmt: skip
