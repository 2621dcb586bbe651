"""Marketo's fields, and when two spellings of a value are the same one (Adobe's REST guide: Field Types; Describe)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from backhaul.destinations.kit import plain, same_moment
from backhaul.types import Field, FieldType

_TYPES = {
    "boolean": FieldType.BOOLEAN, "date": FieldType.DATE, "datetime": FieldType.DATETIME, "integer": FieldType.INTEGER,
    "score": FieldType.INTEGER, "percent": FieldType.INTEGER, "float": FieldType.NUMBER, "currency": FieldType.NUMBER,
}  # fmt: skip
_SECOND = timedelta(seconds=1)
_LONGEST = {"text": 30_000}
"""Where a description has no length. Of a text area these are bytes, and so characters at most."""


def field_of(name: str, item: Mapping[str, Any], *, writable: bool, unique: bool) -> Field:
    native = str(item.get("dataType") or "").lower()
    kind = _TYPES.get(native, FieldType.STRING)
    length = item.get("length") or _LONGEST.get(native)
    return Field(
        name,
        kind,
        writable=writable,
        unique=unique,
        max_length=int(length) if length and kind is FieldType.STRING else None,
        case_insensitive=native == "email",
        trims=native == "email",
        native_type=native,
    )


def lead_fields(described: Sequence[Mapping[str, Any]], searchable: Collection[str]) -> dict[str, Field]:
    """Those that the REST API knows. Marketo finds a lead by the searchable ones alone."""
    found = [(item["rest"], item) for item in described if isinstance(item.get("rest"), dict)]
    return {
        str(rest["name"]): field_of(
            str(rest["name"]), item, writable=not rest.get("readOnly"), unique=rest["name"] in searchable
        )
        for rest, item in found
    }


def custom_fields(described: Mapping[str, Any]) -> dict[str, Field]:
    """Those of a custom object. What tells its records apart is set when one is made, and never changed."""
    keys = [str(name) for name in described.get("dedupeFields") or ()]
    return {
        str(item["name"]): field_of(
            str(item["name"]),
            item,
            writable=bool(item.get("updateable")) or item["name"] in keys,
            unique=keys == [item["name"]],
        )
        for item in described.get("fields") or ()
    }


def outgoing(records: list[dict[str, Any]], fields: Sequence[Field]) -> list[dict[str, Any]]:
    """Records with moments to the second, as Marketo writes them."""
    moments = [field.name for field in fields if field.type is FieldType.DATETIME]
    for record in records if moments else ():
        for name in moments:
            value = record.get(name)
            if isinstance(value, str) and "." in value:
                record[name] = f"{value.partition('.')[0]}Z"
    return records


def fold(value: Any) -> str:
    """An identifier in the form in which Marketo's answers are compared with it."""
    return str(value).strip().casefold()


def same(field: Field, sent: Any, held: Any) -> bool:
    """Whether both are one value: a moment has no fractions, a boolean that was cleared is false (recorded), blanks around a
    text do not count."""
    if field.type is FieldType.BOOLEAN:
        sent, held = sent or False, held or False
    one, other = plain(field, sent), plain(field, held)
    if one == other:
        return True
    if field.type is FieldType.DATETIME and one is not None and other is not None:
        first, second = (str(each).replace("Z+", "+") for each in (one, other))
        return same_moment(first, second, _SECOND)
    return isinstance(one, str) and isinstance(other, str) and one.strip() == other.strip()
