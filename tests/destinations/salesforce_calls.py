"""What the tests of the Salesforce connector share: a connection, a batch, and outcomes by key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.salesforce import Salesforce
from backhaul.destinations.salesforce.login import SalesforceConfig
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, Op, Outcomes

APP = {"client_id": "app", "client_secret": "hidden"}


@asynccontextmanager
async def connected(url: str, **config: Any) -> AsyncIterator[Salesforce]:
    door = Door(Budget("crm", ()), 10.0)
    door.owner = destination = Salesforce(SalesforceConfig(**{**APP, "base_url": url, **config}), door)
    try:
        yield destination
    finally:
        await door.close()


def batch(
    op: Op,
    *rows: dict[str, Any],
    by: str = "External_Id__c",
    object: str = "Customer__c",
    remote_ids: list[str | None] | None = None,
) -> RecordBatch:
    names = dict.fromkeys([by, *(name for row in rows for name in row)])
    return RecordBatch(op, object, (by,), tuple(map(Field, names)), list(rows), remote_ids=remote_ids)


def row(key: str, **fields: Any) -> dict[str, Any]:
    return {"External_Id__c": key, **fields}


def by_key(outcomes: Outcomes) -> dict[str, Any]:
    assert not outcomes.everything
    assert len({item.key for item in outcomes.items}) == len(outcomes.items)
    return {item.key: item for item in outcomes.items}


@asynccontextmanager
async def answering(
    handler: Callable[[web.Request], web.Response], **config: Any
) -> AsyncIterator[Salesforce]:
    """A Salesforce that gives tokens, and whose every other answer is what the handler makes of the request."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        if request.path.endswith("/oauth2/token"):
            return web.json_response({"access_token": "t"})
        if request.path.endswith("/describe"):
            return web.json_response(
                {"fields": [{"name": "External_Id__c", "type": "string", "externalId": True}]}
            )
        return handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with connected(f"http://127.0.0.1:{runner.addresses[0][1]}", **config) as destination:
            yield destination
    finally:
        await runner.cleanup()
