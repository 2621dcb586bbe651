"""The parts of a sync: names, expressions, guards, freshness, field mappings."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from backhaul.types import FieldType, Nulls
from backhaul.values import Share

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class Section(BaseModel):
    """A mapping in a file: frozen, its keys are closed, and its values never show in an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        hide_input_in_errors=True,
    )


def _name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        shown = repr(value) if len(value) <= 64 else f"{value[:20]!r}… ({len(value)} characters)"
        raise ValueError(
            f"{shown} is not a name: 1 to 64 letters, digits, `_`, `.` or `-`, the first a letter or digit"
        )
    return value


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"})]
Line = Annotated[str, Field(min_length=1, max_length=1000)]
"""A short text that says something."""


def _text(value: Any) -> Any:
    """A number or a boolean is an expression as well; YAML has read it before us."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        raise ValueError('there is no expression here; to send NULL always, write "NULL" in quotes')
    if isinstance(value, str) and not value.strip():
        raise ValueError("there is no expression here; an empty text is written as \"''\"")
    return value


_EXPRESSION = {"type": ["string", "number", "boolean"], "description": "A SQL expression (DuckDB)."}
Expression = Annotated[
    str,
    BeforeValidator(_text),
    Field(max_length=20_000),
    WithJsonSchema(_EXPRESSION),
]


def _share(value: Any) -> Share | Literal[False] | None:
    if value is None or _off(value):
        return None if value is None else False
    share: Share = Share.parse(value)
    if share.number > 1e15:
        raise ValueError(f"{value!r} is too large")
    return share


def _off(value: Any) -> bool:
    return value is False or (isinstance(value, str) and value.strip().lower() == "off")


def _rows(value: Any) -> int | Literal[False] | None:
    if value is None or _off(value):
        return None if value is None else False
    if isinstance(value, str) and re.fullmatch(r"\d{1,15}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**15:
        raise ValueError("expected a number of rows, or off")
    return value


def _shown(value: Any) -> Any:
    return str(value) if isinstance(value, Share) else value


_OFF = {"type": ["string", "number", "boolean", "null"], "description": "Records, a share (5%), or off."}
ShareGuard = Annotated[
    Share | Literal[False] | None, PlainValidator(_share), PlainSerializer(_shown), WithJsonSchema(_OFF)
]
RowGuard = Annotated[
    int | Literal[False] | None,
    PlainValidator(_rows),
    WithJsonSchema(
        {"type": ["integer", "string", "boolean", "null"], "description": "A number of rows, or off."}
    ),
]


_PRIORITIES = {"high": 10, "normal": 0, "low": -10}


def _priority(value: Any) -> int:
    """Raises: ValueError."""
    if isinstance(value, str) and value.strip().lower() in _PRIORITIES:
        return _PRIORITIES[value.strip().lower()]
    if isinstance(value, bool) or not isinstance(value, int) or not -1000 <= value <= 1000:
        raise ValueError("expected high, normal, low, or a whole number between -1000 and 1000")
    return value


Priority = Annotated[
    int,
    PlainValidator(_priority),
    WithJsonSchema(
        {"type": ["integer", "string"], "description": "high (10), normal (0), low (-10), or a number."}
    ),
]


class Guards(Section):
    """What stops a run before anything is sent: a number of records, a share of them, or `off`.

    None is what nobody set, where the rule of the engine applies; False is `off`.
    """

    max_deletes: ShareGuard = None
    """Deletes at most, of the records the destination holds. Unset: the larger of 10 records and 10%."""
    max_changes: ShareGuard = None
    """Creates, updates and deletes at most, together. Unset: no limit."""
    max_updates: ShareGuard = None
    """Updates at most. Unset: no limit."""
    max_creates: ShareGuard = None
    """Creates at most. Unset: no limit."""
    min_rows: RowGuard = None
    """Rows the model must have. Unset: at least one, once the destination holds records."""
    max_drop: ShareGuard = None
    """How much smaller than at the last run the model may be. Unset: 50%."""
    max_field_changes: ShareGuard = None
    """Known records in which any one field may change. Unset: no limit."""
    max_null_rise: ShareGuard = None
    """Known records in which any one field may become NULL, less those in which it is no longer. Unset: no limit."""


class Freshness(Section):
    """How much is read back to prove what the destination holds."""

    sample: int = Field(default=10, ge=0, le=100_000)
    """Records read back and compared after each run; 0 reads none."""


class LedgerOptions(Section):
    """What the ledger keeps of each acknowledged record."""

    values: bool = True
    """Keep the acknowledged values; false keeps hashes alone, without old values in plans."""


class FieldMapping(Section):
    """One destination field: a SQL expression, or a mapping such as `{value: plan, null: skip}`."""

    value: Expression
    """A SQL expression (DuckDB) over the model's columns."""
    null: Nulls | None = None
    """What a NULL does to this field; unset: the sync's `nulls`."""
    default: str | int | float | bool | None = None
    """Sent in place of a NULL."""
    type: FieldType | None = None
    """The type to cast to; unset: what the destination's own metadata says."""
    markup: bool = False
    """Send the text as the destination's markup (Slack: mentions, links); unset: signs of markup are escaped."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [_EXPRESSION, handler(core)]}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return data if isinstance(data, dict | FieldMapping) else {"value": data}
