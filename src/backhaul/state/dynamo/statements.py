"""The named statements, each as a function of the table and what is given: those of sql/queries.sql, by the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backhaul.state.dynamo import deliveries, facts, letters, plans, runs, scopes
from backhaul.state.dynamo.table import Item, Table, Write

READS: Mapping[str, Callable[[Table, Mapping[str, Any]], list[Item]]] = {
    **runs.READS, **plans.READS, **deliveries.READS, **letters.READS, **facts.READS, **scopes.READS,
}  # fmt: skip
WRITES: Mapping[str, Callable[[Table, Mapping[str, Any]], list[Write]]] = {
    **runs.WRITES, **plans.WRITES, **deliveries.WRITES, **letters.WRITES, **facts.WRITES, **scopes.WRITES,
}  # fmt: skip
LISTS: Mapping[str, Callable[[Table, Sequence[Sequence[Any]]], list[Write]]] = {
    **deliveries.LISTS,
    **letters.LISTS,
}

SAFE_ORDER = ("intend", "bury", "raise", "settle", "end_intent")
"""Of list statements whose writes do not fit into one transaction. Where a process dies between two of them, an intent is
there without its outcome, and the records are in doubt; or beside it, and the outcome counts. A dead letter is there
early, and is right: its record was refused. Never is an intent gone whose outcome is not there."""
