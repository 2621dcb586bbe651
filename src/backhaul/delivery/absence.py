"""When a destination is believed that a record is not there: some show a write only seconds after they took it in."""

from __future__ import annotations

from collections.abc import Callable

from backhaul.delivery.batches import PlanBatch
from backhaul.types import Gone, Op, Outcomes, Retry


class Absence:
    """Believes no absence until everything that was written before this delivery must be shown; `lag` gives seconds by
    object and identifiers."""

    def __init__(self, lag: Callable[[str, tuple[str, ...]], float], clock: Callable[[], float]) -> None:
        self._lag, self._clock = lag, clock
        self._began = clock()

    def doubted(self, batch: PlanBatch, outcomes: Outcomes) -> Outcomes:
        """An answer in which records that are not there are asked about again, after the lag."""
        wait = self._began + self._lag(batch.object, batch.identifiers) - self._clock()
        if wait <= 0 or batch.op is Op.DELETE or not any(isinstance(item, Gone) for item in outcomes.items):
            return outcomes
        items = (
            Retry(item.key, item.message, wait) if isinstance(item, Gone) else item for item in outcomes.items
        )
        return Outcomes(tuple(items))
