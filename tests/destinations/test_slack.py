"""Messages in Slack: what the connector makes of its answers, recorded ones among them, and what a run posts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.kit import Http
from backhaul.destinations.slack import Slack, SlackConfig
from backhaul.errors import Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.project import load
from backhaul.sandbox.kit import Faults
from backhaul.sandbox.slack import SlackSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, Op

GENERAL = "C04KB5X4D"
EVERY = recordings("slack")
FILES = [item for item in EVERY if "files.slack.com" in item["expected_request"]["url"]]
"""Uploads of files, answered in plain text: nothing that the connector calls."""


def make(url: str, http: Http) -> Slack:
    return Slack(SlackConfig(base_url=url, token="xoxb-t"), http)


def batch(**record: Any) -> RecordBatch:
    fields = (Field("id"), *(Field(name) for name in record))
    return RecordBatch(Op.INSERT, f"channels/{GENERAL}", ("id",), fields, [{"id": "1", **record}])


@pytest.mark.skipif(not EVERY, reason="no recorded answers of Slack are there")
@pytest.mark.parametrize(
    "recording", [item for item in EVERY if item not in FILES], ids=lambda item: item["id"]
)
async def test_a_recorded_answer_is_understood(recording: Recording) -> None:
    """None is of chat.postMessage: what is read of each, `ok` and `error`, is the same for all methods."""
    async with answering(lambda _: recorded_answer(recording), make) as slack:
        assert await meaning(slack, batch(text="x")) in recording["acceptable"]


@pytest.mark.skipif(not EVERY, reason="no recorded answers of Slack are there")
def test_all_are_replayed_but_those_that_say_why_not() -> None:
    assert (len(EVERY), len(FILES)) == (8, 2)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"ok": False, "error": "token_revoked"}, Halt),
        (200, {"ok": False, "error": "missing_scope", "needed": "chat:write"}, Halt),
        (200, {"ok": False, "error": "ratelimited"}, Throttled),
        (429, {"ok": False, "error": "ratelimited"}, Throttled),
        (200, {"ok": False, "error": "channel_not_found"}, Refused),
        (200, {"ok": False, "error": "invalid_blocks", "response_metadata": {"messages": ["[ERROR] no more"]}}, Refused),
        (200, {"ok": False, "error": "internal_error"}, Unsettled),
        (200, {"ok": False, "error": "request_timeout"}, NotApplied),
        (200, "<html>", Unsettled),
        (502, "bad gateway", Unsettled),
    ],
)  # fmt: skip
async def test_what_an_answer_means(status: int, body: Any, expected: type[Exception]) -> None:
    def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))

    async with answering(answer, make) as slack:
        with pytest.raises(expected) as raised:
            await slack.write(batch(text="x"))
    assert type(raised.value) is expected
    if isinstance(body, dict):
        assert body["error"] in str(raised.value)


@pytest.mark.parametrize(
    ("named", "remote_id"),
    [({"channel": "C1", "ts": "1.2"}, "C1/1.2"), ({"channel": "C1"}, None), ({}, None)],
)
async def test_a_message_goes_by_the_id_that_slack_gave_it(
    named: dict[str, str], remote_id: str | None
) -> None:
    async with answering(lambda _: web.json_response({"ok": True, **named}), make) as slack:
        (outcome,) = (await slack.write(batch(text="x"))).items
    assert isinstance(outcome, Delivered)
    assert outcome.remote_id == remote_id


class Place:
    """A project with one sync into a simulated workspace."""

    def __init__(self, folder: Path, sandbox: SlackSandbox, url: str) -> None:
        self.folder, self.sandbox, self.url = folder, sandbox, url
        (folder / "syncs").mkdir()
        (folder / ".env").write_text("TOKEN=xoxb-t\n")
        destination = {
            "type": "slack",
            "base_url": f"{url}/api",
            "token": "${TOKEN}",
            "rate_limits": ["1000/1s"],
        }
        (folder / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"slack": destination},
        }))  # fmt: skip
        self.sync(f"channels/{GENERAL}")
        self.rows("(1, 'one'), (2, 'two'), (3, 'three')")

    def sync(self, object: str, **fields: str) -> None:
        (self.folder / "syncs" / "s.yml").write_text(json.dumps({
            "name": "s", "model": {"table": "t", "primary_key": "id"}, "destination": "slack", "object": object, "mode": "insert",
            "identify": {"id": "id"}, "fields": {"text": "words", **fields},
        }))  # fmt: skip

    def rows(self, values: str) -> None:
        with opened(self.folder / "w.duckdb") as db:
            db.execute("CREATE OR REPLACE TABLE t (id BIGINT, words VARCHAR)")
            db.execute(f"INSERT INTO t VALUES {values}")

    def run(self) -> Any:
        return load(self.folder).run("s")

    def posted(self, channel: str = GENERAL) -> list[str]:
        return sorted(message["text"] for message in self.sandbox.channels[channel].messages.values())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sandbox = SlackSandbox(per_second=1000)
    with serving(sandbox.app()) as url:
        yield Place(tmp_path, sandbox, url)


def test_a_record_is_posted_once(place: Place) -> None:
    assert place.run().delivered == 3
    place.rows("(1, 'changed'), (4, 'four')")
    assert place.run().delivered == 1
    assert place.posted() == ["four", "one", "three", "two"]


def test_each_record_may_name_its_channel(place: Place) -> None:
    place.sync("messages", channel="if(id = 1, 'C019CV63U', '#general')")
    assert place.run().delivered == 3
    assert (place.posted("C019CV63U"), place.posted()) == (["one"], ["three", "two"])


def test_a_message_whose_answer_was_lost_is_not_posted_again(place: Place) -> None:
    place.sandbox.faults = Faults(reset_after=1.0)
    assert place.run().unknown >= 1
    place.sandbox.faults = Faults()
    place.run()
    assert place.posted() == ["one", "three", "two"]


def test_a_record_that_slack_refuses_is_a_dead_letter(place: Place) -> None:
    place.sync("messages", channel="if(id = 2, '#old', '#general')")
    run = place.run()
    assert (run.delivered, run.rejected) == (2, 1)
    (letter,) = run.dead_letters()
    assert letter["error"]["code"] == "is_archived"


def test_a_revoked_token_rejects_nobody(place: Place) -> None:
    place.sandbox.token = "xoxb-other"
    run = place.run()
    assert (run.status, run.rejected) == ("failed", 0)
    assert "invalid_auth" in run.error


def test_slacks_own_client_drives_the_simulation(place: Place) -> None:
    client = WebClient(token="xoxb-t", base_url=f"{place.url}/api/")
    assert client.auth_test()["ok"]
    said = client.chat_postMessage(
        channel="#general",
        text="hello",
        blocks=[{"type": "section", "text": {"type": "plain_text", "text": "hello"}}],
    )
    assert said["channel"] == GENERAL
    assert place.sandbox.channels[GENERAL].messages[said["ts"]]["text"] == "hello"
    for channel, text, code in (
        ("#nowhere", "x", "channel_not_found"), ("#old", "x", "is_archived"), ("#board", "x", "not_in_channel"),
    ):  # fmt: skip
        with pytest.raises(SlackApiError) as refused:
            client.chat_postMessage(channel=channel, text=text)
        assert refused.value.response["error"] == code


async def test_one_message_a_second_in_a_channel() -> None:
    sandbox = SlackSandbox()
    with serving(sandbox.app()) as url:
        client = WebClient(token="xoxb-t", base_url=f"{url}/api/", retry_handlers=[])
        await asyncio.to_thread(client.chat_postMessage, channel="#general", text="1")
        await asyncio.to_thread(client.chat_postMessage, channel="#alerts", text="1")
        with pytest.raises(SlackApiError) as refused:
            await asyncio.to_thread(client.chat_postMessage, channel="#general", text="2")
    assert refused.value.response.headers["Retry-After"] == "1"


def test_signs_of_markup_in_a_row_are_escaped_unless_the_field_says_so(tmp_path: Path) -> None:
    sandbox = SlackSandbox(per_second=1000)
    with serving(sandbox.app()) as url:
        place = Place(tmp_path, sandbox, url)
        place.rows("(1, '<!channel> R&D > all')")
        assert place.run().report.delivered == 1
        place.sync(f"channels/{GENERAL}", text={"value": "words", "markup": True})  # type: ignore[arg-type]
        place.rows("(2, '<!here> &amp;')")
        assert place.run().report.delivered == 1
        texts = [message["text"] for message in sandbox.channels[GENERAL].messages.values()]
        assert texts == ["&lt;!channel&gt; R&amp;D &gt; all", "<!here> &amp;"]
        place.sync(f"channels/{GENERAL}", username={"value": "words", "markup": True})  # type: ignore[arg-type]
        assert "username has no markup" in str(place.run().report.error)
