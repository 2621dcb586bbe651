"""Klaviyo's lists and events: members that are named in several ways, and events that are recorded once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backhaul.project import load
from backhaul.sandbox.kit import Faults
from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving

LIST = "lists/Y6nRLr"


class Place:
    """A project with one sync into a simulated account of six profiles."""

    def __init__(self, folder: Path, url: str, sandbox: KlaviyoSandbox) -> None:
        self.folder, self.sandbox = folder, sandbox
        self.ids = [
            sandbox.store({"external_id": f"x{number}", "email": f"P{number}@example.com"})[0]
            for number in range(6)
        ]
        (folder / "syncs").mkdir()
        there = {"type": "klaviyo", "base_url": url, "api_key": "local-sandbox"}
        (folder / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"there": there},
        }))  # fmt: skip

    def run(self, object: str, rows: str, identify: dict[str, str], **keys: Any) -> Any:
        with opened(self.folder / "w.duckdb") as db:
            db.execute(f"CREATE OR REPLACE TABLE t AS {rows}")
        (self.folder / "syncs" / "s.yml").write_text(json.dumps({
            "name": "s", "model": {"table": "t", "primary_key": "id"}, "destination": "there", "object": object,
            "identify": identify, "guards": {"max_deletes": "off", "max_drop": "off"}, **keys,
        }))  # fmt: skip
        return load(self.folder).run("s")

    def members(self) -> list[int]:
        return sorted(self.ids.index(own) for own in self.sandbox.lists["Y6nRLr"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sandbox = KlaviyoSandbox(scale=100)
    with serving(sandbox.app()) as url:
        yield Place(tmp_path, url, sandbox)


@pytest.mark.parametrize(
    ("who", "expr"), [("email", "'p' || id || '@Example.com'"), ("external_id", "'x' || id"), ("id", "own")]
)
def test_members_come_and_go(place: Place, who: str, expr: str) -> None:
    """Also by an e-mail in other letters."""
    own = f"([{', '.join(map(repr, place.ids))}])[id + 1] AS own"
    run = place.run(LIST, f"SELECT id, {own} FROM range(5) s(id)", {who: expr}, mode="mirror")
    assert (run.status, run.delivered) == ("succeeded", 5), run.hint
    assert run.verified.checked > 0
    assert place.members() == [0, 1, 2, 3, 4]
    run = place.run(LIST, f"SELECT id, {own} FROM range(2, 6) s(id)", {who: expr}, mode="mirror")
    assert (run.status, run.delivered) == ("succeeded", 3)
    assert place.members() == [2, 3, 4, 5]


def test_a_member_waits_for_its_profile_and_keeps_no_other_back(place: Place) -> None:
    run = place.run(LIST, "SELECT id FROM range(9) s(id)", {"external_id": "'x' || id"})
    assert (run.status, run.delivered, run.deferred) == ("deferred", 6, 3)
    assert {letter["error"]["code"] for letter in run.dead_letters()} == {"no-such-profile"}


def test_an_id_that_is_not_there_is_found_by_halving(place: Place) -> None:
    rows = f"SELECT unnest([{', '.join(map(repr, place.ids))}, '01NOBODY']) AS id"
    run = place.run(LIST, rows, {"id": "id"})
    assert (run.status, run.delivered, run.rejected) == ("partial", 6, 1)


def test_a_list_that_is_not_there_is_named_with_those_that_are(place: Place) -> None:
    run = place.run("lists/nope", "SELECT 1 AS id", {"id": "id::varchar"})
    assert run.status == "failed"
    assert "no object 'lists/nope'" in run.error
    assert "lists/Y6nRLr" in run.hint


FIELDS = {
    "profile.external_id": "'x' || id % 6",
    "time": "now()",
    "value": "id",
    "properties.film": "'Solaris'",
}


def test_events_are_recorded_once_whatever_answers_are_lost(place: Place) -> None:
    place.sandbox.faults = Faults(reset_after=0.7)
    rows = "SELECT id FROM range(3000) s(id)"
    event: dict[str, Any] = {"mode": "insert", "fields": FIELDS}
    for _ in range(6):
        place.run("events/Rented", rows, {"unique_id": "'o' || id"}, **event)
    place.sandbox.faults = Faults()
    run = place.run("events/Rented", rows, {"unique_id": "'o' || id"}, **event)
    assert run.status == "succeeded", run.error
    assert len(place.sandbox.events) == 3000
    assert {name[1] for name in place.sandbox.events} == {"Rented"}
    run = place.run("events/Rented", "SELECT id FROM range(3001) s(id)", {"unique_id": "'o' || id"}, **event)
    assert (run.delivered, run.requests) == (1, 1)


def test_an_event_of_nobody_and_one_that_is_refused_keep_nobody_back(place: Place) -> None:
    place.sandbox.faults = Faults(refuse_key="o7")
    fields = FIELDS | {"profile.external_id": "CASE WHEN id != 3 THEN 'x' || id % 6 END"}
    rows = "SELECT id FROM range(20) s(id)"
    run = place.run("events/Rented", rows, {"unique_id": "'o' || id"}, mode="insert", fields=fields)
    assert (run.status, run.delivered, run.rejected) == ("partial", 18, 2)
    assert {letter["error"]["code"] for letter in run.dead_letters()} == {"required", "invalid"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"film": "'x'"}, "map it as properties.NAME"), ({"value": "id"}, "map one of profile.id")],
)
def test_what_events_do_not_have_ends_the_run(place: Place, fields: dict[str, str], said: str) -> None:
    run = place.run(
        "events/Rented", "SELECT 1 AS id", {"unique_id": "id::varchar"}, mode="insert", fields=fields
    )
    assert run.status == "failed"
    assert said in run.hint
    assert not place.sandbox.events
