"""Ledger rows of inserts that a look-up has to decide: those whose outcome is unknown, those that were acknowledged before a
reset, and those created after a look-up found nothing. And rows that the destination may not show yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from backhaul.changes import Stage, code, named
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.ledger import ALIAS, Ledger
from backhaul.ledger.plan import Plan
from backhaul.mapping.wire import key_text
from backhaul.next_steps import Offer, Step, next_step
from backhaul.sql import literal
from backhaul.types import Mode

_UNKNOWN = f"_state = {code(Stage.UNKNOWN)}"
_FORGOTTEN = f"_state = {code(Stage.DETECTED)}"
_WATCHED = f"_state = {code(Stage.ACKNOWLEDGED)} AND _since IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Asked:
    """One row to look up: primary key (JSON), identifier as in `Batch.keys`, number of its stage, seconds since it was sent."""

    pk: str
    key: str
    stage: int
    age: float


def asked(engine: duckdb.DuckDBPyConnection, ledger: Ledger, identifiers: Collection[str]) -> list[Asked]:
    """The rows to look up. A ledger whose rows do not hold these identifiers has none."""
    with ledger.reading(engine) as view:
        if view is None or view.empty or view.format < 2 or set(identifiers) - set(view.shape["fields"]):
            return []
        mapping = view.mapping(identifiers)
        rows = engine.execute(
            f"SELECT {key_json(mapping)}, {key_text(mapping.identifiers)}, _state, "
            f"coalesce(epoch({view.now_sql} - _since), 'inf'::DOUBLE) "
            f"FROM {ALIAS}.acked WHERE ({_UNKNOWN}) OR ({_FORGOTTEN}) OR ({_WATCHED}) ORDER BY 1"
        ).fetchall()
    # a clock that lost the time while the machine was off says nothing of how long ago it was
    return [Asked(pk, key, stage, max(float(age), 0.0)) for pk, key, stage, age in rows if key is not None]


def count_undecided(engine: duckdb.DuckDBPyConnection, ledger: Ledger, mode: Mode, offer: Offer) -> int:
    """Rows that the next run repeats under their keys or looks up, or that a person decides."""
    with ledger.reading(engine) as view:
        if view is None or view.empty:
            return 0
        open_rows = f"{ALIAS}.acked WHERE _state <> {code(Stage.ACKNOWLEDGED)}"
        rows = engine.execute(
            f"SELECT _state, _at IS NOT NULL, count(*) FROM {open_rows} GROUP BY 1, 2"
        ).fetchall()
    settled = (Step.SEND, Step.NOTHING)
    return sum(
        count for stage, known, count in rows if next_step(named(stage), known, mode, offer) not in settled
    )


def recent(
    engine: duckdb.DuckDBPyConnection, ledger: Ledger, plan: Plan, within: float
) -> Callable[[], Mapping[str, float]]:
    """How many seconds ago those records of a plan were acknowledged that were so `within` seconds, by primary key (JSON)."""
    with ledger.reading(engine) as view:
        if view is None or view.empty or not within or plan.first:
            return dict
        mapping = view.mapping()
        keys = ", ".join(key.column for key in mapping.keys)
        age = f"epoch({view.now_sql} - _at)"
        table: pa.Table = engine.sql(
            f"SELECT {key_json(mapping)} AS pk, greatest({age}, 0) AS age FROM {ALIAS}.acked "
            f"WHERE {age} < {within} AND ({keys}) IN (SELECT ({keys}) FROM {plan.rows_sql})"
        ).to_arrow_table()
    return lambda: dict(zip(table["pk"].to_pylist(), table["age"].to_pylist(), strict=True))


def take_in(
    engine: duckdb.DuckDBPyConnection, ledger: Ledger, verdicts: Sequence[tuple[str, Stage, str | None]]
) -> None:
    """Moves rows (primary key as JSON) to the stage a look-up showed, with the id it was found by. A record that another key
    has, or that two keys were found on, is quarantined: which key it belongs to is for a person to say."""
    table = pa.table({
        "pk": pa.array([pk for pk, _, _ in verdicts], pa.string()),
        "stage": pa.array([code(stage) for _, stage, _ in verdicts], pa.uint8()),
        "id": pa.array([found for _, _, found in verdicts], pa.string()),
    })  # fmt: skip
    with ledger.writing(engine) as view:
        mapping = view.mapping()
        engine.register("verdicts_now", table)
        keys = ", ".join(key.column for key in mapping.keys)
        view.touch(
            f"SELECT {keys} FROM {ALIAS}.acked WHERE {key_json(mapping)} IN (SELECT pk FROM verdicts_now)"
        )
        held = f"SELECT 1 FROM {ALIAS}.acked AS h WHERE h._remote_id = n.id AND {key_json(mapping, 'h.')} <> n.pk"
        shared = f"count(n.id) OVER (PARTITION BY n.id) > 1 OR EXISTS ({held})"
        judged = f"SELECT n.*, n.id IS NOT NULL AND ({shared}) AS shared FROM verdicts_now AS n"
        engine.execute(
            f"UPDATE {ALIAS}.acked SET _state = CASE WHEN v.shared THEN {code(Stage.QUARANTINED)} ELSE v.stage END, "
            f"_since = NULL, _remote_id = CASE WHEN v.shared THEN _remote_id ELSE coalesce(v.id, _remote_id) END "
            f"FROM ({judged}) AS v WHERE v.pk = {key_json(mapping, 'acked.')}"
        )
        engine.unregister("verdicts_now")


def release(engine: duckdb.DuckDBPyConnection, ledger: Ledger, but: Collection[str]) -> None:
    """Makes creates of unknown end creates again, whatever became of the first one; not those of `but` (JSON keys)."""
    with ledger.reading(engine) as view:
        if view is None or view.empty:
            return
        among = f" AND {key_json(view.mapping())} NOT IN ({', '.join(map(literal, but))})" if but else ""
        where = f"{_UNKNOWN}{among}"
        if not engine.execute(f"SELECT 1 FROM {ALIAS}.acked WHERE {where} LIMIT 1").fetchall():
            return
    with ledger.writing(engine) as view:
        keys = ", ".join(key.column for key in view.mapping().keys)
        view.touch(f"SELECT {keys} FROM {ALIAS}.acked WHERE {where}")
        engine.execute(f"UPDATE {ALIAS}.acked SET _state = {code(Stage.RETRY)}, _since = NULL WHERE {where}")
