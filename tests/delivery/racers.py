"""Processes that send as fast as one budget lets them: `python racers.py` with a JSON list of racers on stdin.

A racer is `{state, url, rates, requests, departures, path, after}`: so many requests, the first when the file `departures` has
`after` lines. To that file each writes a line when a request leaves: two moments between which it was let go, in seconds of the
system's monotonic clock, and its path. When all are done the program prints a JSON list of `[moment, error]`: when each had ended, and what
ended it.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backhaul.delivery.connect import Connection, connected
from backhaul.delivery.transport import Internet
from backhaul.destinations.kit import Answer, Batch, Destination, DestinationConfig, Spec
from backhaul.errors import BackhaulError, Throttled
from backhaul.state.opening import open_state
from backhaul.types import ObjectSchema, Outcomes

WARM_UP = 5
"""Requests before the race, in which a racer learns how its clock differs from that of the state."""


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


class Noting(Internet):
    """Notes when each request is let go, before its first byte: what was killed may have left, what left is noted."""

    file: int | None = None
    path = ""

    async def exchange(
        self, method: str, url: str, body: bytes | None, params: Mapping[str, str] | None, headers: Mapping[str, str],
        departed: Callable[[], None],
    ) -> Answer:  # fmt: skip
        def noted() -> None:
            before = time.monotonic()
            departed()
            if self.file is not None:
                os.write(self.file, f"{before} {time.monotonic()} {self.path}\n".encode())

        return await super().exchange(method, url, body, params, headers, noted)


async def race(given: dict[str, Any], start: Any) -> None:
    """Eight requests in flight, until all are answered."""
    transport = Noting(60.0)
    config = Config(base_url=given["url"], rate_limits=given["rates"], share="100%")
    buckets = open_state(given["state"]).buckets()
    async with connected("api", Racer, config, buckets, transport=lambda timeout: transport) as connection:
        for _ in range(WARM_UP):
            await connection.door.request("POST", "/warm-up")
        await asyncio.to_thread(start.wait)
        file = Path(given["departures"])
        while len(_lines(file)) < given.get("after", 0):
            await asyncio.sleep(0.005)
        transport.path = given.get("path", "/")
        transport.file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        await _send(connection, given["requests"], transport.path)


async def _send(connection: Connection, requests: int, path: str) -> None:
    left = iter(range(requests))

    async def lane() -> None:
        for _ in left:
            try:
                await connection.door.request("POST", path)
            except Throttled as error:
                connection.budget.hold(error.after or 1.0)

    await asyncio.gather(*(lane() for _ in range(8)))


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def main(number: int, given: dict[str, Any], start: Any, answers: Any) -> None:
    error = ""
    try:
        asyncio.run(race(given, start))
    except BackhaulError as raised:
        error = repr(raised)
        start.abort()
    answers.put((number, (time.monotonic(), error)))


if __name__ == "__main__":
    import aiohttp  # noqa: F401 - imported once, for all processes

    racers = json.load(sys.stdin)
    context = multiprocessing.get_context("fork")
    answers: Any = context.Queue()
    start = context.Barrier(len(racers))
    processes = [
        context.Process(target=main, args=(number, one, start, answers)) for number, one in enumerate(racers)
    ]
    for process in processes:
        process.start()
    found = dict(answers.get() for _ in processes)
    for process in processes:
        process.join()
    print(json.dumps([found[number] for number in range(len(racers))]))  # noqa: T201
