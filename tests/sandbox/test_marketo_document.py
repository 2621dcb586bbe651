"""The simulated instance and the connector's requests, held against Adobe's own Swagger documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from vendor_documents import SPECS, Swagger

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.kit import Job, Wire
from backhaul.destinations.marketo import Marketo, MarketoConfig
from backhaul.sandbox.kit import serve
from backhaul.sandbox.marketo import MarketoSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.types import Op

FOLDER = SPECS / "marketo"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"Adobe's documents are not there: {FOLDER}")
RELAXED = {
    "*": ("errors", "warnings"),  # recorded answers that succeeded have neither
    "CustomObject": (
        "marketoGUID",
        "seq",
    ),  # required of requests too, where the document itself says not to send them
}


@pytest.fixture(scope="module")
def document() -> Iterator[Swagger]:
    yield Swagger(FOLDER / "swagger-mapi.json", RELAXED)


class Overheard(MarketoSandbox):
    """Keeps what was asked and answered. A read whose address is in its body (`_method`) is described in words alone."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, str, Any, Any]] = []

    def app(self) -> web.Application:
        app = super().app()
        app.middlewares.append(self._hear)
        return app

    @web.middleware
    async def _hear(self, request: web.Request, handler: Any) -> web.StreamResponse:
        sent = b"" if request.content_type.startswith("multipart") else await request.read()
        answer = await handler(request)
        method = request.query.get("_method", request.method)
        body = json.loads(sent) if sent.startswith(b"{") and method != "GET" else None
        if answer.content_type == "application/json":  # a file of failures is none
            self.heard.append((method, request.path, body, json.loads(answer.body)))
        return answer


async def conversation(marketo: Marketo) -> None:
    """One of everything."""

    async def write(op: Op, object: str, row: dict[str, Any], by: tuple[str, ...]) -> None:
        fields = (await marketo.describe(object)).fields
        await marketo.write(RecordBatch(op, object, by, tuple(fields[name] for name in row), [row]))

    lead = {
        "email": "ada@example.com",
        "plan": None,
        "seats": 3,
        "trial": True,
        "signedUpAt": "2026-01-01T00:00:00Z",
    }
    car, seat = {"vin": "v1", "make": "BMW"}, {"account": "acme", "number": 1, "plan": None}
    await marketo.open()
    await write(Op.UPSERT, "leads", lead, ("email",))
    await write(Op.UPDATE, "leads", lead, ("email",))
    await write(Op.UPSERT, "leads", {**lead, "plan": "x" * 300}, ("email",))
    await write(Op.UPSERT, "lists/1001", {"email": "ada@example.com"}, ("email",))
    await marketo.read("lists/1001", ("email",), ["ada@example.com", "nobody@example.com"], [])
    for _ in range(2):
        await write(Op.DELETE, "lists/1001", {"email": "ada@example.com"}, ("email",))
    await write(Op.DELETE, "leads", {"email": "ada@example.com"}, ("email",))
    for kind, row, by in (
        ("customobjects/car_c", car, ("vin",)),
        ("customobjects/seat_c", seat, ("account", "number")),
    ):
        await write(Op.UPSERT, kind, row, by)
        await write(Op.UPDATE, kind, row, by)
        (key,) = RecordBatch(Op.UPSERT, kind, by, (), [row]).keys
        await marketo.read(kind, by, [key], list(row))
        for _ in range(2):
            await write(Op.DELETE, kind, {name: row[name] for name in by}, by)


async def import_leads(marketo: Marketo) -> None:
    rows = [{"email": "ada@example.com", "plan": "pro"}, {"email": "nobody", "plan": "pro"}]
    fields = (await marketo.describe("leads")).fields
    sent = RecordBatch(
        Op.UPSERT, "leads", ("email",), tuple(fields[name] for name in rows[0]), rows, Wire.CSV
    )
    job = await marketo.write(sent)
    assert isinstance(job, Job)
    assert len((await marketo.collect(sent, job.id)).items) == 2


async def test_requests_and_answers_are_as_the_document_says(document: Swagger) -> None:
    identity = Swagger(FOLDER / "swagger-identity.json", {})
    sandbox = Overheard()
    async with serve(sandbox) as url:
        door = Door(Budget("crm", ()), 10.0)
        config = MarketoConfig(base_url=url, client_id="service", client_secret="hidden")
        door.owner = marketo = Marketo(config, door)
        await conversation(marketo)
        await import_leads(marketo)
        await door.close()
    for method, path, sent, answered in sandbox.heard:
        held = identity if path.startswith("/identity") else document
        if sent is not None:
            held.check_request(method, path, sent)
        held.check_answer(method, path, 200, answered)
    asked = {(method, path) for method, path, _, _ in sandbox.heard}
    assert len(asked) >= 19
    assert ("POST", "/bulk/v1/leads.json") in asked
    assert ("DELETE", "/rest/v1/lists/1001/leads.json") in asked
    assert len(sandbox.heard) > 40
