"""Refusals by class: what a run does about each, and that every command says why (docs/refusals.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from sites import Site, outcome

Answering = Callable[..., list[str]]


class Api:
    """An API whose verdict on a request is `judge(ids)`: None, or a status and a body. `judge_one(record)` refuses single records."""

    def __init__(self) -> None:
        self.judge: Callable[[list[int]], tuple[int, Any] | None] = lambda ids: None
        self.judge_one: Callable[[dict[str, Any]], dict[str, str] | None] = lambda record: None
        self.held: dict[int, dict[str, Any]] = {}
        self.requests: list[list[int]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        records = (await request.json())["records"]
        ids = [record["id"] for record in records]
        self.requests.append(ids)
        verdict = self.judge(ids)
        if verdict is not None:
            return web.json_response(verdict[1], status=verdict[0])
        results = []
        for record in records:
            error = self.judge_one(record)
            results.append({"id": record["id"], "status": "error" if error else "ok", "error": error})
            if not error:
                self.held[record["id"]] = record
        return web.json_response({"results": results})


def start(site: Site, answering: Answering, rows: int, *, size: int = 100, **settings: Any) -> Api:
    api = Api()
    site.sync = {"mode": "upsert", "freshness": {"sample": 0}}
    site.batch_size = size
    answering(api, **settings)
    site.fill(rows)
    return api


def test_i13_five_bad_of_six_are_rejected_and_the_sixth_is_delivered(
    site: Site, answering: Answering
) -> None:
    api = start(site, answering, 6)
    api.judge = lambda ids: (422, {"message": "plan is bad"}) if set(ids) & {0, 1, 2, 3, 4} else None
    report = site.run().report
    assert outcome(report) == {"rejected": 5, "delivered": 1}
    assert (report.exit_code, set(api.held)) == (3, {5})
    assert [(one["code"], one["count"], one["class"], one["message"]) for one in report.refused] == [
        ("422", 5, "record", "HTTP 422: plan is bad")
    ]
    site.sql("insert into t select 10 + i, 'new', 0 from range(6) x(i)")
    api.judge = lambda ids: (422, {"message": "plan is bad"})
    report = site.run().report  # the code is known to be about records
    assert outcome(report) == {"rejected": 6}
    assert len(site.letters()) == 11


def test_i45_a_plan_that_is_used_up_defers_and_makes_no_dead_letters(
    site: Site, answering: Answering
) -> None:
    api = start(site, answering, 50, size=10, concurrency=1)
    said = "monthly quota of your plan is used up"
    api.judge = lambda ids: (402, {"message": said}) if len(api.requests) > 1 else None
    report = site.run().report
    assert outcome(report) == {"delivered": 10, "deferred": 40}
    assert (report.exit_code, report.status, site.letters()) == (3, "deferred", [])
    assert said in str(report.error)
    assert len(api.requests) == 4
    assert [(one["status"], one["code"], one["class"]) for one in report.refused] == [
        ("deferred", "402", "capacity")
    ]
    with site.project as project:
        assert said in str(project.status()[0]["last_run"])
        assert "HTTP 402" in project.why("users", "20", offline=True)["summary"]
    api.judge = lambda ids: None
    report = site.run().report
    assert (report.exit_code, report.delivered, len(api.held)) == (0, 40, 50)


def test_i45_no_room_for_single_records_defers_them_too(site: Site, answering: Answering) -> None:
    api = start(site, answering, 20, size=20, refusals={"STORAGE_LIMIT_EXCEEDED": "capacity"})
    api.judge_one = lambda record: {"code": "STORAGE_LIMIT_EXCEEDED", "message": "storage limit exceeded"}
    report = site.run().report
    assert outcome(report) == {"deferred": 20}
    assert site.letters() == []
    assert "storage limit exceeded" in str(report.error)
    api.judge_one = lambda record: None
    assert site.run().report.delivered == 20


def test_i45_a_missing_reference_waits_and_needs_no_person(site: Site, answering: Answering) -> None:
    api = start(site, answering, 4, refusals={"NO_PARENT": "reference_missing"})
    missing = {"code": "NO_PARENT", "message": "no such company"}
    api.judge_one = lambda record: missing if record["id"] == 2 else None
    report = site.run().report
    assert outcome(report) == {"delivered": 3, "deferred": 1}
    assert (report.exit_code, report.refused[0]["status"]) == (3, "waiting")
    assert "wait for a record that they refer to (NO_PARENT: no such company)" in str(report.error)
    assert [(one["status"], one["class"], one["runs"]) for one in site.letters()] == [
        ("waiting", "reference_missing", 1)
    ]
    with site.project as project:
        assert project.status()[0]["records"]["pending"] == 1
        assert [one["key"] for one in project.records("users", "pending")] == [2]
        assert "Waiting for another record" in project.why("users", "2", offline=True)["summary"]
    assert site.run().report.exit_code == 3
    api.judge_one = lambda record: None
    assert outcome(site.run().report) == {"delivered": 1}
    assert site.letters() == []


def test_i45_a_reference_that_never_comes_is_a_dead_letter_after_ten_runs(
    site: Site, answering: Answering
) -> None:
    api = start(site, answering, 1, refusals={"NO_PARENT": "reference_missing"})
    api.judge_one = lambda record: {"code": "NO_PARENT", "message": "no such company"}
    ends = [outcome(site.run().report) for _ in range(11)]
    assert ends == [{"deferred": 1}] * 9 + [{"rejected": 1}, {}]
    assert [(one["status"], one["class"]) for one in site.letters()] == [("dead", "reference_missing")]
    site.sql("update t set name = 'other'")
    assert outcome(site.run().report) == {"deferred": 1}  # another value is tried as often


def test_i45_what_the_plan_itself_brings_is_sent_again_in_the_same_run(
    site: Site, answering: Answering
) -> None:
    """A chain: each record needs the one after it."""
    api = start(site, answering, 4, size=1, concurrency=1, refusals={"NO_PARENT": "reference_missing"})
    missing = {"code": "NO_PARENT", "message": "no such parent"}
    api.judge_one = lambda record: None if record["id"] == 3 or record["id"] + 1 in api.held else missing
    report = site.run().report
    assert (outcome(report), report.exit_code) == ({"delivered": 4}, 0)
    assert site.letters() == []
    assert outcome(site.run().report) == {}


def test_i13_a_403_of_one_record_is_that_records(site: Site, answering: Answering) -> None:
    api = start(site, answering, 100, size=10)
    api.judge = lambda ids: (403, {"message": "not yours"}) if 57 in ids else None
    report = site.run().report
    assert outcome(report) == {"delivered": 99, "rejected": 1}
    assert [(one["key"], one["error"]["code"]) for one in site.letters()] == [(57, "403")]


def test_i13_a_403_of_every_record_stops_the_run_at_once(site: Site, answering: Answering) -> None:
    api = start(site, answering, 1000, size=100, concurrency=1)
    api.judge = lambda ids: (403, {"message": "no scope"})
    report = site.run().report
    assert (report.status, report.exit_code, site.letters()) == ("failed", 1, [])
    assert "no scope" in str(report.error)
    assert len(api.requests) <= 10
    api.judge = lambda ids: None
    assert site.run().report.delivered == 1000


def test_replayed_letters_that_are_refused_again_stop_nothing(site: Site, answering: Answering) -> None:
    api = start(site, answering, 400)
    api.judge_one = lambda record: {"code": "BAD", "message": "bad"} if record["id"] % 7 == 0 else None
    assert outcome(site.run().report) == {"delivered": 342, "rejected": 58}
    with site.project as project:
        project.mark_dead_letters([one["id"] for one in project.dead_letters("users")], "replay")
    site.sql("insert into t values (1002, 'new', 0)")
    report = site.run().report
    assert (outcome(report), report.status) == ({"delivered": 1, "rejected": 58}, "partial")
    assert len(site.letters()) == 58


def test_unknown_records_have_a_reason(site: Site, answering: Answering) -> None:
    api = start(site, answering, 3)
    site.sync |= {"mode": "insert"}
    site.write()
    api.judge = lambda ids: (500, {"message": "it broke"})
    answering(api)
    report = site.run().report
    assert (outcome(report), report.exit_code) == ({"unknown": 3}, 3)
    assert [(one["status"], one["count"], one["message"]) for one in report.refused] == [
        ("unknown", 3, "HTTP 500: it broke")
    ]
    assert json.loads(json.dumps(report.json()))["refused"] == report.refused


def test_people_are_told_the_destinations_words_everywhere(site: Site, answering: Answering) -> None:
    api = start(site, answering, 10, refusals={"NO_PARENT": "reference_missing"})
    errors = {
        2: {"code": "NO_PARENT", "message": "no such company"},
        3: {"code": "BAD", "message": "name is odd"},
    }
    api.judge_one = lambda record: errors.get(record["id"])

    def said(*arguments: str) -> str:
        return site.call(*arguments).stdout

    run = said("run")
    assert "1 × BAD name: name is odd" in run
    assert "1 waiting × NO_PARENT: no such company" in run
    for command in (("status",), ("dead-letters", "list", "--all"), ("why", "users", "3", "--offline")):
        assert "name is odd" in said(*command), command
    assert "no such company" in said("why", "users", "2", "--offline")


def test_i48_reports_and_status_do_not_repeat_values_that_a_message_quotes(
    site: Site, answering: Answering
) -> None:
    api = start(site, answering, 3)
    site.sql("update t set name = 'Ada King of Lovelace' where id = 1")
    api.judge_one = lambda record: (
        {"code": "BAD", "message": f"the name {record['name']} is odd"} if record["id"] == 1 else None
    )
    report = site.run().report
    assert [one["message"] for one in report.refused] == ["the name <value> is odd"]
    for command in (("status",), ("runs",), ("status", "--json"), ("runs", "--json")):
        said = site.command(*command).communicate(timeout=60)[0]
        assert "users" in said
        assert "Lovelace" not in said, command


def test_i48_reports_and_status_do_not_repeat_a_value_that_does_not_fit(
    site: Site, answering: Answering
) -> None:
    start(site, answering, 3)
    site.sql("update t set name = 'Lovelace' where id = 1")
    score = {"value": "case when id = 1 then name else id::varchar end", "type": "integer"}
    site.sync |= {"fields": {"score": score}}
    site.write()
    report = site.run().report
    assert [one["message"] for one in report.refused] == ["score: <value> does not fit integer"]
    for command in (("status",), ("runs",), ("status", "--json"), ("runs", "--json"), ("plan",)):
        said = site.command(*command).communicate(timeout=60)[0]
        assert "Lovelace" not in said, command


@pytest.mark.parametrize(("status", "size"), [(422, 100), (422, 1), (403, 1), (403, 20)])
def test_i13_bad_rows_at_the_beginning_of_a_plan_stop_nothing(
    site: Site, answering: Answering, status: int, size: int
) -> None:
    """Rows further back are tried before the settings are suspected, and the rest is sent in the same run."""
    api = start(site, answering, 300, size=size, concurrency=1)
    api.judge = lambda ids: (status, {"message": "not this one"}) if min(ids) < 55 else None
    report = site.run().report
    assert outcome(report) == {"delivered": 245, "rejected": 55}
    assert (report.exit_code, len(site.letters()), set(api.held)) == (3, 55, set(range(55, 300)))
