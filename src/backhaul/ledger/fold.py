"""Takes the outcomes of a plan into the ledger. Folding is idempotent: a plan that was folded is not folded again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import duckdb
import pyarrow as pa

from backhaul.ledger.diff import FORGET
from backhaul.ledger.ledger import ALIAS, Ledger, LedgerView, RowState
from backhaul.ledger.plan import Plan
from backhaul.mapping.mapping import Mapping
from backhaul.sql import ident, literal
from backhaul.types import Nulls


class Settled(IntEnum):
    """What became of one plan row. A row without one is pending: the next run finds it again."""

    DELIVERED = 0
    UNKNOWN = 1


@dataclass(frozen=True, slots=True)
class Settlement:
    """Rows [low, high) of a plan that share a fate, less `except_rows`; `remote_ids` are in row order."""

    status: Settled
    low: int
    high: int
    except_rows: frozenset[int] = frozenset()
    remote_ids: Sequence[str | None] | None = None


def fold(
    engine: duckdb.DuckDBPyConnection, ledger: Ledger, mapping: Mapping, plan: Plan, settlements: Iterable[Settlement],
    *, complete: bool,
) -> None:  # fmt: skip
    """Moves the ledger to what was acknowledged, in one transaction. `complete`: every row of the plan is settled.

    Raises:
        StateError: the ledger file cannot be written.
    """
    with ledger.writing(engine) as view:
        if view.has_folded(plan.id):
            return
        view.adopt(mapping)
        if not ledger.values:
            view.set("values", "no")
        everything = _settled_table(engine, plan, settlements)
        file = f"read_parquet({literal(str(plan.path))}, file_row_number = true)"
        if everything:
            source = f"(SELECT *, 0 AS status, NULL::VARCHAR AS new_id FROM {file})"
        else:
            source = f"(SELECT p.*, s.status, s.new_id FROM {file} AS p JOIN temp.settled AS s ON p.file_row_number = s.row)"
        _acknowledge(view, mapping, source, first=plan.first, values=ledger.values)
        if not everything:
            _doubt(view, mapping, source)
        if plan.forgotten:
            _remove(view, mapping, f"{file} WHERE _segment = {FORGET}")
        view.set("watermark", plan.watermark if complete else None)
        engine.execute(f"INSERT INTO {ALIAS}.folded VALUES (?)", [plan.id])
    engine.execute("DROP TABLE IF EXISTS temp.settled")


def _settled_table(engine: duckdb.DuckDBPyConnection, plan: Plan, settlements: Iterable[Settlement]) -> bool:
    """Fills temp.settled; or answers True when every row of the plan was delivered and no ids came back."""
    found = list(settlements)
    plain = all(
        item.status is Settled.DELIVERED and not item.except_rows and not item.remote_ids for item in found
    )
    if (
        plain
        and not plan.refused
        and not plan.forgotten
        and sum(item.high - item.low for item in found) == plan.total
    ):
        return True
    engine.execute("CREATE OR REPLACE TEMP TABLE settled (row BIGINT, status UTINYINT, new_id VARCHAR)")
    ranges = pa.table({
        "low": pa.array([item.low for item in found], pa.int64()),
        "high": pa.array([item.high for item in found], pa.int64()),
        "status": pa.array([int(item.status) for item in found], pa.uint8()),
        "ids": pa.array([item.remote_ids for item in found], pa.list_(pa.string())),
    })  # fmt: skip
    engine.register("ranges_now", ranges)
    engine.execute(
        "INSERT INTO temp.settled SELECT low + n, status, ids[n + 1] FROM "
        "(SELECT low, status, ids, unnest(range(high - low)) AS n FROM ranges_now)"
    )
    engine.unregister("ranges_now")
    excepted = pa.table({"row": pa.array([row for item in found for row in item.except_rows], pa.int64())})
    if excepted.num_rows:
        engine.register("excepted_now", excepted)
        engine.execute(
            f"DELETE FROM temp.settled WHERE status = {Settled.DELIVERED} AND row IN (SELECT row FROM excepted_now)"
        )
        engine.unregister("excepted_now")
    return False


def _acknowledge(view: LedgerView, mapping: Mapping, source: str, *, first: bool, values: bool) -> None:
    delivered = f"{source} WHERE status = {Settled.DELIVERED}"
    if not first:
        _remove(view, mapping, delivered)
    keys = [key.column for key in mapping.keys]
    stored = [
        "NULL" if not values and not field.identifier
        else f"coalesce({ident(field.column)}, {ident('o.' + field.name)})" if field.nulls is Nulls.SKIP
        else ident(field.column)
        for field in mapping.fields
    ]  # fmt: skip
    view.engine.execute(
        f"INSERT INTO {ALIAS}.acked ({_columns(mapping)}) SELECT {', '.join(keys)}, _hash, {RowState.ACKED}, "
        f"now()::TIMESTAMP, coalesce(new_id, _remote_id), {', '.join(stored)} FROM {delivered} AND _change <> 2"
    )


def _doubt(view: LedgerView, mapping: Mapping, source: str) -> None:
    """Rows whose fate nobody knows lose their hash; keys never held before are remembered with their identifiers."""
    unknown = f"(SELECT * FROM {source} WHERE status = {Settled.UNKNOWN})"
    keys = [key.column for key in mapping.keys]
    same = " AND ".join(f"acked.{key} = u.{key}" for key in keys)
    view.engine.execute(
        f"UPDATE {ALIAS}.acked SET _hash = NULL, _state = {RowState.UNKNOWN} FROM {unknown} AS u WHERE {same}"
    )
    stored = [f"u.{ident(field.column)}" if field.identifier else "NULL" for field in mapping.fields]
    view.engine.execute(
        f"INSERT INTO {ALIAS}.acked ({_columns(mapping)}) SELECT {', '.join('u.' + key for key in keys)}, NULL, "
        f"{RowState.UNKNOWN}, NULL, u._remote_id, {', '.join(stored)} FROM {unknown} AS u "
        f"WHERE NOT EXISTS (SELECT 1 FROM {ALIAS}.acked WHERE {same})"
    )


def _remove(view: LedgerView, mapping: Mapping, source: str) -> None:
    keys = ", ".join(key.column for key in mapping.keys)
    left = keys if len(mapping.keys) == 1 else f"({keys})"
    view.engine.execute(
        f"DELETE FROM {ALIAS}.acked WHERE {left} IN (SELECT {keys if len(mapping.keys) == 1 else f'({keys})'} FROM {source})"
    )


def _columns(mapping: Mapping) -> str:
    keys = [key.column for key in mapping.keys]
    return ", ".join(
        [*keys, "_hash", "_state", "_at", "_remote_id", *(ident(field.column) for field in mapping.fields)]
    )


def forget_values(engine: duckdb.DuckDBPyConnection, ledger: Ledger) -> int:
    """`reset`: forgets what was acknowledged and keeps the known keys. Returns how many."""
    if not ledger.path.exists():
        return 0
    with ledger.writing(engine) as view:
        if view.empty:
            return 0
        engine.execute(f"UPDATE {ALIAS}.acked SET _hash = NULL, _state = {RowState.KNOWN}")
        view.set("watermark", None)
        return view.count()


def remove_ledger(path: Path) -> None:
    """Removes the ledger file and its write-ahead log."""
    for name in (path, path.with_name(path.name + ".wal")):
        name.unlink(missing_ok=True)
