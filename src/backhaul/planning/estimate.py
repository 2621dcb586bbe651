"""What a plan would cost: requests, and seconds at the destination's limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backhaul.ledger.plan import Plan
from backhaul.types import BatchLimits, Op, Rate

_ROUND_TRIP = 0.25
"""Seconds that one request is taken to last: a typical SaaS answer; only used where no rate limit is nearer."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` is a lower bound: retries and a slow destination add to it."""

    requests: int
    seconds: float


def estimate(
    plan: Plan,
    limits: Callable[[Op, int], BatchLimits | None],
    rates: Sequence[Rate],
    concurrency: int,
    *,
    remote: bool = True,
) -> Estimate:
    """Full batches by record count; the slowest window decides, or the round trips where there is none."""
    requests = Counter[str]()
    for segment in plan.segments:
        rows = segment.high - segment.low
        limit = limits(segment.op, rows) or BatchLimits()
        requests[limit.endpoint] += -(-rows // limit.records)
    total = requests.total()
    seconds = total * _ROUND_TRIP / concurrency if remote else 0.0
    for rate in rates:
        # the first window may be used up at once; every further one has to pass
        if count := requests[rate.endpoint]:
            seconds = max(seconds, (count - 1) // rate.count * rate.per)
    return Estimate(total, round(seconds, 1))
