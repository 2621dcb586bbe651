"""Keeps rows of forgotten keys out of a plan."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from backhaul.engine import number, spill_folder
from backhaul.sql import literal


def suppress(engine: duckdb.DuckDBPyConnection, forgotten: Sequence[str], salted: str, columns: str) -> int:
    """Takes rows out of temp.candidates whose hash (SQL over a row `c`) is a forgotten one. Gives how many."""
    engine.register("forgotten_now", pa.table({"hash": pa.array(forgotten, pa.string())}))
    engine.execute("CREATE OR REPLACE TEMP TABLE forgotten AS SELECT * FROM forgotten_now")
    engine.unregister("forgotten_now")
    wanted = is_wanted(salted)
    count = number(engine, f"SELECT count(*) FROM temp.main.candidates AS c WHERE NOT {wanted}")
    if count:
        file = literal(str(spill_folder(engine) / "candidates.parquet"))
        engine.execute(
            f"CREATE OR REPLACE TEMP VIEW candidates AS SELECT {columns} FROM read_parquet({file}) AS c WHERE {wanted}"
        )
    return count


def is_wanted(salted: str) -> str:
    """SQL: the row is not of a forgotten key; for an engine on which `suppress` was called."""
    return f"(NOT EXISTS (SELECT 1 FROM temp.main.forgotten AS n WHERE n.hash = {salted}))"
