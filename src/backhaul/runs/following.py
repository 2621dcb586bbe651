"""A plan of those records of another plan that waited for the rest of it: for references, or for unique values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from backhaul.engine import in_order, number
from backhaul.ledger.plan import CHANGES, Plan, Segment, freezing
from backhaul.sql import literal


def follow_up(
    engine: duckdb.DuckDBPyConnection, plan: Plan, rows: Sequence[int], plan_id: str, path: Path
) -> Plan:
    """Writes a plan of some rows of a plan, which are the same changes in the same order."""
    engine.register("waiting_now", pa.table({"row": pa.array(sorted(rows), pa.int64())}))
    chosen = f"{plan.rows_sql} WHERE file_row_number IN (SELECT row FROM waiting_now)"
    try:
        with freezing(path) as part, in_order(engine):
            engine.execute(
                f"COPY (SELECT * EXCLUDE (file_row_number) FROM {chosen} ORDER BY file_row_number) "
                f"TO {literal(str(part))} (FORMAT parquet, COMPRESSION snappy)"
            )
        changes = {
            name: number(engine, f"SELECT count(*) FROM {chosen} AND _change = {place}")
            for place, name in enumerate(CHANGES)
        }
    finally:
        engine.unregister("waiting_now")
    return replace(
        plan, id=plan_id, path=path, changes=changes, segments=_segments(plan, rows), refused=0, forgotten=0, first=False,
        follows=plan.follows or plan.id, digest=f"{plan.digest}-{plan_id}",
    )  # fmt: skip


def _segments(plan: Plan, rows: Sequence[int]) -> tuple[Segment, ...]:
    found, low = list[Segment](), 0
    for segment in plan.segments:
        count = sum(segment.low <= row < segment.high for row in rows)
        if count:
            found.append(Segment(segment.op, low, low + count))
        low += count
    return tuple(found)
