"""Creates whose end nobody knows: with an idempotency key, with a look-up, with neither; over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from aiohttp import web
from killing import forks
from sites import Site
from test_crash_table import run_to_death
from tests.waiting import HANGS

from backhaul.config import find_root, load
from backhaul.project import Project
from backhaul.state.clock import Machine, this_machine
from backhaul.surroundings import Surroundings

FOUND = {"index_lag": "1ms", "id": "_id"}


def inserting(site: Site, *, keyed: str = "", lookup: dict[str, Any] | None = None, **sync: Any) -> Site:
    """A project of ten creates in two requests."""
    site.batch_size = 5
    site.api = {"concurrency": 2, "timeout": "0.4s"}
    if keyed:
        site.api |= {"idempotency_header": "Idempotency-Key", "idempotency_life": keyed}
    site.lookup = lookup or {}
    site.sync = {"freshness": {"sample": 0}, "mode": "insert", **sync}
    site.sink.honours_keys = bool(keyed)
    site.write()
    return site.fill(10)


def statuses(site: Site) -> dict[str, int]:
    with site.project as project:
        (health,) = project.status(["users"])
        counted = {name: count for name, count in health["records"].items() if count}
        listed: dict[str, int] = {}
        for record in project.records("users"):
            listed[record["status"]] = listed.get(record["status"], 0) + 1
    assert counted == listed
    return counted


def silent(site: Site, **switches: Any) -> None:
    """The destination applies what it is sent and never answers in time."""
    site.sink.faults.silence = 5.0
    for name, value in switches.items():
        setattr(site.sink.faults, name, value)


def test_i16_a_create_without_key_or_look_up_is_never_sent_again(site: Site) -> None:
    inserting(site)
    silent(site)
    report = site.run().report
    assert (report.unknown, report.delivered) == (10, 0)
    site.sink.faults.silence = 0.0
    assert site.run().report.requests == 0
    site.sql("update t set v = v + 1")
    assert site.run().report.requests == 0
    assert set(site.sink.creates.values()) == {1}
    assert statuses(site) == {"unknown": 10}


def test_at_least_once_sends_again_what_nobody_can_look_up(site: Site) -> None:
    inserting(site, unknown="at_least_once")
    site.sink.faults.reset_after = 1.0
    assert site.run().report.unknown == 10
    site.sink.faults.reset_after = 0.0
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 10)
    assert statuses(site) == {"acknowledged": 10}
    assert min(site.sink.creates.values()) > 1


def test_i15_a_create_with_a_key_is_repeated_with_key_and_body_within_the_run(site: Site) -> None:
    inserting(site, keyed="1d")
    site.sink.faults.reset_after = 0.5
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 10), report.error
    assert report.retries
    assert set(site.sink.creates.values()) == {1}
    bodies: dict[str | None, set[tuple[str, ...]]] = {}
    for seen in site.sink.seen:
        bodies.setdefault(seen.idempotency_key, set()).add(tuple(seen.keys))
    assert [len(rows) for rows in bodies.values()] == [1, 1]


def test_i15_the_next_run_repeats_it_with_the_same_key_and_body_and_a_new_value_gets_another(
    site: Site,
) -> None:
    inserting(site, keyed="1d")
    silent(site)
    assert site.run().report.unknown
    keys = {seen.idempotency_key for seen in site.sink.seen}
    site.sink.faults.silence = 0.0
    site.sql("update t set v = v + 1", "insert into t values (77, 'later', 1)")
    since = len(site.sink.seen)
    report = site.run().report
    assert report.status == "succeeded", report.error
    again = {seen.idempotency_key for seen in site.sink.seen[since:] if "77" not in seen.keys}
    assert again <= keys
    assert {seen.idempotency_key for seen in site.sink.seen[since:] if "77" in seen.keys}.isdisjoint(keys)
    assert set(site.sink.creates.values()) == {1}
    assert statuses(site) == {"acknowledged": 11}
    assert site.rows("SELECT count(*) FROM plans WHERE status <> 'reviewed'") == [(0,)]
    assert site.run().report.requests == 0


def test_a_key_that_is_too_old_is_not_used_again(site: Site) -> None:
    inserting(site, keyed="1s")
    silent(site)
    assert site.run().report.unknown
    site.sink.faults.silence = 0.0
    time.sleep(1.1)
    assert site.run().report.delivered == 0 or set(site.sink.creates.values()) == {1}
    assert statuses(site)["unknown"]
    assert site.rows("SELECT count(*) FROM intents") == [(0,)]
    assert set(site.sink.creates.values()) == {1}


@pytest.mark.parametrize("point", ["intended", "sent", "answered"])
@pytest.mark.parametrize("how", ["key", "look-up"])
def test_a_killed_create_becomes_one_record(site: Site, point: str, how: str) -> None:
    inserting(site, keyed="1d" if how == "key" else "", lookup=FOUND if how == "look-up" else None)
    process = forks().Process(target=run_to_death, args=(site.root, point))
    process.start()
    process.join(HANGS)
    report = site.run().report
    assert report.status == "succeeded", report.error
    assert site.sink.records == site.model()
    assert set(site.sink.creates.values()) == {1}
    assert statuses(site) == {"acknowledged": 10}
    site.run()  # those created after an empty look-up are looked up once more
    assert site.run().report.requests == 0


def test_i17_an_empty_look_up_before_the_lag_is_no_evidence(site: Site) -> None:
    inserting(site, lookup={"index_lag": "1s", "id": "_id"})
    silent(site, index_lag=0.9)
    assert site.run().report.unknown
    site.sink.faults.silence = 0.0
    report = site.run().report
    assert report.status == "succeeded", report.error
    assert set(site.sink.creates.values()) == {1}
    assert statuses(site) == {"acknowledged": 10}
    with site.project as project:
        found = {record["key"]: record["remote_id"] for record in project.records("users")}
    assert found[0] == "0-0"


def test_what_is_not_there_is_created_once_and_looked_for_again(
    site: Site, faulty: Callable[..., None]
) -> None:
    inserting(site, lookup=FOUND)
    faulty(reset_before=1.0)
    assert site.run().report.unknown
    faulty()
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 10)
    assert set(site.sink.creates.values()) == {1}
    site.sink.creates["3"] = 2  # the first request was applied after all, late
    site.run()
    assert statuses(site) == {"acknowledged": 9, "quarantined": 1}
    assert site.run().report.requests == 0


def test_i14_several_records_are_quarantined_and_reported(site: Site) -> None:
    inserting(site, lookup=FOUND)
    silent(site)
    assert site.run().report.unknown
    site.sink.faults.silence = 0.0
    site.sink.creates["4"] = 3
    site.run()
    assert statuses(site) == {"acknowledged": 9, "quarantined": 1}
    with site.project as project:
        assert [record["key"] for record in project.records("users", status="quarantined")] == [4]
    site.run()
    assert site.sink.creates["4"] == 3


def test_a_row_that_left_the_model_meanwhile_is_forgotten(site: Site, faulty: Callable[..., None]) -> None:
    inserting(site, lookup=FOUND)
    faulty(reset_before=1.0)
    site.run()
    faulty()
    site.sql("delete from t where id = 0")
    site.run()
    assert "0" not in site.sink.creates
    assert statuses(site) == {"acknowledged": 9}


def test_a_destination_that_is_away_leaves_creates_unknown_and_ends_no_run(site: Site) -> None:
    inserting(site, lookup=FOUND)
    silent(site)
    site.run()
    site.servers.stop()
    report = site.run().report
    assert (report.status, report.undecided) == ("partial", 10), report.error
    assert "could not be looked up" in str(report.hint)
    assert statuses(site) == {"unknown": 10}


def test_when_a_row_became_unknown_is_in_the_ledger(site: Site) -> None:
    inserting(site)
    silent(site)
    site.run()
    with duckdb.connect(str(site.ledger), read_only=True) as ledger:
        ages = ledger.execute("SELECT epoch(now() AT TIME ZONE 'UTC' - _since) FROM acked").fetchall()
    assert all(0 <= age < 60 for (age,) in ages)


def test_i15_a_refused_record_waits_for_the_request_it_is_in(
    site: Site, answering: Callable[..., list[str]]
) -> None:
    """While a request is in doubt it is sent again as it was: a newer value of a record that it holds, refused or not, under
    another key would be a second create."""
    sent: list[tuple[str, dict[str, Any]]] = []
    settled = False

    async def answer(request: web.Request) -> web.Response:
        records = {one["id"]: one for one in (await request.json())["records"]}
        sent.append((request.headers["Idempotency-Key"], records))
        results = [
            {"id": key, "status": "ok"}
            if one["name"] != "bad"
            else {"id": key, "status": "no", "error": "bad"}
            for key, one in records.items()
            if settled or key != 2
        ]
        return web.json_response({"results": results})

    answering(answer, idempotency_header="Idempotency-Key", idempotency_life="1d")
    site.sync = {"freshness": {"sample": 0}, "mode": "insert"}
    site.write()
    report = site.fill(3).sql("update t set name = 'bad' where id = 1").run().report
    assert (report.delivered, report.rejected, report.unknown) == (1, 1, 1)
    site.sql("update t set name = 'good' where id = 1").run()
    assert {key for key, records in sent if 1 in records} == {sent[0][0]}
    assert statuses(site)["rejected"] == 1
    settled = True
    assert site.run().report.status == "partial"
    assert site.run().report.status == "succeeded"
    assert statuses(site) == {"acknowledged": 3}
    assert [records[1]["name"] for key, records in sent if key != sent[0][0]] == ["good"]
    assert site.letters() == []


def run_later(site: Site, *, elapsed: float = 0.0, wall: float = 0.0) -> dict[str, Any]:
    """A run after so many seconds, on a machine whose wall clock was set by so many more."""
    here = this_machine()
    around = Surroundings(wall=lambda: time.time() + elapsed + wall)
    with Project(load(find_root(site.root))) as project:
        project.workspace.surroundings = around
        project.workspace.state.machine = Machine(here.boot, lambda: here.elapsed() + elapsed, around.wall)
        found: dict[str, Any] = project.run("users").report.json()
        return found


@pytest.mark.parametrize("days", [-1, 1, 400])
def test_i47_the_index_lag_is_over_when_it_is_whatever_the_wall_clock_says(site: Site, days: int) -> None:
    inserting(site, lookup={"index_lag": "30m", "id": "_id"})
    silent(site)
    assert site.run().report.unknown
    site.sink.faults.silence = 0.0
    assert run_later(site, wall=days * 86_400.0)["requests"] == 0
    assert statuses(site) == {"unknown": 10}
    assert run_later(site, elapsed=1_900.0, wall=days * 86_400.0)["status"] == "succeeded"
    assert set(site.sink.creates.values()) == {1}
    assert statuses(site) == {"acknowledged": 10}


def test_i47_a_wall_clock_that_was_set_back_gives_a_key_no_longer_life(site: Site) -> None:
    inserting(site, keyed="20m")
    silent(site)
    assert site.run().report.unknown
    site.sink.faults.silence = 0.0
    seen = len(site.sink.seen)
    run_later(site, elapsed=1_300.0, wall=-3_600.0)
    assert not site.sent(seen)
    assert set(site.sink.creates.values()) == {1}
