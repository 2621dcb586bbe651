"""The kit for simulated destination APIs: real HTTP, limits, a request log, a page to look at, and faults as switches.

A simulation is what public documents and recorded answers say of an API. It is not the API.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import orjson
from aiohttp import web

from backhaul.errors import UsageError
from backhaul.sandbox.lag import Lag
from backhaul.sandbox.page import HEADERS, render

T = TypeVar("T")
_LOG = 100_000
_HOSTS = ("127.0.0.1", "localhost", "::1")


RECORDS = web.RequestKey("records", int)
"""How many records a request carries, for the log."""
RESET = web.RequestKey("reset", bool)
"""The connection was broken instead of an answer."""


@dataclass
class Faults:
    """Shares between 0 and 1 are drawn anew for every write request, unless said otherwise."""

    throttle: float = 0.0
    """429 with Retry-After."""
    throttle_silently: float = 0.0
    """429 without."""
    retry_after: float = 1.0
    """Seconds that Retry-After says."""
    error: float = 0.0
    """500; nothing is applied."""
    reset_before: float = 0.0
    """The connection is reset; nothing is applied."""
    reset_after: float = 0.0
    """The write is applied, then the connection is reset."""
    html: float = 0.0
    """200 with a page; nothing is applied."""
    hollow: float = 0.0
    """200 with an empty object; nothing is applied."""
    truncate: float = 0.0
    """The write is applied, and its answer is cut in half."""
    shuffle: bool = False
    """Results in another order."""
    omit: float = 0.0
    """Share of records left out of the answer; they are applied."""
    refuse: float = 0.0
    """Share of records refused; by key, so the same ones each time."""
    refuse_code: str = ""
    """The code with which such records are refused, where the vendor's answers have codes; '' an ordinary one."""
    refuse_key: str = ""
    """The record with this key is refused."""
    poison_key: str = ""
    """A request that holds this key is refused as a whole, naming nobody."""
    payment: float = 0.0
    """402: the plan's quota is used up."""
    refuse_all: str = ""
    """Every write request is refused with this code."""
    expire_after: int = 0
    """So many requests are served after the switches were set, then the credentials have expired; 0: they never do."""
    latency: float = 0.0
    """Seconds before every answer."""
    lag: float = 0.0
    """Seconds until reads show what was written, where the vendor acknowledges a write before it applies it."""
    reads: bool = False
    """Requests that only read are struck too."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that came in `at` seconds since the simulation started, status 0 a reset connection."""

    method: str
    path: str
    status: int
    records: int
    at: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What a fresh simulation takes from the demo's model of contacts: how to sign in, and a sync that fits."""

    type: str
    """The destination."""
    credentials: Mapping[str, str]
    """By configuration key; a simulation takes any, unless it is told otherwise."""
    object: str
    identify: Mapping[str, str]
    """Destination field -> SQL expression, as in a sync; so is `fields`."""
    fields: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)
    """More keys of the destination."""
    mode: str = "upsert"
    rows: int = 20_000
    """Records that the vendor's limits let through in about half a minute."""

    @property
    def secrets(self) -> dict[str, str]:
        """Configuration key -> the environment variable that holds it."""
        return {key: f"{self.type}_{key}".upper() for key in self.credentials}

    def connection(self, url: str) -> str:
        """The destination as it stands in backhaul.yml, `url` being where the simulation is served."""
        keys = {"type": self.type, "base_url": f'"{url}"'}
        keys |= {key: f'"${{{name}}}"' for key, name in self.secrets.items()} | dict(self.settings)
        return f"{{{', '.join(f'{key}: {value}' for key, value in keys.items())}}}"

    def environment(self) -> list[str]:
        """The lines of its `.env`."""
        return [f"{name}={self.credentials[key]}" for key, name in self.secrets.items()]


class Sandbox(ABC):
    """One simulated API: a subclass has its endpoints, its records and the vendor's words; the kit has the rest."""

    name = "sandbox"
    sample: ClassVar[Sample | None] = None
    """None: the demo cannot show it."""
    credential = "token"
    """The attribute that holds the one token that is taken; None takes any."""
    ordered = True
    """Results come in the order of the request; False where the vendor does not promise it."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.requests: deque[Request] = deque(maxlen=_LOG)
        """The last ones, oldest first."""
        self.counts: Counter[str] = Counter()
        """`METHOD /path/{parameter} status` -> how many, since the start."""
        self.faults = Faults()
        self.lag = Lag(lambda: self.faults.lag)
        self.started = time.monotonic()

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._served = 0

    @abstractmethod
    def routes(self, router: web.UrlDispatcher) -> None:
        """Adds the API's endpoints."""

    @abstractmethod
    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """What it holds, JSON-ready: object -> id -> values."""

    def add_sample_fields(self) -> None:  # noqa: B027 - most fresh accounts have them
        """Makes the custom fields that its sample writes to."""

    def notes(self) -> Mapping[str, str]:
        """A few facts for the page, such as what is left of a limit."""
        return {}

    @abstractmethod
    def writes(self, request: web.Request) -> bool:
        """Whether the request is a write."""

    @abstractmethod
    def admit(self, request: web.Request) -> web.Response | None:
        """The refusal of a request without credentials or over a limit."""

    @abstractmethod
    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        """An error of the whole request, as the vendor words it: 400, 401, 404, 429 or 500."""

    def dress(self, request: web.Request, answer: web.Response) -> None:  # noqa: B027 - most APIs have none
        """Adds the headers that the vendor's answers carry."""

    def app(self) -> web.Application:
        """The simulation as an application; serve one at a time."""
        app = web.Application(client_max_size=1 << 28, middlewares=[self._log])
        app.router.add_get("/", self._page)
        app.router.add_get("/_sandbox/state", self._state)
        app.router.add_post("/_sandbox/faults", self._set_faults)
        self.routes(app.router)
        return app

    def refuses(self, *keys: str) -> bool:
        """Whether a switch refuses the record that goes by these keys; its share is drawn by the first one."""
        if not (self.faults.refuse or self.faults.refuse_key):
            return False
        drawn = bool(keys) and zlib.crc32(f"{self.seed}/{keys[0]}".encode()) < self.faults.refuse * 2**32
        return drawn or (self.faults.refuse_key != "" and self.faults.refuse_key in keys)

    def spoil(self, results: list[T]) -> list[T]:
        """The results of an answer as the switches leave them: in another order, some missing."""
        if self.faults.shuffle or not self.ordered:
            self.rng.shuffle(results)
        return [item for item in results if not self._strikes(self.faults.omit)]

    def _strikes(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    @web.middleware
    async def _log(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if foreign := _foreign(request):
            return foreign
        if request.path.startswith("/_sandbox") or (
            request.path == "/" and request.method in ("GET", "HEAD")
        ):
            inner: web.StreamResponse = await handler(request)
            return inner
        at = time.monotonic() - self.started
        refused = self._expired() or self.admit(request)  # limits count requests as they come in
        if self.faults.latency:
            await asyncio.sleep(self.faults.latency)
        answer = refused or await self._answer(request, handler)
        self.dress(request, answer)
        status = 0 if request.get(RESET, False) else answer.status
        self.requests.append(Request(request.method, request.path, status, request.get(RECORDS, 0), at))
        self.counts[f"{request.method} {template(request)} {status}"] += 1
        return answer

    async def _answer(self, request: web.Request, handler: Any) -> web.Response:
        struck = self.faults.reads or self.writes(request)
        spoilt = self._before(request) if struck else None
        if spoilt is not None:
            return spoilt
        try:
            answer: web.Response = await handler(request)
        except web.HTTPException:
            answer = self.refusal(404)
        return self._after(request, answer) if struck else answer

    def _expired(self) -> web.Response | None:
        self._served += 1
        return self.refusal(401, "expired") if 0 < self.faults.expire_after < self._served else None

    def _before(self, request: web.Request) -> web.Response | None:
        """The faults that keep a request from being applied."""
        faults = self.faults
        if faults.refuse_all:
            return self.refusal(400, faults.refuse_all)
        if self._strikes(faults.payment):
            said = {"message": "The monthly quota of your plan is used up"}  # no vendor's answer was recorded
            return web.json_response(said, status=402)
        if self._strikes(faults.throttle):
            return self.refusal(429, retry_after=faults.retry_after)
        if self._strikes(faults.throttle_silently):
            return self.refusal(429)
        if self._strikes(faults.error):
            return self.refusal(500)
        if self._strikes(faults.reset_before):
            return _reset(request)
        if self._strikes(faults.html):
            return web.Response(text="<html><body>Back soon</body></html>", content_type="text/html")
        if self._strikes(faults.hollow):
            return web.json_response({})
        return None

    def _after(self, request: web.Request, answer: web.Response) -> web.Response:
        """The faults that strike when the request was applied."""
        if self._strikes(self.faults.reset_after):
            return _reset(request)
        if self._strikes(self.faults.truncate) and isinstance(answer.body, bytes):
            answer.body = answer.body[: len(answer.body) // 2]
        return answer

    async def _state(self, _: web.Request) -> web.Response:
        body = {
            "name": self.name, "records": self.records(), "counts": self.counts, "faults": asdict(self.faults),
            "requests": [asdict(item) for item in self.requests],
        }  # fmt: skip
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults = faults_from(orjson.loads(await request.read()))
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(asdict(self.faults))

    async def _page(self, request: web.Request) -> web.Response:
        text = render(
            self.name, self.records(), list(self.requests), self.counts, asdict(self.faults), self.notes()
        )
        return web.Response(text=text, content_type="text/html", headers=HEADERS)


def simulation(name: str) -> type[Sandbox]:
    """The simulation of a destination.

    Raises:
        UsageError: there is none.
    """
    from difflib import get_close_matches

    from backhaul.installed import declared

    known = declared("sandboxes")
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(sorted(known))}"
        raise UsageError(f"there is no simulated {name}", hint=hint)
    found: type[Sandbox] = known[name].load()
    return found


def faults_from(switches: Mapping[str, Any]) -> Faults:
    """The given switches; the others are off.

    Raises:
        ValueError: no such switch, or a value that it cannot take.
    """
    if not isinstance(switches, Mapping):
        raise ValueError('the switches are an object, such as {"error": 0.05}')
    kinds = {item.name: type(getattr(Faults(), item.name)) for item in fields(Faults)}
    unknown = set(switches) - set(kinds)
    if unknown:
        raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(sorted(kinds))}")
    for name, value in switches.items():
        takes = (int, float) if kinds[name] is float else (kinds[name],)
        if type(value) not in takes:
            raise ValueError(f"{name} takes a value of type {kinds[name].__name__}")
    return Faults(**switches)


def switches(texts: Iterable[str]) -> Faults:
    """The switches that a command line names as NAME=VALUE.

    Raises:
        ValueError: as `faults_from`.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        kind: Any = type(getattr(Faults(), name, ""))
        if not equals or (kind is bool and value not in ("true", "false")):
            raise ValueError(f"{text!r} is not NAME=VALUE, such as error=0.05 or shuffle=true")
        try:
            given[name] = value == "true" if kind is bool else kind(value)
        except ValueError:
            raise ValueError(f"{name} takes a number, not {value!r}") from None
    return faults_from(given)


def _foreign(request: web.Request) -> web.Response | None:
    """The refusal of a request that a page of another site makes a browser send: it names another host (DNS rebinding), or comes
    from another origin."""
    host = request.url.host or ""
    if host not in _HOSTS:
        return web.json_response({"error": f"this simulation is not {host[:100]!r}"}, status=421)
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.host}":
        return web.json_response({"error": "requests from pages of other sites are refused"}, status=403)
    return None


def template(request: web.Request) -> str:
    """The path of a request with its parameters' names."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "(none)"


def _reset(request: web.Request) -> web.Response:
    """Breaks the connection instead of answering."""
    request[RESET] = True
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


@asynccontextmanager
async def serve(sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serves a simulation; gives its address. Raises: OSError where the port is taken."""
    runner = web.AppRunner(sandbox.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
