"""Opens a destination by its configuration: the connector, its door, its budget with what the state remembers of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from backhaul.delivery.budget import Budget
from backhaul.delivery.credential import bucket_of
from backhaul.delivery.door import Door
from backhaul.delivery.transport import Internet, Transport
from backhaul.destinations.kit import Destination
from backhaul.errors import Exhausted, Halt, NotApplied, SendError, Throttled, Unreachable, Unsettled
from backhaul.redaction import redact
from backhaul.state.protocol import Buckets
from backhaul.surroundings import REAL, Surroundings

T = TypeVar("T")
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Connection:
    """An open destination."""

    destination: Destination[Any]
    door: Door
    budget: Budget


@asynccontextmanager
async def connected(
    name: str, kind: type[Destination[Any]], config: Any, buckets: Buckets, *, priority: int = 0,
    permit: Callable[[], None] = lambda: None, surroundings: Surroundings = REAL,
    transport: Callable[[float], Transport] = Internet, mask: Callable[[str], str] = redact,
) -> AsyncIterator[Connection]:  # fmt: skip
    """The destination under its name in backhaul.yml, on the budget of its credential, which `buckets` keeps and which is
    closed with it. `permit` is asked before each request; `mask` takes secrets out of what the destination says.

    Raises:
        Halt: it refuses us, or is not reachable.
        StateError: what is spent of its limits cannot be read.
    """
    timeout = float(config.timeout)
    door = Door(Budget(name, ()), timeout, transport(timeout), mask)
    destination = kind(config, door)
    door.owner = destination
    budget = door.budget = Budget(
        name, destination.limits, bucket=bucket_of(destination, await buckets.salt()), buckets=buckets,
        priority=priority, clock=surroundings.clock, wall=surroundings.wall,
    )  # fmt: skip
    budget.permit = permit
    budget.counts_writes = not destination.base_url
    connection = Connection(destination, door, budget)
    try:
        await budget.open()
        await insist(destination.open, budget, surroundings)
        yield connection
    finally:
        await destination.close()
        await door.close()
        try:
            await budget.close()
        finally:
            await buckets.close()


async def insist(
    act: Callable[[], Awaitable[T]], budget: Budget, surroundings: Surroundings = REAL, *, free: bool = False
) -> T:
    """Repeats an act that changes nothing (a description, a read-back) while the destination is busy or away. `free`: it is no
    request of those that the budget counts.

    Raises:
        Unreachable: it does not answer.
        Halt: it refuses us.
        Exhausted: the budget has no room.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            if budget.counts_writes and not free:
                await budget.acquire()
            return await act()
        except Exhausted:
            raise
        except SendError as error:
            if isinstance(error, Throttled) and error.after is not None:
                for part in budget.of(error.endpoints):
                    part.hold(error.after, str(error))
            passing = isinstance(error, NotApplied | Unsettled)
            if attempt == _ATTEMPTS or not passing:
                kind = Unreachable if passing else Halt
                raise kind(
                    str(error), hint="nothing was sent; is the destination up, and its address right?"
                ) from None
            await asyncio.sleep(surroundings.rng.uniform(0, 0.25 * 2**attempt))
    raise Unreachable
