"""Zendesk's users and organizations as fields.

Standard attributes are those of the Users and Organizations reference; custom ones come from GET /user_fields and
/organization_fields and go by `user_fields.KEY` and `organization_fields.KEY`. A dropdown holds the option's value (its tag).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul.destinations.kit import plain
from backhaul.types import Field, FieldType

_TYPES = {
    "checkbox": FieldType.BOOLEAN, "boolean": FieldType.BOOLEAN, "date": FieldType.DATE, "integer": FieldType.INTEGER,
    "decimal": FieldType.NUMBER, "multiselect": FieldType.ARRAY, "list": FieldType.ARRAY,
}  # fmt: skip
KEY = "external_id"
_SETS = ("multiselect", "list")


@dataclass(frozen=True, slots=True)
class Kind:
    """One object: its names in bodies and paths, its standard attributes by type, and what finds a record."""

    one: str
    custom: str
    standard: Mapping[str, str]
    keys: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "users": Kind(
        "user", "user_fields",
        {
            KEY: "text", "name": "text", "email": "text", "phone": "text", "role": "text", "alias": "text", "details": "text",
            "notes": "text", "locale": "text", "time_zone": "text", "organization_id": "integer", "verified": "boolean",
            "suspended": "boolean", "tags": "list",
        },
        (KEY, "email"),
    ),
    "organizations": Kind(
        "organization", "organization_fields",
        {
            KEY: "text", "name": "text", "details": "text", "notes": "text", "group_id": "integer", "domain_names": "list",
            "tags": "list", "shared_tickets": "boolean", "shared_comments": "boolean",
        },
        (KEY,),
    ),
}  # fmt: skip
_ROLES = ("end-user", "agent", "admin")


def standard_fields(kind: Kind) -> dict[str, Field]:
    """What the object has in every account. An external_id is found in any case, and then rewritten to the one sent."""
    return {
        name: Field(
            name,
            _TYPES.get(native, FieldType.STRING),
            unique=name in kind.keys,
            choices=_ROLES if name == "role" else None,
            case_insensitive=name in kind.keys,
            trims=name in kind.keys,
            native_type=native,
        )
        for name, native in kind.standard.items()
    }


def custom_field(kind: Kind, item: Mapping[str, Any]) -> Field:
    native = str(item.get("type"))
    options = item.get("custom_field_options") or ()
    values = tuple(str(option["value"]) for option in options if "value" in option)
    return Field(
        f"{kind.custom}.{item['key']}",
        _TYPES.get(native, FieldType.STRING),
        choices=values if native in ("dropdown", "tagger") and values else None,
        native_type=native,
    )


def tags_of(item: Mapping[str, Any]) -> set[str]:
    """The tags that a custom field can add to a record: of a dropdown or multi-select its options, of a checkbox its tag."""
    options = {str(option["value"]) for option in item.get("custom_field_options") or () if "value" in option}
    return options | ({str(item["tag"])} if item.get("tag") else set())


def fold(value: Any) -> str:
    """An identifier in the form in which Zendesk compares it."""
    return str(value).strip().lower()


def values_of(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        head, dot, inner = name.partition(".")
        held = record.get(head)
        found[name] = held.get(inner) if dot and isinstance(held, Mapping) else held
    return found


def same(field: Field, sent: Any, held: Any) -> bool:
    """Whether both are one value: a date is given back as a moment (reference: user fields), a list in any order; an
    unset checkbox is false."""
    if field.native_type in _SETS:
        return members(sent) == members(held)
    if field.native_type == "checkbox":
        return bool(plain(field, sent or False) == plain(field, held or False))
    if field.type is FieldType.DATE:
        sent, held = str(sent or "")[:10], str(held or "")[:10]
    return bool(plain(field, sent) == plain(field, held))


def members(value: Any) -> set[str]:
    """A list of texts, or its JSON text, without regard to order."""
    import orjson

    if isinstance(value, str):
        value = orjson.loads(value) if value.startswith("[") else [value]
    return {str(item).lower() for item in value or ()}
