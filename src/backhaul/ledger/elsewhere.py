"""Records that other syncs hold: a mirror takes them out of its ledger when they leave its model, and deletes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from backhaul.changes import Stage, code
from backhaul.ledger.ledger import ALIAS, Ledger
from backhaul.ledger.plan import KEEP, MOVE, SEND, Plan, rows_of
from backhaul.ledger.replaced import identity
from backhaul.mapping.mapping import Mapping
from backhaul.sql import ident, literal

_HELD = f"(_at IS NOT NULL OR _state IN ({code(Stage.UNKNOWN)}, {code(Stage.QUARANTINED)}))"
"""Acknowledged once, or possibly created: a record with an unknown outcome counts as held."""


@dataclass(frozen=True, slots=True)
class OtherSync:
    """Another sync that writes to the same object: its ledger, and the plans that it has not settled yet."""

    name: str
    ledger: Ledger
    plans: tuple[Path, ...] = ()


def find_elsewhere(engine: duckdb.DuckDBPyConnection, mapping: Mapping, others: Sequence[OtherSync]) -> bool:
    """Fill temp.elsewhere with the identifiers (`n`) and the destination's ids of records that other syncs hold or are
    sending. Returns whether there is anything to ask."""
    if not others:
        return False
    engine.execute("CREATE OR REPLACE TEMP TABLE elsewhere (n VARCHAR, remote_id VARCHAR, sync VARCHAR)")
    for other in others:
        with other.ledger.reading(engine) as view:
            if view is not None and not view.empty:
                _collect(engine, mapping, other.name, f"{ALIAS}.acked WHERE {_HELD}")
        for path in other.plans:
            _collect(engine, mapping, other.name, f"{rows_of(path)} WHERE _segment IN ({MOVE}, {SEND})")
    return True


def _collect(engine: duckdb.DuckDBPyConnection, mapping: Mapping, sync: str, rows: str) -> None:
    there = {name for name, *_ in engine.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()}
    comparable = {field.column for field in mapping.identifiers} <= there
    columns = ", ".join(
        f"TRY_CAST({ident(field.column)} AS {field.storage}) AS {ident(field.column)}" if comparable
        else f"NULL::{field.storage} AS {ident(field.column)}"
        for field in mapping.identifiers
    )  # fmt: skip
    n = identity(mapping) if comparable else "NULL"
    engine.execute(
        f"INSERT INTO temp.main.elsewhere SELECT {n}, _remote_id, {literal(sync)} "
        f"FROM (SELECT {columns}, _remote_id FROM {rows})"
    )


def is_elsewhere(identifier: str) -> str:
    """SQL of whether another sync holds a candidate's record, by its identifier (SQL) or the destination's id of it."""
    names = "SELECT n FROM temp.main.elsewhere WHERE n IS NOT NULL"
    ids = "SELECT remote_id FROM temp.main.elsewhere WHERE remote_id IS NOT NULL"
    return f"({identifier} IN ({names}) OR _remote_id IN ({ids})) IS TRUE"


def kept_notice(engine: duckdb.DuckDBPyConnection, plan: Plan, mapping: Mapping) -> str:
    """How many records left the model and stay because other syncs hold them, and which syncs; empty where there are none.
    Needs temp.elsewhere."""
    kept = f"SELECT {identity(mapping)} AS n, _remote_id FROM {plan.rows_sql} WHERE _segment = {KEEP}"
    row = engine.execute(f"SELECT count(*) FROM ({kept})").fetchone()
    count = row[0] if row else 0
    if not count:
        return ""
    same = "e.n = k.n OR e.remote_id = k._remote_id"
    syncs = engine.execute(
        f"SELECT DISTINCT e.sync FROM ({kept}) AS k JOIN temp.main.elsewhere AS e ON {same} ORDER BY 1"
    ).fetchall()
    names = ", ".join(name for (name,) in syncs)
    records, them = (f"{count:,} records", "them") if count > 1 else ("1 record", "it")
    stay = "stay" if count > 1 else "stays"
    hold = f"syncs {names} hold" if len(syncs) > 1 else f"sync {names} holds"
    return f"{records} left the model and {stay} at the destination, because {hold} {them}"
