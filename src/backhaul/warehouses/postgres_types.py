"""How each PostgreSQL type travels: the SQL that the server sends, and its type in the engine.

What ADBC does not carry natively comes as text and is cast in the engine: numeric to DECIMAL (of its own precision and
scale; without them, or beyond 38 digits, 18 decimals; what has more digits or decimals than DECIMAL holds, NaN and the
infinities are NULL, with their text in a column beside it); json, arrays, rows and hstore to JSON; everything else (uuid,
enums, intervals, times, ranges) stays text.
"""

from __future__ import annotations

from dataclasses import dataclass

from backhaul.sql import ident
from backhaul.warehouses.protocol import SPOILT

_NATIVE = {
    16: "BOOLEAN", 20: "BIGINT", 21: "SMALLINT", 23: "INTEGER", 25: "VARCHAR", 1043: "VARCHAR", 1042: "VARCHAR",
    19: "VARCHAR", 700: "FLOAT", 701: "DOUBLE", 17: "BLOB",
}  # fmt: skip
"""Engine types by PostgreSQL's own type numbers (pg_type.dat of the PostgreSQL sources)."""
_NUMERIC, _JSON, _JSONB, _OID = 1700, 114, 3802, 26
_TIMES = {1082: "DATE", 1114: "TIMESTAMP", 1184: "TIMESTAMP WITH TIME ZONE"}
_FIRST = {1082: "4714-11-24 BC", 1114: "4714-11-24 BC", 1184: "4714-11-24 00:00:00+00 BC"}
_LAST = {
    1082: "5874897-12-31",
    1114: "294247-01-10 04:00:54.775807",
    1184: "294247-01-10 04:00:54.775807+00",
}
"""The ends of PostgreSQL's calendar (its documentation, table 8.9) stand for the infinities on the way, because the driver
adds the distance of the epochs to them and wraps around. The last microsecond that fits Arrow's is the engine's infinity."""
_FIRST_HERE = {
    "DATE": "4714-11-24 (BC)",
    "TIMESTAMP": "4714-11-24 (BC) 00:00:00",
    "TIMESTAMP WITH TIME ZONE": "4714-11-24 (BC) 00:00:00+00",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """One column: what PostgreSQL selects, and what the engine makes of it; `spoilt` as in Column."""

    name: str
    sql: str
    cast: str
    type: str
    spoilt: str | None = None


def sent(name: str, oid: int, modifier: int, kind: tuple[str, str, str] | None) -> Sent:
    """`modifier` is atttypmod; `kind` is (typtype, typcategory, typname) of pg_type."""
    column = ident(name)
    if oid in _TIMES:
        return _time(name, oid)
    if oid in _NATIVE:
        return _sent(name, column, _NATIVE[oid])
    if oid == _OID:
        return _sent(name, f"{column}::int8", "BIGINT")
    if oid == _NUMERIC:
        return _numeric(name, decimal(modifier))
    if oid in (_JSON, _JSONB):
        return _sent(name, f"{column}::text", "JSON")
    typtype, category, typname = kind or ("", "", "")
    if category == "A" or typtype == "c" or typname in ("record", "hstore"):
        return _sent(name, f"pg_catalog.to_json({column})::text", "JSON")
    return _sent(name, f"{column}::text", "VARCHAR")


def _sent(name: str, sql: str, kind: str) -> Sent:
    column = ident(name)
    return Sent(name, f"{sql} AS {column}", f"CAST({column} AS {kind}) AS {column}", kind)


def _numeric(name: str, kind: str) -> Sent:
    column, spoilt = ident(name), name + SPOILT
    number = f"TRY_CAST({column} AS {kind})"
    if kind.startswith("DECIMAL(38,"):
        number = _unrounded(column, kind)
    cast = f"{number} AS {column}, CASE WHEN {number} IS NULL THEN {column} END AS {ident(spoilt)}"
    return Sent(name, f"{column}::text AS {column}", cast, kind, spoilt)


def _unrounded(column: str, kind: str) -> str:
    """NULL for a number with more decimals than DECIMAL(38,n) keeps, not counting zeros at the end; a short text has no more."""
    scale = int(kind.rstrip(")").split(",")[1])
    more = rf"\.[0-9]{{{scale}}}[0-9]*[1-9]"
    fits = f"length({column}) <= {scale + 1} OR NOT regexp_matches({column}, '{more}')"
    return f"CASE WHEN {fits} THEN TRY_CAST({column} AS {kind}) END"


def _time(name: str, oid: int) -> Sent:
    column, kind = ident(name), _TIMES[oid]
    base = {1082: "date", 1114: "timestamp", 1184: "timestamptz"}[oid]
    first, last = f"'{_FIRST[oid]}'::{base}", f"'{_LAST[oid]}'::{base}"
    sql = (
        f"CASE WHEN {column} = '-infinity' THEN {first} WHEN {column} > {last} THEN {last} "
        f"ELSE {column} END AS {column}"
    )
    ends = [f"WHEN {column} = '{_FIRST_HERE[kind]}'::{kind} THEN '-infinity'::{kind}"]
    if oid == 1082:
        ends.append(f"WHEN {column} = '{_LAST[oid]}'::{kind} THEN 'infinity'::{kind}")
    return Sent(name, sql, f"CASE {' '.join(ends)} ELSE CAST({column} AS {kind}) END AS {column}", kind)


def decimal(modifier: int) -> str:
    """The engine's type of a numeric with this atttypmod (numeric.c: precision << 16 | scale in 11 bits, plus 4)."""
    if modifier < 4:
        return "DECIMAL(38,18)"
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, ((modifier - 4 & 0x7FF) ^ 0x400) - 0x400
    digits, decimals = max(precision, scale, precision - scale), max(scale, 0)
    if digits <= 38:
        return f"DECIMAL({digits},{decimals})"
    return f"DECIMAL(38,{min(decimals, 18)})"
