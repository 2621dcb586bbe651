"""The waits of a delivery: between attempts, and for jobs that the destination works on by itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from backhaul.delivery.batches import PlanBatch
from backhaul.delivery.budget import Budget
from backhaul.delivery.failures import Underway
from backhaul.destinations.kit import Destination, Job
from backhaul.errors import Exhausted, NotApplied, SendError, Throttled, Unsettled
from backhaul.types import Outcomes

BASE_WAIT, LONGEST_WAIT = 0.25, 60.0
JOB_ATTEMPTS = 5
"""So many questions about a job in a row without an answer, and a later run asks."""


class Backoff:
    """The pause before a batch is sent again."""

    def __init__(self, destination: Destination[Any], budget: Budget, rng: random.Random) -> None:
        self._late, self._budget, self._rng = destination.spec.late, budget, rng

    async def pause(self, error: SendError | None, attempt: int, least: float = 0.0) -> None:
        """Full jitter (AWS Architecture Blog, Exponential Backoff And Jitter), after what an answer asked for one of its
        records; a throttled bucket waits as a whole. A request in doubt may still be applied for `late` seconds: what
        repeats it comes after that."""
        if isinstance(error, Exhausted):
            return
        longest = min(LONGEST_WAIT, BASE_WAIT * 2**attempt)
        if isinstance(error, Throttled):
            after = error.after
            wait = longest / 2 + self._rng.uniform(0, longest / 2) if after is None else after
            for part in self._budget.of(error.endpoints):
                part.hold(wait, str(error))
            return
        late = self._late if isinstance(error, Unsettled) else 0.0
        try:
            await asyncio.wait_for(self._budget.stop.wait(), max(late, least) + self._rng.uniform(0, longest))
        except TimeoutError:
            return


class JobPoller:
    """Asks about jobs until they are over."""

    def __init__(
        self, destination: Destination[Any], budget: Budget, backoff: Backoff, clock: Callable[[], float]
    ) -> None:
        self._destination, self._budget, self._backoff, self._clock = destination, budget, backoff, clock

    async def outcomes(self, batch: PlanBatch, job: Job) -> Outcomes:
        """Raises: Underway where the run ends or gives up first; what the job as a whole ended with."""
        until = self._clock() + self._destination.job_timeout
        asked: Outcomes | Job = job
        failures = 0
        while isinstance(asked, Job):
            if await self._slept(asked.wait) or self._clock() > until or failures >= JOB_ATTEMPTS:
                raise Underway
            try:
                asked = await self._destination.collect(batch, job.id)
                failures = 0
            except Exhausted:
                raise Underway from None
            except NotApplied as error:
                failures += not isinstance(error, Throttled)
                await self._backoff.pause(error, failures)
            except Unsettled as error:
                failures += 1
                await self._backoff.pause(error, failures)
        return asked

    async def _slept(self, seconds: float) -> bool:
        """Whether the run was stopped meanwhile."""
        try:
            await asyncio.wait_for(self._budget.stop.wait(), seconds)
        except TimeoutError:
            return self._budget.stop.is_set()
        return True
