"""What a receiver of signed webhooks gets, checked with the specification's own library."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from backhaul.project import load
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving

OLD, NEW = ("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


class Receiver:
    """Verifies with the library; answers with the next of `statuses`, then 204."""

    def __init__(self) -> None:
        self.secret, self.statuses = NEW, list[int]()
        self.events: list[tuple[str, Any]] = []
        self.refused = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/hooks", self.take)
        return app

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            event = Webhook(self.secret).verify(body.decode(), dict(request.headers))
        except WebhookVerificationError:
            self.refused += 1
            return web.Response(status=401)
        self.events.append((request.headers["webhook-id"], event))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def project(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("OLD", OLD)
    monkeypatch.setenv("NEW", NEW)
    with serving(receiver.app()) as url:
        write(tmp_path, {"base_url": url})
        yield tmp_path


def write(folder: Path, keys: dict[str, Any], **sync: Any) -> None:
    known = (
        json.loads((folder / "backhaul.yml").read_text())["destinations"]["hook"]
        if (folder / "backhaul.yml").exists()
        else {}
    )
    hook = {"type": "webhook", "path": "/hooks", "secrets": ["${NEW}", "${OLD}"], **known, **keys}
    document = {
        "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"hook": hook},
    }  # fmt: skip
    (folder / "backhaul.yml").write_text(json.dumps(document))
    (folder / "syncs").mkdir(exist_ok=True)
    (folder / "syncs" / "s.yml").write_text(json.dumps({
        "name": "s", "model": {"table": "t", "primary_key": "id"}, "destination": "hook", "object": "contact",
        "mode": "mirror", "identify": {"id": "id"}, "fields": {"plan": "plan", "seats": "seats"}, **sync,
    }))  # fmt: skip
    rows(folder, "(1, 'team', 3), (2, NULL, 4)")


def rows(folder: Path, values: str) -> None:
    with opened(folder / "w.duckdb") as db:
        db.execute("CREATE OR REPLACE TABLE t (id BIGINT, plan VARCHAR, seats BIGINT)")
        db.execute(f"INSERT INTO t VALUES {values}")


def test_one_record_is_one_event(project: Path, receiver: Receiver) -> None:
    assert load(project).run("s").delivered == 2
    events = sorted((event for _, event in receiver.events), key=lambda event: event["data"]["id"])
    assert [event["type"] for event in events] == ["contact.upserted"] * 2
    assert [event["data"] for event in events] == [
        {"id": 1, "plan": "team", "seats": 3}, {"id": 2, "plan": None, "seats": 4},
    ]  # fmt: skip
    rows(project, "(1, 'team', 3)")
    assert load(project).run("s").delivered == 1
    assert receiver.events[-1][1]["type"] == "contact.deleted"
    assert receiver.events[-1][1]["data"] == {"id": 2}
    assert len({event for event, _ in receiver.events}) == 3


def test_many_records_are_a_list(project: Path, receiver: Receiver) -> None:
    write(project, {"batch_size": 100})
    load(project).run("s")
    (event,) = (event for _, event in receiver.events)
    assert sorted(record["id"] for record in event["data"]) == [1, 2]


def test_the_old_secret_still_verifies(project: Path, receiver: Receiver) -> None:
    receiver.secret = OLD
    assert load(project).run("s").delivered == 2


def test_another_secret_ends_the_run_and_rejects_nobody(project: Path, receiver: Receiver) -> None:
    write(project, {"secrets": "${OLD}"})
    run = load(project).run("s")
    assert (run.status, run.delivered, run.rejected) == ("failed", 0, 0)
    assert receiver.refused


def test_an_event_that_is_sent_again_has_the_same_id(project: Path, receiver: Receiver) -> None:
    write(project, {"batch_size": 100})
    receiver.statuses = [500]
    assert load(project).run("s").delivered == 2
    (first, one), (second, other) = receiver.events
    assert first == second
    assert one["data"] == other["data"]


def test_a_create_in_doubt_is_not_sent_again_by_itself(project: Path, receiver: Receiver) -> None:
    write(project, {}, mode="insert")
    receiver.statuses = [500, 500]
    assert load(project).run("s").unknown == 2
    assert load(project).run("s").delivered == 0
    assert len(receiver.events) == 2


def test_a_create_in_doubt_is_sent_again_where_the_receiver_remembers_ids(
    project: Path, receiver: Receiver
) -> None:
    write(project, {"idempotency_life": "1d", "batch_size": 100}, mode="insert")
    receiver.statuses = [500]
    assert load(project).run("s").delivered == 2
    assert len(receiver.events) == 2
    assert len({event for event, _ in receiver.events}) == 1


def test_a_receiver_that_is_gone(project: Path, receiver: Receiver) -> None:
    receiver.statuses = [410] * 10
    run = load(project).run("s")
    assert (run.status, run.rejected) == ("failed", 0)
    assert "is gone" in run.error


@pytest.mark.parametrize("secret", ["short", "whsec_" + base64.b64encode(b"x" * 23).decode(), "whsec_!!!"])
def test_a_secret_that_is_none(
    project: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("NEW", secret)
    run = load(project).run("s")
    assert run.status == "failed"
    assert "24 to 64 bytes" in run.error
    assert secret not in run.error
    assert not receiver.events


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (("(1, 'a', 3)", "(1, 'b', 3)", "(1, 'a', 3)"), ["upserted"] * 3),
        (
            ("(1, 'a', 3), (2, 'x', 1)", "(1, 'a', 3)") * 2,
            ["upserted"] * 2 + ["deleted", "upserted", "deleted"],
        ),
    ],
    ids=["a value", "a delete"],
)
def test_what_happens_to_a_record_again_is_another_event(
    project: Path, receiver: Receiver, states: tuple[str, ...], said: list[str]
) -> None:
    """A receiver leaves out an event whose webhook-id it has seen (Standard Webhooks specification, webhook-id)."""
    for values in states:
        rows(project, values)
        load(project).run("s")
    assert [event["type"] for _, event in receiver.events] == [f"contact.{what}" for what in said]
    assert len({event for event, _ in receiver.events}) == len(receiver.events)
