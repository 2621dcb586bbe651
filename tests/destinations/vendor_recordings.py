"""Real vendors' recorded answers, and a local server that gives them. They are kept beside the repository, not in it: in
`shared/reference/vendor-recordings`, or where BACKHAUL_SHARED says."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.kit import Destination, Http
from backhaul.errors import Halt, Refused, SendError, Throttled
from backhaul.testing.batches import RecordBatch
from backhaul.types import Delivered, Outcomes, Rejected, Retry

SHARED = Path(os.environ.get("BACKHAUL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
_OWN = ("content-length", "content-encoding", "transfer-encoding", "connection", "date", "content-type")
Recording = dict[str, Any]


def recordings(name: str) -> list[Recording]:
    """All of a vendor's; none where they are not there."""
    file = SHARED / "reference" / "vendor-recordings" / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else []


def recorded_answer(recording: Recording) -> web.Response:
    response = recording["response"]
    body = response["body"]
    text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
    headers = {name: value for name, value in response["headers"].items() if name.lower() not in _OWN}
    kind = response["headers"].get("content-type", "application/json").partition(";")[0]
    return web.Response(status=response["status"], body=text.encode(), headers=headers, content_type=kind)


@asynccontextmanager
async def at(
    url: str, make: Callable[[str, Http], Destination[Any]], seconds: float = 10.0
) -> AsyncIterator[Any]:
    """A destination at an address, through a door of its own."""
    door = Door(Budget("crm", ()), seconds)
    door.owner = destination = make(url, door)
    try:
        yield destination
    finally:
        await door.close()


@asynccontextmanager
async def answering(
    handler: Callable[[web.Request], web.Response], make: Callable[[str, Http], Destination[Any]]
) -> AsyncIterator[Any]:
    """A destination whose vendor answers whatever the handler says."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with at(f"http://127.0.0.1:{runner.addresses[0][1]}", make) as destination:
            yield destination
    finally:
        await runner.cleanup()


async def meaning(destination: Destination[Any], batch: RecordBatch) -> str:
    """What a connector takes the answer to a batch for, in the words of the recordings."""
    try:
        outcomes = await destination.write(batch)
    except Throttled:
        return "throttled"
    except Halt:
        return "auth"
    except Refused:
        return "permanent"
    except SendError as error:
        return f"{type(error).__name__}: {error}"
    assert isinstance(outcomes, Outcomes)
    if outcomes.everything:
        return "success"
    if {item.key for item in outcomes.items} != set(batch.keys):
        return "unknown"
    if all(isinstance(item, Delivered) for item in outcomes.items):
        return "success"
    if all(isinstance(item, Rejected) for item in outcomes.items):
        return "permanent"
    return "retryable" if all(isinstance(item, Retry) for item in outcomes.items) else "partial"
