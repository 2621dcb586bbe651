"""What becomes of records that the destination had acknowledged and holds no more."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sites import RESULTS, Site
from tests.waiting import HANGS

import backhaul
from backhaul.runs.report import RunReport
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving


def updating(site: Site, **keys: Any) -> Site:
    """A sync that updates what the sink holds; all three rows are acknowledged, and then row 1 is lost and changes."""
    write = {"batch_size": 100, "results": RESULTS, "body": {"records": "$records"}}
    user = {
        "key": "id",
        "update": {"request": "POST /update", **write},
        "upsert": {"request": "POST /upsert", **write},
    }
    site.api, site.sync = {"objects": {"user": user}}, {"mode": "update", **keys}
    site.write()
    site.fill(3)
    site.sink.records.update({str(key): {"id": key} for key in range(3)})
    assert site.run().report.delivered == 3
    del site.sink.records["1"]
    return site.sql("update t set name = 'newer' where id > 0")


def paths(site: Site, since: int) -> list[tuple[str, list[str]]]:
    return [(seen.path, seen.keys) for seen in site.sink.seen[since:]]


def test_what_is_gone_is_made_again_within_the_run(site: Site) -> None:
    updating(site, gone="recreate")
    before = len(site.sink.seen)
    report = site.run().report
    assert (report.status, report.delivered, report.recreated) == ("succeeded", 2, 1)
    assert paths(site, before) == [("/update", ["1", "2"]), ("/upsert", ["1"])]
    assert site.sink.records == site.model() | {"0": site.sink.records["0"]}
    assert site.run().report.requests == 0


def test_an_update_rejects_what_is_gone_unless_told_otherwise(site: Site) -> None:
    updating(site)
    report = site.run().report
    assert (report.status, report.delivered, report.rejected, report.recreated) == ("partial", 1, 1, 0)
    (letter,) = site.letters()
    assert (letter["key"], letter["error"]["code"], letter["op"]) == (1, "404", "update")
    assert "1" not in site.sink.records
    assert site.run().report.requests == 0  # a dead letter is not sent again as it is


def test_what_was_never_acknowledged_is_not_made(site: Site) -> None:
    updating(site, gone="recreate").run()
    site.sql("insert into t values (7, 'new', 1)")
    report = site.run().report
    assert (report.rejected, report.recreated) == (1, 0)
    assert "7" not in site.sink.records


def test_what_is_in_doubt_and_was_never_acknowledged_is_not_made(
    site: Site, faulty: Callable[..., None]
) -> None:
    updating(site, gone="recreate").run()
    site.sql("insert into t values (7, 'new', 1)")
    faulty(status_500=1.0)
    assert site.run().report.unknown == 1
    faulty()
    report = site.run().report
    assert (report.rejected, report.recreated) == (1, 0)
    assert "7" not in site.sink.records


def test_a_refused_remake_is_a_dead_letter_of_its_own(site: Site, faulty: Callable[..., None]) -> None:
    updating(site, gone="recreate")
    report_of = site.sink.refused
    site.sink.refused = lambda key: key == "1" and site.sink.seen[-1].path == "/upsert"  # type: ignore[method-assign]
    report = site.run().report
    site.sink.refused = report_of  # type: ignore[method-assign]
    assert (report.status, report.delivered, report.rejected) == ("partial", 1, 1)
    assert [letter["error"]["message"] for letter in site.letters()] == ["1 is not welcome"]


def test_a_remake_without_an_answer_is_sent_again(site: Site) -> None:
    """The whole of it is one batch: what is in doubt is repeated as an upsert, and counted once."""
    updating(site, gone="recreate")
    apply, lost = site.sink._apply, []

    def deaf(request: web.Request, *rest: Any) -> web.Response:
        answer = apply(request, *rest)
        if request.path == "/upsert" and not lost:
            lost.append(request.path)
            return web.Response(status=500)
        return answer

    site.sink._apply = deaf  # type: ignore[method-assign]
    report = site.run().report
    assert (report.status, report.delivered, report.recreated) == ("succeeded", 2, 1)
    assert site.sink.records["1"]["name"] == "newer"
    assert site.sink.creates == {"1": 1}


@pytest.mark.parametrize("status", [404, 410])
def test_a_status_that_says_gone_counts_as_well(site: Site, status: int) -> None:
    """One record a request: the API has no other way to say so."""
    held = {"0", "1", "2"}
    asked: list[str] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        key = str((await request.json())["id"])
        asked.append(f"{request.method} {key}")
        if request.method == "PATCH" and key not in held:
            return web.json_response({"message": "no such user"}, status=status)
        held.add(key)
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/user", serve)
    user = {
        "key": "id",
        "update": {"request": "PATCH /user", "body": "$record"},
        "upsert": {"request": "PUT /user", "body": "$record"},
    }
    site.api = {"base_url": f"http://127.0.0.1:{site.servers.start(app)}", "objects": {"user": user}}
    site.sync = {"mode": "update", "gone": "recreate", "freshness": {"sample": 0}}
    site.write()
    assert site.fill(3).run().report.delivered == 3
    held.discard("1")
    asked.clear()
    report = site.sql("update t set name = 'newer' where id = 1").run().report
    assert (report.status, report.recreated, asked) == ("succeeded", 1, ["PATCH 1", "PUT 1"])


def test_a_delete_of_what_is_gone_is_done(site: Site) -> None:
    """A connector that says so of a record is believed the first time; a bare 404 may be a wrong address."""
    answer = {"results": [{"id": "1", "status": "absent"}]}

    async def serve(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        records = [{"id": record["id"], "status": "ok"} for record in body.get("records", ())]
        return web.json_response({"results": records} if records else answer)

    app = web.Application()
    app.router.add_post("/{path}", serve)
    results = RESULTS | {"gone": "status == 'absent'"}
    write = {"batch_size": 100, "results": results}
    user = {
        "key": "id",
        "upsert": {"request": "POST /upsert", "body": {"records": "$records"}, **write},
        "delete": {"request": "POST /delete", "body": {"ids": "$keys"}, **write},
    }
    site.api = {"base_url": f"http://127.0.0.1:{site.servers.start(app)}", "objects": {"user": user}}
    site.sync = {"freshness": {"sample": 0}}
    site.write()
    site.fill(3).run()
    report = site.sql("delete from t where id = 1").run().report
    assert (report.status, report.delivered, report.rejected) == ("succeeded", 1, 0)
    assert site.run().report.changes["delete"] == 0


def test_recreate_needs_an_upsert(site: Site) -> None:
    update = {"request": "POST /update", "body": {"records": "$records"}, "batch_size": 100}
    site.api = {"objects": {"user": {"key": "id", "update": update}}}
    site.sync = {"mode": "update", "gone": "recreate"}
    site.write()
    report = site.fill(1).run().report
    assert (report.exit_code, site.sink.seen) == (2, [])
    assert report.error is not None
    assert "`gone: recreate`" in report.error
    with site.project as project:
        assert any(
            not check.ok and "gone: recreate" in check.message
            for check in asyncio.run(project.check(project.sync("users")))
        )


@pytest.fixture
def crm() -> Iterator[tuple[HubSpotSandbox, str]]:
    sandbox = HubSpotSandbox()
    with serving(sandbox.app()) as url:
        yield sandbox, url


def moved(folder: Path, sandbox: HubSpotSandbox, url: str, **keys: Any) -> RunReport:
    """A contact that HubSpot has acknowledged is deleted there, and its e-mail changes in the model."""
    (folder / "syncs").mkdir()
    hubspot = {"type": "hubspot", "base_url": url, "access_token": "local-sandbox"}
    (folder / "backhaul.yml").write_text(json.dumps({
        "project": "t", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"crm": hubspot},
    }))  # fmt: skip
    (folder / "syncs" / "people.yml").write_text(json.dumps({
        "name": "people", "model": {"table": "t", "primary_key": "id"}, "destination": "crm", "object": "contacts",
        "identify": {"email": "email"}, "fields": {"city": "city"}, **keys,
    }))  # fmt: skip

    def run(sql: str) -> RunReport:
        with opened(folder / "w.duckdb") as warehouse:
            warehouse.execute(sql)
        with backhaul.load(folder) as project:
            return project.run("people").report

    first = "SELECT i AS id, 'p' || i || '@example.com' AS email, 'Oslo' AS city FROM range(3) AS x(i)"
    assert run(f"CREATE TABLE t AS {first}").delivered == 3
    contacts = sandbox.types["contacts"]
    lost = contacts.find("email", "p1@example.com")
    assert lost is not None
    contacts.remove(lost)
    return run("UPDATE t SET email = 'moved' || id || '@example.com' WHERE id > 0")


def test_a_known_record_that_is_gone_is_made_again_under_its_new_identifier(
    tmp_path: Path, crm: tuple[HubSpotSandbox, str]
) -> None:
    sandbox, url = crm
    report = moved(tmp_path, sandbox, url)
    assert (report.status, report.delivered, report.recreated) == ("succeeded", 2, 1)
    records = sandbox.types["contacts"].records.values()
    assert {record.properties["email"] for record in records} == {
        f"{name}@example.com" for name in ("p0", "moved1", "moved2")
    }
    with backhaul.load(tmp_path) as project:
        known = {record["key"]: record["remote_id"] for record in project.records("people")}
    found = sandbox.types["contacts"].find("email", "moved1@example.com")
    assert found is not None
    assert known[1] == str(found.id)


def test_an_upsert_rejects_what_is_gone_if_told_so(tmp_path: Path, crm: tuple[HubSpotSandbox, str]) -> None:
    report = moved(tmp_path, *crm, gone="reject")
    assert (report.status, report.delivered, report.rejected) == ("partial", 1, 1)
    with backhaul.load(tmp_path) as project:
        (letter,) = project.dead_letters("people")
    assert (letter["key"], letter["error"]["code"]) == (1, "OBJECT_NOT_FOUND")


@pytest.mark.parametrize("place", ["answered:1", "answered:2", "acknowledged"])
def test_i5_killed_while_it_is_made_again_it_is_made_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Its intent covers both requests: after the answer that it is gone, after the remake's, and after the outcome."""
    updating(site, gone="recreate")
    monkeypatch.setenv("BACKHAUL_FAILPOINT", place)
    process = site.command("run")
    assert process.wait(HANGS) == -signal.SIGKILL
    monkeypatch.delenv("BACKHAUL_FAILPOINT")
    site.run()
    site.run()
    assert site.sink.records == site.model() | {"0": site.sink.records["0"]}
    assert site.sink.creates == {"1": 1}
    with site.project as project:
        assert {record["status"] for record in project.records("users")} == {"acknowledged"}
