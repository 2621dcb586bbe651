"""Events and purchases: what happened to a user, which Braze adds and never compares."""

from __future__ import annotations

from typing import Any

from backhaul.destinations.braze.fields import identities
from backhaul.errors import Halt
from backhaul.types import Field, FieldType


def happening_fields(object: str) -> dict[str, Field]:
    """The members of an event or a purchase; `properties.NAME` beside them, and `id`, which is not sent."""
    text, when = FieldType.STRING, FieldType.DATETIME
    own = {
        "events": (Field("name", text, required=True), Field("time", when, required=True)),
        "purchases": (
            Field("product_id", text, required=True, max_length=255), Field("currency", FieldType.CURRENCY, required=True),
            Field("price", FieldType.NUMBER, required=True), Field("quantity", FieldType.INTEGER),
            Field("time", when, required=True),
        ),
    }[object]  # fmt: skip
    rest = (Field("id", text, unique=True), Field("app_id", text), Field("properties", FieldType.JSON))
    return identities() | {field.name: field for field in (*own, *rest)}


def happening(record: dict[str, Any], object: str) -> dict[str, Any]:
    known = {name.partition(".")[0] for name in happening_fields(object)}
    if strange := record.keys() - known:
        raise Halt(f"Braze's {object} have no {min(strange)!r}", hint="map it as properties.NAME")
    return {name: value for name, value in record.items() if name != "id" and value is not None}
