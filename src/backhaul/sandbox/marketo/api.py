"""A simulated Marketo instance over real HTTP: endpoints, tokens, limits.

From Adobe's REST guide and Swagger documents, and recorded answers. What none of those says for certain is an attribute of the
class. Nearly every answer is HTTP 200. With the switch `lag` searches show a record that much later.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from backhaul.sandbox.kit import Sandbox
from backhaul.sandbox.limits import RollingLimit
from backhaul.sandbox.marketo import customs, imports, leads
from backhaul.sandbox.marketo.call import Call, Endpoint
from backhaul.sandbox.marketo.sample import SAMPLE
from backhaul.sandbox.marketo.store import Instance, Whole

_LARGEST, _LONGEST = 1_048_576, 8000
"""Bytes of a body and of an address."""
_PREFIX, _BULK = "/rest/v1/", "/bulk/v1/"


class MarketoSandbox(Sandbox):
    """One instance with leads, a static list, and the custom objects car_c and seat_c."""

    name = "Marketo"
    sample = SAMPLE
    client: tuple[str, str] | None = None
    """The custom service's id and secret; None takes any."""
    token_life = 3600.0
    at_once = 10
    """Calls that are worked on at the same time; one more is refused."""
    seconds = 0.0
    """How long a call is worked on."""
    page_size = 300
    import_seconds = 0.0
    """How long a file of a bulk import is worked on."""
    import_life = 604_800.0
    """Seconds for which an import is known (guide: Bulk Import)."""
    imports_fail = False
    empty_clears = True
    """Whether an empty cell of such a file clears its field."""

    def __init__(
        self, seed: int = 1, *, calls: int = 100, interval: float = 20.0, daily: int = 50_000
    ) -> None:
        super().__init__(seed)
        self.instance = Instance()
        for room in (self.instance.leads, *(kind.room for kind in self.instance.objects.values())):
            room.lag = self.lag
        self.window, self.daily = RollingLimit(calls, interval), RollingLimit(daily, 86_400)
        self._token, self._until = "", 0.0
        self._ended: set[str] = set()
        self._running = 0
        self.imports: dict[str, imports.Import] = {}
        """Files of bulk imports."""

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        objects = {name: kind.room.records for name, kind in self.instance.objects.items()}
        lists = {
            name: {own: {"id": own} for own in sorted(members)}
            for name, members in self.instance.lists.values()
        }
        return {"leads": self.instance.leads.records, **objects, **lists}

    def notes(self) -> Mapping[str, str]:
        return {
            f"left of {self.window.count:,} in {self.window.per:g} s": f"{self.window.remaining:,}",
            f"left of {self.daily.count:,} today": f"{self.daily.remaining:,}",
        }

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_route("*", "/identity/oauth/token", self._identity)
        custom, members = "customobjects/{object}", "lists/{list}/leads"
        for path, endpoints in (
            (
                "leads",
                {"GET": leads.find_leads, "POST": leads.sync_leads, "DELETE": leads.delete_leads},
            ),
            ("leads/delete", {"POST": leads.delete_leads}),
            ("leads/describe", {"GET": leads.describe}),
            ("leads/describe2", {"GET": leads.describe2}),
            ("lead/{id}", {"GET": leads.lead}),
            ("lists/{list}", {"GET": leads.static_list}),
            (members, {"GET": leads.members, "POST": leads.add, "DELETE": leads.remove}),
            (f"{members}/ismember", {"GET": leads.is_member}),
            ("customobjects", {"GET": customs.custom_objects}),
            (f"{custom}/describe", {"GET": customs.describe_custom}),
            (custom, {"GET": customs.find_custom, "POST": customs.sync_custom}),
            (f"{custom}/delete", {"POST": customs.delete_custom}),
            ("stats/usage", {"GET": leads.usage}),
        ):
            router.add_route("*", f"{_PREFIX}{path}.json", self._at(endpoints))

        for method, path, act in (
            ("POST", "leads", imports.create),
            ("GET", "leads/batch/{batch}", imports.look),
            ("GET", "leads/batch/{batch}/failures", imports.failures),
        ):
            router.add_route(method, f"{_BULK}{path}.json", self._in_bulk(act))

    def _in_bulk(
        self, act: Callable[[MarketoSandbox, web.Request], Awaitable[dict[str, Any] | web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def enter(request: web.Request) -> web.Response:
            try:
                found = await act(self, request)
            except Whole as refused:
                return error(refused.code, str(refused))
            if isinstance(found, web.Response):
                return found
            return answer({"requestId": self._request_id(), **found, "success": True})

        return enter

    def _at(self, endpoints: Mapping[str, Endpoint]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def enter(request: web.Request) -> web.Response:
            text = await request.read()
            if len(text) > _LARGEST or len(request.raw_path) > _LONGEST:
                return web.Response(status=413 if len(text) > _LARGEST else 414)
            if self._running >= self.at_once:
                return error("615", "Concurrent access limit reached")
            self._running += 1
            try:
                await asyncio.sleep(self.seconds)
                call = _call(self, request, text)
                endpoint = endpoints.get(call.method)
                if endpoint is None:
                    raise Whole("605", f"Request method '{call.method}' not supported")
                return answer({"requestId": self._request_id(), **endpoint(call), "success": True})
            except Whole as refused:
                return error(refused.code, str(refused))
            finally:
                self._running -= 1

        return enter

    def _request_id(self) -> str:
        return f"{self.rng.getrandbits(16):x}#{int(time.time() * 1000):x}"

    async def _identity(self, request: web.Request) -> web.Response:
        """The same token until it ends, with what is left of its life."""
        asked = dict(request.query) | dict(await request.post())
        given = (str(asked.get("client_id") or ""), str(asked.get("client_secret") or ""))
        kind = asked.get("grant_type") == "client_credentials"
        if not kind or not all(given) or self.client not in (None, given):
            said = {"error": "unauthorized", "error_description": "Bad client credentials"}
            return answer(said, 401)
        now = time.monotonic()
        if now >= self._until or self._token in self._ended:
            self._token, self._until = f"{secrets.token_hex(16)}:sim", now + self.token_life
        left = int(self._until - now)
        return answer(
            {
                "access_token": self._token,
                "token_type": "bearer",
                "expires_in": left,
                "scope": "api@example.com",
            }
        )

    def end_tokens(self) -> None:
        """The token given last is not good any more."""
        self._ended.add(self._token)

    def writes(self, request: web.Request) -> bool:
        method = request.query.get("_method", request.method)
        return method != "GET" and request.path.startswith((_PREFIX, _BULK))

    def admit(self, request: web.Request) -> web.Response | None:
        if not request.path.startswith((_PREFIX, _BULK)):
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            return error("600", "Empty access token")
        if token != self._token:
            return error("601", "Access token invalid")
        if token in self._ended or time.monotonic() >= self._until:
            return error("602", "Access token expired")
        if self.daily.remaining <= 0:
            return error("607", "Daily quota reached")
        if not self.window.take():
            return self.refusal(429, retry_after=self.window.per)
        self.daily.take()
        return None

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        seconds = self.window.per if retry_after is None else retry_after
        return error(*{
            400: (code, "Refused by a switch of the sandbox"),
            401: ("602", "Access token expired"),
            404: ("610", "Requested resource not found"),
            429: ("606", f"Max rate limit '{self.window.count}' exceeded with in '{seconds:g}' secs"),
            500: ("611", "System error"),
        }[status])  # fmt: skip


def _call(sandbox: MarketoSandbox, request: web.Request, text: bytes) -> Call:
    """Raises: Whole."""
    query = list(request.query.items())
    body: Any = {}
    if "urlencoded" in request.content_type:
        query += parse_qsl(text.decode("utf-8", "replace"), keep_blank_values=True)
    elif text:
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise Whole("609", "Invalid JSON") from None
    method = next((value for name, value in query if name == "_method"), request.method)
    if not isinstance(body, dict):
        raise Whole("609", "Invalid JSON")
    return Call(sandbox, request, method.upper(), query, body)


def answer(body: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def error(code: str, message: str) -> web.Response:
    return answer({"requestId": "0#0", "success": False, "errors": [{"code": code, "message": message}]})
