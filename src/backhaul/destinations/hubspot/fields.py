"""HubSpot's properties as fields, and when two spellings of a value are the same one to HubSpot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from backhaul.destinations.kit import inner, listed, moment, plain
from backhaul.types import Field, FieldType

RECORD_ID = "hs_object_id"
_CONTACTS = ("contacts", "contact", "0-1")
_LONGEST = 65_536
"""Characters of a text property; from memory, no public document says it."""
_TYPES = {
    "number": FieldType.NUMBER, "bool": FieldType.BOOLEAN, "date": FieldType.DATE, "datetime": FieldType.DATETIME,
    "json": FieldType.JSON,
}  # fmt: skip
NUMBERS = (FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL)
SEVERAL = "enumeration/checkbox"
"""A property of several choices; takes a list of them as well as a text."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)?)?")


def is_email(object: str, name: str) -> bool:
    """Whether this is the e-mail that identifies a contact, without regard to case."""
    return name == "email" and object.lower() in _CONTACTS


def field_of(item: Mapping[str, Any], object: str) -> Field:
    """A property, as the properties endpoint describes it. The e-mail of a contact is unique though it does not say so."""
    name, kind = str(item["name"]), str(item.get("type"))
    native = f"{kind}/{item['fieldType']}" if item.get("fieldType") else kind
    fixed = item.get("calculated") or inner(item, "modificationMetadata", "readOnlyValue")
    options = tuple(str(option["value"]) for option in listed(item, "options") if "value" in option)
    closed = kind == "enumeration" and native != SEVERAL and not item.get("externalOptions") and options
    email = is_email(object, name)
    return Field(
        name,
        FieldType.ANY if native == SEVERAL else _TYPES.get(kind, FieldType.STRING),
        writable=not fixed,
        unique=bool(item.get("hasUniqueValue")) or email,
        max_length=_LONGEST if kind == "string" else None,
        choices=options if closed else None,
        case_insensitive=email,
        trims=email,
        native_type=native,
    )


def fold(object: str, name: str, value: Any) -> str:
    """An identifier in the form in which HubSpot compares it."""
    text = str(value)
    return text.strip().lower() if is_email(object, name) else text


def choices(value: Any) -> Any:
    """Several choices as HubSpot writes them, joined by semicolons; of a list its JSON text is given."""
    if not isinstance(value, str) or not value.startswith("["):
        return value
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    # a semicolon in front would add to what is chosen
    return ";".join(str(one) for one in found if one not in (None, ""))


def digits(value: Any) -> Any:
    """A number without an exponent, which HubSpot takes for no number (Atlas-Authority/marketing-automation#206)."""
    if not isinstance(value, str) or "e" not in value.lower():
        return value
    try:
        return f"{Decimal(value):f}"
    except InvalidOperation:
        return value


def same(field: Field, sent: Any, held: Any) -> bool:
    """Whether both are one value: dates are given back as ISO 8601 with milliseconds, choices in any order."""
    if field.native_type == SEVERAL:
        return _chosen(sent) == _chosen(held)
    one, other = plain(field, sent), plain(field, held)
    if one == other or one is None or other is None:
        return bool(one == other)
    if field.type in (FieldType.DATE, FieldType.DATETIME):
        first, second = _moment(str(one)), _moment(str(other))
        return first is not None and second is not None and abs(first - second) < timedelta(milliseconds=1)
    return field.type is FieldType.BOOLEAN and str(one).lower() == str(other).lower()


def _chosen(value: Any) -> set[str]:
    return set(filter(None, str(choices("" if value is None else value)).split(";")))


def _moment(text: str) -> datetime | None:
    """A date or an instant: milliseconds since 1970 or ISO 8601, in UTC where it names no zone."""
    if re.fullmatch(r"-?\d{1,14}", text):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(text))
    return moment(text) if _MOMENT.fullmatch(text) else None
