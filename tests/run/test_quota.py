"""Quotas, shares and shared credentials, over whole runs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sites import Site

import backhaul
from backhaul.delivery.credential import bucket_of
from backhaul.delivery.transport import Internet
from backhaul.destinations.http import HttpApi
from backhaul.destinations.http.config import HttpConfig
from backhaul.destinations.kit import Answer
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.surroundings import Surroundings
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import dated, serving
from backhaul.workspace import Workspace


def later(project: Any, seconds: float, *, wall: float = 0.0) -> Any:
    """The project so many seconds later; `wall` is how much its machine's wall clock is wrong."""
    around = Surroundings(lambda: time.monotonic() + seconds, lambda: time.time() + seconds + wall)
    project.workspace = Workspace(project.config, around)
    return project


def daily(site: Site, limits: list[str], **options: Any) -> Site:
    site.api = {"rate_limits": limits, **options}
    site.sync = {"freshness": {"sample": 0}}
    site.batch_size = 10
    site.write()
    return site.fill(1000)


def test_i30_a_run_ends_at_its_quota_and_the_next_one_resumes_by_itself(site: Site) -> None:
    daily(site, ["60/1d"], share="100%")
    with later(site.project, 0) as project:
        first = project.run("users").report
    assert (first.status, first.exit_code, first.delivered, first.deferred) == ("deferred", 3, 600, 400)
    assert "the limit of 60 in 1 day is used up; it can go on in " in str(first.error)
    with later(site.project, 3600) as project:
        early = project.run("users").report
    assert (early.status, early.exit_code, early.delivered) == ("deferred", 3, 0)
    assert "it can go on in 23" in str(early.error)
    assert len(site.sink.seen) == 60
    with later(site.project, 87_000) as project:
        rest = project.run("users").report
    assert (rest.status, rest.delivered) == ("succeeded", 400)
    assert site.sink.records == site.model()


class Slow(Internet):
    """A way on which every connection takes its time."""

    async def exchange(self, *request: Any) -> Answer:
        await asyncio.sleep(0.05)
        return await super().exchange(*request)


def test_i30_who_has_the_last_places_of_a_quota_uses_them(site: Site) -> None:
    daily(site, ["60/1d"], share="100%")
    with site.project as project:
        project.workspace = Workspace(project.config, transport=Slow)
        report = project.run("users").report
    assert (report.status, report.delivered) == ("deferred", 600)
    assert len(site.sink.seen) == 60


@pytest.mark.parametrize("jump", [86_400, -86_400, 400 * 86_400, -400 * 86_400])
def test_i32_a_wall_clock_that_jumps_between_runs_gives_no_quota_and_takes_none(
    site: Site, jump: float
) -> None:
    daily(site, ["60/1d"], share="100%")
    with later(site.project, 0) as project:
        assert project.run("users").report.delivered == 600
    with later(site.project, 60, wall=jump) as project:
        assert project.run("users").report.delivered == 0
    with later(site.project, 87_000, wall=jump) as project:
        assert project.run("users").report.status == "succeeded"
    assert (len(site.sink.seen), site.sink.records) == (100, site.model())


def test_i32_the_last_run_is_the_last_one_whatever_its_clock_said(site: Site) -> None:
    """Rows: 1,000, then 600, then 400; against the first run the third would trip the guard."""
    site.sync = {"guards": {"max_deletes": "off"}, "freshness": {"sample": 0}}
    site.write()
    for rows, wall in ((1000, 400 * 86_400), (600, 0), (400, 0)):
        site.fill(rows)
        with later(site.project, 0, wall=wall) as project:
            assert project.run("users").report.status == "succeeded"
    assert site.sink.records == site.model()


def test_i30_four_fifths_of_a_daily_quota_are_used_unless_said_otherwise(site: Site) -> None:
    daily(site, ["50/1d"])
    assert site.run().report.delivered == 400
    daily(site, ["50/1d"], share="90%")
    assert site.run().report.delivered == 50


def test_a_share_is_a_part(site: Site) -> None:
    daily(site, ["50/1d"], share="150%")
    with pytest.raises(backhaul.errors.UsageError, match="share"):
        site.run()


def test_i28_read_backs_and_retries_count(site: Site, answering: Callable[..., list[str]]) -> None:
    """10 writes, one of them twice, leave 4 of 15 for reading ten records back one batch at a time."""

    async def answer(request: web.Request) -> web.Response:
        if len(asked) == 3:
            return web.json_response({}, status=500)
        body = await request.json()
        if request.path == "/read":
            return web.json_response({"results": []})
        return web.json_response({"results": [{"id": one["id"], "status": "ok"} for one in body["records"]]})

    site.api = {"rate_limits": ["11/1d"], "share": "100%"}
    site.batch_size = 10
    site.write()
    site.fill(100)
    asked = answering(answer, rate_limits=["11/1d"], share="100%")
    report = site.run().report
    assert (report.delivered, report.retries, report.verified) == (100, 1, None)
    assert len(asked) == 11
    assert "read back" in str(report.hint)


def test_i28_destinations_with_one_credential_share_its_quota(site: Site) -> None:
    daily(site, ["50/1d"], share="100%", headers={"Authorization": "${TOKEN}"})
    (site.root / ".env").write_text("TOKEN=Bearer-one\nOTHER=Bearer-two\n")
    document = json.loads((site.root / "backhaul.yml").read_text())
    api = document["destinations"]["api"]
    twin = api | {"rate_limits": ["30/1d"]}
    other = api | {"headers": {"Authorization": "${OTHER}"}}
    document["destinations"] |= {"twin": twin, "other": other}
    (site.root / "backhaul.yml").write_text(json.dumps(document))
    sync = json.loads((site.root / "syncs" / "users.yml").read_text())
    for name in ("twin", "other"):
        (site.root / "syncs" / f"{name}.yml").write_text(
            json.dumps(sync | {"name": name, "destination": name})
        )
    with site.project as project:
        delivered = [project.run(name).report.delivered for name in ("twin", "users", "other")]
    assert delivered == [300, 200, 500]
    state = (site.root / ".backhaul" / "state.db").read_bytes()
    assert b"Bearer" not in state


def test_a_bucket_is_named_by_credential_and_not_by_destination() -> None:
    def named(salt: bytes = b"s", **settings: Any) -> str:
        table = {"user": {"key": "id", "upsert": {"request": "POST /u", "body": "$records"}}}
        given = {"base_url": "https://api.example.com", "headers": {"A": "one"}, "objects": table}
        return bucket_of(HttpApi(HttpConfig(**(given | settings)), None), salt)  # type: ignore[arg-type]

    assert named() == named(base_url="https://API.example.com/", rate_limits=["1/1s"])
    others = [named(headers={"A": "two"}), named(base_url="https://b.example.com"), named(b"t")]
    assert len({named(), *others}) == 4
    assert named(budget="crm") == named(budget="crm", headers={"A": "two"})


def test_i30_what_the_destination_says_is_left_is_the_limit(tmp_path: Path) -> None:
    sandbox = HubSpotSandbox(burst=10_000, daily=1_000)
    sandbox.daily.used = 788  # of 1,000: a fifth is left to the account's other tools
    with serving(dated(sandbox.app(), "Sat, 28 Nov 2026 12:00:00 GMT")) as url:
        (tmp_path / "syncs").mkdir()
        hubspot = {"type": "hubspot", "base_url": url, "access_token": "sandbox", "concurrency": 2}
        (tmp_path / "backhaul.yml").write_text(json.dumps({
            "project": "t", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
            "destinations": {"crm": hubspot},
        }))  # fmt: skip
        (tmp_path / "syncs" / "it.yml").write_text(json.dumps({
            "name": "it", "model": {"warehouse": "main", "table": "t", "primary_key": "k"}, "destination": "crm",
            "object": "contacts", "mode": "upsert", "identify": {"email": "k"}, "fields": {"city": "'Oslo'"},
        }))  # fmt: skip
        with opened(tmp_path / "w.duckdb") as warehouse:
            warehouse.execute(
                "create table t as select format('n{}@example.com', i) as k from range(3000) x(i)"
            )
        with backhaul.load(tmp_path) as project:
            report = project.run("it").report
            again = project.run("it").report
    assert (report.status, again.status) == ("deferred", "deferred")
    assert 900 <= report.delivered <= 1100
    assert not [request for request in sandbox.requests if request.status == 429]
    assert 200 <= sandbox.daily.remaining <= 201


def test_i28_a_destination_without_http_keeps_its_limits_too(tmp_path: Path) -> None:
    (tmp_path / "syncs").mkdir()
    with sqlite3.connect(tmp_path / "app.db") as database:
        database.execute("create table t (k integer primary key)")
    database.close()
    (tmp_path / "backhaul.yml").write_text(json.dumps({
        "project": "t", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
        "destinations": {"app": {"type": "sqlite", "path": "app.db", "rate_limits": ["1/1d"]}},
    }))  # fmt: skip
    (tmp_path / "syncs" / "it.yml").write_text(json.dumps({
        "name": "it", "model": {"warehouse": "main", "table": "t", "primary_key": "k"}, "destination": "app",
        "object": "t", "mode": "upsert", "identify": {"k": "k"},
    }))  # fmt: skip
    with opened(tmp_path / "w.duckdb") as warehouse:
        warehouse.execute("create table t as select i as k from range(5) x(i)")
    with backhaul.load(tmp_path) as project:
        assert project.run("it").report.status == "deferred"
