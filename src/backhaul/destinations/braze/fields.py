"""Braze's attributes as fields, and what a value of one may be.

Facts are from Braze's pages on user attributes, nested attributes, arrays of objects, and its export of custom attributes.
It answers none of this with an error: what is too long is cut, what does not fit is dropped. So it is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import orjson

from backhaul.destinations.kit import plain, same_moment
from backhaul.types import Field, FieldType

ALIAS = ("user_alias.alias_name", "user_alias.alias_label")
WHO = ("external_id", "braze_id", "user_alias")
"""What a user goes by, as members of a request's object."""
LONGEST_TEXT = 255
"""Characters of a member's name and of a text."""
LARGEST_OBJECT = 100_000
"""Bytes of an attribute that is an object, or an array of them."""
_UNREAD = "not exported"
_OPERATORS = frozenset({"inc", "add", "remove", "$add", "$update", "$remove"})
"""Members that change a value instead of setting it: sent twice, they are applied twice."""
_CHOICES = {
    "gender": ("M", "F", "O", "N", "P"),
    "email_subscribe": ("opted_in", "subscribed", "unsubscribed"),
    "push_subscribe": ("opted_in", "subscribed", "unsubscribed"),
}
_EXPORTED = {
    "first_name": FieldType.STRING, "last_name": FieldType.STRING, "email": FieldType.STRING, "phone": FieldType.STRING,
    "home_city": FieldType.STRING, "country": FieldType.COUNTRY, "language": FieldType.STRING, "gender": FieldType.STRING,
    "time_zone": FieldType.STRING, "dob": FieldType.DATE, "email_subscribe": FieldType.STRING,
    "push_subscribe": FieldType.STRING,
}  # fmt: skip
_ONLY_WRITTEN = {
    "current_location.longitude": FieldType.NUMBER, "current_location.latitude": FieldType.NUMBER,
    "subscription_groups": FieldType.ARRAY, "image_url": FieldType.STRING, "date_of_first_session": FieldType.DATETIME,
    "date_of_last_session": FieldType.DATETIME, "marked_email_as_spam_at": FieldType.DATETIME,
    "email_open_tracking_disabled": FieldType.BOOLEAN, "email_click_tracking_disabled": FieldType.BOOLEAN,
}  # fmt: skip
"""Standard attributes that /users/export/ids does not give back."""
_NOT_CUSTOM = frozenset({*WHO, *_EXPORTED, *(name.partition(".")[0] for name in _ONLY_WRITTEN)})
_TYPES = (
    ("number", FieldType.NUMBER), ("integer", FieldType.INTEGER), ("float", FieldType.NUMBER), ("string", FieldType.STRING),
    ("boolean", FieldType.BOOLEAN), ("date", FieldType.DATETIME), ("time", FieldType.DATETIME), ("object", FieldType.JSON),
    ("array of objects", FieldType.JSON), ("array", FieldType.ARRAY),
)  # fmt: skip
"""How a `data_type` begins; it may go on with how it was found out."""
_NOT_TAKEN = ("blocklisted", "blocked", "trashed")
"""States of an attribute whose values Braze drops; from memory."""


def identities() -> dict[str, Field]:
    return {
        name: Field(name, FieldType.STRING, unique=name not in ALIAS, native_type="identifier")
        for name in ("external_id", "braze_id", *ALIAS)
    }


def standard_fields() -> dict[str, Field]:
    """What every user has."""
    exported = {
        name: Field(
            name,
            kind,
            choices=_CHOICES.get(name),
            native_type="standard",
        )
        for name, kind in _EXPORTED.items()
    }
    written = {name: Field(name, kind, native_type=_UNREAD) for name, kind in _ONLY_WRITTEN.items()}
    return identities() | exported | written


def custom_field(item: Mapping[str, Any]) -> Field:
    """An attribute, as GET /custom_attributes describes it."""
    name, native = str(item["name"]), str(item.get("data_type") or "")
    kind = next(
        (kind for start, kind in _TYPES if native.lower().startswith(start)),
        FieldType.ANY,
    )
    length = item.get("array_length")
    return Field(
        name,
        kind,
        writable=str(item.get("status") or "").lower() not in _NOT_TAKEN,
        max_length=LONGEST_TEXT if kind is FieldType.STRING else None,
        native_type=f"Array {length}" if kind is FieldType.ARRAY and isinstance(length, int) else native,
    )


def is_custom(name: str) -> bool:
    """Whether this member of a user is an attribute of the workspace's own."""
    return name.partition(".")[0] not in _NOT_CUSTOM


def is_plain(field: Field) -> bool:
    """Whether Braze takes every value of this field as the mapping writes it: nothing of it has to be looked at."""
    if "." in field.name or field.type in (FieldType.ANY, FieldType.JSON, FieldType.ARRAY):
        return False
    return field.type is not FieldType.STRING or not is_custom(field.name) or field.max_length is not None


def longest_arrays(fields: Sequence[Field]) -> dict[str, int]:
    """The elements that arrays may have, where Braze says so."""
    said = ((field.name, (field.native_type or "").partition("Array ")[2]) for field in fields)
    return {name: int(length) for name, length in said if length.isdecimal()}


def pruned(value: Any) -> Any:
    """An object without members that are null: one null makes Braze drop the whole update of the attribute."""
    if isinstance(value, dict):
        return {name: pruned(inner) for name, inner in value.items() if inner is not None}
    return [pruned(inner) for inner in value] if isinstance(value, list) else value


def timed(record: dict[str, Any], fields: Sequence[Field]) -> None:
    """Writes moments within objects as Braze wants them there: `{"$time": …}`."""
    for field in fields:
        head, dot, rest = field.name.partition(".")
        if (
            dot
            and is_custom(head)
            and field.type in (FieldType.DATE, FieldType.DATETIME, FieldType.TIMESTAMP)
        ):
            *path, last = rest.split(".")
            inner = record.get(head)
            for part in path:
                inner = inner.get(part) if isinstance(inner, dict) else None
            if isinstance(inner, dict) and inner.get(last) is not None:
                inner[last] = {"$time": inner[last]}


def unfit(name: str, value: Any, longest: int) -> tuple[str, str] | None:
    """Code and words of why Braze would cut or drop this value of a custom attribute; None where it takes it. `longest` is
    in elements of an array."""
    if isinstance(value, dict) and value and value.keys() <= _OPERATORS:
        return "operator", f"{name} would change a value instead of setting it, and twice if it is sent twice"
    of_objects = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, dict) for item in value)
    )
    if isinstance(value, list) and not of_objects:
        if len(value) > longest:
            return "array-too-long", f"{name} has {len(value)} elements, and Braze would cut it at {longest}"
        if any(item is None or isinstance(item, list) for item in value):
            return "array-elements", f"{name} holds a null or an array: Braze takes flat arrays without nulls"
    if of_objects and len(orjson.dumps(value)) > LARGEST_OBJECT:
        return (
            "object-too-large",
            f"{name} has {len(orjson.dumps(value)):,} bytes, and Braze drops more than {LARGEST_OBJECT:,}",
        )
    return next(_within(name, value), None)


def _within(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        yield "text-too-long", f"{name} has {len(value)} characters, and Braze keeps {LONGEST_TEXT}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            if (key != "$time" and any(sign in key for sign in " .$")) or len(key) > LONGEST_TEXT:
                yield (
                    "member-name",
                    f"{name} has a member {key[:40]!r}: no spaces, dots or dollar signs, at most 255 characters",
                )
            elif inner is None:
                yield (
                    "null-in-object",
                    f"{name}.{key} is null, for which Braze drops the whole update of {name}",
                )
            else:
                yield from _within(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _within(name, inner)


def value_of(user: Mapping[str, Any], name: str) -> Any:
    """A field of an exported user; custom attributes are in an object of their own."""
    held: Any = user.get("custom_attributes") if is_custom(name) else user
    for part in name.split("."):
        held = held.get(part) if isinstance(held, dict) else None
    return held.get("$time", held) if isinstance(held, dict) else held


def same(field: Field, sent: Any, held: Any) -> bool:
    """Whether both are one value. Braze leaves out of an export what is null, false or empty, keeps each element of an array
    once, and gives moments back in another spelling."""
    if field.native_type == _UNREAD:
        return True
    if held is False or held in (None, "", [], {}):
        return sent is False or sent in (None, "", "false", "[]", "{}", "null", [], {})
    if field.type in (FieldType.DATE, FieldType.DATETIME, FieldType.TIMESTAMP):
        one, other = (str(each).replace(" UTC", "Z") for each in (sent, held))
        return same_moment(one, other, timedelta(milliseconds=1))
    if isinstance(held, list | dict):
        return bool(_settled(_parsed(sent)) == _settled(held))
    return bool(plain(field, sent) == plain(field, held))


def _parsed(value: Any) -> Any:
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(value) if isinstance(value, str) else value
    return value


def _settled(value: Any) -> Any:
    """A flat array as the set it is to Braze, and objects without their nulls."""
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return {orjson.dumps(item) for item in value}
    return pruned(value)
