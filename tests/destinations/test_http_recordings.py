"""Recorded answers of vendors that have no connector of their own, at the one for any HTTP API: each vendor as a few lines of YAML."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.http import HttpApi, HttpConfig
from backhaul.destinations.kit import Http
from backhaul.errors import Halt, Refused, SendError, Throttled
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, Op

VENDORS: dict[str, dict[str, Any]] = yaml.safe_load("""
airtable:
  key: id
  insert: &airtable
    {request: POST /v0/app/table, batch_size: 10, body: {records: $records}, results: {each: records, index: true, delivered: "id != null"}}
  update: {<<: *airtable, request: PATCH /v0/app/table}
  delete:
    request: POST /v0/app/table/delete
    batch_size: 10
    body: {records: $keys}
    results: {each: records, index: true, delivered: deleted}
mailchimp:
  key: id
  upsert: {request: PUT /3.0/lists/1/members, batch_size: 1, body: $record}
  delete: {request: POST /3.0/lists/1/members/delete, batch_size: 1, body: {members: $keys}}
mailjet:
  key: id
  upsert: {request: POST /v3/REST/contact, batch_size: 1, body: $record, results: {each: Data, index: true, delivered: "@ != null"}}
  delete: {request: POST /v4/contacts/delete, batch_size: 1, body: {ids: $keys}}
meta_custom_audiences:
  key: id
  upsert: &meta
    request: POST /v12.0/1/users
    batch_size: 10000
    body: {payload: {data: $records}}
    results: {each: "[@]", index: true, delivered: "num_invalid_entries == `0`", error: invalid_entry_samples}
  delete: {<<: *meta, request: POST /v12.0/1/users/delete}
onesignal:
  key: id
  upsert: {request: POST /api/v1/players, batch_size: 1, body: $record, results: {each: "[@]", index: true, delivered: success}}
pardot:
  key: id
  upsert:
    request: POST /api/prospect/version/4/do/batchUpsert
    batch_size: 1
    body: {prospects: $records}
    results: {each: "[@]", index: true, delivered: '"@attributes".stat == `"ok"`', error: errors."0"}
  delete: {request: POST /api/prospect/version/4/do/delete, batch_size: 1, body: {ids: $keys}}
sendgrid:
  key: id
  upsert: {request: PUT /v3/marketing/contacts, batch_size: 30000, body: {contacts: $records}}
  delete: {request: POST /v3/marketing/contacts/delete, body: {ids: $keys}}
google_sheets:
  key: id
  insert: {request: POST /append, batch_size: 1, body: {values: $records}, results: {each: "[updates || @]", index: true, delivered: "updatedRows == `1`"}}
mixpanel:
  key: id
  upsert: {request: POST /engage, batch_size: 2000, body: $records, results: {each: "[@]", index: true, delivered: "status == 'ok'"}}
""")
OPS = {
    "create": Op.INSERT,
    "add": Op.UPSERT,
    "update": Op.UPDATE,
    "upsert": Op.UPSERT,
    "delete": Op.DELETE,
    "remove": Op.DELETE,
}
EVERY = [(vendor, item) for vendor in VENDORS for item in recordings(vendor)]
pytestmark = pytest.mark.skipif(not EVERY, reason="no recorded answers are there")
RIGHT_NOT_TO = {
    "meta_custom_audiences": "one of two entries is invalid, and a hash is all that names it: both are unknown and leave again",
    "pardot": "the batch was refused: `stat` is fail, and `errors` has the reason",
}
"""Why an answer is taken for something else than the recording says, where it is."""


def not_a_write(recording: Recording) -> str:
    """Why no batch gets this answer; '' where one does."""
    url, body = recording["expected_request"]["url"], str(recording["response"]["body"])
    if recording["operation"] in ("read", "auth") or "/contacts/search" in url or "/engage?" in url:
        return "a read"
    if (
        "Soap" in url
        or url.endswith(("/tags", "/managecontact"))
        or "/list/" in url
        or ("/lists/" in url and "members" not in url)
    ):
        return "a login, or a list or a tag that is made or taken away"
    return "a segment of members" if "members_added" in body else ""


WRITES = [(vendor, item) for vendor, item in EVERY if not not_a_write(item)]
READS = [(vendor, item) for vendor, item in EVERY if not_a_write(item) == "a read"]


def made(vendor: str) -> Any:
    declared = VENDORS[vendor] | {"read": {"request": "GET /records", "each": "[@]"}}

    def make(url: str, http: Http) -> HttpApi:
        config = {"base_url": url, "headers": {"Authorization": "Bearer k"}, "objects": {"o": declared}}
        return HttpApi(HttpConfig.model_validate(config), http)

    return make


def batch(vendor: str, recording: Recording) -> RecordBatch:
    """As many records as were recorded, by an operation that the vendor has."""
    body, op = recording["expected_request"]["body"], OPS[recording["operation"]]
    held = next(
        (body[name] for name in ("records", "contacts") if isinstance(body, dict) and name in body), [{}]
    )
    if vendor == "meta_custom_audiences" and isinstance(body, dict) and body.get("payload"):
        held = body["payload"]["data"]
    elif op is Op.DELETE and isinstance(recording["response"]["body"], dict):
        held = recording["response"]["body"].get("records", [{}])
    op = op if op.value in VENDORS[vendor] else Op.UPSERT if "upsert" in VENDORS[vendor] else Op.INSERT
    return RecordBatch(op, "o", ("id",), (Field("id"),), [{"id": f"k{place}"} for place in range(len(held))])


def names(one: tuple[str, Recording]) -> str:
    return f"{one[1]['id']}-{one[1]['response']['status']}"


def test_every_recording_is_replayed_or_says_why_not() -> None:
    others = {
        not_a_write(item) for pair in EVERY if pair not in WRITES and pair not in READS for item in pair[1:]
    }
    assert others <= {"a login, or a list or a tag that is made or taken away", "a segment of members"}
    assert len(WRITES) + len(READS) >= 75


@pytest.mark.parametrize("pair", WRITES, ids=names)
async def test_a_recorded_answer_is_understood(pair: tuple[str, Recording]) -> None:
    vendor, recording = pair
    async with answering(lambda _: recorded_answer(recording), made(vendor)) as api:
        found = await meaning(api, batch(vendor, recording))
    if found not in recording["acceptable"]:
        assert vendor in RIGHT_NOT_TO, f"{found} is not one of {recording['acceptable']}"
        assert found == {"meta_custom_audiences": "unknown", "pardot": "permanent"}[vendor]


@pytest.mark.parametrize("pair", READS, ids=names)
async def test_a_recorded_read_is_understood(pair: tuple[str, Recording]) -> None:
    vendor, recording = pair
    wanted = {"auth": Halt, "throttled": Throttled, "permanent": Refused}.get(recording["meaning"])
    async with answering(lambda _: recorded_answer(recording), made(vendor)) as api:
        if wanted is None or ("success" in recording["acceptable"] and recording["response"]["status"] < 300):
            assert await api.read("o", ("id",), ["k"], ["id"]) == {}
            return
        with pytest.raises((wanted, SendError)) as raised:
            await api.read("o", ("id",), ["k"], ["id"])
    assert isinstance(raised.value, wanted)
