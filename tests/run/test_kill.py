"""kill -9 at any moment: the next run makes the destination equal to the model, and repeats only what was in flight."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from killing import forks, in_flight, run_users
from sites import Site
from tests.waiting import HANGS, until

MOMENTS = 30
ROWS = 9000


def change(site: Site, number: int) -> None:
    """Every row changes; some leave, some come, some leave that came the last time."""
    site.sql(
        f"update t set v = v + 1, name = 'n{number}-' || id",
        f"delete from t where id % 97 = {number % 97}",
        f"insert into t select {1_000_000 + number * 50} + i, 'new', i from range(50) x(i)",
    )


def phase(site: Site) -> str:
    runs = site.rows("SELECT status, plan FROM runs ORDER BY rowid DESC LIMIT 1")
    if not runs or runs[0][0] != "running":
        return "before or after"
    plans = site.rows("SELECT id FROM plans WHERE status = 'delivering'")
    if not plans:
        return "planning or finishing"
    return "sending" if site.rows("SELECT 1 FROM intents") else "settling"


def test_killed_at_any_moment(site: Site, faulty: Callable[..., None]) -> None:
    site.batch_size = 50
    site.write()
    site.fill(ROWS)
    faulty(latency=0.005)
    rng = random.Random(50)
    context = forks()
    length, hit = 0.0, set()
    for number in range(MOMENTS):
        change(site, number)
        since = len(site.sink.seen)
        began = time.monotonic()
        process = context.Process(target=run_users, args=(site.root,))
        process.start()
        if number < 2:  # two whole runs say how long one takes
            process.join()
            length = max(length, time.monotonic() - began)
        else:
            process.join(length * (number - 2 + rng.random()) / (MOMENTS - 3))
            process.kill()
            process.join()
        hit.add(phase(site))
        doubtful = in_flight(site)
        report = site.run().report
        assert report.status == "succeeded", (number, report.error)
        assert site.sink.records == site.model(), number
        twice = {key for key, count in site.sent(since).items() if count > 1}
        assert twice <= doubtful, (number, sorted(twice - doubtful)[:5])
        # 64 batches that are not answered, and as many whose outcome was being stored
        assert len(doubtful) <= 2 * 64 * 50
    assert {"before or after", "sending"} <= hit, hit
    assert site.run().report.requests == 0


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_the_command_line_killed(site: Site, faulty: Callable[..., None], share: float) -> None:
    site.fill(ROWS)
    faulty(latency=0.01)
    began = time.monotonic()
    assert site.command("run").wait(HANGS) == 0
    length = time.monotonic() - began
    change(site, 1)
    since = len(site.sink.seen)
    process = site.command("run")
    time.sleep(length * share)
    process.kill()
    process.communicate()
    doubtful = in_flight(site)
    assert site.command("run").wait(HANGS) == 0
    assert site.sink.records == site.model()
    assert {key for key, count in site.sent(since).items() if count > 1} <= doubtful


WATCHED = """
import glob, os, signal, sys, threading, time
import backhaul
def watch():
    ledger = ""
    while not ({condition}):
        ledger = ledger or next(iter(glob.glob(sys.argv[2])), "")
    time.sleep({nap})
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
backhaul.load(sys.argv[1]).run("users")
"""
FOLDING = "os.path.exists(ledger + '.wal')"


def killed(site: Site, condition: str, nap: float) -> int:
    """Runs in a process that kills itself as soon as a condition on the files holds."""
    ledgers = site.state.parent / "ledgers" / "*.duckdb"
    script = WATCHED.format(condition=condition, nap=nap)
    process = subprocess.run(
        [sys.executable, "-c", script, site.root, ledgers], capture_output=True, timeout=HANGS
    )
    return process.returncode


@pytest.mark.parametrize("nap", [0, 0.004, 0.01])
@pytest.mark.parametrize("known", [False, True])
def test_killed_while_folding(site: Site, nap: float, known: bool) -> None:
    site.fill(20_000 if known else 5000)
    if known:
        site.run()
        change(site, 1)
    since = len(site.sink.seen)
    ended = killed(site, FOLDING, nap)
    assert ended == -signal.SIGKILL or nap
    report = site.run().report
    assert report.status == "succeeded", report.error
    assert site.sink.records == site.model()
    assert set(site.sent(since).values()) == {1}
    assert report.delivered == 0


def test_killed_between_the_fold_and_the_end(site: Site) -> None:
    """The journal says everything, the ledger has it all, and the plan is still there: it is not folded twice."""
    site.fill(1000)
    condition = (
        "os.path.exists(ledger) and os.path.getsize(ledger) > 100_000 and not os.path.exists(ledger + '.wal')"
    )
    assert killed(site, condition, 0) == -signal.SIGKILL
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 0)
    assert set(site.sent().values()) == {1}
    assert site.rows("SELECT count(*) FROM plans") == [(0,)]


def test_a_run_that_was_killed_is_told_of_in_the_history(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(1000)
    faulty(latency=2)
    process = site.command("run")
    until(lambda: site.sink.seen, process)
    process.kill()
    process.communicate()
    faulty()
    site.run()
    with site.project as project:
        statuses = [run["status"] for run in project.runs("users")]
    assert statuses == ["succeeded", "interrupted"]


def test_a_killed_owner_leaves_no_lock(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(100)
    faulty(latency=2 * HANGS)
    process = site.command("run")
    until(lambda: site.sink.seen, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    faulty()
    assert site.run().report.status == "succeeded"


def test_what_killed_runs_leave_behind_does_not_pile_up(site: Site) -> None:
    site.settings = {"history": {"keep": 0}}
    site.write()
    site.fill(1000)
    folder = site.root / ".backhaul"
    plans = str(folder / "plans")
    assert killed(site, f"os.path.isdir({plans!r}) and os.listdir({plans!r})", 0) == -signal.SIGKILL
    for left in [*(folder / "plans").iterdir(), *folder.glob("spill-*")]:
        os.utime(left, (0, 0))
    site.run()
    assert [
        str(path)
        for path in folder.rglob("*")
        if path.parent.name == "plans" or path.name.startswith("spill")
    ] == []
