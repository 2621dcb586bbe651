"""What the SQL destinations share: tables and their keys, key texts, and when two values are the same."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

import orjson

from backhaul.destinations.kit import Batch
from backhaul.errors import Halt
from backhaul.types import Delivered, Field, FieldType, Gone, ObjectSchema, Outcomes, Rejected

_SCALE = re.compile(r"numeric\(\d+,(-?\d+)\)")
_PLACES = re.compile(r"timestamp\((\d)\)")
_EXACT = Context(prec=2000)
_NUMBERS = (FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL)


@dataclass(frozen=True, slots=True)
class Table:
    """One table as the database describes it: its quoted name and the column sets of its unique indexes."""

    sql: str
    schema: ObjectSchema
    unique: frozenset[frozenset[str]]
    oid: int = 0
    """What the database itself calls it, where it has numbers."""
    contested: frozenset[str] = frozenset()
    """Columns of which two rows may not have the same value, alone or together with others."""
    may_skip: bool = False
    """It may leave a row as it is without an error: triggers, rules, row security."""
    may_hide: bool = False
    """Row security may hide rows from this role."""

    def fields(self, wanted: Sequence[Field]) -> list[Field]:
        """The table's own columns for a batch's fields.

        Raises:
            Halt: the table has no such column.
        """
        missing = [field.name for field in wanted if field.name not in self.schema.fields]
        if missing:
            raise Halt(f"table {self.schema.name!r} has no column {', '.join(map(repr, missing))}")
        return [replace(self.schema.fields[field.name], skip_null=field.skip_null) for field in wanted]

    def require_unique(self, identifiers: Sequence[str]) -> None:
        """Raises Halt unless the identifiers name at most one row."""
        if frozenset(identifiers) in self.unique:
            return
        names = ", ".join(identifiers)
        raise Halt(
            f"table {self.schema.name!r} has no unique index on exactly ({names}): a key may mean many rows",
            hint=f"add a unique constraint on ({names}), or identify records by one that exists",
        )


def key_columns(keys: Sequence[str], count: int) -> list[list[str]]:
    """Key texts as one list of texts for each identifier."""
    if count == 1:
        return [list(keys)]
    rows = [orjson.loads(key) for key in keys]
    return [[row[position] for row in rows] for position in range(count)]


def but(batch: Batch, refused: Mapping[int, tuple[str, str]]) -> Outcomes:
    """Everything was delivered, except the records at these positions, with code and message; `not_found` is Gone."""
    if not refused:
        return Outcomes(everything=True)
    return Outcomes(
        tuple(
            (Gone if refused[position][0] == "not_found" else Rejected)(key, *refused[position])
            if position in refused
            else Delivered(key)
            for position, key in enumerate(batch.keys)
        )
    )


def position(fields: Sequence[Field], name: str = "position") -> str:
    """A column name for a row's position in the batch, unlike every field whatever its case."""
    taken = {field.name.lower() for field in fields}
    while name in taken:
        name += "_"
    return name


def passed_on(batch: Batch) -> list[int]:
    """In a MOVE, the positions of records whose previous identifier another record of the batch gets: both have to let go of
    theirs before either takes one."""
    taken = set(batch.keys)
    return [number for number, key in enumerate(batch.previous_keys) if key in taken]


def same_value(field: Field, sent: Any, held: Any) -> bool:
    """Whether a column holds what was sent, after the rounding and padding of its type. '' is not NULL."""
    if sent is None or held is None:
        return sent is None and held is None
    one, other = canonical(field, sent), canonical(field, held)
    places = _PLACES.match(field.native_type or "")
    if places and isinstance(one, datetime) and isinstance(other, datetime):
        return abs(one - other) < timedelta(microseconds=10 ** (6 - int(places[1])))
    return bool(one == other)


def parsed(field: Field, value: Any) -> Any:
    """A JSON text as its value; a text that is none is the value itself."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    inner = (field.native_type or "").removesuffix("[]")
    if isinstance(value, list) and inner.startswith("timestamp") and inner != field.native_type:
        return [moment(field, item) if isinstance(item, str) else item for item in value]
    return plain_json(value)


def canonical(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.type in (FieldType.JSON, FieldType.ARRAY):
        return parsed(field, value)
    if field.type in _NUMBERS or (isinstance(value, int | float | Decimal) and not isinstance(value, bool)):
        return number(field, value)
    if field.type is FieldType.BOOLEAN or isinstance(value, bool):
        return value in (True, 1, "true", "t", "1")
    if field.type in (FieldType.DATE, FieldType.DATETIME, FieldType.TIMESTAMP) or isinstance(value, date):
        return moment(field, value)
    text = str(value).lower() if field.native_type == "uuid" else str(value)
    return text.rstrip(" ") if (field.native_type or "").startswith("character(") else text


def number(field: Field, value: Any) -> Any:
    try:
        exact = Decimal(str(value))
    except InvalidOperation:
        return str(value)
    if exact.is_nan():
        return "nan"
    native = field.native_type or ""
    if found := _SCALE.fullmatch(native):
        return exact.quantize(Decimal(1).scaleb(-int(found[1])), ROUND_HALF_UP, _EXACT)
    if native == "real":
        return struct.unpack("f", struct.pack("f", float(exact)))[0]
    return float(exact) if native == "double precision" else exact


def moment(field: Field, value: Any) -> Any:
    if not isinstance(value, date):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            return str(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - a date has no zone
    if field.type is FieldType.DATE:
        return value.date()
    if field.type is FieldType.TIMESTAMP and value.tzinfo is None:
        return value
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def plain_json(value: Any) -> Any:
    """JSON with numbers by value, so that 1.0 is 1 and a decimal is its float."""
    if isinstance(value, dict):
        return {name: plain_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain_json(item) for item in value]
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, date) else value
