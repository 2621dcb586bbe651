"""Recorded answers of real Salesforce orgs, replayed by a local server: what the connector makes of each.

They are kept beside the repository, not in it: in `shared/reference/vendor-recordings`, or where BACKHAUL_SHARED says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from salesforce_calls import answering

from backhaul.destinations.salesforce.fields import field_of
from backhaul.errors import Refused, SendError
from backhaul.testing.batches import RecordBatch
from backhaul.types import Delivered, Field, FieldType, Op, Rejected

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("BACKHAUL_SHARED", ROOT.parent / "shared"))
FILE = SHARED / "reference" / "vendor-recordings" / "salesforce.json"
OPS = {"POST": Op.INSERT, "PATCH": Op.UPDATE, "DELETE": Op.DELETE}
EVERY = json.loads(FILE.read_text()) if FILE.exists() else []
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"no recorded answers: {FILE} is not there")


def asked(recording: dict[str, Any]) -> str:
    """The path behind the version, such as composite/sobjects/Contact/Email; '' for another API."""
    _, _, path = urlsplit(recording["expected_request"]["url"]).path.partition("/services/data/")
    return path.partition("/")[2].rstrip("/")


def not_received(recording: dict[str, Any]) -> str:
    """Why the connector never sees this answer; '' where it does."""
    path = asked(recording)
    if not path:
        return "SOAP login or Bulk API 1.0 (XML): the connector speaks REST"
    if path == "composite":
        return "a composite of describes; the connector sends collections so"
    if path.startswith("limits/"):
        return "an endpoint that the connector does not call"
    if path.startswith("sobjects/") and not path.endswith("/describe"):
        return "a single record is read through a query"
    return ""


WRITES = [item for item in EVERY if asked(item).startswith("composite/sobjects")]
QUERIES = [item for item in EVERY if asked(item) == "query"]
DESCRIBES = [item for item in EVERY if asked(item).endswith("/describe")]


def test_every_recording_is_replayed_or_says_why_not() -> None:
    replayed = len(WRITES) + len(QUERIES) + len(DESCRIBES)
    assert replayed + sum(bool(not_received(item)) for item in EVERY) == len(EVERY)
    assert replayed >= 40


def replayed(recording: dict[str, Any]) -> Any:
    """The recorded answer to whatever is asked."""
    response = recording["response"]
    own = ("content-length", "content-encoding", "transfer-encoding", "connection", "date", "content-type")
    headers = {name: value for name, value in response["headers"].items() if name.lower() not in own}

    def handler(_: web.Request) -> web.Response:
        body = json.dumps(response["body"]).encode()
        return web.Response(
            status=response["status"], body=body, headers=headers, content_type="application/json"
        )

    return handler


def batch(recording: dict[str, Any]) -> RecordBatch:
    """The batch whose request was recorded, its records found by their place where they have no id."""
    request = recording["expected_request"]
    op = Op.UPSERT if len(asked(recording).split("/")) == 4 else OPS[request["method"]]
    sent = (request["body"] or {}).get("records")
    if sent is None:
        ids = parse_qs(urlsplit(request["url"]).query)["ids"][0].split(",")
        return RecordBatch(op, "Account", ("Id",), (Field("Id"),), [{"Id": one} for one in ids])
    kind, rows = sent[0]["attributes"]["type"], []
    for place, item in enumerate(sent):
        fields = {name: value for name, value in item.items() if name not in ("attributes", "id", "Id")}
        record_id = item.get("id") or item.get("Id")
        rows.append({"Id": record_id, **fields} if op is Op.UPDATE else {"Place__c": str(place), **fields})
    by = "Id" if op is Op.UPDATE else "Place__c"
    names = dict.fromkeys([by, *(name for row in rows for name in row)])
    return RecordBatch(op, kind, (by,), tuple(map(Field, names)), rows)


@pytest.mark.parametrize("recording", WRITES, ids=lambda item: item["id"])
async def test_a_recorded_answer_to_a_write_is_understood(recording: dict[str, Any]) -> None:
    sent = batch(recording)
    async with answering(replayed(recording)) as crm:
        outcomes = (await crm.write(sent)).items
    assert [item.key for item in outcomes] == list(sent.keys)
    refused = [item for item in outcomes if isinstance(item, Rejected)]
    found = "success" if not refused else "permanent" if len(refused) == len(outcomes) else "partial"
    assert found in recording["acceptable"], f"recorded as {recording['meaning']}"
    for item, result in zip(outcomes, recording["response"]["body"], strict=True):
        if isinstance(item, Delivered):
            assert (item.remote_id, item.created) == (result["id"], result.get("created", False))
        else:
            assert isinstance(item, Rejected)
            assert item.code == result["errors"][0]["statusCode"]
            assert result["errors"][0]["message"] in item.message


@pytest.mark.parametrize("recording", QUERIES, ids=lambda item: item["id"])
async def test_a_recorded_answer_to_a_query_is_read(recording: dict[str, Any]) -> None:
    records = recording["response"]["body"]["records"]
    async with answering(replayed(recording)) as crm:
        keys = [record["Id"] for record in records if "Id" in record]
        assert set(await crm.read("Contact", ("Id",), keys or ["003000000000001"], ())) == set(keys)


@pytest.mark.parametrize("recording", DESCRIBES, ids=lambda item: item["id"])
async def test_recorded_fields_become_fields(recording: dict[str, Any]) -> None:
    fields = {item["name"]: field_of(item) for item in recording["response"]["body"]["fields"]}
    assert not fields["Id"].writable
    assert not fields["CreatedDate"].writable
    assert fields["Name"].required
    assert fields["Name"].type is FieldType.STRING


async def test_recorded_usage_is_what_is_left() -> None:
    from backhaul.destinations.kit import Answer

    said = [item["response"]["headers"].get("sforce-limit-info") for item in EVERY]
    async with answering(lambda _: web.json_response([])) as crm:
        for usage in filter(None, said):
            used, most = usage.partition("=")[2].split("/")
            (left,) = crm.left(Answer(200, {"sforce-limit-info": usage})).values()
            assert left.requests == int(most) * 8 // 10 - int(used)


async def test_a_composite_error_is_one_of_the_request() -> None:
    """The recorded error of a subrequest has the shape of any error of a request."""
    found = [
        part["body"]
        for item in EVERY
        if asked(item) == "composite" and isinstance(item["response"]["body"], dict)
        for part in item["response"]["body"].get("compositeResponse", ())
        if part["httpStatusCode"] == 404
    ]
    assert found
    for body in found:
        async with answering(lambda _, body=body: web.json_response(body, status=404)) as crm:
            with pytest.raises(SendError) as raised:
                await crm.write(
                    RecordBatch(Op.INSERT, "Foo", ("Place__c",), (Field("Place__c"),), [{"Place__c": "1"}])
                )
            assert isinstance(raised.value, Refused)
            assert raised.value.code == "NOT_FOUND"
