"""Real processes on one budget, and the exact times at which their requests arrive at a real HTTP server."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, HERE / "arrivals.py"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


Times = list[tuple[float, float]]
"""Of each request: between which two moments it came."""


def arrived(url: str) -> Times:
    with urllib.request.urlopen(f"{url}/times") as answer:  # noqa: S310 - 127.0.0.1
        return [(earliest, latest) for earliest, latest in json.load(answer)]


def race(*racers: dict[str, Any]) -> list[tuple[list[float], str]]:
    """Runs racers at once; when each was done with its requests, and what ended it."""
    done = subprocess.run(
        [sys.executable, HERE / "racers.py"],
        input=json.dumps(racers),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [(sent, error) for sent, error in json.loads(done.stdout)]


def excess(times: Times, count: int, per: float) -> list[float]:
    """How much too early requests came: one is too early that surely came within the window of the `count`-th before it."""
    gaps = (after[1] - before[0] for before, after in zip(times, times[count:], strict=False))
    return [per - gap for gap in gaps if gap < per]


@pytest.fixture(params=["folder", "postgres"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where racers share their budget."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_db"))
    return str(tmp_path / "state")


@pytest.mark.parametrize(
    "rates", [{"100/2s": (100, 2.0)}, {"40/1s": (40, 1.0), "70/2s": (70, 2.0)}], ids=["one", "two"]
)
def test_i28_racing_processes_never_exceed_a_window(
    server: str, state: str, rates: dict[str, tuple[int, float]]
) -> None:
    check_race(server, state, rates, 3.8)


def test_i28_racing_processes_keep_a_budget_in_dynamodb(server: str, dynamodb_state: str) -> None:
    """They compare and swap, and have only the server's time in common, which they first have to learn."""
    check_race(server, dynamodb_state, {"40/1s": (40, 1.0), "70/2s": (70, 2.0)}, 6.5)


def check_race(server: str, state: str, rates: dict[str, tuple[int, float]], seconds: float) -> None:
    one = {"state": state, "url": server, "rates": list(rates), "seconds": seconds}
    ended = race(*[one] * 4)
    times = arrived(server)
    assert sum(bool(sent) for sent, _ in ended) > 1, "it was a race"
    assert all(len(times) > count for count, _ in rates.values()), "more than one window"
    for count, per in rates.values():
        assert not excess(times, count, per)


def started(racer: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A racer in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, HERE / "racers.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps([racer]).encode())
    process.stdin.close()
    return process


def test_i28_a_process_killed_in_mid_window_has_spent_what_it_spent(server: str, tmp_path: Path) -> None:
    one = {"state": str(tmp_path / "state"), "url": server, "rates": ["50/2s"], "seconds": 20}
    first = started(one)
    while len(arrived(server)) < 30:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    race(one | {"seconds": 3})
    times = arrived(server)
    assert len(times) > 50
    assert not excess(times, 50, 2.0)


def test_i28_a_process_that_was_stopped_sends_nothing_that_it_reserved_before(
    server: str, state: str
) -> None:
    one = {"state": state, "url": server, "rates": ["100/500ms"], "seconds": 4}
    paused = started(one)
    for _ in range(4):
        time.sleep(0.3)
        os.killpg(paused.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.killpg(paused.pid, signal.SIGCONT)
    race(one | {"seconds": 1})
    assert paused.wait(20) == 0
    times = arrived(server)
    assert len(times) > 100
    assert not excess(times, 100, 0.5)


def test_i29_retry_after_is_for_every_process(server: str, tmp_path: Path) -> None:
    one = {"state": str(tmp_path / "state"), "url": server, "rates": ["100/1s"], "seconds": 3.5}
    race(one, one, one | {"path": "/refuse", "requests": 1, "delay": 0.5})
    times = arrived(server)
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(times)]
    assert max(gaps) > 1.2
    assert sum(gap > 1.2 for gap in gaps) == 1


def test_a_sync_of_low_priority_waits_and_takes_what_is_left(server: str, tmp_path: Path) -> None:
    one = {"state": str(tmp_path / "state"), "url": server, "rates": ["40/1s"], "seconds": 5.5}
    (low, _), (high, _) = race(one | {"priority": -10}, one | {"priority": 10, "requests": 100, "delay": 1.2})
    assert len(high) == 100
    meanwhile = [at for at in low if high[0] + 0.2 < at < high[75]]  # its last 20 leave room for others
    assert len(meanwhile) <= 4
    assert len([at for at in low if at > high[-1]]) > 20
    assert not excess(arrived(server), 40, 1.0)
