"""What a file of changes holds, in one pass over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import orjson

from backhaul.mapping.fingerprint import fingerprints
from backhaul.mapping.mapping import Mapping
from backhaul.sql import ident, literal


@dataclass(frozen=True, slots=True)
class Tally:
    """Changes that are alike: how many, the sum of their hashes, and how many have no identifier."""

    segment: int
    change: int
    again: int | None
    count: int
    digest: int
    nameless: int


def tally_of(
    engine: duckdb.DuckDBPyConnection, file: Path, mapping: Mapping, before: Sequence[str]
) -> list[Tally]:
    """`before`: the columns, beside key and hash, that a plan's digest stands for."""
    keys = [key.column for key in mapping.keys]
    shape = [[key.name, key.storage] for key in mapping.keys]
    made_with = orjson.dumps([shape, fingerprints(mapping)], option=orjson.OPT_SORT_KEYS)
    told = ", ".join(["_segment", "_change", *keys, "_hash", *sorted(before), literal(made_with.decode())])
    none = " OR ".join(f"{ident(field.column)} IS NULL" for field in mapping.identifiers)
    rows = engine.execute(
        f"SELECT _segment, _change, _again, count(*), sum(hash({told})::HUGEINT), count(*) FILTER (WHERE {none}) "
        f"FROM read_parquet({literal(str(file))}) GROUP BY 1, 2, 3"
    ).fetchall()
    return [Tally(*row) for row in rows]
