"""Finds the bad records of a batch that was refused as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from backhaul.delivery.batches import PlanBatch
from backhaul.delivery.refusals import Refusals
from backhaul.delivery.tally import Tally
from backhaul.errors import Refused, RunError
from backhaul.types import Rejected

Send = Callable[[PlanBatch, Tally, Sequence[int]], Awaitable[None]]


class Narrowing:
    """Sends parts of refused batches with `send`, until each bad record was refused alone; nothing more once `is_stopping`."""

    def __init__(self, send: Send, refusals: Refusals, is_stopping: Callable[[], bool]) -> None:
        self._send, self._refusals, self._is_stopping = send, refusals, is_stopping

    async def narrow(self, batch: PlanBatch, tally: Tally, error: Refused) -> None:
        """Halves a batch that was refused. Where the left half was clean the fault is in the right one: that is halved unsent.

        Raises:
            RunError: the refusals are a matter of the settings.
        """
        if len(batch) == 1:
            refusal = Rejected(batch.keys[0], error.code, str(error), error.kind)
            if tally.reject(batch, batch.rows[0], refusal):
                self._refusals.refused_alone(error)
        elif self._refusals.is_suspect(error):
            await self._try_one(batch, tally, error)
        else:
            left, right = batch.split(len(batch) // 2)
            await self._send_before(left, right, tally)
            await self._go_on(right, tally, error, is_bad=tally.is_clean(left.rows))

    async def _try_one(self, batch: PlanBatch, tally: Tally, error: Refused) -> None:
        """Every record seems to be refused: single ones are tried, from the end, until one is taken or it is sure."""
        is_bad = True
        while len(batch) > 1 and self._refusals.is_suspect(error) and not self._is_stopping():
            batch, last = batch.split(len(batch) - 1)
            await self._send_before(last, batch, tally)
            is_bad = tally.is_clean(last.rows)
        await self._go_on(batch, tally, error, is_bad=is_bad)

    async def _go_on(self, batch: PlanBatch, tally: Tally, error: Refused, *, is_bad: bool) -> None:
        """Sends what is left of a batch; `is_bad`: its refusal is known, because the other part was taken."""
        if self._is_stopping():
            tally.give_up(batch.rows)
        elif is_bad and len(batch) > 1:
            await self.narrow(batch, tally, error)
        else:
            await self._send(batch, tally, batch.rows)

    async def _send_before(self, part: PlanBatch, rest: PlanBatch, tally: Tally) -> None:
        try:
            await self._send(part, tally, part.rows)
        except RunError:
            tally.give_up(rest.rows)
            raise
