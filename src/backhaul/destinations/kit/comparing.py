"""Values that were sent, beside those that are read back."""

from __future__ import annotations

from contextlib import suppress
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
