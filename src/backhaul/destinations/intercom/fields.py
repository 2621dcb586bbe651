"""Intercom's attributes as fields, and its JSON as values of fields.

Standard attributes are those of the OpenAPI document's requests (create_contact_request, create_or_update_company_request);
custom ones come from GET /data_attributes and go by their full name, `custom_attributes.plan`. Moments are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from backhaul.destinations.kit import plain
from backhaul.types import Field, FieldType

OWN_ID = "id"
CUSTOM = "custom_attributes"
_TYPES = {
    "string": FieldType.STRING, "integer": FieldType.INTEGER, "float": FieldType.NUMBER, "boolean": FieldType.BOOLEAN,
    "date": FieldType.DATETIME, "datetime": FieldType.DATETIME,
}  # fmt: skip
STANDARD: Mapping[str, Mapping[str, str]] = {
    "contacts": {
        "external_id": "string", "email": "string", "role": "string", "name": "string", "phone": "string", "avatar": "string",
        "owner_id": "string", "language_override": "string", "signed_up_at": "date", "last_seen_at": "date",
        "unsubscribed_from_emails": "boolean", "email_verified": "boolean",
    },
    "companies": {
        "company_id": "string", "name": "string", "plan": "string", "website": "string", "industry": "string",
        "size": "integer", "monthly_spend": "integer", "remote_created_at": "date",
    },
}  # fmt: skip
KEYS = {"contacts": ("external_id", "email"), "companies": ("company_id",)}
"""What a record can be found by, beside Intercom's own id."""
_INSIDE = {"avatar": "image_url"}
"""What of an object is the value that was sent (OpenAPI: contact)."""
_NEVER_SHOWN = ("email_verified",)
"""What may be written and is no part of a contact that is read (OpenAPI: contact)."""
_CHOICES = {"role": ("user", "lead")}


def standard_fields(object: str) -> dict[str, Field]:
    """What the object has in every workspace."""
    fields = {
        name: Field(
            name,
            _TYPES[kind],
            unique=name in KEYS[object],
            choices=_CHOICES.get(name),
            case_insensitive=name == "email",
            trims=name == "email",
            native_type=kind,
        )
        for name, kind in STANDARD[object].items()
    }
    return {
        OWN_ID: Field(OWN_ID, FieldType.STRING, writable=False, unique=True, native_type="string"),
        **fields,
    }


def custom_field(item: Mapping[str, Any], longest: int) -> Field:
    """A data attribute; `longest` is in characters of a text."""
    kind = str(item.get("data_type"))
    options = item.get("options")
    named = [option.get("value") if isinstance(option, dict) else option for option in options or ()]
    return Field(
        str(item.get("full_name") or f"{CUSTOM}.{item['name']}"),
        _TYPES.get(kind, FieldType.STRING),
        writable=item.get("api_writable") is not False,
        max_length=longest if kind == "string" else None,
        choices=tuple(str(value) for value in named if value is not None) or None,
        native_type=kind,
    )


def outgoing(record: Mapping[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    """A record as Intercom takes it: without its own id, which only finds it, and with moments as Unix seconds."""
    sent = {name: value for name, value in record.items() if name != OWN_ID}
    if isinstance(sent.get(CUSTOM), dict):
        sent[CUSTOM] = dict(sent[CUSTOM])
    for field in fields:
        head, dot, name = field.name.partition(".")
        inner, key = (sent.get(head), name) if dot else (sent, head)
        if field.type is FieldType.DATETIME and isinstance(inner, dict) and key in inner:
            inner[key] = seconds(inner[key])
    return sent


def seconds(value: Any) -> Any:
    """Unix seconds of an ISO 8601 moment (UTC where it names no zone); anything else is left as it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(value)
            return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        return int(value) if value.isdecimal() else value
    return value


def values_of(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The values of some fields; a company's plan is an object with a name."""
    found: dict[str, Any] = {}
    for name in names:
        head, dot, inner = name.partition(".")
        held = record.get(head)
        if isinstance(held, dict):
            held = held.get(inner if dot else _INSIDE.get(name, "name"))
        found[name] = held
    return found


def fold(name: str, value: Any) -> str:
    """An identifier in the form in which Intercom compares it."""
    return str(value).strip().lower() if name == "email" else str(value)


def same(field: Field, sent: Any, held: Any) -> bool:
    """Whether both are one value: moments are given back as Unix seconds."""
    if field.name in _NEVER_SHOWN and held is None:
        return True
    if field.type is FieldType.DATETIME:
        sent, held = seconds(sent), seconds(held)
    return bool(plain(field, sent) == plain(field, held))
