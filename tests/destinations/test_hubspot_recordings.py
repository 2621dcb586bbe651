"""Answers that HubSpot gave to others, replayed over HTTP: the connector takes each as what it was.

The recordings stand beside the repository and are not part of it; each carries the readings that are acceptable.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.hubspot import HubSpot, HubSpotConfig
from backhaul.destinations.kit import Answer, Wire
from backhaul.errors import BackhaulError, Halt, Refused, Throttled
from backhaul.testing.batches import RecordBatch
from backhaul.types import Delivered, Field, Op, Outcomes, Rejected

SHARED = Path(os.environ.get("BACKHAUL_SHARED") or Path(__file__).parents[3] / "shared")
FILE = SHARED / "reference" / "vendor-recordings" / "hubspot.json"
RECORDINGS: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
ABSENT = pytest.mark.skipif(not RECORDINGS, reason="no recorded answers: set BACKHAUL_SHARED to their folder")
OPS = {"/batch/create": Op.INSERT, "/batch/update": Op.UPDATE, "/batch/archive": Op.DELETE}
FRAMING = ("content-encoding", "content-length", "transfer-encoding", "connection")


def path_of(recording: dict[str, Any]) -> str:
    return str(recording["expected_request"]["url"]).split("?")[0]


def written() -> list[Any]:
    """The recordings of batch endpoints that the connector writes to."""
    chosen = [one for one in RECORDINGS if "/crm/v3/objects/" in path_of(one) and path_of(one).endswith(tuple(OPS))]
    return [pytest.param(one, id=one["id"]) for one in chosen]


class Replay:
    """Answers every request with one recording, and keeps what it was asked."""

    recording: dict[str, Any]
    asked: tuple[str, str, bytes]

    async def answer(self, request: web.Request) -> web.Response:
        self.asked = (request.method, request.path, await request.read())
        response = self.recording["response"]
        body = response["body"]
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        headers = {name: value for name, value in response["headers"].items() if name.lower() not in FRAMING}
        return web.Response(status=response["status"], headers=headers, body=data)


@pytest.fixture
def replay() -> Replay:
    return Replay()


@pytest.fixture
async def hubspot(replay: Replay) -> AsyncIterator[HubSpot]:
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", replay.answer)
    async with TestServer(app) as server:
        door = Door(Budget("crm", ()), 10.0)
        door.owner = HubSpot(HubSpotConfig(access_token="x", base_url=str(server.make_url("/"))), door)
        yield door.owner
        await door.close()


def readings(taken: Answer | BackhaulError) -> set[str]:
    """The names that the recordings have for what was made of an answer."""
    match taken:
        case Throttled():
            return {"throttled"}
        case Halt():
            return {"auth", "permanent"}
        case Refused():
            return {"permanent"}
        case Answer():
            return {"partial"} if b'"errors": [{' in taken.body else {"success"}
    return {"retryable"}


async def asked(hubspot: HubSpot, recording: dict[str, Any]) -> Answer | BackhaulError:
    path = "/" + path_of(recording).split("/", 3)[3]
    try:
        return await hubspot.http.request(recording["expected_request"]["method"], path)
    except BackhaulError as error:
        return error


@ABSENT
@pytest.mark.parametrize("recording", [pytest.param(one, id=one["id"]) for one in RECORDINGS])
async def test_an_answer_is_taken_as_what_it_was(recording: dict[str, Any], replay: Replay, hubspot: HubSpot) -> None:
    replay.recording = recording
    taken = await asked(hubspot, recording)
    assert readings(taken) & set(recording["acceptable"]), taken


@ABSENT
async def test_a_throttle_without_a_time_waits_for_the_window(replay: Replay, hubspot: HubSpot) -> None:
    silent = [one for one in RECORDINGS if one["response"]["status"] == 429]
    assert silent
    for replay.recording in silent:
        taken = await asked(hubspot, replay.recording)
        assert isinstance(taken, Throttled)
        assert taken.after == 10


def batch_of(recording: dict[str, Any], op: Op) -> RecordBatch:
    """The recorded request as the batch it would be here; records go by their id, new ones by their first property."""
    inputs = recording["expected_request"]["body"]["inputs"]
    kind = path_of(recording).split("/")[-3]
    if op is Op.INSERT:
        rows = [item["properties"] for item in inputs]
        name = next(iter(rows[0]))
        return RecordBatch(op, kind, (name,), tuple(map(Field, rows[0])), rows, Wire.TEXT)
    rows = [{"key": f"key {item['id']}"} | item.get("properties", {}) for item in inputs]
    fields = tuple(map(Field, rows[0] if op is Op.UPDATE else ["key"]))
    return RecordBatch(op, kind, ("key",), fields, rows, Wire.TEXT, [str(item["id"]) for item in inputs])


def records_of(outcomes: Outcomes, batch: RecordBatch) -> dict[str, type]:
    assert not outcomes.everything
    assert len({item.key for item in outcomes.items}) == len(outcomes.items)
    assert {item.key for item in outcomes.items} <= set(batch.keys)
    return {item.key: type(item) for item in outcomes.items}


@ABSENT
@pytest.mark.parametrize("recording", written())
async def test_a_recorded_batch_settles_its_records(recording: dict[str, Any], replay: Replay, hubspot: HubSpot) -> None:
    replay.recording = recording
    op = next(op for end, op in OPS.items() if path_of(recording).endswith(end))
    batch = batch_of(recording, op)
    found = records_of(await hubspot.write(batch), batch)
    assert replay.asked[1] == "/" + path_of(recording).split("/", 3)[3]
    sent, then = json.loads(replay.asked[2])["inputs"], recording["expected_request"]["body"]["inputs"]
    assert [str(item.get("id")) for item in sent] == [str(item.get("id")) for item in then]
    wanted = {"success": {Delivered}, "partial": {Delivered, Rejected}, "permanent": {Rejected}}[recording["meaning"]]
    assert set(found.values()) == wanted
    assert set(found) == set(batch.keys)


def test_the_recordings_are_those_we_mean() -> None:
    """Keeps the replay above from being empty without anybody seeing it."""
    if not RECORDINGS:
        pytest.skip("no recorded answers: set BACKHAUL_SHARED to their folder")
    assert len(written()) >= 8
    assert {one["meaning"] for one in RECORDINGS} >= {"success", "permanent", "throttled", "auth", "partial"}
