"""Fixtures: a project with a destination over real HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from plugin import Api, install, settings
from sites import Handler, Servers, Site

from backhaul.testing.sink import Faults, Sink

POSTGRES = Path(__file__).parents[2] / "scripts" / "postgres"


def missing(what: str) -> None:
    """Ends the test: skipped, or failed where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def _servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture
def servers(_servers: Servers) -> Iterator[Servers]:
    yield _servers
    _servers.stop()


@pytest.fixture
def site(tmp_path: Path, servers: Servers) -> Iterator[Site]:
    """A project with no rows yet, whose sink has no faults; no process of it outlives the test."""
    sink = Sink()
    made, app = Site(tmp_path, servers, sink, 0), sink.app()
    app.middlewares.append(made.hold)
    made.port = servers.start(app)
    made.write()
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture
def faulty(site: Site) -> Callable[..., None]:
    """Sets the sink's switches; without arguments none."""

    def set_to(**switches: Any) -> None:
        site.sink.faults = Faults(**switches)

    return set_to


@pytest.fixture
def answering(site: Site) -> Callable[..., list[str]]:
    """Points the project at a server with one handler for every request; gives the list of paths it is asked for."""

    def serve(handler: Handler, **settings: Any) -> list[str]:
        asked: list[str] = []

        async def noted(request: web.Request) -> web.StreamResponse:
            asked.append(request.path)
            return await handler(request)

        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", noted)
        site.api = {"base_url": f"http://127.0.0.1:{site.servers.start(app)}", **settings}
        site.write()
        return asked

    return serve


@pytest.fixture
def plugged(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    """Points the project at the destination of plugin.py."""
    install(tmp_path / "plugins")
    monkeypatch.syspath_prepend(tmp_path / "plugins")
    api = Api()
    site.sync = {"mode": "upsert", "freshness": {"sample": 0}, "fields": {"name": "name"}}
    site.write()
    settings(site, base_url=f"http://127.0.0.1:{site.servers.start(api.app())}")
    return api


@pytest.fixture
def own_postgres() -> Iterator[Path]:
    """The folder of a PostgreSQL server that the test may stop and start."""
    folder = Path(tempfile.mkdtemp(prefix="bh-pg-", dir="/tmp"))
    folder.chmod(0o755)
    started = subprocess.run([POSTGRES, "start", folder], capture_output=True, text=True)
    try:
        if started.returncode:
            missing(f"no PostgreSQL: {started.stderr.strip()[-300:]}")
        yield folder
    finally:
        subprocess.run([POSTGRES, "stop", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_dsn(own_postgres: Path) -> str:
    return (own_postgres / "dsn").read_text().strip()
