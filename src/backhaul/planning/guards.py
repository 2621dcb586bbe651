"""What must hold before anything is sent. A guard that trips holds the whole run; nothing leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from backhaul.ledger.plan import Plan
from backhaul.mapping.mapping import Mapping
from backhaul.sql import ident
from backhaul.values import Share


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard's verdict. `message` says what is and what is allowed."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class FieldChanges:
    """Of one field in a plan's updates: in how many records it changes, and in how many more than before it is NULL."""

    name: str
    changed: int
    nulls: int


def field_changes(engine: duckdb.DuckDBPyConnection, plan: Plan) -> list[FieldChanges]:
    """Every mapped field of a plan; reads the plan's file."""
    mapping = Mapping.from_shape(plan.shape)
    counts = []
    for field in mapping.fields:
        new, old = ident(field.column), ident("o." + field.name)
        counts.append(f"count(*) FILTER (WHERE {new} IS DISTINCT FROM {old})")
        counts.append(f"count({old}) - count({new})")
    row = engine.execute(
        f"SELECT {', '.join(counts)} FROM {plan.rows_sql} WHERE _segment <= 2 AND _change = 1"
    ).fetchall()[0]
    pairs = zip(mapping.fields, row[::2], row[1::2], strict=True)
    return [FieldChanges(field.name, changed, nulls) for field, changed, nulls in pairs]


def check_guards(
    guards: Any, plan: Plan, held: int, rows_before: int | None, fields: Sequence[FieldChanges] = ()
) -> list[Guard]:
    """`held`: rows the ledger has; `rows_before`: the model's rows at the last run that read all of it.

    Unset guards have defaults: the model is not empty while the ledger is not; at least half of the last run's rows
    are there; deletes stay below 10% of the known records or 10, whichever is more. `off` switches one off.
    """
    return [
        *_rows(guards, plan, held, rows_before),
        *_changes(guards, plan, held),
        *_fields(guards, held, fields),
    ]


def wants_fields(guards: Any) -> bool:
    """Whether a guard is set that looks at single fields."""
    return any(isinstance(share, Share) for share in (guards.max_field_changes, guards.max_null_rise))


def _rows(guards: Any, plan: Plan, held: int, before: int | None) -> Iterator[Guard]:
    if plan.incremental:
        return
    least = guards.min_rows
    if least is None:
        yield Guard(
            "min_rows",
            plan.rows > 0 or not held,
            f"the model has {plan.rows:,} rows; {held:,} records are known",
        )
    elif least is not False:
        yield Guard(
            "min_rows",
            plan.rows >= least,
            f"the model has {plan.rows:,} rows, at least {least:,} are asked for",
        )
    drop = Share(50, True) if guards.max_drop is None else guards.max_drop
    if drop is not False and before:
        fell = max(before - plan.rows, 0)
        said = f"the model has {plan.rows:,} rows, {before:,} at the last run; it may lose {drop}"
        yield Guard("max_drop", fell <= drop.of(before), said)


def _changes(guards: Any, plan: Plan, held: int) -> Iterator[Guard]:
    deletes = plan.changes["delete"]
    limit = guards.max_deletes
    if limit is None:
        yield Guard(
            "max_deletes",
            deletes <= max(10, held * 0.1),
            f"{deletes:,} deletes of {held:,} known records; 10% or 10 are allowed",
        )
    base = max(held, plan.rows if plan.first else held)
    counts = {
        "max_deletes": deletes, "max_creates": plan.changes["create"], "max_updates": plan.changes["update"],
        "max_changes": 0 if plan.first else sum(plan.changes.values()),
    }  # fmt: skip
    for name, count in counts.items():
        share = getattr(guards, name)
        if share is None or share is False:
            continue
        what = name.removeprefix("max_")
        yield Guard(
            name, count <= share.of(base), f"{count:,} {what} of {base:,} known records; {share} allowed"
        )


def _fields(guards: Any, held: int, fields: Sequence[FieldChanges]) -> Iterator[Guard]:
    """The field that changed most, and the one of which most became NULL."""
    if not fields:
        return
    most, emptied = max(fields, key=lambda one: one.changed), max(fields, key=lambda one: one.nulls)
    counts = {
        "max_field_changes": (most.changed, f"{most.name} changes in {most.changed:,}"),
        "max_null_rise": (emptied.nulls, f"{emptied.name} becomes NULL in {max(emptied.nulls, 0):,} more"),
    }
    for name, (count, said) in counts.items():
        share = getattr(guards, name)
        if share is None or share is False:
            continue
        yield Guard(name, count <= share.of(held), f"{said} of {held:,} known records; {share} allowed")
