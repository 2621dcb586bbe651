"""New records that lack a value which the destination requires: a NULL that is skipped can be left out of an update only."""

from __future__ import annotations

import duckdb

from backhaul.ledger.plan import CHANGES, SEND, Plan
from backhaul.mapping.mapping import SEPARATOR, MappedField, Mapping
from backhaul.sql import ident, literal
from backhaul.types import Mode, Nulls

_WHY = "null is skipped here, and the destination requires a value in a new record"


def _skipped(mapping: Mapping) -> list[MappedField]:
    fields = mapping.fields
    return [one for one in fields if one.nulls is Nulls.SKIP and one.field.required and not one.identifier]


def unfilled(mapping: Mapping, mode: Mode) -> str:
    """SQL of the error of a row `c` that is certainly created, and without a required value; empty where there can be none. In
    other modes than insert the destination may hold the record already."""
    rules = [
        f"WHEN c.{ident(field.column)} IS NULL THEN {literal(f'{field.name}{SEPARATOR}null{SEPARATOR}{_WHY}')}"
        for field in _skipped(mapping)
    ]
    return f"CASE {' '.join(rules)} END" if rules and mode is Mode.INSERT else ""


def unfilled_notices(engine: duckdb.DuckDBPyConnection, plan: Plan, mapping: Mapping) -> list[str]:
    """How many records of a plan that were never acknowledged lack a required value, a line for each field."""
    fields = _skipped(mapping) if plan.changes["create"] else []
    if not fields:
        return []
    counts = ", ".join(f"count(*) FILTER (WHERE {ident(field.column)} IS NULL)" for field in fields)
    created = f"_segment = {SEND} AND _change = {CHANGES.index('create')}"
    [found] = engine.execute(f"SELECT {counts} FROM {plan.rows_sql} WHERE {created}").fetchall()
    return [
        f"{count:,} new record{' has' if count == 1 else 's have'} no value for {field.name}, which a new record requires: the "
        "destination rejects those that it does not hold yet"
        for field, count in zip(fields, found, strict=True)
        if count
    ]
