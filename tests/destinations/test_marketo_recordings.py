"""Recorded answers of the real Marketo: what the connector makes of each."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.kit import Http
from backhaul.destinations.marketo import Marketo, MarketoConfig
from backhaul.testing.batches import RecordBatch
from backhaul.types import Delivered, Field, FieldType, Gone, Op, Rejected

EVERY = recordings("marketo")
pytestmark = pytest.mark.skipif(not EVERY, reason="no recorded answers of Marketo are there")
SEARCHABLE = {"success": True, "result": [{"searchableFields": [["email"], ["id"]], "fields": []}]}
"""In the form of the guide: no answer to describe2 was recorded."""


def make(url: str, http: Http) -> Marketo:
    return Marketo(MarketoConfig(base_url=url, client_id="c", client_secret="s"), http)


def answer_to(recording: Recording) -> Any:
    def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/identity"):
            return web.json_response({"access_token": "t", "expires_in": 3599})
        if request.path.endswith("describe2.json"):
            return web.json_response(SEARCHABLE)
        return recorded_answer(recording)

    return answer


def place(recording: Recording) -> str:
    return urlsplit(recording["expected_request"]["url"]).path


def asked(recording: Recording) -> dict[str, list[str]]:
    return parse_qs(urlsplit(recording["expected_request"]["url"]).query)


ASSETS = [item for item in EVERY if "/asset/" in place(item)]
"""Lists by name, and new lists: the connector takes a list by its id, and makes none."""
DESCRIBED = [item for item in EVERY if place(item).endswith("describe.json")]
READS = [item for item in EVERY if item["lookup"] and item not in ASSETS]
WRITES = [item for item in EVERY if item not in (*ASSETS, *DESCRIBED, *READS)]


def batch(recording: Recording) -> RecordBatch:
    """The records that were sent."""
    body = recording["expected_request"]["body"] or {}
    rows = body.get("input") or [{"id": own} for own in asked(recording)["id"]]
    by, op, name = "id", Op.DELETE, "leads"
    if "/lists/" in place(recording):
        name = f"lists/{place(recording).split('/')[4]}"
    elif "action" in body:
        by, op = body["lookupField"], Op.UPSERT if body["action"] == "createOrUpdate" else Op.UPDATE
    fields = dict.fromkeys((by, *(name for row in rows for name in row)))
    return RecordBatch(op, name, (by,), tuple(map(Field, fields)), rows)


def test_all_are_replayed_but_those_that_say_why_not() -> None:
    assert (len(WRITES), len(READS), len(DESCRIBED), len(ASSETS)) == (9, 3, 1, 2)
    assert len(EVERY) == 15


@pytest.mark.parametrize("recording", WRITES, ids=lambda item: item["id"])
async def test_a_recorded_answer_is_understood(recording: Recording) -> None:
    sent = batch(recording)
    async with answering(answer_to(recording), make) as marketo:
        assert await meaning(marketo, sent) in recording["acceptable"]
        outcomes = {item.key: item for item in (await marketo.write(sent)).items}
    for key, result in zip(sent.keys, recording["response"]["body"]["result"], strict=True):
        found = outcomes[key]
        if result["status"] == "skipped":
            (reason,) = result["reasons"]
            assert isinstance(found, Gone if reason["code"] == "1015" else Rejected)
            assert (found.code, found.message) == (reason["code"], reason["message"])
        else:
            assert found == Delivered(key, str(result["id"]), result["status"] == "created")


@pytest.mark.parametrize("recording", READS, ids=lambda item: item["id"])
async def test_recorded_leads_are_read(recording: Recording) -> None:
    (by,), (key,) = asked(recording)["filterType"], asked(recording)["filterValues"]
    async with answering(answer_to(recording), make) as marketo:
        held = await marketo.read("leads", (by,), [key], ["email", "firstName", "lastName"])
    found = recording["response"]["body"]["result"]
    wanted = {name: found[0][name] for name in (by, "email", "firstName", "lastName")} if found else {}
    assert held == ({key: wanted} if found else {})


async def test_a_boolean_that_was_cleared_is_false() -> None:
    """Recorded: null was sent for every custom field, and a boolean is read back as false."""
    (recording,) = [item for item in READS if asked(item)["filterType"] == ["id"]]
    async with answering(answer_to(recording), make) as marketo:
        held = await marketo.read("leads", ("id",), ["7149"], ["boolean_field", "integer_field"])
        fields = (Field("boolean_field", FieldType.BOOLEAN), Field("integer_field", FieldType.INTEGER))
        assert all(marketo.same(field, None, held["7149"][field.name]) for field in fields)
    assert held["7149"]["boolean_field"] is False


async def test_recorded_fields_are_described() -> None:
    (recording,) = DESCRIBED
    async with answering(answer_to(recording), make) as marketo:
        fields = (await marketo.describe("leads")).fields
    assert {name: fields[name].type for name in ("company", "boolean_field", "percent_field", "currency_field")} == {
        "company": FieldType.STRING, "boolean_field": FieldType.BOOLEAN, "percent_field": FieldType.INTEGER,
        "currency_field": FieldType.NUMBER,
    }  # fmt: skip
    assert (fields["email"].unique, fields["email"].max_length, fields["email"].case_insensitive) == (
        True,
        255,
        True,
    )
    assert (fields["mktoName"].writable, fields["updatedAt"].writable, fields["firstName"].unique) == (
        False,
        False,
        False,
    )
    assert (fields["dateOfBirth"].type, fields["datetime_field"].type) == (FieldType.DATE, FieldType.DATETIME)
