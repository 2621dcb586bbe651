"""Recorded answers of the real HubSpot, replayed by a local server: what the connector makes of each.

They are kept beside the repository, not in it: in `shared/reference/vendor-recordings`, or where BACKHAUL_SHARED says.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.hubspot import HubSpot, HubSpotConfig
from backhaul.destinations.hubspot.fields import field_of
from backhaul.destinations.kit import Wire
from backhaul.errors import Halt, Refused, SendError, Throttled
from backhaul.testing.batches import RecordBatch
from backhaul.types import Delivered, Field, FieldType, Op, Rejected

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("BACKHAUL_SHARED", ROOT.parent / "shared"))
FILE = SHARED / "reference" / "vendor-recordings" / "hubspot.json"
ACTIONS = {"create": Op.INSERT, "update": Op.UPDATE, "archive": Op.DELETE, "upsert": Op.UPSERT}


def action(recording: dict[str, Any]) -> str | None:
    """The batch endpoint that was called; None for another one."""
    method, url = (
        recording["expected_request"]["method"],
        recording["expected_request"]["url"].partition("?")[0],
    )
    head, _, name = url.rpartition("/batch/")
    return name if method == "POST" and "/crm/v3/objects/" in head and name in ACTIONS else None


def receivable(recording: dict[str, Any]) -> bool:
    """Answers of the batch endpoints, and what any CRM endpoint may say of a request as a whole or of its inputs."""
    url, status = recording["expected_request"]["url"], recording["response"]["status"]
    whole = (
        "/crm/" in url
        and (status == 207 or status >= 400)
        and recording["expected_request"]["method"] == "POST"
    )
    return action(recording) is not None or whole or ("/crm/" in url and status in (401, 403, 429))


RECORDINGS = [item for item in (json.loads(FILE.read_text()) if FILE.exists() else []) if receivable(item)]
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"no recorded answers: {FILE} is not there")


@asynccontextmanager
async def replaying(recording: dict[str, Any]) -> AsyncIterator[HubSpot]:
    """A HubSpot that has nothing but this answer."""
    response = recording["response"]
    body = response["body"]
    text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
    own = ("content-length", "content-encoding", "transfer-encoding", "connection", "date", "content-type")
    headers = {name: value for name, value in response["headers"].items() if name.lower() not in own}

    async def answer(_: web.Request) -> web.Response:
        kind = response["headers"].get("content-type", "application/json").partition(";")[0]
        return web.Response(status=response["status"], body=text.encode(), headers=headers, content_type=kind)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    door = Door(Budget("crm", ()), 10.0)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    door.owner = destination = HubSpot(HubSpotConfig(access_token="t", base_url=url), door)
    try:
        yield destination
    finally:
        await door.close()
        await runner.cleanup()


def batch(recording: dict[str, Any]) -> RecordBatch:
    """The batch whose request was recorded; one contact where it was another endpoint."""
    name = action(recording)
    if name is None:
        return RecordBatch(
            Op.UPSERT, "contacts", ("email",), (Field("email"),), [{"email": "a@example.com"}], Wire.TEXT
        )
    inputs = recording["expected_request"]["body"]["inputs"]
    rows = [dict(item.get("properties") or {}) for item in inputs]
    by = next(
        iter(name for name in ("email", "domain", "name") if all(name in row for row in rows)), "hs_object_id"
    )
    if name != "create":
        by, rows = (
            "hs_object_id",
            [{"hs_object_id": str(item["id"]), **row} for item, row in zip(inputs, rows, strict=True)],
        )
    names = dict.fromkeys([by, *(column for row in rows for column in row)])
    return RecordBatch(ACTIONS[name], "contacts", (by,), tuple(map(Field, names)), rows, Wire.TEXT)


async def meaning(recording: dict[str, Any]) -> str:
    """What the connector takes the answer for, in the words of the recordings."""
    sent = batch(recording)
    async with replaying(recording) as crm:
        try:
            outcomes = (await crm.write(sent)).items
        except Throttled:
            return "throttled"
        except Halt as error:
            return "auth" if recording["response"]["status"] in (401, 403) else f"halt: {error}"
        except Refused:
            return "permanent"
        except SendError as error:
            return f"{type(error).__name__}: {error}"
    named = {item.key for item in outcomes}
    if named != set(sent.keys):
        return f"unknown: {set(sent.keys) - named}"
    if all(isinstance(item, Delivered) for item in outcomes):
        return "success"
    return "partial" if any(isinstance(item, Rejected) for item in outcomes) else "retry"


@pytest.mark.parametrize(
    "recording", RECORDINGS, ids=lambda item: f"{item['id']}-{item['response']['status']}"
)
async def test_a_recorded_answer_is_understood(recording: dict[str, Any]) -> None:
    found = await meaning(recording)
    assert found in recording["acceptable"], f"recorded as {recording['meaning']}"


def test_there_are_recordings_of_each_kind() -> None:
    statuses = {item["response"]["status"] for item in RECORDINGS}
    assert statuses >= {200, 201, 204, 207, 400, 403, 429}


async def test_created_records_are_told_apart_though_the_answer_has_another_order() -> None:
    recorded = [item for item in RECORDINGS if action(item) == "create" and item["response"]["status"] == 201]
    for recording in recorded:
        sent = batch(recording)
        results = recording["response"]["body"]["results"]
        ids = {item["properties"][sent.identifiers[0]]: item["id"] for item in results}
        async with replaying(recording) as crm:
            outcomes = (await crm.write(sent)).items
        assert {item.key: item.remote_id for item in outcomes if isinstance(item, Delivered)} == ids
    assert recorded


def test_recorded_properties_become_fields() -> None:
    every = json.loads(FILE.read_text())
    schemas = [item for item in every if "/crm/v3/schemas/" in item["expected_request"]["url"]]
    properties = [item for recording in schemas for item in recording["response"]["body"]["properties"]]
    fields = {item["name"]: field_of(item, "contacts") for item in properties}
    assert len(fields) >= 3
    assert (fields["date_field"].type, fields["date_field"].writable) == (FieldType.DATE, True)
    assert all(field.choices is None or field.native_type != "string/text" for field in fields.values())
