"""Values that were sent, beside those that are read back."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from backhaul.types import Field, FieldType


def plain(field: Field, value: Any) -> Any:
    """A value in the form in which two spellings of the same thing are equal (`1.0` and `"1"`, '' and None)."""
    if field.type in (FieldType.JSON, FieldType.ARRAY) and isinstance(value, str):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.type in (FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL) or isinstance(
        value, int | float
    ):
        return plain_number(value)
    if isinstance(value, str):
        return value.strip().lower() if field.case_insensitive else value
    return value


def plain_number(value: Any) -> Any:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value


def moment(value: Any) -> datetime | None:
    """A date or an instant of ISO 8601, in UTC where it names no zone; None where it is neither."""
    with suppress(ValueError):
        found = datetime.fromisoformat(str(value))
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def same_moment(one: Any, other: Any, precision: timedelta) -> bool:
    """Whether both are dates or instants, less than `precision` apart: many APIs keep no fractions, or fewer digits."""
    first, second = moment(one), moment(other)
    return first is not None and second is not None and abs(first - second) < precision
