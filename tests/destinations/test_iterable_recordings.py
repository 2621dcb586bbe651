"""Recorded answers of the real Iterable: what the connector makes of each."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.iterable import Iterable, IterableConfig
from backhaul.destinations.kit import Http
from backhaul.errors import Refused
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, FieldType, Op

EVERY = recordings("iterable")
pytestmark = pytest.mark.skipif(not EVERY, reason="no recorded answers of Iterable are there")


def make(url: str, http: Http) -> Iterable:
    return Iterable(IterableConfig(api_key="k", base_url=url), http)


def call(recording: Recording) -> str:
    request = recording["expected_request"]
    return f"{request['method']} {request['url'].partition('/api/')[2]}"


def not_received(recording: Recording) -> str:
    """Why the connector never sees this answer; '' where it does."""
    if call(recording) == "POST lists":
        return "lists are not made"
    if call(recording) == "POST users/update" and recording["response"]["status"] == 200:
        return "users are updated in bulk, whose success is another one"
    return ""


RECEIVED = [item for item in EVERY if not not_received(item)]
READS = [item for item in RECEIVED if call(item).startswith("GET users/") and "getFields" not in call(item)]
WRITES = [item for item in RECEIVED if not call(item).startswith("GET")]


def batch(recording: Recording) -> RecordBatch:
    """The delete, the subscription, or the update that was recorded."""
    request = recording["expected_request"]
    body = request["body"] or {}
    email = {"email": request["url"].rpartition("/")[2]}
    op, name, rows = Op.DELETE, "users", [email]
    if "subscribers" in body:
        op, name, rows = Op.UPSERT, f"lists/{body['listId']}", body["subscribers"]
    elif body:
        op, rows = Op.UPSERT, [{"email": body["email"], **body["dataFields"]}]
    return RecordBatch(op, name, ("email",), tuple(map(Field, rows[0])), rows)


def test_all_are_replayed_but_those_that_say_why_not() -> None:
    others = {call(item) for item in RECEIVED if item not in READS and item not in WRITES}
    assert others == {"GET users/getFields", "GET lists"}
    assert (len(READS), len(WRITES), len(EVERY) - len(RECEIVED)) == (4, 3, 5)


@pytest.mark.parametrize("recording", WRITES, ids=lambda item: f"{item['id']}-{item['response']['status']}")
async def test_a_recorded_answer_is_understood(recording: Recording) -> None:
    async with answering(lambda _: recorded_answer(recording), make) as iterable:
        assert await meaning(iterable, batch(recording)) in recording["acceptable"]


@pytest.mark.parametrize("recording", READS, ids=lambda item: f"{item['id']}-{item['response']['status']}")
async def test_a_recorded_profile_is_read(recording: Recording) -> None:
    key, body = call(recording).rpartition("/")[2], recording["response"]["body"]
    async with answering(lambda _: recorded_answer(recording), make) as iterable:
        if recording["meaning"] == "permanent":
            with pytest.raises(Refused, match="InvalidEmailAddressError"):
                await iterable.read("users", ("email",), [key], ["name"])
            return
        held = await iterable.read("users", ("email",), [key], ["email", "name", "itblInternal.emailDomain"])
    data = body["user"]["dataFields"]
    wanted = {
        "email": key,
        "name": data["name"],
        "itblInternal.emailDomain": data["itblInternal"]["emailDomain"],
    }
    assert held == {key: wanted}


async def test_recorded_fields_and_lists_are_described() -> None:
    answers = {
        call(item).partition(" ")[2]: item["response"]["body"]
        for item in EVERY
        if call(item).startswith("GET")
    }

    def answer(request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(answers[request.path.removeprefix("/api/")]))

    async with answering(answer, make) as iterable:
        users = await iterable.describe("users")
        members = await iterable.describe("lists/1056557")
    assert users.fields["LTV"].type is FieldType.NUMBER
    assert users.fields["signupDate"].type is FieldType.DATETIME
    assert (users.fields["email"].unique, users.fields["profileUpdatedAt"].writable) == (True, False)
    assert set(members.fields) == {"email", "userId"}
