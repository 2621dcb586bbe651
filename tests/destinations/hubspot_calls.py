"""What the tests of the HubSpot connector share: a connection, a batch, and outcomes by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.hubspot import HubSpot, HubSpotConfig
from backhaul.destinations.kit import Wire
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, Op, Outcomes


@asynccontextmanager
async def connected(url: str, **config: Any) -> AsyncIterator[HubSpot]:
    door = Door(Budget("crm", ()), 10.0)
    door.owner = destination = HubSpot(
        HubSpotConfig(**{"access_token": "t", "base_url": url, **config}), door
    )
    try:
        yield destination
    finally:
        await door.close()


def batch(
    op: Op,
    *rows: dict[str, Any],
    by: str = "email",
    remote_ids: list[str | None] | None = None,
    object: str = "contacts",
) -> RecordBatch:
    names = dict.fromkeys([by, *(name for row in rows for name in row)])
    return RecordBatch(op, object, (by,), tuple(map(Field, names)), list(rows), Wire.TEXT, remote_ids)


def person(name: str, **fields: Any) -> dict[str, Any]:
    return {"email": f"{name}@Example.com", **fields}


def by_key(outcomes: Outcomes) -> dict[str, Any]:
    assert not outcomes.everything
    assert len({item.key for item in outcomes.items}) == len(outcomes.items)
    return {item.key.partition("@")[0]: item for item in outcomes.items}


Handler = Callable[[dict[str, Any]], web.Response]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[HubSpot]:
    """A HubSpot whose every answer is what the handler makes of the body."""

    async def answer(request: web.Request) -> web.Response:
        return handler(await request.json() if request.method == "POST" else {})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with connected(f"http://127.0.0.1:{runner.addresses[0][1]}") as destination:
            yield destination
    finally:
        await runner.cleanup()
