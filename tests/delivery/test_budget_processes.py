"""Real processes on one budget that send to a real HTTP server: when each request left, and that as many arrived.

Moments are those at which the sender let a request go. When it arrives after that is no matter of the budget, and on a busy
machine nobody's: how late is allowed for is tested with the arithmetic (test_windows.py).
"""

from __future__ import annotations

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
HANGS = 300
"""Seconds after which a process is taken to hang, however busy the machine is."""


@pytest.fixture
def server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, HERE / "arrivals.py"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def departures(tmp_path: Path) -> Path:
    return tmp_path / "departures"


Times = list[tuple[float, float]]
"""Of each request: between which two moments it left, by the first of them."""


def left(departures: Path, path: str = "/") -> Times:
    lines = departures.read_text().splitlines() if departures.exists() else []
    found = (line.split() for line in lines)
    return sorted((float(before), float(after)) for before, after, to in found if to == path)


def arrived(url: str) -> int:
    with urllib.request.urlopen(f"{url}/count") as answer:  # noqa: S310 - 127.0.0.1
        return int(answer.read())


def race(*racers: dict[str, Any]) -> list[float]:
    """Runs racers that start at once; when each had ended."""
    done = subprocess.run(
        [sys.executable, HERE / "racers.py"],
        input=json.dumps(racers),
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout)
    assert [error for _, error in ended] == [""] * len(racers)
    return [moment for moment, _ in ended]


def too_early(times: Times, count: int, per: float) -> list[float]:
    """By how much requests came too early: of `count` + 1 that surely left within less than the window, the last did."""
    spans = (
        max(after for _, after in times[first : first + count + 1]) - times[first][0]
        for first in range(len(times) - count)
    )
    return [per - span for span in spans if span < per]


@pytest.fixture(params=["folder", "postgres"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where racers share their budget."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_db"))
    return str(tmp_path / "state")


ONE = {"80/1s": (80, 1.0)}
TWO = {"40/500ms": (40, 0.5), "60/1s": (60, 1.0)}


@pytest.mark.parametrize("rates", [ONE, TWO], ids=["one", "two"])
def test_i28_racing_processes_never_exceed_a_window(
    server: str, state: str, departures: Path, rates: dict[str, tuple[int, float]]
) -> None:
    check_race(server, state, departures, rates)


def test_i28_racing_processes_keep_a_budget_in_dynamodb(
    server: str, dynamodb_state: str, departures: Path
) -> None:
    """They compare and swap, and have only the server's time in common, which they first have to learn."""
    check_race(server, dynamodb_state, departures, {"40/1s": (40, 1.0), "60/2s": (60, 2.0)})


def check_race(server: str, state: str, departures: Path, rates: dict[str, tuple[int, float]]) -> None:
    one = {"state": state, "url": server, "rates": list(rates), "departures": str(departures), "requests": 45}
    race(*[one] * 4)
    times = left(departures)
    assert len(times) == arrived(server) == 180
    for count, per in rates.values():
        assert not too_early(times, count, per)


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


def test_i28_a_process_killed_in_mid_window_has_spent_what_it_spent(
    server: str, tmp_path: Path, departures: Path
) -> None:
    one = {"state": str(tmp_path / "state"), "url": server, "rates": ["50/2s"], "departures": str(departures)}
    first = started(one | {"requests": 1000})
    while len(left(departures)) < 30:
        assert first.poll() is None
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    race(one | {"requests": 40})
    times = left(departures)
    assert len(times) >= 70
    assert len(times) - 8 <= arrived(server) <= len(times)
    assert not too_early(times, 50, 2.0)


def test_i28_a_process_that_was_stopped_sends_nothing_that_it_reserved_before(
    server: str, state: str, departures: Path
) -> None:
    one = {"state": state, "url": server, "rates": ["100/500ms"], "departures": str(departures)}
    paused = started(one | {"requests": 350})
    for stop in range(3):
        while len(left(departures)) < 40 + 100 * stop:
            assert paused.poll() is None
            time.sleep(0.02)
        os.killpg(paused.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.killpg(paused.pid, signal.SIGCONT)
    race(one | {"requests": 100})
    assert paused.wait(HANGS) == 0
    times = left(departures)
    assert len(times) == arrived(server) == 450
    assert not too_early(times, 100, 0.5)


def test_i29_retry_after_is_for_every_process(server: str, tmp_path: Path, departures: Path) -> None:
    one = {
        "state": str(tmp_path / "state"),
        "url": server,
        "rates": ["100/1s"],
        "departures": str(departures),
    }
    many = one | {"requests": 130}
    *_, told = race(many, many, one | {"path": "/refuse", "requests": 1, "after": 60})
    ((refused, _),) = left(departures, "/refuse")
    others = left(departures)
    assert len(others) + 1 == arrived(server) == 261
    assert not [before for before, _ in others if told + 0.5 < before < refused + 1.5], (
        "half a window is stale"
    )
