"""Takes the outcomes of a plan into the ledger. Folding is idempotent: a plan that was folded is not folded again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from backhaul.changes import Stage, code
from backhaul.engine import number, spill_folder
from backhaul.failpoints import failpoint
from backhaul.ledger.ledger import ALIAS, Ledger, LedgerView
from backhaul.ledger.older_plan import in_ledger_shape
from backhaul.ledger.plan import FORGET, KEEP, LEAVE, Plan
from backhaul.ledger.remapping import note_mapping
from backhaul.ledger.remote_conflicts import Conflict, release_conflicts
from backhaul.ledger.replaced import identity
from backhaul.mapping.mapping import Mapping
from backhaul.sql import ident, literal
from backhaul.types import Nulls, Op

_ACKNOWLEDGED, _UNKNOWN = code(Stage.ACKNOWLEDGED), code(Stage.UNKNOWN)
_AT_ONCE, _IDS_AT_ONCE = 500_000, 50_000
"""Rows that take memory together: on their way into the ledger, and while the ids that the destination gave them are read."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Rows [low, high) of a plan that are in one stage, less `except_rows`; `remote_ids` is a JSON list in row order.

    Only acknowledged and unknown rows move the ledger. A row without a settlement is found again by the next run.
    """

    status: Stage
    low: int
    high: int
    except_rows: frozenset[int] = frozenset()
    remote_ids: str | None = None


def fold(
    engine: duckdb.DuckDBPyConnection, ledger: Ledger, mapping: Mapping, plan: Plan, settlements: Iterable[Settlement],
    *, complete: bool,
) -> list[Conflict]:  # fmt: skip
    """Moves the ledger to what was acknowledged, in one transaction. `complete`: every row of the plan is settled. Returns the
    rows that are not taken in because the destination has them on the record of another key.

    Raises:
        StateError: the ledger file cannot be written.
    """
    pa.default_memory_pool().release_unused()  # what was sent was in it, and the engine counts on that room
    with ledger.writing(engine) as view:
        if view.has_folded(plan.id):
            return []
        mapping, plan = in_ledger_shape(view, mapping, plan)
        view.adopt(mapping)
        if not ledger.values and view.meta.get("values") != "no":
            _erase_values(view, mapping)
        found = list(settlements)
        stages = {item.status for item in found}
        everything = _is_everything(plan, found)
        if not everything:
            _write_settled(engine, found)
        source = _source(plan, everything)
        keys = ", ".join(key.column for key in mapping.keys)
        view.touch(None if plan.first else f"SELECT {keys} FROM {source}")
        if plan.forgotten:
            without = f"_segment = {KEEP} OR (_segment = {FORGET} AND _again = {code(Stage.RETRY)})"
            absent = f"(SELECT {keys} FROM {plan.rows_sql} WHERE {without})"
            view.touch(f"SELECT {keys} FROM {absent}")
            _remove(view, mapping, absent)
            _leave(view, mapping, plan)
        handed_over = not plan.first and _find_taken(view, mapping, plan, source)
        if everything or Stage.ACKNOWLEDGED in stages:
            _acknowledge(view, mapping, plan, everything, values=ledger.values)
        if Stage.UNKNOWN in stages:
            _doubt(view, mapping, source)
        if handed_over:
            _hand_over(view, mapping, source)
        conflicts: list[Conflict] = []
        if any(item.remote_ids for item in found):
            creates = any(segment.op is Op.INSERT for segment in plan.segments)
            conflicts = release_conflicts(view, mapping, source, resend_holders=not creates)
        view.set("watermark", plan.watermark if complete else None)
        if plan.mapping:
            note_mapping(view, plan.mapping, complete=complete)
        engine.execute(f"INSERT INTO {ALIAS}.folded VALUES (?)", [plan.id])
        failpoint("folding")
    return conflicts


def _is_everything(plan: Plan, found: Sequence[Settlement]) -> bool:
    """Whether every row of the plan was delivered, and no ids came back."""
    plain = all(
        item.status is Stage.ACKNOWLEDGED and not item.except_rows and not item.remote_ids for item in found
    )
    delivered = sum(item.high - item.low for item in found)
    return plain and not plan.refused and not plan.forgotten and delivered == plan.total


def _source(plan: Plan, everything: bool, part: range | None = None) -> str:
    """SQL of a plan's rows with what became of them, or of some of them."""
    rows = f"(FROM {plan.rows_sql} {_only('file_row_number', part)})"
    if everything:
        return f"(SELECT *, {_ACKNOWLEDGED} AS status, NULL::VARCHAR AS new_id FROM {rows})"
    settled = f"(FROM temp.main.settled {_only('row', part)})"
    return (
        f"(SELECT p.*, s.status, s.new_id FROM {rows} AS p JOIN {settled} AS s ON p.file_row_number = s.row)"
    )


def _only(column: str, part: range | None) -> str:
    return "" if part is None else f"WHERE {column} >= {part.start} AND {column} < {part.stop}"


def _slices(found: Sequence[Settlement]) -> Iterator[Sequence[Settlement]]:
    """Settlements of some rows at a time, so that no more ids than theirs are read at once."""
    low = rows = 0
    for place, item in enumerate(found):
        rows += item.high - item.low if item.remote_ids else 0
        if rows >= _IDS_AT_ONCE:
            yield found[low : place + 1]
            low, rows = place + 1, 0
    if low < len(found):
        yield found[low:]


def _write_settled(engine: duckdb.DuckDBPyConnection, found: Sequence[Settlement]) -> None:
    """temp.settled: what became of each row, as a view of files: a table of so many ids would fill the memory."""
    folder = Path(tempfile.mkdtemp(prefix="settled-", dir=spill_folder(engine)))
    files = []  # each by its name: a pattern would take the folder's name for one too
    for place, some in enumerate(_slices(found) if found else [()]):
        ranges = pa.table({
            "low": pa.array([item.low for item in some], pa.int64()),
            "high": pa.array([item.high for item in some], pa.int64()),
            "status": pa.array([code(item.status) for item in some], pa.uint8()),
            "ids": pa.array([item.remote_ids for item in some], pa.string()),
        })  # fmt: skip
        excepted = pa.table({"row": pa.array([row for item in some for row in item.except_rows], pa.int64())})
        engine.register("ranges_now", ranges)
        engine.register("excepted_now", excepted)
        ids = """unnest(from_json(ids, '["VARCHAR"]'))"""
        each = f"SELECT unnest(range(low, high)) AS row, status, {ids} AS new_id FROM ranges_now"
        kept = f"status <> {_ACKNOWLEDGED} OR row NOT IN (SELECT row FROM excepted_now)"
        files.append(literal(str(folder / f"{place}.parquet")))
        engine.execute(
            f"COPY (FROM ({each}) WHERE {kept}) TO {files[-1]} (FORMAT parquet, COMPRESSION snappy)"
        )
        engine.unregister("ranges_now")
        engine.unregister("excepted_now")
    engine.execute(f"CREATE OR REPLACE TEMP VIEW settled AS FROM read_parquet([{', '.join(files)}])")


def _acknowledge(view: LedgerView, mapping: Mapping, plan: Plan, everything: bool, *, values: bool) -> None:
    if not plan.first:
        spelled = ", ".join([*(key.column for key in mapping.keys), "_spelled"])
        view.engine.execute(
            f"CREATE OR REPLACE TEMP TABLE spelled AS SELECT {spelled} FROM {ALIAS}.acked WHERE _spelled IS NOT NULL"
        )
        _remove(view, mapping, f"{_source(plan, everything)} WHERE status = {_ACKNOWLEDGED}")
    keys = [key.column for key in mapping.keys]
    stored = [
        "NULL" if not values and not field.identifier
        else f"coalesce({ident(field.column)}, {ident('o.' + field.name)})" if field.nulls is Nulls.SKIP
        else ident(field.column)
        for field in mapping.fields
    ]  # fmt: skip
    for low in range(0, max((segment.high for segment in plan.segments), default=0), _AT_ONCE):
        view.engine.execute(
            f"INSERT INTO {ALIAS}.acked ({_columns(mapping)}) SELECT {', '.join(keys)}, _hash, {_ACKNOWLEDGED}, "
            f"{view.now_sql}, coalesce(new_id, _remote_id), "
            f"CASE WHEN _again = {code(Stage.RETRY)} THEN {view.now_sql} END, {', '.join(stored)} "
            f"FROM {_source(plan, everything, range(low, low + _AT_ONCE))} WHERE status = {_ACKNOWLEDGED} AND _change <> 2"
        )
    if not plan.first and number(view.engine, "SELECT count(*) FROM temp.main.spelled"):
        same = " AND ".join(f"acked.{key} = s.{key}" for key in keys)
        view.engine.execute(
            f"UPDATE {ALIAS}.acked SET _spelled = s._spelled FROM temp.main.spelled AS s WHERE {same} AND acked._spelled IS NULL"
        )


def _doubt(view: LedgerView, mapping: Mapping, source: str) -> None:
    """Rows whose fate nobody knows lose their hash; keys never held before are remembered with their identifiers."""
    unknown, now = f"(SELECT * FROM {source} WHERE status = {_UNKNOWN})", view.now_sql
    keys = [key.column for key in mapping.keys]
    same = " AND ".join(f"acked.{key} = u.{key}" for key in keys)
    view.engine.execute(
        f"UPDATE {ALIAS}.acked SET _hash = NULL, _state = {_UNKNOWN}, _since = {now} FROM {unknown} AS u WHERE {same}"
    )
    stored = [f"u.{ident(field.column)}" if field.identifier else "NULL" for field in mapping.fields]
    view.engine.execute(
        f"INSERT INTO {ALIAS}.acked ({_columns(mapping)}) SELECT {', '.join('u.' + key for key in keys)}, NULL, "
        f"{_UNKNOWN}, NULL, u._remote_id, {now}, {', '.join(stored)} FROM {unknown} AS u "
        f"WHERE NOT EXISTS (SELECT 1 FROM {ALIAS}.acked WHERE {same})"
    )


def _leave(view: LedgerView, mapping: Mapping, plan: Plan) -> None:
    """Rows that wait to be sent and left a model whose mode leaves records where they are: nothing is to be sent of them.
    What was acknowledged is so again, without a hash; what is not there, or never was acknowledged, leaves the ledger."""
    keys = ", ".join(key.column for key in mapping.keys)
    left = f"(SELECT {keys} FROM {plan.rows_sql} WHERE _segment = {LEAVE})"
    view.touch(f"SELECT {keys} FROM {left}")
    among = f"({keys}) IN (FROM {left})" if len(mapping.keys) > 1 else f"{keys} IN (FROM {left})"
    view.engine.execute(
        f"DELETE FROM {ALIAS}.acked WHERE {among} AND (_at IS NULL OR _state = {code(Stage.RETRY)})"
    )
    view.engine.execute(f"UPDATE {ALIAS}.acked SET _state = {_ACKNOWLEDGED}, _since = NULL WHERE {among}")


def _find_taken(view: LedgerView, mapping: Mapping, plan: Plan, source: str) -> bool:
    """temp.taken: identifiers that a record of this plan has, or may have, and had not before."""
    if any(segment.op is Op.INSERT for segment in plan.segments):
        return False
    moved = " OR ".join(
        f"{ident(field.column)} IS DISTINCT FROM {ident('o.' + field.name)}" for field in mapping.identifiers
    )
    keys = ", ".join(key.column for key in mapping.keys)
    return bool(number(
        view.engine,
        f"CREATE OR REPLACE TEMP TABLE taken AS SELECT {keys}, {identity(mapping)} AS n, status, new_id "
        f"FROM {source} WHERE _change <> 2 AND (_change = 0 OR {moved})",
    ))  # fmt: skip


def _hand_over(view: LedgerView, mapping: Mapping, source: str) -> None:
    """A record belongs to the key that took its identifier last: no other key may delete or rename it from now on.

    A key that lost its record holds none: if it is still in the model, its next run creates one. Of a key whose own
    move has an unknown end, the identifier it moved to is what is left.
    """
    keys = [key.column for key in mapping.keys]
    same = " AND ".join(f"h.{key} = t.{key}" for key in keys)
    lost = ", ".join(f"h.{key}" for key in keys)
    view.engine.execute(
        f"CREATE OR REPLACE TEMP TABLE lost AS SELECT DISTINCT {lost} FROM "
        f"(SELECT {', '.join(keys)}, {identity(mapping)} AS n FROM {ALIAS}.acked) AS h JOIN temp.main.taken AS o ON o.n = h.n "
        f"WHERE NOT EXISTS (SELECT 1 FROM temp.main.taken AS t WHERE t.n = h.n AND {same})"
    )
    view.touch(f"SELECT {', '.join(keys)} FROM temp.main.lost")
    acked = " AND ".join(f"acked.{key} = u.{key}" for key in keys)
    among = " AND ".join(f"u.{key} = l.{key}" for key in keys)
    names = ", ".join(f"{ident(field.column)} = u.{ident(field.column)}" for field in mapping.identifiers)
    view.engine.execute(
        f"UPDATE {ALIAS}.acked SET {names}, _remote_id = CASE WHEN acked._remote_id IN (SELECT new_id FROM temp.main.taken "
        f"WHERE new_id IS NOT NULL) THEN NULL ELSE acked._remote_id END "
        f"FROM (SELECT u.* FROM {source} AS u JOIN temp.main.lost AS l ON {among} WHERE u.status = {_UNKNOWN} "
        f"AND u._change <> 2) AS u WHERE {acked}"
    )
    _remove(view, mapping, f"(SELECT l.* FROM temp.main.lost AS l WHERE NOT EXISTS (SELECT 1 FROM {source} AS u "
            f"WHERE {among} AND u.status = {_UNKNOWN} AND u._change <> 2))")  # fmt: skip


def resettle(
    engine: duckdb.DuckDBPyConnection,
    ledger: Ledger,
    mapping: Mapping,
    plan: Plan,
    found: Sequence[Settlement],
) -> tuple[int, int, list[Conflict]]:
    """Settles creates of a folded plan that were unknown: acknowledged ones, and refused ones, which leave the ledger.
    Returns how many of each, and conflicts as `fold` does. Those that are known not to be there (RETRY) leave it too.

    Rows that are not unknown any more stay as they are, so that it can be done twice.
    """
    keys = [key.column for key in mapping.keys]
    same = " AND ".join(f"acked.{key} = s.{key}" for key in keys)
    unknown = f"acked._state = {_UNKNOWN} AND acked._at IS NULL AND {same}"
    settled = "JOIN temp.settled AS d ON p.file_row_number = d.row"
    rows = f"(SELECT p.*, d.status, d.new_id FROM {plan.rows_sql} AS p {settled})"
    source = f"{rows} AS s"
    with ledger.writing(engine) as view:
        _write_settled(engine, found)
        view.touch(f"SELECT {', '.join(keys)} FROM {source}")
        kept = [field for field in mapping.fields if field.name in view.shape["fields"]]
        values = [
            f"{ident(field.column)} = s.{ident(field.column)}"
            for field in kept
            if ledger.values or field.identifier
        ]
        hashed = "s._hash" if view.fits(mapping) else "NULL"
        acknowledged = number(
            engine,
            f"UPDATE {ALIAS}.acked SET {', '.join(values)}, _hash = {hashed}, _state = {_ACKNOWLEDGED}, _at = {view.now_sql}, "
            f"_since = NULL, _remote_id = coalesce(s.new_id, acked._remote_id) FROM {source} "
            f"WHERE {unknown} AND s.status = {_ACKNOWLEDGED}",
        )
        gone = f"DELETE FROM {ALIAS}.acked USING {source} WHERE {unknown} AND s.status = "
        refused = number(engine, f"{gone}{code(Stage.REJECTED)}")
        if number(engine, f"{gone}{code(Stage.RETRY)}"):
            view.set("watermark", None)  # they are creates again, and may lie before it
        conflicts = release_conflicts(view, mapping, rows, resend_holders=False)
    return acknowledged - len(conflicts), refused, conflicts


def _erase_values(view: LedgerView, mapping: Mapping) -> None:
    """From now on values are not kept; those of earlier runs go as well."""
    names = [f"{ident(field.column)} = NULL" for field in mapping.fields if not field.identifier]
    view.touch(None)
    if names:
        view.engine.execute(f"UPDATE {ALIAS}.acked SET {', '.join(names)}")
    view.set("values", "no")


def _remove(view: LedgerView, mapping: Mapping, source: str) -> None:
    keys = ", ".join(key.column for key in mapping.keys)
    left = keys if len(mapping.keys) == 1 else f"({keys})"
    view.engine.execute(
        f"DELETE FROM {ALIAS}.acked WHERE {left} IN (SELECT {keys if len(mapping.keys) == 1 else f'({keys})'} FROM {source})"
    )


def _columns(mapping: Mapping) -> str:
    keys = [key.column for key in mapping.keys]
    return ", ".join(
        [
            *keys,
            "_hash",
            "_state",
            "_at",
            "_remote_id",
            "_since",
            *(ident(field.column) for field in mapping.fields),
        ]
    )


def forget_values(engine: duckdb.DuckDBPyConnection, ledger: Ledger, *, but: Sequence[Stage] = ()) -> int:
    """`reset`: forgets what was acknowledged and keeps the known keys; rows at a stage of `but` stay as they are. Returns how
    many were forgotten."""
    if not ledger.exists(engine):
        return 0
    with ledger.writing(engine) as view:
        if view.empty:
            return 0
        kept = ", ".join(str(code(stage)) for stage in but)
        where = f" WHERE _state NOT IN ({kept})" if kept else ""
        view.touch(None)
        view.set("watermark", None)
        return number(
            engine, f"UPDATE {ALIAS}.acked SET _hash = NULL, _state = {code(Stage.DETECTED)}{where}"
        )


def remove_ledger(path: Path) -> None:
    """Removes the ledger file and its write-ahead log."""
    for name in (path, path.with_name(path.name + ".wal")):
        name.unlink(missing_ok=True)
