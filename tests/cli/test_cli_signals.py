"""Ctrl-C: the first one finishes what is in flight, a second one ends at once."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli_program import START, environment
from tests.waiting import HANGS

from backhaul.testing.duckdb_file import opened

MAIN = """\
project: slow
warehouses:
  main: {type: duckdb, path: warehouse.duckdb}
destinations:
  api:
    type: http
    base_url: BASE
    concurrency: 1
    objects:
      user: {key: id, upsert: {request: POST /u, batch_size: 10, body: {records: $records}}}
"""
SYNC = """\
name: NAME
model: {warehouse: main, table: users, primary_key: id}
destination: api
object: user
identify: {id: id}
"""


class Slow(ThreadingHTTPServer):
    """Answers each request after `wait` seconds, and keeps the ids it has answered for."""

    wait = 0.4
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked = threading.Event()
        self.gate = threading.Event()
        """A request waits for the gate that it finds."""
        self.gate.set()
        self.ids: list[int] = []


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Slow

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        gate = self.server.gate
        self.server.asked.set()
        gate.wait(HANGS)
        time.sleep(self.server.wait)
        self.server.ids += [record["id"] for record in body["records"]]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    with Slow() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "syncs").mkdir()
        (tmp_path / "backhaul.yml").write_text(MAIN.replace("BASE", f"http://127.0.0.1:{server.server_port}"))
        for name in ("first", "second"):
            (tmp_path / "syncs" / f"{name}.yml").write_text(SYNC.replace("NAME", name))
        with opened(tmp_path / "warehouse.duckdb") as warehouse:
            warehouse.execute("CREATE TABLE users AS SELECT i AS id FROM range(200) t(i)")
        yield server
        server.shutdown()


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*START, "run", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_what_is_in_flight(slow: Slow, tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, "--json") as running:
        assert slow.asked.wait(HANGS)
        running.send_signal(number)
        out, err = running.communicate(timeout=HANGS)
    assert running.returncode == 3
    assert err.splitlines() == ["finishing what is in flight; again to stop at once", "not started: second"]
    (run,) = json.loads(out)["runs"]
    assert (run["sync"], run["status"]) == ("first", "deferred")
    assert run["delivered"] == len(slow.ids) < 200
    assert run["deferred"] == 200 - run["delivered"]
    slow.wait = 0
    again = start(tmp_path, "first", "--json")
    out, _ = again.communicate(timeout=HANGS)
    assert again.returncode == 0
    assert json.loads(out)["runs"][0]["delivered"] == run["deferred"]
    assert sorted(slow.ids) == list(range(200))


def test_a_second_signal_ends_at_once(slow: Slow, tmp_path: Path) -> None:
    slow.wait = 2 * HANGS
    with start(tmp_path) as running:
        assert slow.asked.wait(HANGS)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        assert running.stderr.readline().startswith("finishing what is in flight")
        running.send_signal(signal.SIGINT)
        assert running.wait(HANGS) == 130
    with sqlite3.connect(tmp_path / ".backhaul" / "state.db") as state:
        assert state.execute("SELECT count(*) FROM intents").fetchone()[0] > 0


def test_a_sync_that_another_process_runs_fails(slow: Slow, tmp_path: Path) -> None:
    slow.wait = 0
    held, opened = threading.Event(), slow.gate
    slow.gate = held  # the first run is in the midst of its first request until the other has ended
    with start(tmp_path, "first") as running:
        assert slow.asked.wait(HANGS)
        slow.gate = opened
        other = start(tmp_path, "--json")
        out, err = other.communicate(timeout=HANGS)
        held.set()
        running.communicate(timeout=HANGS)
    assert (other.returncode, err) == (1, "")
    first, second = json.loads(out)["runs"]
    assert (first["status"], second["status"]) == ("failed", "succeeded")
    assert f"pid {running.pid}" in first["error"]
