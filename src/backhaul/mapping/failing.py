"""Which expressions of a mapping fail. The engine does not say, and its own words quote the value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.sql import ident


def failing(engine: duckdb.DuckDBPyConnection, mapping: Mapping, relation: Any) -> list[MappedField]:
    """The fields whose expressions fail for some row; reads the model once more. None where the model itself fails, or where
    an expression cannot be tried, because it gives another value each time."""
    fields = [field for field in mapping.fields if field.expr.strip('"').lower() not in _columns(mapping)]
    again = relation if relation.repeatable else relation.again()
    try:
        return _tried(engine, fields, again.sql)
    except duckdb.Error:
        return []
    finally:
        if again is not relation:
            again.close()


def _columns(mapping: Mapping) -> set[str]:
    return {key.name.lower() for key in mapping.keys}


def _tried(
    engine: duckdb.DuckDBPyConnection, fields: Sequence[MappedField], relation: str
) -> list[MappedField]:
    if not fields:
        return []
    fails = (
        f"bool_or(TRY({{'value': ({field.expr})}}) IS NULL) AS {ident(field.column)}" for field in fields
    )
    row = engine.execute(f"SELECT {', '.join(fails)} FROM {relation} AS model").fetchall()[0]
    return [field for field, fails in zip(fields, row, strict=True) if fails]
