"""Rows of a model without a primary key: they stop the run, or are set aside, one rejection for each key that lacks a part."""

from __future__ import annotations

import duckdb

from backhaul.engine import spill_folder
from backhaul.ledger.duplicates import agreed, is_nameless, key_json, mask
from backhaul.mapping.mapping import SEPARATOR, Mapping
from backhaul.mapping.wire import key_text
from backhaul.sql import literal

_SAMPLES = 3


def samples(engine: duckdb.DuckDBPyConnection, mapping: Mapping) -> str:
    """Some of these rows, by what else they are known by, masked; '' where nothing names them."""
    text = key_text(mapping.identifiers) if len(mapping.keys) == 1 else key_json(mapping)
    rows = engine.execute(
        f"SELECT DISTINCT {text} AS one FROM temp.main.candidates WHERE {is_nameless(mapping)} AND one IS NOT NULL "
        f"ORDER BY 1 LIMIT {_SAMPLES}"
    ).fetchall()
    known_by = mapping.identifiers[0].name if len(mapping.keys) == 1 else "key"
    return f", such as {known_by} {', '.join(mask(one) for (one,) in rows)}" if rows else ""


def lacking(mapping: Mapping) -> str:
    """What such a row has in place of a key."""
    decimal = any(key.storage.startswith("DECIMAL") for key in mapping.keys)
    return "NULL, or a number that does not fit," if decimal else "NULL"


def set_aside(engine: duckdb.DuckDBPyConnection, mapping: Mapping) -> None:
    """Makes one refused candidate of each key that lacks a part, in place of all of its rows."""
    keys = ", ".join(f"c.{key.column}" for key in mapping.keys)
    head = literal(mapping.keys[0].name + SEPARATOR + "null" + SEPARATOR)
    tail = literal(f" {lacking(mapping)} here, and a primary key is required{samples(engine, mapping)}")
    error = f"concat({head}, count(*), CASE WHEN count(*) = 1 THEN ' row has' ELSE ' rows have' END, {tail})"
    fields = ", ".join(agreed(field.column) for field in mapping.fields)
    file = literal(str(spill_folder(engine) / "named.parquet"))
    nameless = is_nameless(mapping, "c.")
    engine.execute(
        f"COPY (SELECT c.* FROM temp.main.candidates AS c WHERE NOT ({nameless}) UNION ALL BY NAME "
        f"SELECT {keys}, hash(list_sort(list(c._hash))) AS _hash, {error} AS _error, {fields} "
        f"FROM temp.main.candidates AS c WHERE {nameless} GROUP BY {keys}) TO {file} (FORMAT parquet, COMPRESSION snappy)"
    )
    engine.execute(f"CREATE OR REPLACE TEMP VIEW candidates AS SELECT * FROM read_parquet({file})")
