"""Limits: never more than allowed in any window, nearly all of it used, and what is used up stays so over restarts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sites import Site


def busiest(times: list[float], length: float) -> int:
    """The most requests in any window of this length, which tests take shorter than the limit's: what left in time may
    arrive bunched on a busy machine. That departures keep the limit exactly is tested with the budget itself."""
    return max(sum(begin <= at < begin + length for at in times) for begin in times)


def test_a_window_is_kept_and_used(site: Site) -> None:
    site.api = {"rate_limits": ["20/1s"]}
    site.sync = {"freshness": {"sample": 0}}
    site.batch_size = 10
    site.write()
    site.fill(800)
    report = site.run().report
    times = [seen.at for seen in site.sink.seen]
    assert report.delivered == 800
    assert len(times) == 80
    assert busiest(times, 0.85) <= 20
    lasted = times[-1] - times[0]
    assert 60 / lasted >= 0.9 * 20, lasted


def test_several_windows_hold_at_once(site: Site) -> None:
    site.api = {"rate_limits": ["10/1s", "25/3s"]}
    site.sync = {"freshness": {"sample": 0}}
    site.batch_size = 10
    site.write()
    site.fill(400)
    site.run()
    times = [seen.at for seen in site.sink.seen]
    assert len(times) == 40
    assert busiest(times, 0.85) <= 10
    assert busiest(times, 2.7) <= 25


def test_a_window_is_kept_over_runs(site: Site) -> None:
    site.api = {"rate_limits": ["20/1s"]}
    site.sync = {"freshness": {"sample": 0}}
    site.batch_size = 10
    site.write()
    site.fill(150)
    site.run()
    site.sql("update t set v = v + 1")
    site.run()
    times = [seen.at for seen in site.sink.seen]
    assert len(times) == 30
    assert busiest(times, 0.85) <= 20


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
    process.communicate(timeout=60)
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
    from aiohttp import web

    site.fill(2000)
    site.sync = {"freshness": {"sample": 0}}
    times: list[float] = []
    refused: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        body = await request.json()
        if len(times) == 6:
            refused.append(times[-1])
            return web.json_response({}, status=429, headers={"Retry-After": "1"})
        return web.json_response({"results": [{"id": one["id"], "status": "ok"} for one in body["records"]]})

    answering(answer)
    report = site.run().report
    assert (report.status, report.delivered, report.retries) == ("succeeded", 2000, 1)
    assert not [at for at in times if refused[0] + 0.1 < at < refused[0] + 1]


def test_a_hold_outlives_the_process(site: Site, answering: Callable[..., list[str]]) -> None:
    from aiohttp import web

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
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert len(asked) == 1
