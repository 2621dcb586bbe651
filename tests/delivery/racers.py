"""Processes that send as fast as one budget lets them: `python racers.py` with a JSON list of racers on stdin.

A racer is `{state, url, rates, seconds, priority, requests, path, delay, pause}`. When all are done it prints a JSON list of
`[[when, …], error]`, a list a racer: when it was given leave, and what ended it.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from typing import Any

from backhaul.delivery.connect import connected
from backhaul.destinations.kit import Batch, Destination, DestinationConfig, Spec
from backhaul.errors import BackhaulError, Exhausted, SendError, Throttled
from backhaul.state.opening import open_state
from backhaul.types import ObjectSchema, Outcomes


class Config(DestinationConfig):
    """Nothing of its own."""

    base_url: str


class Racer(Destination[Config]):
    """Sends requests without a body."""

    spec = Spec(name="racer", config=Config, docs="", batch={})

    def __init__(self, config: Config, http: Any) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    async def describe(self, object: str) -> ObjectSchema:
        return ObjectSchema(object)

    async def write(self, batch: Batch) -> Outcomes:
        return Outcomes()


async def race(given: dict[str, Any]) -> tuple[list[float], str]:
    """Eight requests in flight, until time or requests are used up."""
    await asyncio.sleep(given.get("delay", 0))
    sent: list[float] = []
    until = time.monotonic() + given["seconds"]
    config = Config(base_url=given["url"], rate_limits=given["rates"], share="100%")
    buckets = open_state(given["state"]).buckets()
    async with connected("api", Racer, config, buckets, priority=given.get("priority", 0)) as connection:
        left = given.get("requests", 1_000_000)
        connection.budget.expect(left)

        async def lane() -> None:
            nonlocal left
            while left > 0 and time.monotonic() < until:
                left -= 1
                try:
                    await connection.door.request("POST", given.get("path", "/"))
                except Throttled as error:
                    connection.budget.hold(error.after or 1.0)
                sent.append(time.monotonic())
                await asyncio.sleep(given.get("pause", 0))

        async def end() -> None:
            await asyncio.sleep(until - time.monotonic())
            connection.budget.stop.set()

        ends = asyncio.create_task(end())
        try:
            await asyncio.gather(*(lane() for _ in range(8)))
        except Exhausted as error:
            return sent, str(error)
        except (SendError, BackhaulError) as error:
            return sent, repr(error)
        finally:
            ends.cancel()
    return sent, ""


def main(number: int, given: dict[str, Any], answers: Any) -> None:
    answers.put((number, asyncio.run(race(given))))


if __name__ == "__main__":
    import aiohttp  # noqa: F401 - imported once, for all processes

    racers = json.load(sys.stdin)
    context = multiprocessing.get_context("fork")
    answers: Any = context.Queue()
    processes = [
        context.Process(target=main, args=(number, one, answers)) for number, one in enumerate(racers)
    ]
    for process in processes:
        process.start()
    found = dict(answers.get() for _ in processes)
    for process in processes:
        process.join()
    print(json.dumps([found[number] for number in range(len(racers))]))  # noqa: T201
