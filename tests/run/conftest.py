"""Fixtures: a project with a destination over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sites import Handler, Servers, Site

from backhaul.testing.sink import Faults, Sink


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
    made = Site(tmp_path, servers, sink, servers.start(sink.app()))
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
