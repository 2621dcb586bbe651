"""Whether a view or macro of a DuckDB file reads other files of this machine: who wrote the file would read with our rights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backhaul.sql import ident
from backhaul.warehouses.inplace import resolve_built_in_first
from backhaul.warehouses.relative_paths import reads_files
from backhaul.warehouses.repeatable import parsed

if TYPE_CHECKING:
    import duckdb

_READING = re.compile(r"READ_|GLOB|SNIFF_|PARQUET_|\w+_SCAN$")
"""How the engine calls table functions that read files or other databases; tables of its own have no function."""


def hidden_reader(engine: duckdb.DuckDBPyConnection, select: str, catalog: str) -> str | None:
    """The function by which a SELECT over an attached file reads another one although the SELECT itself names none; None where
    it reads none. Where it names some itself, those of a view are not told apart. Leaves names resolving to built-in functions
    first."""
    import duckdb

    try:
        engine.execute(f"USE {ident(catalog)}")
        rows = engine.execute(f"EXPLAIN (FORMAT json) {select}").fetchall()
    except duckdb.Error:
        return None  # whoever runs it says why
    finally:
        resolve_built_in_first(engine, catalog)
    found = next(filter(_READING.match, _functions(json.loads(rows[0][1]))), None)
    return None if found is None or reads_files(engine, parsed(engine, select)) else found.lower()


def _functions(nodes: list[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        yield str((node.get("extra_info") or {}).get("Function", ""))
        yield from _functions(node["children"])
