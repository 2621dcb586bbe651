"""When a destination is believed that a record is not there: some show a write only seconds after they took it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from backhaul.delivery.batches import PlanBatch
from backhaul.delivery.waiting import LONGEST_WAIT
from backhaul.types import Gone, Op, Outcome, Outcomes, Retry


class Absence:
    """Doubts that a record is not there until the write that made it must be shown. `lag` gives seconds by object and
    identifiers; `ages` how many seconds ago records were acknowledged, by primary key (JSON), of those that may not be
    shown yet when the delivery begins."""

    def __init__(
        self, lag: Callable[[str, tuple[str, ...]], float], clock: Callable[[], float],
        ages: Callable[[], Mapping[str, float]] = dict,
    ) -> None:  # fmt: skip
        self._lag, self._clock, self._read_ages = lag, clock, ages
        self._began = clock()

    @cached_property
    def _ages(self) -> Mapping[str, float]:
        return self._read_ages()

    def doubted(self, batch: PlanBatch, outcomes: Outcomes, asked: float) -> Outcomes:
        """An answer in which records that are not there are asked about again, after the lag; `asked`: when its request left."""
        lag = self._lag(batch.object, batch.identifiers)
        if not lag or batch.op is Op.DELETE or not any(isinstance(item, Gone) for item in outcomes.items):
            return outcomes
        rows = dict(zip(batch.keys, batch.rows, strict=True))
        return Outcomes(tuple(self._doubted(batch, rows, item, lag, asked) for item in outcomes.items))

    def _doubted(
        self, batch: PlanBatch, rows: Mapping[str, int], item: Outcome, lag: float, asked: float
    ) -> Outcome:
        if not isinstance(item, Gone) or item.key not in rows:
            return item
        shown = self._shown(batch, rows[item.key], lag)
        return Retry(item.key, item.message, max(shown - self._clock(), 0.0)) if asked < shown else item

    def _shown(self, batch: PlanBatch, row: int, lag: float) -> float:
        """When the record must be shown. Of one that was never acknowledged it is not known when it was made: another sync may
        have made it just before."""
        if not batch.is_held(row):
            return self._began + min(lag, LONGEST_WAIT)
        age = self._ages.get(batch.primary_key(row), lag)
        return self._began + lag - age
