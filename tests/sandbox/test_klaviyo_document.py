"""The simulated account and the connector's requests, held against Klaviyo's OpenAPI document, and driven by its own client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from klaviyo_api import KlaviyoAPI
from vendor_documents import SPECS, Document

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.kit import Job
from backhaul.destinations.klaviyo import Klaviyo, KlaviyoConfig
from backhaul.sandbox.kit import serve
from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.serving import serving
from backhaul.types import Field, Op, Outcomes

FILE = SPECS / "klaviyo" / "stable.json"


class Overheard(KlaviyoSandbox):
    """Keeps what was asked and answered."""

    def __init__(self) -> None:
        super().__init__()
        self.job_seconds = 0.0
        self.heard: list[tuple[str, str, Any, int, Any]] = []

    def app(self) -> web.Application:
        app = super().app()
        app.middlewares.append(self._hear)
        return app

    @web.middleware
    async def _hear(self, request: web.Request, handler: Any) -> web.StreamResponse:
        sent = await request.read()
        answer = await handler(request)
        body = json.loads(sent) if sent else None
        self.heard.append(
            (request.method, request.path, body, answer.status, json.loads(answer.body or b"null"))
        )
        return answer


async def conversation(klaviyo: Klaviyo) -> None:
    """One of everything."""
    await klaviyo.describe("profiles")
    fields = tuple(map(Field, ("external_id", "email", "properties", "location")))
    rows = [
        {"external_id": str(number), "email": "x" if number == 2 else f"{number}@example.com", "properties": {"plan": "pro"},
         "location": {"city": "Oslo"}}
        for number in range(3)
    ]  # fmt: skip
    by = ("external_id",)
    frame = klaviyo.frame("profiles", Op.UPSERT, by)
    await klaviyo.write(RecordBatch(Op.UPSERT, "profiles", by, fields, rows[:1], frame=frame))
    many = RecordBatch(Op.UPSERT, "profiles", by, fields, rows, frame=frame)
    handed = await klaviyo.write(many)
    assert isinstance(handed, Job)
    outcomes = await klaviyo.collect(many, handed.id)
    assert isinstance(outcomes, Outcomes)
    assert len(outcomes.of(many.keys)) == 3
    assert await klaviyo.read("profiles", ("external_id",), ["0", "1"], ["email", "properties.plan"]) == {
        "0": {"email": "0@example.com", "properties.plan": "pro"}, "1": {"email": "1@example.com", "properties.plan": "pro"},
    }  # fmt: skip
    email = (await klaviyo.describe("lists/Y6nRLr")).fields["email"]
    people = [{"email": "0@example.com"}, {"email": "1@example.com"}]
    for op in (Op.UPSERT, Op.DELETE):
        members = RecordBatch(op, "lists/Y6nRLr", ("email",), (email,), people)
        assert len((await klaviyo.write(members)).of(members.keys)) == 2  # type: ignore[union-attr]
    assert await klaviyo.read("lists/Y6nRLr", ("email",), ["0@example.com"], ()) == {}
    about = ("unique_id", "profile.email", "time", "value", "value_currency", "properties.film")
    event = dict(
        zip(about, ("o1", "0@example.com", "2026-11-28T09:30:00Z", 9.5, "EUR", "Solaris"), strict=True)
    )
    happened = RecordBatch(Op.INSERT, "events/Rented", ("unique_id",), tuple(map(Field, about)), [event])
    assert (await klaviyo.write(happened)).of(happened.keys)  # type: ignore[union-attr]


@pytest.mark.skipif(not FILE.exists(), reason=f"Klaviyo's document is not there: {FILE}")
async def test_requests_and_answers_are_as_the_document_says() -> None:
    sandbox, document = Overheard(), Document(FILE)
    async with serve(sandbox) as url:
        door = Door(Budget("klaviyo", ()), 10.0)
        door.owner = klaviyo = Klaviyo(KlaviyoConfig(base_url=url, api_key="pk"), door)
        try:
            await conversation(klaviyo)
        finally:
            await door.close()
    assert len(sandbox.heard) == 14
    for method, path, sent, status, answered in sandbox.heard:
        document.check_request(method, path, sent)
        document.check_answer(method, path, status, answered)


async def test_klaviyos_own_client_drives_the_simulation() -> None:
    sandbox = KlaviyoSandbox()
    with serving(sandbox.app()) as url:
        client = KlaviyoAPI("pk_local", test_host=url, max_retries=0)
        body = {
            "data": {
                "type": "profile",
                "attributes": {"email": "ada@example.com", "properties": {"plan": "pro"}},
            }
        }
        made = await asyncio.to_thread(client.Profiles.create_or_update_profile, body)
        assert made.data.attributes.email == "ada@example.com"
        found = await asyncio.to_thread(
            client.Profiles.get_profiles, filter='equals(email,"ada@example.com")'
        )
        assert [profile.id for profile in found.data] == [made.data.id]
        wrong = {"data": {"type": "profile", "attributes": {"email": "nobody"}}}
        with pytest.raises(Exception, match="Invalid email address"):
            await asyncio.to_thread(client.Profiles.create_or_update_profile, wrong)
