"""The kit for simulated destination APIs: real HTTP, limits, a request log, a page to look at, and faults as switches.

A simulation is what public documents and recorded answers say of an API. It is not the API.
"""

from __future__ import annotations

import asyncio
import html
import random
import time
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson
from aiohttp import web

_LOG = 10_000


@dataclass
class Faults:
    """Shares between 0 and 1 are drawn anew for every write request, unless said otherwise."""

    throttle: float = 0.0
    """429 with Retry-After."""
    throttle_silently: float = 0.0
    """429 without."""
    error: float = 0.0
    """500; nothing is applied."""
    reset_before: float = 0.0
    """The connection is reset; nothing is applied."""
    reset_after: float = 0.0
    """The write is applied, then the connection is reset."""
    html: float = 0.0
    """200 with a page; nothing is applied."""
    truncate: float = 0.0
    """The write is applied, and its answer is cut in half."""
    shuffle: bool = False
    """Results in another order."""
    omit: float = 0.0
    """Share of records left out of the answer; they are applied."""
    refuse: float = 0.0
    """Share of records refused; by key, so the same ones each time."""
    refuse_key: str = ""
    """The record with this key is refused."""
    poison_key: str = ""
    """A request that holds this key is refused as a whole, naming nobody."""
    refuse_all: str = ""
    """Every write request is refused with this category."""
    latency: float = 0.0
    """Seconds before every answer."""


@dataclass(frozen=True)
class Request:
    """One request that came in; `at` is seconds since the simulation started, status 0 a reset connection."""

    method: str
    path: str
    status: int
    records: int
    at: float


class Sandbox:
    """One simulated API. A subclass adds its routes in `routes` and shows itself in `page`."""

    name = "sandbox"

    def __init__(self, seed: int = 1) -> None:
        self.faults = Faults()
        self.requests: deque[Request] = deque(maxlen=_LOG)
        self.counts: Counter[str] = Counter()
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 - faults by chance
        self.started = time.monotonic()

    def routes(self, router: web.UrlDispatcher) -> None:
        raise NotImplementedError

    def state(self) -> Mapping[str, Any]:
        """What it holds, JSON-ready."""
        raise NotImplementedError

    def tables(self) -> Mapping[str, list[Mapping[str, Any]]]:
        """What the page shows: a title and some rows each."""
        raise NotImplementedError

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 28, middlewares=[self._log])
        app.router.add_get("/", self._page)
        app.router.add_get("/_sandbox/state", self._state)
        app.router.add_post("/_sandbox/faults", self._set_faults)
        self.routes(app.router)
        return app

    def refuses(self, key: str) -> bool:
        """Whether a record of this key is refused by a switch."""
        drawn = zlib.crc32(f"{self.seed}/{key}".encode()) % 10_000 < self.faults.refuse * 10_000
        return drawn or (bool(self.faults.refuse_key) and key == self.faults.refuse_key)

    def strikes(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    @web.middleware
    async def _log(self, request: web.Request, handler: Any) -> web.StreamResponse:
        inner = request.path.startswith("/_sandbox") or request.path == "/"
        if self.faults.latency and not inner:
            await asyncio.sleep(self.faults.latency)
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPException as error:
            answer = error
        if not inner:
            status = 0 if request.get("reset") else answer.status
            self.requests.append(
                Request(
                    request.method,
                    request.path,
                    status,
                    request.get("records", 0),
                    time.monotonic() - self.started,
                )
            )
            self.counts[f"{request.method} {request.path} {status}"] += 1
        return answer

    async def _state(self, _: web.Request) -> web.Response:
        body = {
            "state": self.state(),
            "requests": [asdict(item) for item in self.requests],
            "faults": asdict(self.faults),
        }
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults = faults_from(await request.json())
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(asdict(self.faults))

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=render(self), content_type="text/html")


def faults_from(switches: Mapping[str, Any]) -> Faults:
    """Raises: ValueError at a switch that does not exist."""
    known = {item.name for item in fields(Faults)}
    unknown = set(switches) - known
    if unknown:
        raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return Faults(**switches)


def reset(request: web.Request) -> web.Response:
    """Breaks the connection instead of answering."""
    request["reset"] = True
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


@asynccontextmanager
async def serve(sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serves a simulation; gives its address."""
    runner = web.AppRunner(sandbox.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881 }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.4rem; margin-bottom: 0 } h2 { font-size: 1.05rem; margin-top: 2rem }
p.note { opacity: .7; margin-top: .2rem } .tiles { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1.5rem }
.tile { background: var(--soft); border-radius: .5rem; padding: .6rem 1rem } .tile b { display: block; font-size: 1.4rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .87rem }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; white-space: nowrap;
  max-width: 18rem; overflow: hidden; text-overflow: ellipsis } th { font-weight: 600 }
"""


def render(sandbox: Sandbox) -> str:
    """The page: counts, faults that are on, records, and the last requests."""
    faults = {name: value for name, value in asdict(sandbox.faults).items() if value}
    tables: dict[str, list[Mapping[str, Any]]] = dict(sandbox.tables())
    tables["Last requests"] = [asdict(item) for item in list(sandbox.requests)[-15:]][::-1]
    statuses = Counter(item.status for item in sandbox.requests)
    tiles = {
        "requests": len(sandbox.requests),
        **{f"HTTP {status}" if status else "reset": n for status, n in sorted(statuses.items())},
    }
    parts = [f"<div class=tile><b>{count:,}</b>{html.escape(name)}</div>" for name, count in tiles.items()]
    body = "".join(f"<h2>{html.escape(title)}</h2>{_table(rows)}" for title, rows in tables.items())
    switched = ", ".join(f"{name} = {value}" for name, value in faults.items()) or "none"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{sandbox.name} sandbox</title><style>{_STYLE}</style><h1>{sandbox.name} sandbox</h1>"
        f"<p class=note>A simulation from public documents; not the vendor. Everything is forgotten when it ends.</p>"
        f"<div class=tiles>{''.join(parts)}</div><p>Faults switched on: {html.escape(switched)}</p>{body}</html>"
    )


def _table(rows: list[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p class=note>nothing yet</p>"
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_short(row.get(name)))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><tr>{head}</tr>{lines}</table></div>"


def _short(value: Any) -> str:
    text = "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
