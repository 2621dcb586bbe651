"""Recorded answers of the real Intercom: what the connector makes of each."""

from __future__ import annotations

from typing import Any

import pytest
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.intercom import Intercom, IntercomConfig
from backhaul.destinations.kit import Http
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, Op

EVERY = recordings("intercom")
pytestmark = pytest.mark.skipif(not EVERY, reason="no recorded answers of Intercom are there")


def make(url: str, http: Http) -> Intercom:
    return Intercom(IntercomConfig(access_token="t", base_url=url, deletes="erase"), http)


def parts(recording: Recording) -> list[str]:
    return recording["expected_request"]["url"].partition("intercom.io/")[2].partition("?")[0].split("/")


def not_received(recording: Recording) -> str:
    """Why the connector never sees this answer; '' where it does."""
    path = parts(recording)
    if "tags" in path:
        return "tags are not written"
    if recording["expected_request"]["method"] == "GET" and len(path) == 1:
        return "the list of all contacts is not read"
    return ""


def batch(recording: Recording) -> RecordBatch:
    """A write by Intercom's id where the path has it, else a create by external_id."""
    request = recording["expected_request"]
    path, body = parts(recording), dict(request["body"] or {})
    if len(path) == 2:
        op = Op.DELETE if request["method"] == "DELETE" else Op.UPDATE
        row = {"id": path[1], **body}
    else:
        row = {**body, "external_id": body.get("external_id") or "made-by-intercom"}
        op = Op.INSERT
    by = "id" if "id" in row else "external_id"
    names = dict.fromkeys([by, *row])
    return RecordBatch(op, "contacts", (by,), tuple(map(Field, names)), [row])


RECEIVED = [item for item in EVERY if not not_received(item)]
WRITES = [item for item in RECEIVED if item["expected_request"]["method"] != "GET"]
READS = [item for item in RECEIVED if item["expected_request"]["method"] == "GET"]


def test_all_are_replayed_but_those_that_say_why_not() -> None:
    assert len(WRITES) + len(READS) == len(EVERY) - 4
    assert {item["response"]["status"] for item in WRITES} == {200, 400, 409}


@pytest.mark.parametrize("recording", WRITES, ids=lambda item: f"{item['id']}-{item['response']['status']}")
async def test_a_recorded_answer_is_understood(recording: Recording) -> None:
    async with answering(lambda _: recorded_answer(recording), make) as crm:
        assert await meaning(crm, batch(recording)) in recording["acceptable"]


@pytest.mark.parametrize("recording", READS, ids=lambda item: item["id"])
async def test_a_recorded_contact_is_read(recording: Recording) -> None:
    key, held = parts(recording)[1], recording["response"]["body"]
    names = ["email", "role", *(f"custom_attributes.{name}" for name in held["custom_attributes"])]
    async with answering(lambda _: recorded_answer(recording), make) as crm:
        found = await crm.read("contacts", ("id",), [key], names)
    values: dict[str, Any] = {f"custom_attributes.{k}": v for k, v in held["custom_attributes"].items()}
    assert found == {key: {"email": held["email"], "role": held["role"], **values}}
