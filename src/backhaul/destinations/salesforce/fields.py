"""Salesforce's fields, and when two spellings of a value are the same one to Salesforce."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import time, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

import orjson

from backhaul.destinations.kit import plain, same_moment
from backhaul.types import Field, FieldType

RECORD_ID = "Id"
_UNLOCKED = ("OwnerId", "RecordTypeId")
"""References of every object that no write locks by itself."""
_NUMBERS = ("int", "long", "double", "currency", "percent")
SEVERAL = "multipicklist"
"""A field of several choices, joined by semicolons; takes a list of them as well as a text."""
_TYPES = {
    "boolean": FieldType.BOOLEAN,
    "date": FieldType.DATE,
    "datetime": FieldType.DATETIME,
    SEVERAL: FieldType.ANY,
}
_SECOND = timedelta(seconds=1)
"""Salesforce keeps no fractions of one."""
_SHORT_ID = 15
"""Characters of an id that tell records apart; the last three of eighteen are a checksum."""


def field_of(item: Mapping[str, Any]) -> Field:
    """A field, as an object's describe has it. Writable is what may be set both in a new record and in one that is there: an
    upsert does either. An external id identifies a record, and so does its own id."""
    name, kind = str(item["name"]), str(item.get("type"))
    options = [option for option in item.get("picklistValues") or () if option.get("active")]
    closed = kind == "picklist" and item.get("restrictedPicklist") and options
    textual = kind not in _NUMBERS and (kind not in _TYPES or kind == SEVERAL)
    return Field(
        name,
        _number(item) if kind in _NUMBERS else _TYPES.get(kind, FieldType.STRING),
        writable=bool(item.get("createable") and item.get("updateable")),
        required=bool(
            item.get("createable") and not item.get("nillable") and not item.get("defaultedOnCreate")
        ),
        unique=bool(item.get("externalId")) or name == RECORD_ID,
        max_length=int(item["length"]) if textual and item.get("length") else None,
        choices=tuple(str(option["value"]) for option in options) if closed else None,
        case_insensitive=kind == "email" or bool(textual and _folds(item)),
        trims=textual,
        compared_length=_SHORT_ID if name == RECORD_ID else None,
        native_type=f"{kind}({item.get('scale')})" if kind in _NUMBERS else kind,
        parent=kind == "reference" and name not in _UNLOCKED,
    )


def _folds(item: Mapping[str, Any]) -> bool:
    """Whether Salesforce matches an external id without regard to case: only a unique one that says so (Apex developer guide:
    Upserting Records). E-mails it stores in lower case, whatever they say (help: 000384328)."""
    return bool(item.get("externalId") and item.get("unique") and not item.get("caseSensitive"))


def parent_names(reference: Mapping[str, Any]) -> dict[str, str]:
    """The objects that a reference may be to, each with what a parent of it is called: a polymorphic reference names the object
    as well, as Bulk API 2.0 does (`Contact:Who`; its guide: Relationship Fields in a Header Row)."""
    targets, named = (
        [str(one) for one in reference.get("referenceTo") or ()],
        str(reference["relationshipName"]),
    )
    return {target: named if len(targets) == 1 else f"{target}:{named}" for target in targets}


def parent_fields(
    reference: Mapping[str, Any], named: str, items: Iterable[Mapping[str, Any]]
) -> list[Field]:
    """The external ids and lookup fields by which a record of another object, `items` are its fields, is named as this one's
    parent."""
    settable = field_of(reference).writable
    looked_up = (item for item in items if item.get("externalId") or item.get("idLookup"))
    found = [field_of(item) for item in looked_up if item["name"] != RECORD_ID]
    return [
        replace(
            field,
            name=f"{named}.{field.name}",
            writable=settable,
            required=False,
            unique=False,
            parent=field_of(reference).parent,
        )
        for field in found
    ]


def unparented(record: dict[str, Any], references: Mapping[str, str]) -> dict[str, Any]:
    """A record as a collection takes it: a parent that may be of several objects says of which it is, and one without a value
    is cleared by the field that refers to it."""
    found = {name: value for name, value in record.items() if name not in references}
    for name in references.keys() & record.keys():
        values = {by: value for by, value in (record[name] or {}).items() if value not in (None, "")}
        target, _, relationship = name.rpartition(":")
        if values:
            found[relationship] = ({"attributes": {"type": target}} if target else {}) | values
            found.pop(references[name], None)
        elif not any(
            isinstance(found.get(other.rpartition(":")[2]), dict)
            for other in references
            if references[other] == references[name]
        ):
            found[references[name]] = None
    return found


def selected(names: Iterable[str]) -> str:
    """The fields of a query; those of a parent that may be of several objects are chosen by its type (SOQL reference: TYPEOF)."""
    plain, cases = list[str](), dict[str, dict[str, list[str]]]()
    for name in dict.fromkeys(names):
        target, colon, path = name.partition(":")
        if colon:
            relationship, _, inner = path.partition(".")
            cases.setdefault(relationship, {}).setdefault(target, []).append(inner)
        else:
            plain.append(name)
    for relationship, targets in cases.items():
        when = " ".join(f"WHEN {target} THEN {', '.join(inner)}" for target, inner in targets.items())
        plain.append(f"TYPEOF {relationship} {when} END")
    return ", ".join(plain)


def joined(value: Any) -> Any:
    """Several choices as Salesforce writes them; `value` is a list, its JSON text, or a text that is joined already."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    if not isinstance(value, list):
        return value
    return ";".join(str(one) for one in value if one not in (None, ""))


def held(record: Mapping[str, Any], name: str) -> Any:
    """A value of a query's record; a parent's is nested, and may be of another object."""
    target, _, path = name.rpartition(":")
    relationship, dot, inner = path.partition(".")
    value = record.get(relationship)
    if not dot:
        return value
    if not isinstance(value, Mapping) or target not in ("", _type_of(value)):
        return None
    return value.get(inner)


def _type_of(record: Mapping[str, Any]) -> Any:
    attributes = record.get("attributes")
    return attributes.get("type") if isinstance(attributes, Mapping) else None


def _number(item: Mapping[str, Any]) -> FieldType:
    """Without digits behind the point it is exact (an id of 18 digits is no float)."""
    return FieldType.NUMBER if item.get("scale") else FieldType.INTEGER


def fold(field: Field, value: Any) -> str:
    """An identifier in the form in which Salesforce compares it."""
    if field.type in (FieldType.INTEGER, FieldType.NUMBER):
        return f"{_decimal(value).normalize():f}"
    text = str(value)
    if field.name == RECORD_ID:
        return text[:_SHORT_ID]
    return text.strip().casefold() if field.case_insensitive else text.strip()


def literal(field: Field, key: str) -> str:
    """An identifier in a SOQL condition (SOQL and SOSL reference: quoted string escape sequences)."""
    if field.type in (FieldType.INTEGER, FieldType.NUMBER):
        return fold(field, key)
    escaped = key.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def same(field: Field, sent: Any, held: Any) -> bool:
    """Whether both are one value: numbers are doubles, rounded to the field's scale, blanks around a text are cut off, a
    moment comes back in UTC, the choices of a multi-select in any order."""
    if field.native_type == SEVERAL:
        first, second = (
            set(filter(None, str(joined(value) or "").strip().split(";"))) for value in (sent, held)
        )
        return first == second
    one, other = plain(field, sent), plain(field, held)
    if one == other:
        return True
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return _rounded(field, one) == _rounded(field, other) or float(one) == float(other)
    if field.type is FieldType.DATETIME and one is not None and other is not None:
        return same_moment(one, other, _SECOND)
    first_text, second_text = str(one or "").strip(), str(other or "").strip()
    if field.native_type == "time":
        return None is not _time(first_text) == _time(second_text)
    if field.native_type in ("reference", "id"):
        return first_text[:_SHORT_ID] == second_text[:_SHORT_ID]
    return first_text == second_text


def _time(text: str) -> time | None:
    """A time of day, which has no zone and comes back as HH:mm:ss.SSSZ (Lightning component reference: formattedTime)."""
    try:
        found = time.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None
    return found.replace(microsecond=found.microsecond // 1000 * 1000)


def _rounded(field: Field, number: Decimal) -> Decimal:
    _, _, scale = (field.native_type or "").rstrip(")").partition("(")
    if not scale.isdecimal():
        return number
    return number.quantize(Decimal(1).scaleb(-int(scale)), ROUND_HALF_UP)


def _decimal(value: Any) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal("NaN")
