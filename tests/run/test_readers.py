"""Readers answer while a run is going on in another process, and a reader does not stop a run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from sites import Site
from tests.waiting import HANGS, until

import backhaul


def test_readers_answer_while_a_run_is_going_on(site: Site, faulty: Callable[..., None]) -> None:
    site.api = {"timeout": "10m"}
    site.write()
    site.fill(3000)
    site.run()
    site.sql("update t set v = v + 1 where id < 2000", "delete from t where id >= 2990")
    faulty(refuse_key="1", latency=0.1)
    process = site.command("run")
    until(lambda: len(site.sink.seen) >= 40, process)
    site.held = True
    with site.project as project:
        (status,) = project.status()
        records = list(project.records("users"))
        project.dead_letters("users")
        project.runs("users")
    assert process.poll() is None
    site.held = False
    assert status["running"]
    counted = Counter(record["status"] for record in records)
    assert 2990 <= sum(counted.values()) <= 3000  # a delete that was acknowledged is no record any more
    assert counted["in_flight"] > 0, counted
    assert counted["rejected"] == 1
    assert counted["acknowledged"] >= 1000
    assert process.wait(HANGS) == 3
    with site.project as project:
        after = Counter(record["status"] for record in project.records("users"))
    assert after == {"acknowledged": 2989, "rejected": 1}


def test_a_plan_can_be_made_while_a_run_is_going_on(site: Site) -> None:
    site.fill(100)
    site.api = {"timeout": "10m"}
    site.write()
    site.held = True
    process = site.command("run")
    until(lambda: site.sink.seen, process)
    with site.project as project:
        assert project.plan("users").report.changes["create"] == 100
    assert process.poll() is None
    site.held = False
    assert process.wait(HANGS) == 0
    assert site.sink.records == site.model()


def test_readers_all_along_do_not_hurt_a_run(site: Site) -> None:
    site.fill(5000)
    failed: list[Exception] = []
    over = threading.Event()

    def read() -> None:
        try:
            while not over.is_set():
                with backhaul.load(site.root) as project:
                    project.status()
                    next(project.records("users"), None)
                time.sleep(0.05)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(3):
            process = site.command("run")
            _, said = process.communicate(timeout=HANGS)
            assert process.returncode == 0, said
            site.sql("update t set v = v + 1")
    finally:
        over.set()
        reader.join(HANGS)
    assert failed == []


@pytest.mark.parametrize("reader", ["status", "records", "dead_letters", "runs"])
def test_readers_answer_before_the_first_run(site: Site, reader: str) -> None:
    site.fill(3)
    with site.project as project:
        arguments = () if reader == "status" else ("users",)
        assert len(list(getattr(project, reader)(*arguments))) == (1 if reader == "status" else 0)
