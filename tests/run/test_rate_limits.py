"""Limits: never more than allowed in any window, and what is used up stays so over restarts.

When requests arrive only says when they can have left at the earliest: however late a busy machine brings one, none comes
before its window let it go. That departures keep the limit exactly, and use nearly all of it, is tested with the budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from sites import Site
from tests.waiting import HANGS


def limited(site: Site, *limits: str) -> Site:
    """In batches of ten."""
    site.api = {"rate_limits": [*limits]}
    site.sync = {"freshness": {"sample": 0}}
    site.batch_size = 10
    site.write()
    return site


def kept(site: Site, began: float, count: int, per: float) -> bool:
    """Whether no request arrived before as many windows were over as those before it fill."""
    times = sorted(seen.at for seen in site.sink.seen)
    return all(at - began >= number // count * per for number, at in enumerate(times))


def test_a_window_is_kept(site: Site) -> None:
    limited(site, "20/1s").fill(800)
    began = time.monotonic()
    assert site.run().report.delivered == 800
    assert len(site.sink.seen) == 80
    assert kept(site, began, 20, 1.0)


def test_several_windows_hold_at_once(site: Site) -> None:
    limited(site, "10/1s", "25/3s").fill(300)
    began = time.monotonic()
    site.run()
    assert len(site.sink.seen) == 30
    assert kept(site, began, 10, 1.0)
    assert kept(site, began, 25, 3.0)


def test_a_window_is_kept_over_runs(site: Site) -> None:
    limited(site, "20/2s").fill(150)
    began = time.monotonic()
    site.run()
    site.sql("update t set v = v + 1")
    site.run()
    assert len(site.sink.seen) == 30
    assert kept(site, began, 20, 2.0)


def test_a_daily_quota_defers_and_outlives_the_process(site: Site) -> None:
    site.api = {"rate_limits": ["50/1d"], "share": "100%"}
    site.batch_size = 10
    site.write()
    site.fill(1000)
    first = site.run().report
    assert (first.status, first.exit_code) == ("deferred", 3)
    assert len(site.sink.seen) == 50
    assert (first.delivered, first.deferred) == (500, 500)
    process = site.command("run")
    process.communicate(timeout=HANGS)
    assert process.returncode == 3
    assert len(site.sink.seen) == 50
    site.api = {"rate_limits": ["2000/1d"]}
    site.write()
    assert site.run().report.delivered == 500
    assert site.sink.records == site.model()


def test_a_quota_that_ends_with_the_last_batch_is_no_failure(site: Site) -> None:
    site.api = {"rate_limits": ["50/1d"], "share": "100%"}
    site.batch_size = 10
    site.write()
    site.fill(500)
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 500)


def test_retry_after_holds_every_request(site: Site, answering: Callable[..., list[str]]) -> None:
    """What left before the answer was read arrives, of four at a time; the other thirty wait until the time is over."""
    site.fill(4000)
    site.sync = {"freshness": {"sample": 0}}
    times: list[float] = []
    refused: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        if len(times) == 6:
            refused.append(times[-1])
            return web.json_response({}, status=429, headers={"Retry-After": "1"})
        body = await request.json()
        return web.json_response({"results": [{"id": one["id"], "status": "ok"} for one in body["records"]]})

    answering(answer, concurrency=4)
    report = site.run().report
    assert (report.status, report.delivered, report.retries) == ("succeeded", 4000, 1)
    assert len([at for at in times if refused[0] < at < refused[0] + 1]) <= 2 * 4


def test_a_hold_outlives_the_process(site: Site, answering: Callable[..., list[str]]) -> None:
    site.fill(100)
    site.sync = {"freshness": {"sample": 0}}
    calm: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        if not calm:
            return web.json_response({}, status=429, headers={"Retry-After": "7200"})
        return web.json_response({})

    asked = answering(answer)
    report = site.run().report
    assert (report.status, report.deferred) == ("deferred", 100)
    assert len(asked) == 1
    calm.append(True)
    process = site.command("run")
    process.communicate(timeout=HANGS)
    assert process.returncode == 3
    assert len(asked) == 1
