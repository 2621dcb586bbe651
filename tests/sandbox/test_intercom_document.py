"""The simulated workspace and the connector's requests, held against Intercom's own OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from vendor_documents import SPECS, Document

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.intercom import Intercom, IntercomConfig
from backhaul.sandbox.intercom import IntercomSandbox
from backhaul.sandbox.kit import serve
from backhaul.testing.batches import RecordBatch
from backhaul.types import Op

FILE = SPECS / "intercom" / "api.intercom.io-2.16.yaml"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"Intercom's document is not there: {FILE}")


@pytest.fixture(scope="module")
def document() -> Iterator[Document]:
    yield Document(FILE)


class Overheard(IntercomSandbox):
    """Keeps what was asked and answered."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, str, int, Any, Any]] = []

    def app(self) -> web.Application:
        app = super().app()
        app.middlewares.append(self._hear)
        return app

    @web.middleware
    async def _hear(self, request: web.Request, handler: Any) -> web.StreamResponse:
        sent = await request.read()
        answer = await handler(request)
        body = json.loads(answer.body) if answer.body else None
        self.heard.append(
            (request.method, request.path, answer.status, json.loads(sent) if sent else None, body)
        )
        return answer


async def conversation(crm: Intercom) -> None:
    """One of everything."""

    async def write(op: Op, object: str, row: dict[str, Any]) -> None:
        fields = (await crm.describe(object)).fields
        by = next(iter(row))
        await crm.write(RecordBatch(op, object, (by,), tuple(fields[name] for name in row), [row]))

    person = {
        "external_id": "7", "email": "ada@example.com", "name": None, "phone": "+16505551234", "signed_up_at": "2026-01-01T00:00:00Z",
        "unsubscribed_from_emails": False, "custom_attributes.plan_tier": "pro", "custom_attributes.renews_at": None,
    }  # fmt: skip
    await write(Op.UPSERT, "contacts", person)
    await write(Op.UPSERT, "contacts", person)
    await write(Op.UPSERT, "contacts", {"email": "ada@example.com", "name": "Ada"})
    await crm.read("contacts", ("external_id",), ["7", "nobody"], ["name"])
    await write(Op.DELETE, "contacts", {"external_id": "7"})
    await write(Op.UPSERT, "contacts", person)
    company = {"company_id": "c1", "name": "Acme", "plan": "Pro", "size": 3, "custom_attributes.tier": "gold"}
    await write(Op.UPSERT, "companies", company)
    await write(Op.UPDATE, "companies", company)
    await crm.read("companies", ("company_id",), ["c1", "none"], ["name"])
    await write(Op.DELETE, "companies", {"company_id": "c1"})


async def test_requests_and_answers_are_as_the_document_says(document: Document) -> None:
    sandbox = Overheard()
    async with serve(sandbox) as url:
        door = Door(Budget("crm", ()), 10.0)
        door.owner = crm = Intercom(IntercomConfig(access_token="t", base_url=url), door)
        await conversation(crm)
        await door.close()
    statuses = set()
    for method, path, status, sent, answered in sandbox.heard:
        if sent is not None:
            document.check_request(method, path, sent)
        document.check_answer(method, path, status, answered)
        statuses.add((method, status))
    assert {("POST", 200), ("POST", 409), ("PUT", 200), ("GET", 404), ("DELETE", 200)} <= statuses
    assert len(sandbox.heard) > 20
