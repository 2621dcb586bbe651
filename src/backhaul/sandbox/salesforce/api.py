"""A simulated Salesforce org over real HTTP: endpoints, access tokens, the daily quota.

From Salesforce's REST API guide, recorded answers, and issue threads of client libraries. What none of those says for
certain is an attribute of the class.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.kit import Sandbox
from backhaul.sandbox.limits import RollingLimit
from backhaul.sandbox.salesforce import bulk, composite, rest, single
from backhaul.sandbox.salesforce.answers import Refusal, Whole, answer, not_found, problem
from backhaul.sandbox.salesforce.sample import SAMPLE
from backhaul.sandbox.salesforce.store import SObject, fresh

Endpoint = Callable[["SalesforceSandbox", web.Request, Mapping[str, Any]], web.Response]
_DAY = 86_400.0
_JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class SalesforceSandbox(Sandbox):
    """One org with accounts, contacts, leads, and the custom object Customer__c."""

    name = "Salesforce"
    sample = SAMPLE
    version = "v67.0"
    page_size = 2000
    """Records of one page of a query."""
    connected_app: Mapping[str, str] | None = None
    """The connected app: client_id and client_secret, refresh_token or public_key; None takes any."""
    rotates = False
    """Whether each use of the app's refresh token brings another, and ends the old one."""
    job_seconds = 0.0
    """How long a bulk job takes."""
    job_fails_after: int | None = None
    """Records after which a bulk job fails, the rest unprocessed."""
    hidden_from_jobs = ""
    """A field that a bulk job does not find, though describe still had it."""
    audience = "https://login.salesforce.com"

    org = "00DSb0000000001MAA"
    """The org's id: another one is another account."""

    def __init__(self, seed: int = 1, *, daily: int = 100_000) -> None:
        super().__init__(seed)
        self.kinds = fresh()
        self.daily = RollingLimit(daily, _DAY)
        self.locators: dict[str, tuple[str, int]] = {}
        """Queries that have another page, and where it begins."""
        self.jobs: dict[str, bulk.Job] = {}
        self._numbers = count(1)
        self._ended: set[str] = set()
        self._given: list[str] = []

    def kind(self, name: str) -> SObject:
        """Raises: Whole."""
        found = self.kinds.get(name)
        if found is None:
            raise not_found()
        return found

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return {
            name: {record.id: record.values for record in kind.records.values()}
            for name, kind in self.kinds.items()
        }

    def notes(self) -> Mapping[str, str]:
        return {f"left of {self.daily.count:,} in 24 hours": f"{self.daily.remaining:,}"}

    def routes(self, router: web.UrlDispatcher) -> None:
        head = f"/services/data/{self.version}"
        router.add_post("/services/oauth2/token", self._grant)
        router.add_get("/services/data", self._versions)
        router.add_get("/services/data/", self._versions)
        several, one = f"{head}/composite/sobjects", f"{head}/sobjects/{{object}}"
        for method, path, endpoint in (
            ("GET", f"{head}/limits", rest.limits), ("GET", f"{head}/limits/", rest.limits),
            ("GET", f"{head}/query", rest.query), ("GET", f"{head}/query/", rest.query),
            ("GET", f"{head}/query/{{locator}}", rest.query), ("POST", several, rest.create_all),
            ("PATCH", several, rest.update_all), ("DELETE", several, rest.delete_all),
            ("PATCH", f"{several}/{{object}}/{{field}}", rest.upsert_all), ("GET", f"{one}/describe", rest.describe),
            ("POST", f"{head}/composite", composite.composite), ("POST", f"{head}/composite/", composite.composite),
            ("POST", one, single.create), ("POST", f"{one}/", single.create),
        ):  # fmt: skip
            router.add_route(method, path, self._at(endpoint))
        for path in (f"{one}/{{field}}/{{id}}", f"{one}/{{id}}"):
            for method, endpoint in (("GET", single.get), ("PATCH", single.patch), ("DELETE", single.delete)):
                router.add_route(method, path, self._at(endpoint))

        self._bulk(router, f"{head}/jobs/ingest")

    def _bulk(self, router: web.UrlDispatcher, jobs: str) -> None:
        one = f"{jobs}/{{job}}"
        for method, path, endpoint in (
            ("POST", jobs, bulk.create), ("GET", jobs, bulk.listed), ("GET", one, bulk.look), ("PATCH", one, bulk.change),
            ("DELETE", one, bulk.remove), ("GET", f"{one}/{{results}}", bulk.results),
            ("GET", f"{one}/{{results}}/", bulk.results),
        ):  # fmt: skip
            router.add_route(method, path, self._at(endpoint))
        router.add_put(f"{one}/batches", self._upload)

    async def _upload(self, request: web.Request) -> web.Response:
        try:
            return await bulk.upload(self, request)
        except Whole as error:
            return error.answer()

    def _at(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def enter(request: web.Request) -> web.Response:
            try:
                return endpoint(self, request, await _body(request))
            except Whole as error:
                return error.answer()
            except Refusal as error:
                return problem(400, error.code, str(error), fields=error.fields)
            except single.Several as error:
                return answer(error.urls, 300)

        return enter

    def writes(self, request: web.Request) -> bool:
        return request.method != "GET" and "/oauth2/" not in request.path

    async def _versions(self, _: web.Request) -> web.Response:
        number = self.version.removeprefix("v")
        return answer([{"label": "Simulated", "url": f"/services/data/{self.version}", "version": number}])

    async def _grant(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if not self._granted(form):
            return answer({"error": "invalid_grant", "error_description": "authentication failure"}, 400)
        token = f"{self.org[:15]}!AQEAQ{next(self._numbers)}"
        self._given.append(token)
        given = {
            **self._rotated(form),
            "access_token": token,
            "instance_url": f"{request.scheme}://{request.host}",
            "token_type": "Bearer",
            "id": f"https://login.salesforce.com/id/{self.org}/005Sb0000000001AAA",
        }
        return answer({**given, "issued_at": str(int(time.time() * 1000)), "signature": "simulated"})

    def _rotated(self, form: Mapping[str, str]) -> dict[str, str]:
        """The next refresh token, where the connected app rotates them: the old one is not valid any more."""
        if not self.rotates or self.connected_app is None or form.get("grant_type") != "refresh_token":
            return {}
        self.connected_app = {**self.connected_app, "refresh_token": secrets.token_urlsafe(24)}
        return {"refresh_token": self.connected_app["refresh_token"]}

    def _granted(self, form: Mapping[str, str]) -> bool:
        """Whether the app may have a token."""
        kind, app = form.get("grant_type"), self.connected_app
        if kind == _JWT:
            return self._asserted(form.get("assertion", ""))
        needed = {
            "client_credentials": ("client_id", "client_secret"),
            "refresh_token": ("client_id", "refresh_token"),
        }
        names = needed.get(kind or "")
        if names is None or not all(form.get(name) for name in names):
            return False
        return app is None or all(form.get(name) == app.get(name) for name in names)

    def _asserted(self, assertion: str) -> bool:
        """Whether an assertion is signed by the app's key, for this server, and not over or too far ahead."""
        try:
            claims = orjson.loads(base64.urlsafe_b64decode(assertion.split(".")[1] + "=="))
            ahead = float(claims["exp"]) - time.time()
            whole = bool(claims["iss"] and claims["sub"] and claims["aud"] == self.audience)
        except (ValueError, KeyError, IndexError, TypeError):
            return False
        return whole and 0 < ahead <= 300 and (self.connected_app is None or self._signed(assertion))

    def _signed(self, assertion: str) -> bool:
        import jwt

        key = (self.connected_app or {}).get("public_key", "")
        try:
            jwt.decode(assertion, key, algorithms=["RS256"], audience=self.audience)
        except jwt.PyJWTError:
            return False
        return True

    def end_tokens(self) -> None:
        """No access token given so far is good any more."""
        self._ended.update(self._given)

    def admit(self, request: web.Request) -> web.Response | None:
        if not request.path.startswith("/services/data/v"):
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            return problem(401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE")
        if token in self._ended:
            return self.refusal(401, "expired")
        if not self.daily.take():
            return problem(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        return None

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        """Salesforce throttles with a 403, and never says for how long."""
        if status == 429:
            words = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
            return problem(403, "REQUEST_LIMIT_EXCEEDED", words)
        code, words = {
            400: (code, "Refused by a switch of the sandbox"),
            401: ("INVALID_SESSION_ID", "Session expired or invalid"),
            404: ("NOT_FOUND", "The requested resource does not exist"),
            500: ("UNKNOWN_EXCEPTION", "An unexpected error occurred."),
        }[status]
        return problem(status, code, words)

    def dress(self, request: web.Request, answer: web.Response) -> None:
        if request.path.startswith("/services/data/v") and answer.status != 401:
            used = self.daily.count - self.daily.remaining
            answer.headers["Sforce-Limit-Info"] = f"api-usage={used}/{self.daily.count}"


async def _body(request: web.Request) -> Mapping[str, Any]:
    """The request's JSON object. Raises: Whole."""
    if request.method not in ("POST", "PATCH"):
        return {}
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise Whole(
            "JSON_PARSER_ERROR", "The HTTP entity body is required, but this request has no JSON body"
        ) from None
    if not isinstance(body, dict):
        raise Whole("JSON_PARSER_ERROR", "The HTTP entity body is not an object")
    return body
