"""Reads a plan file for people: samples of changes with old and new values per field."""

from __future__ import annotations

from typing import Any

import duckdb
import orjson

from backhaul.ledger.diff import REFUSE, SEND, key_json
from backhaul.ledger.plan import CHANGES, Plan
from backhaul.mapping.mapping import SEPARATOR, MappedField, Mapping
from backhaul.sql import ident, literal
from backhaul.types import FieldType

TOO_DEEP = "(nested too deeply to be shown)"
_SAFE_LEVELS = 200
_LEVELS_AROUND = 16
"""More than any document of ours has around a value."""


def sample(engine: duckdb.DuckDBPyConnection, plan: Plan, count: int = 5) -> list[dict[str, Any]]:
    """Up to `count` changes of each kind: `{op, key, fields: {name: [old, new]}}`; only fields that change."""
    mapping = Mapping.from_shape(plan.shape)
    values = [part for field in mapping.fields for part in (_json(field, "o."), _json(field, "f."))]
    rows = engine.execute(
        f"SELECT _change, {key_json(mapping)}, _again IS NOT NULL, [{', '.join(values)}] FROM ("
        f"SELECT *, row_number() OVER (PARTITION BY _change) AS n FROM (SELECT * FROM {_file(plan)} WHERE _segment <= {SEND})) "
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
        shown = {
            name: pair
            for name, pair in pairs.items()
            if again or CHANGES[change] == "create" or pair[0] != pair[1]
        }
    return {"op": CHANGES[change], "key": orjson.loads(key), "fields": shown}


def refusals(engine: duckdb.DuckDBPyConnection, plan: Plan, count: int | None = None) -> list[dict[str, Any]]:
    """Records that the mapping refuses: `{key (JSON), hash, field, code, message, payload (JSON)}`."""
    if not plan.refused:
        return []
    mapping = Mapping.from_shape(plan.shape)
    names = ", ".join(f"{literal(field.name)}, {_json(field, 'f.')}::JSON" for field in mapping.fields)
    limit = "" if count is None else f"LIMIT {count}"
    rows = engine.execute(
        f"SELECT {key_json(mapping)}, CAST(_hash AS VARCHAR), _error, CAST(json_object({names}) AS VARCHAR) "
        f"FROM {_file(plan)} WHERE _segment = {REFUSE} {limit}"
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


def _file(plan: Plan) -> str:
    return f"read_parquet({literal(str(plan.path))}, file_row_number = true)"


def _json(field: MappedField, prefix: str) -> str:
    column = ident(prefix + field.name)
    if field.field.type in (FieldType.JSON, FieldType.ARRAY):
        return column
    return f"CAST(to_json({column}) AS VARCHAR)"


def _value(text: str | None) -> Any:
    return None if text is None else parsed(text)


def parsed(text: str) -> Any:
    """The value of a JSON text, or a word for one that is nested deeper than orjson writes (254 levels)."""
    value = orjson.loads(text)
    if text.count("[") + text.count("{") < _SAFE_LEVELS:
        return value
    if isinstance(value, dict):
        return {name: _shallow(item) for name, item in value.items()}
    return _shallow(value)


def _shallow(value: Any) -> Any:
    inside = value
    for _ in range(_LEVELS_AROUND):
        inside = [inside]
    try:
        orjson.dumps(inside)
    except TypeError:
        return TOO_DEEP
    return value
