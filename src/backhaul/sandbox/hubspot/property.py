"""A property of an object type: its definition, and what HubSpot makes of a value. Every value is a string."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backhaul.sandbox.hubspot.answers import Refusal, stamp

FIELD_TYPES = {
    "bool": {"booleancheckbox", "calculation_equation"},
    "date": {"date"},
    "datetime": {"date"},
    "enumeration": {"booleancheckbox", "checkbox", "radio", "select", "calculation_equation"},
    "number": {"number", "calculation_equation"},
    "phone_number": {"phonenumber"},
    "string": {"text", "textarea", "file", "html", "phonenumber", "calculation_equation"},
}
"""Property type -> the field types it goes with; another pair is refused."""
LONGEST = 65_536
"""Characters of a value."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_EMAIL = re.compile(r"[^@\s,;<>()\[\]\"]+@[^@\s.,;<>()\[\]\"]+(\.[^@\s.,;<>()\[\]\"]+)+")
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)")
_MILLISECONDS = re.compile(r"-?\d+")
_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Property:
    """A property's definition. `external` options live elsewhere (owners) and are not checked."""

    name: str
    type: str = "string"
    field_type: str = "text"
    label: str = ""
    options: tuple[str, ...] = ()
    unique: bool = False
    read_only: bool = False
    calculated: bool = False
    external: bool = False
    group: str = "information"
    own: bool = True
    """HubSpot's own, and not a user's."""
    forward: bool = False
    """A stage before the one that is held is not taken, without a word; it has to be cleared first. From memory."""

    def json(self) -> dict[str, Any]:
        options = [
            {"label": value.replace("_", " ").title(), "value": value, "displayOrder": place, "hidden": False}
            for place, value in enumerate(self.options)
        ]
        return {
            "name": self.name, "label": self.label or self.name, "type": self.type, "fieldType": self.field_type,
            "description": "", "groupName": self.group, "options": options, "displayOrder": -1,
            "calculated": self.calculated, "externalOptions": self.external, "archived": False,
            "hasUniqueValue": self.unique, "hidden": False, "hubspotDefined": self.own, "formField": True,
            "createdAt": "2020-06-30T15:57:35.997Z", "updatedAt": "2020-06-30T15:57:35.997Z",
            "modificationMetadata": {"archivable": not self.own, "readOnlyDefinition": self.own,
                                     "readOnlyValue": self.read_only or self.calculated},
        }  # fmt: skip

    def fold(self, value: str) -> str:
        """The form in which two values count as the same one."""
        return value.strip().lower() if self.name == "email" else value

    def accept(self, value: str, held: str = "") -> str:
        """The value as it is stored; `held` is what is stored now.

        Raises:
            Refusal: HubSpot does not take it.
        """
        if value == "":
            return ""
        if len(value) > LONGEST:
            raise self._refusal(
                "TOO_LONG", f"{self.name} has {len(value)} characters, the maximum is {LONGEST}"
            )
        if self.name == "email":
            return self._email(value)
        if self.type == "enumeration":
            chosen = self._choice(value, held)
            return held if self.forward and held and self._is_back(chosen, held) else chosen
        rule = {"number": _number, "date": _date, "datetime": _datetime, "bool": _bool}.get(self.type)
        stored = value if rule is None else rule(value)
        if stored is None:
            raise self._refusal(f"INVALID_{self.type.upper()}", f"{value} was not a valid {self.type}")
        return stored

    def _email(self, value: str) -> str:
        if not _EMAIL.fullmatch(value.strip()):
            raise self._refusal("INVALID_EMAIL", f"Email address {value} is invalid")
        return self.fold(value)

    def _is_back(self, value: str, held: str) -> bool:
        return (
            value in self.options
            and held in self.options
            and self.options.index(value) < self.options.index(held)
        )

    def _choice(self, value: str, held: str) -> str:
        """A leading semicolon adds to the options that are chosen already."""
        several = self.field_type == "checkbox"
        chosen = [item for item in value.split(";") if item] if several else [value]
        if several and value.startswith(";"):
            chosen = list(dict.fromkeys([*filter(None, held.split(";")), *chosen]))
        for item in chosen:
            if not self.external and item not in self.options:
                allowed = ", ".join(self.options)
                raise self._refusal(
                    "INVALID_OPTION", f"{item} was not one of the allowed options: [{allowed}]"
                )
        return ";".join(chosen)

    def _refusal(self, code: str, message: str) -> Refusal:
        return invalid(self.name, code, message)


def invalid(name: str, code: str, message: str) -> Refusal:
    """The refusal of one property's value."""
    error = {"message": message, "code": code, "in": name, "context": {"propertyName": [name]}}
    return Refusal("VALIDATION_ERROR", f"Property values were not valid: [{name}: {message}]", errors=[error])


def _number(value: str) -> str | None:
    return value.strip() if _NUMBER.fullmatch(value.strip()) else None


def _bool(value: str) -> str | None:
    return value.lower() if value.lower() in ("true", "false") else None


def _date(value: str) -> str | None:
    """YYYY-MM-DD or milliseconds, at midnight UTC."""
    if _MILLISECONDS.fullmatch(value):
        moment = _of_milliseconds(value)
        return moment[:10] if moment is not None and int(value) % _DAY == 0 else None
    moment = _iso(value)
    return moment[:10] if moment is not None and moment.endswith("T00:00:00.000Z") else None


def _datetime(value: str) -> str | None:
    return _of_milliseconds(value) if _MILLISECONDS.fullmatch(value) else _iso(value)


def _of_milliseconds(value: str) -> str | None:
    try:
        return stamp(int(value))
    except (ValueError, OverflowError, OSError):
        return None


def _iso(value: str) -> str | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def defined(body: Mapping[str, Any]) -> Property:
    """A property as a client defines it.

    Raises:
        Refusal: the definition is not complete, or its type and field type do not go together.
    """
    missing = [name for name in ("name", "label", "type", "fieldType", "groupName") if not body.get(name)]
    if missing:
        fields = ", ".join(missing)
        raise Refusal(
            "VALIDATION_ERROR",
            f"Invalid input JSON on line 1, column 1. Some required fields were not set: [{fields}]",
        )
    name, kind, field_type = str(body["name"]), str(body["type"]), str(body["fieldType"])
    if not _NAME.fullmatch(name):
        raise Refusal(
            "VALIDATION_ERROR",
            f"{name} is not a property name: lower-case letters, digits and underscores, a letter first",
        )
    if kind not in FIELD_TYPES:
        raise Refusal("VALIDATION_ERROR", f"{kind} is not a property type: {', '.join(FIELD_TYPES)}")
    if field_type not in FIELD_TYPES[kind]:
        raise Refusal("VALIDATION_ERROR", f"The type {kind} does not go with the field type {field_type}")
    options = tuple(str(option["value"]) for option in body.get("options") or ())
    return Property(
        name, kind, field_type, str(body["label"]), options, bool(body.get("hasUniqueValue")),
        external=bool(body.get("externalOptions")), group=str(body["groupName"]), own=False,
    )  # fmt: skip
