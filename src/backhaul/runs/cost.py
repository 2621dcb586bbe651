"""What a run of a plan would cost at its destination."""

from __future__ import annotations

from typing import Any

import duckdb

from backhaul.config.sync import SyncConfig
from backhaul.destinations.kit import Destination
from backhaul.ledger.plan import Plan
from backhaul.planning.estimate import Estimate, estimate, planned_segments


def cost_of(
    engine: duckdb.DuckDBPyConnection, sync: SyncConfig, destination: Destination[Any], plan: Plan
) -> Estimate:
    """Requests and seconds of a run: the batches, what belongs to them, and what comes before and after them."""
    identifiers = tuple(sync.identify)
    return estimate(
        planned_segments(engine, plan),
        lambda op, rows: destination.batch_limits(sync.object, op, rows),
        destination.limits,
        destination.concurrency,
        remote=bool(destination.base_url),
        extra=lambda batch: destination.extra_requests(sync.object, identifiers, batch),
        around=_around(sync, destination, plan.total),
    )


def _around(sync: SyncConfig, destination: Destination[Any], records: int) -> int:
    """Requests that deliver nothing: the account, the object's description, the sample that is read back."""
    if not destination.base_url:
        return 0
    sampled = min(sync.freshness.sample, records)
    reads = destination.read_requests(sync.object, tuple(sync.identify), sampled) if sampled else 0
    return destination.opening_requests(sync.object) + reads
