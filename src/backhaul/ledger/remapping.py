"""Which fields of a mapping are not what the ledger was made with, and how many changes of a plan that causes."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as Dict

import duckdb
import orjson

from backhaul.changes import Stage, code
from backhaul.ledger.ledger import LedgerView, stored_shape
from backhaul.mapping.fingerprint import fingerprints
from backhaul.mapping.mapping import Mapping
from backhaul.sql import ident

DELIVERED, APPROVED = "mapping", "approved"
"""Where the ledger's meta keeps fingerprints: of the mapping that everything was delivered with, and of the newest one that
anything was delivered with."""


def remapped(view: LedgerView | None, mapping: Mapping, since: str = DELIVERED) -> tuple[str, ...]:
    """Fields that were added, removed, or are mapped otherwise; none before the first delivery."""
    if view is None or view.empty:
        return ()
    known = view.meta.get(since) or view.meta.get(APPROVED)
    had: Dict[str, object] = orjson.loads(known) if known else view.shape["fields"]
    now: Dict[str, object] = fingerprints(mapping) if known else stored_shape(mapping)["fields"]
    return tuple(sorted(name for name in had.keys() | now.keys() if had.get(name) != now.get(name)))


def note_mapping(view: LedgerView, marks: Dict[str, str], *, complete: bool) -> None:
    """Keeps the fingerprints of the mapping that a plan was made with; `complete`: every row has been sent with it."""
    text = orjson.dumps(dict(marks)).decode()
    view.set(APPROVED, text)
    if complete:
        view.set(DELIVERED, text)


def resent(
    engine: duckdb.DuckDBPyConnection, file: str, mapping: Mapping, names: Iterable[str]
) -> tuple[dict[str, int], int]:
    """Of a plan's updates: how many each of these fields causes, and how many all of them together. A removed field
    causes none."""
    there = {field.name: field for field in mapping.fields}
    found = dict.fromkeys(names, 0)
    rules = {
        name: f"({ident('o.' + name)} IS DISTINCT FROM {ident(there[name].column)} "
              f"OR _again IS NOT DISTINCT FROM {code(Stage.ACKNOWLEDGED)})"
        for name in found if name in there
    }  # fmt: skip
    if not rules:
        return found, 0
    counts = [f"count(*) FILTER (WHERE {rule})" for rule in (*rules.values(), " OR ".join(rules.values()))]
    row = engine.execute(
        f"SELECT {', '.join(counts)} FROM {file} WHERE _segment <= 2 AND _change = 1"
    ).fetchall()[0]
    return {**found, **dict(zip(rules, row[:-1], strict=True))}, int(row[-1])
