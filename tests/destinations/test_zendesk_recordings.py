"""Recorded answers of the real Zendesk: what the connector makes of each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.kit import Http
from backhaul.destinations.zendesk import Zendesk, ZendeskConfig
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, Op

EVERY = recordings("zendesk")
pytestmark = pytest.mark.skipif(not EVERY, reason="no recorded answers of Zendesk are there")


def make(url: str, http: Http) -> Zendesk:
    return Zendesk(ZendeskConfig(access_token="t", base_url=url, skip_verify_email=False), http)


def path(recording: Recording) -> str:
    return recording["expected_request"]["url"].partition("/api/v2/")[2].partition("?")[0]


WRITES = [item for item in EVERY if "user" in (item["expected_request"]["body"] or {})]
PROMOTIONS = [item for item in EVERY if path(item).endswith("make_primary.json")]


def batch(recording: Recording) -> RecordBatch:
    """A create_or_update by external_id, or an update by Zendesk's id."""
    row = {"external_id": "not-sent", **recording["expected_request"]["body"]["user"]}
    upsert = "create_or_update" in path(recording)
    known = None if upsert else path(recording).split("/")[1].removesuffix(".json")
    fields = tuple(map(Field, dict.fromkeys(["external_id", *row])))
    op = Op.UPSERT if upsert else Op.UPDATE
    return RecordBatch(op, "users", ("external_id",), fields, [row], remote_ids=[known])


def test_all_are_replayed_but_search() -> None:
    assert len(WRITES) + len(PROMOTIONS) == len(EVERY) - 1
    assert {item["response"]["status"] for item in WRITES} == {200, 201, 429}


@pytest.mark.parametrize("recording", WRITES, ids=lambda item: f"{item['id']}-{item['response']['status']}")
async def test_a_recorded_answer_is_understood(recording: Recording) -> None:
    async with answering(lambda _: recorded_answer(recording), make) as desk:
        found = await meaning(desk, batch(recording))
    if recording["response"]["status"] == 429:  # of one user: the account's window has 668 of 700 left
        assert found == "retryable"
    else:
        assert found in recording["acceptable"]


@pytest.mark.parametrize("recording", PROMOTIONS, ids=lambda item: item["id"])
async def test_a_recorded_second_email_is_made_the_primary_one(recording: Recording) -> None:
    """The user's answer has the old address, its identities (recorded after the change) the new one."""
    identities: list[dict[str, Any]] = recording["response"]["body"]["identities"]
    number = int(path(recording).split("/")[3])
    new = next(item["value"] for item in identities if item["id"] == number)
    asked: list[str] = []

    def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path.endswith("identities"):
            before = [{**item, "primary": False} for item in identities]
            return web.json_response({"identities": before})
        if "make_primary" in request.path:
            return recorded_answer(recording)
        return web.Response(
            text=json.dumps({"user": {"id": 7, "email": "old@example.com"}}), content_type="application/json"
        )

    row = {"external_id": "7", "email": new}
    sent = RecordBatch(Op.UPSERT, "users", ("external_id",), tuple(map(Field, row)), [row])
    async with answering(handler, make) as desk:
        assert await meaning(desk, sent) == "success"
    assert asked[-1].endswith(f"/identities/{number}/make_primary")
