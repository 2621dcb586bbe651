"""Whether a refusal of many records is about the settings: records further back in the plan are tried before that is said."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from backhaul.delivery.batches import Cutter, PlanBatch
from backhaul.delivery.concurrency import Room
from backhaul.delivery.failures import Systemic
from backhaul.delivery.refusals import SHARE, Refusals
from backhaul.delivery.tally import Tally, Totals
from backhaul.errors import Forbidden, RunError

Start = Callable[[PlanBatch], asyncio.Task[Tally | None]]
_RECORDS = 10
"""So many records, at least, that are tried."""


class Suspicion:
    """`error` is what the delivery fails with unless records further back are taken; None: nothing is suspected."""

    def __init__(
        self, refusals: Refusals, totals: Totals, room: Room, is_stopping: Callable[[], bool]
    ) -> None:
        self._refusals, self._totals = refusals, totals
        self._room, self._is_stopping = room, is_stopping
        self.error: Systemic | Forbidden | None = None

    def raise_for(self, error: Systemic | Forbidden | None) -> None:
        """Suspects the settings where there is an error, unless records further back were taken before."""
        if error is not None and error.code not in self._refusals.cleared:
            self.error = self.error or error

    def judge(self) -> Systemic | Forbidden | None:
        """What is still suspected after the records that were settled since."""
        if self.error is not None and self._refusals.has_taken:
            self.error = self._refusals.too_many(self._totals)
        return self.error

    async def probe(self, cutter: Cutter, pending: deque[PlanBatch], start: Start) -> RunError | None:
        """Sends records from the end of what is cut, or of what is `pending`. Returns the error where they are refused as well,
        or there are none; else the suspicion is over."""
        error, tried, refused, taken = self.judge(), 0, 0, 0
        while error is not None and tried < _RECORDS and not self._is_stopping():
            batch = cutter.last() or (pending.pop() if pending else None)
            if batch is None:
                break
            await self._room.take(1)
            task = start(batch)
            await asyncio.wait([task])
            tally = None if task.cancelled() or task.exception() else task.result()
            if tally is None:
                break
            tried += len(batch)
            refused += sum(reason.code == error.code for reason in tally.refusals.values())
            taken += len(batch) - len(tally.stages)
        if error is None or not taken or refused > SHARE * tried:
            return error
        self._refusals.cleared.add(error.code)
        self.error = None
        return None
