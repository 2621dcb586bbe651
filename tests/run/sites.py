"""A project on disk, a destination over real HTTP on its own thread, and processes to run and to kill."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from click.testing import CliRunner, Result

import backhaul
from backhaul.cli import main
from backhaul.project import FinishedRun, Project
from backhaul.runs.report import RunReport
from backhaul.testing.duckdb_file import opened
from backhaul.testing.sink import Sink

RESULTS = {"each": "results", "key": "id", "delivered": "status == 'ok'", "error": "error"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Servers:
    """HTTP servers on one thread of their own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._runners: list[web.AppRunner] = []

    def start(self, app: web.Application, port: int = 0) -> int:
        """Serves an application on 127.0.0.1; returns its port."""
        return asyncio.run_coroutine_threadsafe(self._start(app, port), self.loop).result(10)

    async def _start(self, app: web.Application, port: int) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self._runners.append(runner)
        return int(runner.addresses[0][1])

    def stop(self) -> None:
        """Ends every server; their ports refuse connections from now on."""
        runners, self._runners = self._runners, []
        for runner in runners:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), self.loop).result(10)

    async def _cancel(self) -> None:
        """Ends what still waits to answer somebody who is gone."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        self.stop()
        asyncio.run_coroutine_threadsafe(self._cancel(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@dataclass
class Site:
    """One project: a DuckDB table `t (id, name, v)`, one sync `users` of it, and the sink it goes to."""

    root: Path
    servers: Servers
    sink: Sink
    port: int
    api: dict[str, Any] = field(default_factory=dict)
    sync: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 100
    fields: dict[str, Any] = field(default_factory=dict)
    """What the object declares of its fields; nothing: it takes any."""
    settings: dict[str, Any] = field(default_factory=dict)
    """More keys of backhaul.yml."""
    lookup: dict[str, Any] = field(default_factory=dict)
    """What the object's `read` declares beside its request."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    held: bool = False
    """Whether the sink keeps its answers, of what it has applied, to itself."""

    @web.middleware
    async def hold(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        while self.held:
            await asyncio.sleep(0.01)
        return answer

    def write(self) -> None:
        """Writes the project's files from `api`, `sync`, `batch_size` and `fields`."""
        (self.root / "syncs").mkdir(exist_ok=True)
        write = {"batch_size": self.batch_size, "results": RESULTS}
        user: dict[str, Any] = {
            "key": "id",
            "upsert": {"request": "POST /upsert", "body": {"records": "$records"}, **write},
            "insert": {"request": "POST /insert", "body": {"records": "$records"}, **write},
            "delete": {"request": "POST /delete", "body": {"ids": "$keys"}, **write},
            "read": {
                "request": "POST /read",
                "body": {"ids": "$keys"},
                "each": "results",
                "key": "id",
                **self.lookup,
            },
        }
        if self.fields:
            user["fields"] = self.fields
        api = {"type": "http", "base_url": f"http://127.0.0.1:{self.port}", "objects": {"user": user}}
        project = {
            "project": "t",
            "warehouses": {"main": {"type": "duckdb", "path": "warehouse.duckdb"}},
            "destinations": {"api": api | self.api},
            **self.settings,
        }
        sync = {
            "name": "users",
            "model": {"warehouse": "main", "table": "t", "primary_key": "id"},
            "destination": "api",
            "object": "user",
            "mode": "mirror",
            "identify": {"id": "id"},
            "fields": {"name": "name", "score": "v"},
            "guards": {"max_deletes": "off"},
        }
        (self.root / "backhaul.yml").write_text(json.dumps(project))  # JSON is YAML
        (self.root / "syncs" / "users.yml").write_text(json.dumps(sync | self.sync))

    def fill(self, rows: int) -> Site:
        """The table with ids 0 … rows - 1."""
        made = "create or replace table t as select i as id, 'n' || i as name, i * 1.5::double as v"
        return self.sql(f"{made} from range({rows}) x(i)")

    def sql(self, *statements: str) -> Site:
        with opened(self.root / "warehouse.duckdb") as warehouse:
            for statement in statements:
                warehouse.execute(statement)
        return self

    def model(self) -> dict[str, dict[str, Any]]:
        """What the destination should hold, as the sink stores it."""
        with opened(self.root / "warehouse.duckdb", read_only=True) as warehouse:
            rows = warehouse.execute("select id, name, v from t").fetchall()
        return {str(key): {"id": key, "name": name, "score": value} for key, name, value in rows}

    @property
    def project(self) -> Project:
        return backhaul.load(self.root)

    def run(self, **options: Any) -> FinishedRun:
        with self.project as project:
            return project.run("users", **options)

    def letters(self) -> list[dict[str, Any]]:
        with self.project as project:
            return project.dead_letters("users")

    def command(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """The command line in a process of its own."""
        line = [sys.executable, "-m", "backhaul", *arguments, "--project", str(self.root)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(line, **(pipes | options))
        self.processes.append(process)
        return process

    def call(self, *arguments: str) -> Result:
        """The command line in this process: its exit code, and what it says."""
        line = [*arguments, "--project", str(self.root)]
        ended = CliRunner().invoke(main, line, prog_name="backhaul")
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return ended

    def sent(self, since: int = 0) -> Counter[str]:
        """How often each key was in a write request, from the given request on."""
        return Counter(key for seen in self.sink.seen[since:] for key in seen.keys)

    @property
    def state(self) -> Path:
        return self.root / ".backhaul" / "state.db"

    @property
    def ledger(self) -> Path:
        """The only ledger, whether its file is there or not."""
        ((scope,),) = self.rows("SELECT scope FROM ledgers")
        return self.state.parent / "ledgers" / f"{scope}.duckdb"

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Reads the state as another process would; nothing where there is none yet."""
        if not self.state.exists() or not self.state.stat().st_size:
            return []
        connection = sqlite3.connect(f"file:{self.state}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise
        finally:
            connection.close()


def outcome(report: RunReport) -> Mapping[str, int]:
    """A run's counts that add up to its changes."""
    names = ("delivered", "rejected", "deferred", "unknown", "pending")
    return {name: getattr(report, name) for name in names if getattr(report, name)}
