"""From an expression's own type to its destination field's type, in SQL, losing nothing in silence.

Each rule gives the cast and the condition under which a value does not fit; such a value rejects its record.
Storage types are a closed set, so that plans (Parquet) and ledgers (DuckDB) hold every value exactly:
VARCHAR, BIGINT, DECIMAL, DOUBLE, BOOLEAN, DATE, TIMESTAMP, TIMESTAMPTZ. JSON and arrays are their JSON text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from backhaul.types import FieldType

_SMALL_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_INTEGERS = _SMALL_INTEGERS | {"UBIGINT", "HUGEINT", "UHUGEINT", "BIGNUM"}
_DECIMAL = re.compile(r"DECIMAL\((\d+), ?(\d+)\)")
_INTEGER_TEXT = r"\s*[+-]?[0-9]+\s*"
_NUMBER_TEXT = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
_DATE_TEXT = r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}\s*"


@dataclass(frozen=True, slots=True)
class Coercion:
    """`typed` is the value in its storage type; where `unfit` is true the value does not fit. '' is never."""

    typed: str
    storage: str
    unfit: str = ""


class NotCoercibleError(ValueError):
    """No value of this SQL type could ever become one of the field's type."""


def natural(sql_type: str) -> FieldType:
    """The field type that a column of this DuckDB type becomes when the destination asks for none."""
    base = sql_type.upper()
    if base in _INTEGERS:
        return FieldType.INTEGER
    if base.startswith("DECIMAL"):
        return FieldType.DECIMAL
    if base.endswith("]"):
        return FieldType.ARRAY
    if base.startswith(("STRUCT", "MAP")):
        return FieldType.JSON
    known = {
        "FLOAT": FieldType.NUMBER, "DOUBLE": FieldType.NUMBER, "BOOLEAN": FieldType.BOOLEAN,
        "DATE": FieldType.DATE, "JSON": FieldType.JSON, "TIMESTAMP WITH TIME ZONE": FieldType.DATETIME,
        "TIMESTAMP": FieldType.TIMESTAMP, "TIMESTAMP_NS": FieldType.TIMESTAMP,
        "TIMESTAMP_MS": FieldType.TIMESTAMP, "TIMESTAMP_S": FieldType.TIMESTAMP,
    }  # fmt: skip
    return known.get(base, FieldType.STRING)


def coerce(expr: str, sql_type: str, target: FieldType) -> Coercion:
    """The coercion of an SQL expression of a DuckDB type to a field type.

    Raises:
        NotCoercibleError: bytes, or a pair of types between which no value can be carried over.
    """
    source = sql_type.upper()
    if source in ("BLOB", "BIT", "GEOMETRY"):
        raise NotCoercibleError(f"is {source}; make it text first, for example with base64(...) or hex(...)")
    if target is FieldType.ANY:
        target = natural(source)
    return _RULES[target](expr, source)


def _string(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if kind in (FieldType.JSON, FieldType.ARRAY):
        return Coercion(f"CAST(to_json({expr}) AS VARCHAR)", "VARCHAR")
    if kind in (FieldType.DATETIME, FieldType.TIMESTAMP, FieldType.DATE):
        return Coercion(time_text(expr, kind), "VARCHAR", f"NOT isfinite({expr})")
    return Coercion(f"CAST({expr} AS VARCHAR)", "VARCHAR")


def _integer(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if source in _SMALL_INTEGERS:
        return Coercion(f"CAST({expr} AS BIGINT)", "BIGINT")
    if kind is FieldType.INTEGER:
        return Coercion(f"TRY_CAST({expr} AS DECIMAL(38,0))", "DECIMAL(38,0)", "lost")
    if kind is FieldType.BOOLEAN:
        return Coercion(f"CAST({expr} AS BIGINT)", "BIGINT")
    if kind is FieldType.STRING:
        return Coercion(
            f"CASE WHEN regexp_full_match({expr}, '{_INTEGER_TEXT}') THEN TRY_CAST({expr} AS DECIMAL(38,0)) END",
            "DECIMAL(38,0)", "lost")  # fmt: skip
    if kind in (FieldType.NUMBER, FieldType.DECIMAL):
        return Coercion(
            f"CASE WHEN {expr} = trunc({expr}) THEN TRY_CAST({expr} AS DECIMAL(38,0)) END",
            "DECIMAL(38,0)",
            "lost",
        )
    raise NotCoercibleError(f"is {source}, which is no integer")


def _number(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if source == "DOUBLE":
        return Coercion(expr, "DOUBLE", f"NOT isfinite({expr})")
    if source == "FLOAT":
        # through text: 0.1 stays 0.1 instead of 0.10000000149011612
        return Coercion(f"CAST(CAST({expr} AS VARCHAR) AS DOUBLE)", "DOUBLE", f"NOT isfinite({expr})")
    if kind in (FieldType.INTEGER, FieldType.DECIMAL):
        # a double would round what the column holds exactly
        return decimal(expr, source)
    if kind is FieldType.BOOLEAN:
        return Coercion(f"CAST({expr} AS BIGINT)", "BIGINT")
    if kind is FieldType.STRING:
        return decimal(expr, source)
    raise NotCoercibleError(f"is {source}, which is no number")


def decimal(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if _DECIMAL.fullmatch(source):
        return Coercion(expr, source)
    if kind in (FieldType.INTEGER, FieldType.BOOLEAN):
        return _integer(expr, source)
    if kind is FieldType.NUMBER:
        return _number(expr, source)
    if kind is FieldType.STRING:
        return Coercion(
            f"CASE WHEN regexp_full_match({expr}, '{_NUMBER_TEXT}') AND isfinite(TRY_CAST({expr} AS DOUBLE)) "
            f"THEN TRY_CAST({expr} AS DOUBLE) END",
            "DOUBLE", "lost")  # fmt: skip
    raise NotCoercibleError(f"is {source}, which is no number")


def _boolean(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if kind is FieldType.BOOLEAN:
        return Coercion(expr, "BOOLEAN")
    if kind is FieldType.INTEGER:
        return Coercion(f"CASE {expr} WHEN 0 THEN false WHEN 1 THEN true END", "BOOLEAN", "lost")
    if kind is FieldType.STRING:
        return Coercion(f"TRY_CAST(trim({expr}) AS BOOLEAN)", "BOOLEAN", "lost")
    raise NotCoercibleError(f"is {source}, which is no boolean")


def _date(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if kind is FieldType.DATE:
        return Coercion(expr, "DATE", f"NOT isfinite({expr})")
    if kind in (FieldType.DATETIME, FieldType.TIMESTAMP):
        stamp = f"CAST({expr} AS TIMESTAMP)"
        return Coercion(
            f"CASE WHEN date_trunc('day', {stamp}) = {stamp} THEN CAST({stamp} AS DATE) END", "DATE", "lost"
        )
    if kind is FieldType.STRING:
        return Coercion(
            f"CASE WHEN regexp_full_match({expr}, '{_DATE_TEXT}') THEN TRY_CAST({expr} AS DATE) END",
            "DATE",
            "lost",
        )
    raise NotCoercibleError(f"is {source}, which is no date")


def _datetime(expr: str, source: str) -> Coercion:
    return _instant(expr, source, "TIMESTAMPTZ")


def _timestamp(expr: str, source: str) -> Coercion:
    return _instant(expr, source, "TIMESTAMP")


def _instant(expr: str, source: str, storage: str) -> Coercion:
    """A time without a zone is taken as UTC (the engine's zone is UTC)."""
    kind = natural(source)
    if kind in (FieldType.DATETIME, FieldType.TIMESTAMP, FieldType.DATE):
        return Coercion(f"CAST({expr} AS {storage})", storage, f"NOT isfinite({expr})")
    if kind is FieldType.STRING:
        return Coercion(
            f"TRY_CAST({expr} AS {storage})", storage, f"lost OR NOT isfinite(TRY_CAST({expr} AS {storage}))"
        )
    raise NotCoercibleError(f"is {source}, which is no point in time")


def _json(expr: str, source: str) -> Coercion:
    if natural(source) is FieldType.STRING:
        return Coercion(f"CAST(TRY_CAST({expr} AS JSON) AS VARCHAR)", "VARCHAR", "lost")
    return Coercion(f"CAST(to_json({expr}) AS VARCHAR)", "VARCHAR")


def _array(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if kind is FieldType.ARRAY:
        return Coercion(f"CAST(to_json({expr}) AS VARCHAR)", "VARCHAR")
    if kind in (FieldType.JSON, FieldType.STRING):
        text = f"CAST(TRY_CAST({expr} AS JSON) AS VARCHAR)"
        return Coercion(f"CASE WHEN json_type({text}) = 'ARRAY' THEN {text} END", "VARCHAR", "lost")
    raise NotCoercibleError(f"is {source}, which is no array")


_RULES = {
    FieldType.STRING: _string, FieldType.INTEGER: _integer, FieldType.NUMBER: _number, FieldType.DECIMAL: decimal,
    FieldType.BOOLEAN: _boolean, FieldType.DATE: _date, FieldType.DATETIME: _datetime,
    FieldType.TIMESTAMP: _timestamp, FieldType.JSON: _json, FieldType.ARRAY: _array,
}  # fmt: skip


def time_text(expr: str, kind: FieldType) -> str:
    """ISO 8601 of a date, a timestamp or an instant (UTC, with Z)."""
    if kind is FieldType.DATE:
        return f"CAST({expr} AS VARCHAR)"
    text = f"replace(CAST(CAST({expr} AS TIMESTAMP) AS VARCHAR), ' ', 'T')"
    return f"{text} || 'Z'" if kind is FieldType.DATETIME else text
