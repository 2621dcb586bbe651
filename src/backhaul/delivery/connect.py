"""Opens a destination by its configuration: the connector, its door, its budget with what the state remembers of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.kit import Destination
from backhaul.errors import Exhausted, Halt, NotApplied, SendError, Throttled, Unsettled
from backhaul.state.store import State

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
    name: str, kind: type[Destination[Any]], config: Any, state: State
) -> AsyncIterator[Connection]:
    """The destination under its name in backhaul.yml; what it spent is stored when it is closed.

    Raises:
        Halt: it refuses us, or is not reachable.
    """
    door = Door(Budget(name, ()), float(config.timeout))
    destination = kind(config, door)
    door.owner = destination
    budget = door.budget = Budget(name, destination.limits)
    budget.load(
        lambda bucket, since: [
            (row["slot"], row["used"]) for row in state.do("spent", {"bucket": bucket, "since": since})
        ],
        next((row["until"] for row in state.do("held_until", {"destination": name})), None),
    )
    connection = Connection(destination, door, budget)
    try:
        await insist(destination.open, budget)
        yield connection
    finally:
        await destination.close()
        await door.close()
        with state.together():
            for statement, values in budget.statements():
                state.do_all(statement, [values])


async def insist(act: Callable[[], Awaitable[T]], budget: Budget) -> T:
    """Repeats an act that changes nothing (a description, a read-back) while the destination is busy or away.

    Raises:
        Halt: it stays away.
        Exhausted: the budget has no room.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await act()
        except Exhausted:
            raise
        except SendError as error:
            if attempt == _ATTEMPTS or not isinstance(error, NotApplied | Unsettled):
                raise Halt(
                    str(error), hint="nothing was sent; is the destination up, and its address right?"
                ) from None
            if isinstance(error, Throttled) and error.after is not None:
                budget.hold(error.after)
            await asyncio.sleep(random.uniform(0, 0.25 * 2**attempt))
    raise Halt("the destination stays away")
