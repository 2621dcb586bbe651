"""What a plan would cost: requests, and seconds at the destination's limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb

from backhaul.ledger.plan import CHANGES, Plan
from backhaul.types import BatchLimits, Op, PlannedBatch, Rate

_ROUND_TRIP = 0.25
"""Seconds that one request is taken to last: a typical SaaS answer; only used where no rate limit is nearer."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` is a lower bound: retries and a slow destination add to it."""

    requests: int
    seconds: float


def _no_extra(batch: PlannedBatch) -> Mapping[str, int]:
    return {}


def estimate(
    segments: Sequence[PlannedBatch], limits: Callable[[Op, int], BatchLimits | None], rates: Sequence[Rate], concurrency: int, *,
    remote: bool = True, extra: Callable[[PlannedBatch], Mapping[str, int]] = _no_extra, around: int = 0,
) -> Estimate:  # fmt: skip
    """Full batches by record count; the slowest window decides, or the round trips where there is none. `extra`: requests of one
    batch beside its first, by endpoint; `around`: requests before and after the delivery."""
    requests = Counter[str]({"": around} if segments else {})
    for segment in segments:
        limit = limits(segment.op, segment.records) or BatchLimits()
        full, rest = divmod(segment.records, limit.records)
        for records, batches in ((limit.records, full), (rest, min(rest, 1))):
            requests[limit.endpoint] += batches
            for endpoint, count in extra(_share(segment, records)).items() if batches else ():
                requests[endpoint] += batches * count
    total = requests.total()
    seconds = total * _ROUND_TRIP / concurrency if remote else 0.0
    for rate in rates:
        # the first window may be used up at once; every further one has to pass
        if count := requests[rate.endpoint]:
            seconds = max(seconds, (count - 1) // rate.count * rate.per)
    return Estimate(total, round(seconds, 1))


def planned_segments(engine: duckdb.DuckDBPyConnection, plan: Plan) -> list[PlannedBatch]:
    """Each segment of a plan as one batch."""
    found = []
    for segment in plan.segments:
        [(without_id, updates)] = engine.execute(
            f"SELECT count(*) FILTER (WHERE _remote_id IS NULL), count(*) FILTER (WHERE _change = {CHANGES.index('update')}) "
            f"FROM {plan.rows_sql} WHERE file_row_number >= ? AND file_row_number < ?",
            [segment.low, segment.high],
        ).fetchall()
        rows = segment.high - segment.low
        found.append(PlannedBatch(segment.op, rows, rows, without_id, updates))
    return found


def _share(segment: PlannedBatch, records: int) -> PlannedBatch:
    """A batch of so many records, mixed as the segment is."""
    whole = max(segment.records, 1)
    without_id, updates = (-(-count * records // whole) for count in (segment.without_id, segment.updates))
    return replace(segment, records=records, without_id=without_id, updates=updates)
