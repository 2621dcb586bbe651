"""SIGINT and SIGTERM: what is in flight ends, nothing new starts, the next run goes on from there."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from aiohttp import web
from sites import Site
from tests.waiting import HANGS, until

from backhaul.delivery.delivery import GRACE
from backhaul.runs.report import RunOptions
from backhaul.runs.run import Run

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_finishes_what_is_in_flight(
    site: Site, faulty: Callable[..., None], number: signal.Signals
) -> None:
    site.batch_size = 50
    site.write()
    site.fill(5000)
    faulty(latency=1.0)
    process = site.command("run")
    until(lambda: len(site.sink.seen) > 8, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 3
    assert "Traceback" not in said
    sent = len(site.sink.seen)
    assert sent < 100
    assert site.rows("SELECT count(*) FROM intents") == [(0,)]
    assert len(site.sink.records) == sent * 50
    faulty()
    report = site.run().report
    assert report.delivered == 5000 - sent * 50
    assert set(site.sent().values()) == {1}
    assert site.sink.records == site.model()


def test_a_signal_ends_a_long_hold(site: Site, answering: Callable[..., list[str]]) -> None:
    site.fill(1000)
    site.sync = {"freshness": {"sample": 0}}

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({}, status=429, headers={"Retry-After": "600"})

    asked = answering(answer)
    process = site.command("run")
    until(lambda: asked, process)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 3
    assert "Traceback" not in said


def test_a_signal_while_the_model_is_read_sends_nothing(site: Site) -> None:
    site.fill(100)
    slow = "select id, name, v from t where (select count(*) from range(400000) a(i), range(400000) b(j) where a.i + b.j > id) > 0"
    site.sync = {"model": {"warehouse": "main", "sql": slow, "primary_key": "id"}}
    site.write()
    process = site.command("run")
    until(lambda: site.rows("SELECT 1 FROM runs WHERE status = 'running'"), process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode in (1, 3)
    assert "Traceback" not in said
    assert "stopped" in said
    assert site.sink.seen == []


def test_a_second_signal_ends_at_once_and_loses_nothing(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(1000)
    faulty(silence=2 * HANGS)
    process = site.command("run")
    until(lambda: site.sink.records, process)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("finishing what is in flight")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANGS)
    assert process.returncode not in (0, None)
    faulty()
    assert site.run().report.status == "succeeded"
    assert site.sink.records == site.model()


def test_a_stop_before_the_plan_sends_nothing(site: Site) -> None:
    site.write()
    site.fill(10)
    with site.project as project:
        one = Run(project.workspace, project.sync("users"), RunOptions())
        one.stop()
        report = asyncio.run(one.execute())
    assert (report.status, report.error) == ("failed", "stopped before anything was sent")
    assert site.sink.seen == []


def test_a_stop_at_any_moment_is_polite(site: Site, faulty: Callable[..., None]) -> None:
    """Fifteen moments from before the plan to after the last batch, each upon a run that was cut short."""
    site.batch_size = 50
    site.write()
    site.fill(2000)
    faulty(latency=0.002)
    ended = set()

    def stop_at_request(one: Run, number: int) -> None:
        if len(site.sink.seen) >= number:
            one.stop()
        else:
            asyncio.get_running_loop().call_later(0.001, stop_at_request, one, number)

    async def run(after: float, *, requests: int = 1000) -> str:
        with site.project as project:
            one = Run(project.workspace, project.sync("users"), RunOptions())
            asyncio.get_running_loop().call_later(after, one.stop)
            stop_at_request(one, len(site.sink.seen) + requests)
            report = await one.execute()
        assert report.status in ("succeeded", "deferred") or "stopped" in str(report.error), report
        return report.status

    began = time.monotonic()
    assert asyncio.run(run(60)) == "succeeded"
    length = time.monotonic() - began
    for number in range(15):
        site.sql(f"update t set v = v + 1, name = 'n{number}' where id % 3 = {number % 3}")
        ended.add(asyncio.run(run(length * number / 10)))
    assert "failed" in ended
    faulty(latency=0.1)
    site.sql("update t set v = v + 1")
    assert asyncio.run(run(60, requests=2)) == "deferred"
    site.run()
    assert site.sink.records == site.model()


HOLDER = """
import duckdb, sys, time
held = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(3600)
"""


def test_i36_a_run_that_waits_for_the_ledger_answers_a_signal_at_once(site: Site) -> None:
    site.fill(10)
    site.run()
    site.sql("update t set v = v + 1")
    ledger = site.ledger
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(ledger)], stdout=subprocess.PIPE, text=True)
    site.processes.append(holder)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    process = site.command("run")
    until(lambda: site.rows("SELECT 1 FROM runs WHERE status = 'running'"), process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 1
    assert "Traceback" not in said
    holder.kill()
    assert site.run().report.delivered == 10


def test_i36_what_does_not_answer_is_in_doubt_within_thirty_seconds(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.fill(10)
    faulty(silence=2 * HANGS)
    process = site.command("run")
    until(lambda: site.sink.records, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 3
    assert "Traceback" not in said
    assert GRACE <= 30
    with site.project as project:
        assert project.status(["users"])[0]["records"]["unknown"] == 10
