"""Reads a plan file for people: samples of changes with old and new values per field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Dict
from decimal import Decimal
from typing import Any

import duckdb
import orjson

from backhaul.advice import shape
from backhaul.ledger.duplicates import key_is, key_json
from backhaul.ledger.plan import CHANGES, REFUSE, SEND, Plan
from backhaul.mapping.coercion import time_text
from backhaul.mapping.mapping import SEPARATOR, MappedField, Mapping
from backhaul.sql import ident, literal
from backhaul.types import FieldType, Nulls

TOO_DEEP = "(nested too deeply to be shown)"
_LONG = re.compile(r"[0-9][0-9.]{15}")
_SAFE_LEVELS = 200
_LEVELS_AROUND = 16
"""More than any document of ours has around a value."""


def sample(engine: duckdb.DuckDBPyConnection, plan: Plan, count: int = 5) -> list[dict[str, Any]]:
    """Up to `count` changes of each kind: `{op, key, fields: {name: [old, new]}}`; only fields that change."""
    mapping = Mapping.from_shape(plan.shape)
    values = [part for field in mapping.fields for part in (json_of(field, "o."), json_of(field, "f."))]
    rows = engine.execute(
        f"SELECT _change, {key_json(mapping)}, _again IS NOT NULL, [{', '.join(values)}] FROM ("
        f"SELECT *, row_number() OVER (PARTITION BY _change) AS n FROM (SELECT * FROM {plan.rows_sql} WHERE _segment <= {SEND})) "
        f"WHERE n <= {count} ORDER BY _change, n"
    ).fetchall()
    return [_change(mapping, *row) for row in rows]


def _change(mapping: Mapping, change: int, key: str, again: bool, values: list[str | None]) -> dict[str, Any]:
    pairs = {
        field.name: [_value(values[2 * number]), _value(values[2 * number + 1])]
        for number, field in enumerate(mapping.fields)
    }
    if CHANGES[change] == "delete":
        shown = {name: [old, None] for name, (old, _) in pairs.items() if old is not None}
    else:
        alone = {field.name for field in mapping.fields if field.nulls is Nulls.SKIP and not field.identifier}
        shown = {
            name: pair
            for name, pair in pairs.items()
            if (again or CHANGES[change] == "create" or pair[0] != pair[1])
            and not (pair[1] is None and name in alone)
        }
    return {"op": CHANGES[change], "key": parsed(key), "fields": shown}


def refusals(engine: duckdb.DuckDBPyConnection, plan: Plan) -> list[dict[str, Any]]:
    """Records that the mapping refuses: `{key (JSON), hash, field, code, message, payload (JSON)}`."""
    if not plan.refused:
        return []
    mapping = Mapping.from_shape(plan.shape)
    payload = object_of({field.name: json_of(field, "f.") for field in mapping.fields})
    rows = engine.execute(
        f"SELECT {key_json(mapping)}, CAST(_hash AS VARCHAR), _error, {payload} "
        f"FROM {plan.rows_sql} WHERE _segment = {REFUSE}"
    ).fetchall()
    found = []
    for key, hashed, error, payload in rows:
        field, code, message = error.split(SEPARATOR, 2)
        found.append(
            {
                "key": key,
                "hash": hashed,
                "field": field,
                "code": code,
                "message": f"{field}: {message}",
                "payload": payload,
            }
        )
    return found


def refusal_groups(engine: duckdb.DuckDBPyConnection, plan: Plan, keys: int = 3) -> list[dict[str, Any]]:
    """What the mapping refuses, grouped by field, code and shape of message, the largest group first: `{code, field, count,
    message, keys}` with the first few keys of each."""
    if not plan.refused:
        return []
    key = key_json(Mapping.from_shape(plan.shape))
    rows = engine.execute(
        f"SELECT min(_error), count(DISTINCT _error), count(*), list({key} ORDER BY file_row_number)[1:{keys}] "
        f"FROM {plan.rows_sql} WHERE _segment = {REFUSE} "
        f"GROUP BY regexp_replace(_error, '[0-9]+', '0', 'g') ORDER BY 3 DESC, 1"
    ).fetchall()
    found = []
    for error, messages, count, some in rows:
        field, code, message = error.split(SEPARATOR, 2)
        found.append({
            "code": code, "field": field, "count": count, "message": message if messages == 1 else shape(message),
            "keys": [parsed(one) for one in some],
        })  # fmt: skip
    return found


def refusal_text(group: dict[str, Any]) -> str:
    """A group of `refusal_groups` in one line."""
    rows = "1 row" if group["count"] == 1 else f"{group['count']:,} rows"
    return f"{rows} will be rejected: {group['field']}: {group['message']}"


def values_of(engine: duckdb.DuckDBPyConnection, plan: Plan, key: str) -> list[Any]:
    """The values that a plan sends of one record (key as JSON): what a destination's message about it may repeat."""
    mapping = Mapping.from_shape(plan.shape)
    values = ", ".join(f"CAST({ident('f.' + field.name)} AS VARCHAR)" for field in mapping.fields)
    rows = engine.execute(f"SELECT {values} FROM {plan.rows_sql} WHERE {key_is(mapping, [key])}").fetchall()
    return [value for row in rows for value in row]


def json_of(field: MappedField, prefix: str) -> str:
    """SQL of a field's value as JSON text, times as they are sent; NULL stays NULL."""
    column, kind = ident(prefix + field.name), field.field.type
    if kind in (FieldType.JSON, FieldType.ARRAY):
        return column
    if kind in (FieldType.DATE, FieldType.DATETIME, FieldType.TIMESTAMP) and field.storage != "VARCHAR":
        column = time_text(column, kind)
    return f"CAST(to_json({column}) AS VARCHAR)"


def object_of(members: Dict[str, str]) -> str:
    """SQL of a JSON object as text, of members that are SQL of JSON text: put together as they are, since the engine's own
    functions would round their numbers once more."""
    parts = [
        f"{literal(',' * (number > 0) + orjson.dumps(name).decode() + ':')}, coalesce({value}, 'null')"
        for number, (name, value) in enumerate(members.items())
    ]
    return f"concat('{{', {', '.join(parts)}, '}}')"


def _value(text: str | None) -> Any:
    return None if text is None else parsed(text)


def parsed(text: str) -> Any:
    """The value of a JSON text: a number that Python's or orjson's own types would round stays its text, and what is
    nested deeper than orjson writes (254 levels) is a word."""
    if text.count("[") + text.count("{") < _SAFE_LEVELS:
        return (
            json.loads(text, parse_int=_whole, parse_float=_fraction)
            if _LONG.search(text)
            else orjson.loads(text)
        )
    value = orjson.loads(text)
    if isinstance(value, dict):
        return {name: _shallow(item) for name, item in value.items()}
    return _shallow(value)


def _whole(text: str) -> int | str:
    return int(text) if -(2**63) <= int(text) < 2**64 else text


def _fraction(text: str) -> float | str:
    value = float(text)
    return value if Decimal(repr(value)) == Decimal(text) else text


def _shallow(value: Any) -> Any:
    inside = value
    for _ in range(_LEVELS_AROUND):
        inside = [inside]
    try:
        orjson.dumps(inside)
    except TypeError:
        return TOO_DEEP
    return value
