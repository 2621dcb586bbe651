"""From an expression's own type to its destination field's type, in SQL, losing nothing in silence.

Each rule gives the cast and the condition under which a value does not fit; such a value rejects its record.
Storage types are a closed set, so that plans (Parquet) and ledgers (DuckDB) hold every value exactly:
VARCHAR, BIGINT, DECIMAL, DOUBLE, BOOLEAN, DATE, TIMESTAMP, TIMESTAMPTZ. JSON and arrays are their JSON text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from backhaul import text_values
from backhaul.mapping.codes import COUNTRIES, CURRENCIES
from backhaul.sql import literal
from backhaul.types import FieldType

_SMALL_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_INTEGERS = _SMALL_INTEGERS | {"UBIGINT", "HUGEINT", "UHUGEINT", "BIGNUM"}
_UNDECLARED = 18
"""Decimals of a number whose scale is not declared: what warehouses give such a number, and arithmetic with it at least."""
_DECIMAL = re.compile(r"DECIMAL\((\d+), ?(\d+)\)")
_PHONE_MARKS = r"[\s\x{00A0}\x{202F}\x{2010}-\x{2015}().\-/]"
"""What people put between the digits of a telephone number."""
_PHONE_TEXT = r"\+[1-9][0-9]{6,14}"
"""E.164: at most 15 digits behind the plus, the country's code first; 7 at least, as the shortest numbers have."""
_JSON_STRINGS = r'"(\\.|[^"\\])*"'
_NOT_JSON = r"(?i)nan|inf|,\s*[\]}]|e\+?0*(30[89]|3[1-9][0-9]|[4-9][0-9]{2}|[0-9]{4,})|[0-9]{309,}"
"""What the engine takes for JSON and receivers do not: NaN, Infinity, a comma before the end (RFC 8259), and numbers
beyond a double (parsers call them infinite)."""
_YEARS = {"DATE": ("0001-01-01", "9999-12-31"), "TIMESTAMP": ("0001-01-01", "9999-12-31 23:59:59.999999"),
          "TIMESTAMPTZ": ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00")}  # fmt: skip
"""ISO 8601 writes years of four digits; infinities lie outside as well."""


@dataclass(frozen=True, slots=True)
class Coercion:
    """`typed` is the value in its storage type; where `unfit` is true the value does not fit. '' is never."""

    typed: str
    storage: str
    unfit: str = ""


Rule = Callable[[str, str], Coercion]
"""Of an expression and its SQL type."""


class NotCoercibleError(ValueError):
    """No value of this SQL type could ever become one of the field's type."""


def natural(sql_type: str) -> FieldType:
    """The field type that a column of this DuckDB type becomes when the destination asks for none."""
    base = sql_type.upper()
    if base in _INTEGERS:
        return FieldType.INTEGER
    if base.endswith("]"):
        return FieldType.ARRAY
    if base.startswith("DECIMAL"):
        return FieldType.DECIMAL
    if base.startswith(("STRUCT", "MAP")):
        return FieldType.JSON
    known = {
        "FLOAT": FieldType.NUMBER, "DOUBLE": FieldType.NUMBER, "BOOLEAN": FieldType.BOOLEAN,
        "DATE": FieldType.DATE, "JSON": FieldType.JSON, "TIMESTAMP WITH TIME ZONE": FieldType.DATETIME,
        "TIMESTAMP": FieldType.TIMESTAMP, "TIMESTAMP_NS": FieldType.TIMESTAMP,
        "TIMESTAMP_MS": FieldType.TIMESTAMP, "TIMESTAMP_S": FieldType.TIMESTAMP, "TIMESTAMPTZ_NS": FieldType.DATETIME,
    }  # fmt: skip
    return known.get(base, FieldType.STRING)


def trimmed(text: str) -> str:
    """SQL of a text without blanks around it."""
    return f"trim({text}, concat(' ', chr(9), chr(10), chr(11), chr(12), chr(13), chr(160)))"


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
        return _json(expr, source)
    if source.endswith("_NS"):
        text = f"replace(CAST(CAST({expr} AS TIMESTAMP_NS) AS VARCHAR), ' ', 'T')"
        return Coercion(
            f"{text} || 'Z'" if kind is FieldType.DATETIME else text, "VARCHAR", f"NOT isfinite({expr})"
        )
    if kind in (FieldType.DATETIME, FieldType.TIMESTAMP, FieldType.DATE):
        storage = "DATE" if kind is FieldType.DATE else "TIMESTAMP"
        return Coercion(
            time_text(f"TRY_CAST({expr} AS {storage})", kind), "VARCHAR",
            f"lost OR {_outside(f'TRY_CAST({expr} AS {storage})', storage)}",
        )  # fmt: skip
    if kind is FieldType.NUMBER:
        return Coercion(_double_text(expr), "VARCHAR", f"lost OR NOT isfinite({expr})")
    return Coercion(number_text(expr, source), "VARCHAR")


def _double_text(expr: str) -> str:
    """A whole number in all its digits, without fraction and exponent; NULL where the shortest text has other digits, because
    the double may stand for more than one whole number."""
    text, whole = f"CAST({expr} AS VARCHAR)", f"CAST(TRY_CAST({expr} AS HUGEINT) AS VARCHAR)"
    exact = f"abs({expr}) < 1e15 OR {text_values.digits(whole)} = {text_values.digits(text)}"
    return f"CASE WHEN {expr} <> trunc({expr}) THEN {text} WHEN {exact} THEN {whole} END"


def number_text(expr: str, storage: str) -> str:
    """The text of a number. Of one without a declared scale (18 decimals and more) without zeros at its end; a whole double has
    no fraction and no exponent."""
    text = f"CAST({expr} AS VARCHAR)"
    if (found := _DECIMAL.fullmatch(storage)) and int(found[2]) >= _UNDECLARED:
        return f"rtrim(rtrim({text}, '0'), '.')"
    if storage == "DOUBLE":
        return f"coalesce({_double_text(expr)}, {text})"
    return text


def _phone(expr: str, source: str) -> Coercion:
    """No country is guessed: a number without its code does not fit."""
    if natural(source) is not FieldType.STRING:
        raise NotCoercibleError(f"is {source}, which has no room for the + of a telephone number")
    # as people write it abroad: +44 (0)20 7946 0000
    plain = f"replace(regexp_replace({_text(expr, source)}, '\\s', '', 'g'), '(0)', '')"
    digits = f"regexp_replace({plain}, {literal(_PHONE_MARKS)}, '', 'g')"
    empty = f"trim({_text(expr, source)}) = ''"
    return Coercion(
        f"CASE WHEN {empty} THEN '' WHEN regexp_full_match({digits}, {literal(_PHONE_TEXT)}) THEN {digits} END",
        "VARCHAR",
        "lost",
    )


def _code(codes: Iterable[str]) -> Rule:
    """A code of a closed list, in capitals. No name is guessed."""
    known = ", ".join(map(literal, codes))

    def rule(expr: str, source: str) -> Coercion:
        if natural(source) is not FieldType.STRING:
            raise NotCoercibleError(f"is {source}, which is no code of letters")
        code = f"upper(trim({_text(expr, source)}))"
        return Coercion(f"CASE WHEN {code} IN ('', {known}) THEN {code} END", "VARCHAR", "lost")

    return rule


def _outside(expr: str, storage: str) -> str:
    low, high = _YEARS[storage]
    return f"{expr} NOT BETWEEN {storage} '{low}' AND {storage} '{high}'"


def _text(expr: str, source: str) -> str:
    return expr if source == "VARCHAR" else f"CAST({expr} AS VARCHAR)"


def _integer(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if source in _SMALL_INTEGERS:
        return Coercion(f"CAST({expr} AS BIGINT)", "BIGINT")
    if kind is FieldType.INTEGER:
        through = _text(expr, source) if source == "BIGNUM" else expr
        return Coercion(f"TRY_CAST({through} AS DECIMAL(38,0))", "DECIMAL(38,0)", "lost")
    if kind is FieldType.BOOLEAN:
        return Coercion(f"CAST({expr} AS BIGINT)", "BIGINT")
    if kind is FieldType.STRING:
        return Coercion(text_values.integer(_text(expr, source)), "DECIMAL(38,0)", "lost")
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
        return Coercion(text_values.double(_text(expr, source)), "DOUBLE", "lost")
    raise NotCoercibleError(f"is {source}, which is no number")


def _boolean(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if kind is FieldType.BOOLEAN:
        return Coercion(expr, "BOOLEAN")
    if kind is FieldType.INTEGER:
        return Coercion(f"CASE {expr} WHEN 0 THEN false WHEN 1 THEN true END", "BOOLEAN", "lost")
    if kind is FieldType.STRING:
        return Coercion(text_values.boolean(_text(expr, source)), "BOOLEAN", "lost")
    raise NotCoercibleError(f"is {source}, which is no boolean")


def _date(expr: str, source: str) -> Coercion:
    kind = natural(source)
    if kind is FieldType.DATE:
        return Coercion(expr, "DATE", _outside(expr, "DATE"))
    if kind in (FieldType.DATETIME, FieldType.TIMESTAMP):
        stamp = f"CAST({expr} AS TIMESTAMP)"
        whole = f"{expr} = CAST(date_trunc('day', {stamp}) AS {_spelled(source)})"
        return Coercion(
            f"CASE WHEN {whole} THEN CAST({stamp} AS DATE) END", "DATE",
            f"lost OR {_outside(stamp, 'TIMESTAMP')}",
        )  # fmt: skip
    if kind is FieldType.STRING:
        text = _text(expr, source)
        outside = _outside(f"TRY_CAST({text} AS DATE)", "DATE")
        return Coercion(text_values.date(text), "DATE", f"lost OR {outside}")
    raise NotCoercibleError(f"is {source}, which is no date")


def _spelled(source: str) -> str:
    return "TIMESTAMPTZ" if source == "TIMESTAMP WITH TIME ZONE" else source


def _datetime(expr: str, source: str) -> Coercion:
    return _instant(expr, source, "TIMESTAMPTZ")


def _timestamp(expr: str, source: str) -> Coercion:
    return _instant(expr, source, "TIMESTAMP")


def _instant(expr: str, source: str, storage: str) -> Coercion:
    """A time without a zone is taken as UTC (the engine's zone is UTC); finer than a microsecond does not fit."""
    kind = natural(source)
    if kind is FieldType.STRING:
        found = text_values.instant(_text(expr, source), storage)
    elif source.endswith("_NS"):
        micro = f"TRY_CAST({expr} AS {storage})"
        found = f"CASE WHEN CAST({micro} AS {source}) = {expr} THEN {micro} END"
    elif kind in (FieldType.DATETIME, FieldType.TIMESTAMP, FieldType.DATE):
        found = f"TRY_CAST({expr} AS {storage})"
    else:
        raise NotCoercibleError(f"is {source}, which is no point in time")
    return Coercion(found, storage, f"lost OR {_outside(found, storage)}")


def _strict(text: str) -> str:
    """JSON text, NULL where only a lenient reader would take it."""
    bare = f"regexp_replace({text}, {literal(_JSON_STRINGS)}, '0', 'g')"
    return f"CASE WHEN NOT regexp_matches({bare}, {literal(_NOT_JSON)}) THEN {text} END"


def _json(expr: str, source: str) -> Coercion:
    if source in ("VARCHAR", "JSON", "VARIANT"):
        # as it was written: parsing it once more would round its numbers
        text = expr if source == "JSON" else f"TRY_CAST({_text(expr, source)} AS JSON)"
        return Coercion(_strict(f"CAST({text} AS VARCHAR)"), "VARCHAR", "lost")
    if natural(source) in (FieldType.DATE, FieldType.TIMESTAMP, FieldType.DATETIME):
        iso = _string(expr, source)
        return Coercion(f"CAST(to_json({iso.typed}) AS VARCHAR)", "VARCHAR", iso.unfit)
    text = f"CAST(to_json({expr}) AS VARCHAR)"
    if any(part in source for part in ("DOUBLE", "FLOAT", "JSON", "UNION", "VARIANT")):
        return Coercion(_strict(text), "VARCHAR", "lost")
    return Coercion(text, "VARCHAR")


def _array(expr: str, source: str) -> Coercion:
    if natural(source) is FieldType.ARRAY:
        return _json(expr, source)
    if source in ("VARCHAR", "JSON", "VARIANT"):
        text = _json(expr, source).typed
        return Coercion(f"CASE WHEN json_type({text}) = 'ARRAY' THEN {text} END", "VARCHAR", "lost")
    raise NotCoercibleError(f"is {source}, which is no array")


_RULES = {
    FieldType.STRING: _string, FieldType.INTEGER: _integer, FieldType.NUMBER: _number, FieldType.DECIMAL: decimal,
    FieldType.BOOLEAN: _boolean, FieldType.DATE: _date, FieldType.DATETIME: _datetime,
    FieldType.TIMESTAMP: _timestamp, FieldType.JSON: _json, FieldType.ARRAY: _array, FieldType.PHONE: _phone,
    FieldType.CURRENCY: _code(CURRENCIES), FieldType.COUNTRY: _code(COUNTRIES),
}  # fmt: skip


def time_text(expr: str, kind: FieldType) -> str:
    """ISO 8601 of a date, a timestamp or an instant (UTC, with Z)."""
    if kind is FieldType.DATE:
        return f"CAST({expr} AS VARCHAR)"
    text = f"replace(CAST(CAST({expr} AS TIMESTAMP) AS VARCHAR), ' ', 'T')"
    return f"{text} || 'Z'" if kind is FieldType.DATETIME else text
