"""A simulated HubSpot account over real HTTP: endpoints, authorisation, limits.

From HubSpot's OpenAPI documents and usage guidelines, recorded answers, and issue threads of its client libraries.
What none of those says for certain is an attribute of the class.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.hubspot import associations, batch, lists, metadata, single
from backhaul.sandbox.hubspot.account import PORTAL, fresh
from backhaul.sandbox.hubspot.answers import Refusal, not_found, problem, rate_limited, refused, secondly
from backhaul.sandbox.hubspot.call import Call
from backhaul.sandbox.hubspot.sample import PROPERTIES, SAMPLE
from backhaul.sandbox.hubspot.store import ObjectType
from backhaul.sandbox.kit import Sandbox
from backhaul.sandbox.limits import DailyLimit, RollingLimit

Endpoint = Callable[[Call], web.Response]
_LIMITS = "X-HubSpot-RateLimit-"
_SCHEMAS = "/crm/v3/schemas"


class HubSpotSandbox(Sandbox):
    """One account with contacts, companies, deals and the custom object 2-1001."""

    name = "HubSpot"
    sample = SAMPLE
    ordered = False
    version = "2026-09"
    """The dated version beside v3."""
    batch_size = 100
    """Inputs of a batch; from memory."""
    unique_properties = 10
    """Unique properties of one object type; from memory."""
    updates_by_email = False
    """Whether batch/update takes an e-mail for the idProperty; an issue thread says no."""
    traces_merged = False
    """Whether the result of a record that was merged away carries the trace of its input; reports of clients say no."""
    nothing_found = 207
    """The status of a batch/read that finds nothing; issue threads say 207 and 404."""

    token: str | None = None
    """The access token; None takes any."""
    oauth_app: Mapping[str, str] | None = None
    """An OAuth app's client_id, client_secret and refresh_token: access tokens are those it was given, for `token_life`."""
    token_life = 1800.0
    missing_scopes: frozenset[str] = frozenset()
    """Scopes that the token lacks, such as crm.objects.contacts.write."""
    unknown_properties = "refuse"
    """`refuse` the request that sets a property which does not exist or is read only, or `drop` the property silently."""
    retry_after: float | None = None
    """The Retry-After of a burst 429; recorded ones have none."""

    portal = 4567890
    """The account's id: another one is another account."""

    def __init__(
        self, seed: int = 1, *, burst: int = 100, interval: float = 10.0, daily: int = 250_000, associated: int = 500_000
    ) -> None:  # fmt: skip
        super().__init__(seed)
        self.types = fresh()
        self.between = associations.Between()
        self.lists: dict[str, lists.StaticList] = {}
        self.burst, self.daily = RollingLimit(burst, interval), DailyLimit(daily)
        self.search_limit = RollingLimit(5, 1.0)
        self.associated = DailyLimit(associated)
        """Requests for associations, which count as others too; that they do is from memory."""
        self.privacy_deleted: list[str] = []
        """Ids of contacts that were deleted for ever."""
        self.blocked: set[str] = set()
        """E-mails and ids that a privacy delete named and nobody had."""
        self._given: dict[str, float] = {}
        """Access tokens of the OAuth app, and when they end."""

    def type_named(self, name: str) -> ObjectType | None:
        """The object type that a URL calls so: contacts, contact, 0-1, 2-1001, p62515_assets."""
        if name in self.types:
            return self.types[name]
        return next((kind for kind in self.types.values() if name.lower() in kind.names()), None)

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return {
            kind.full_name or name: {key: record.properties for key, record in kind.records.items()}
            for name, kind in self.types.items()
        }

    def add_sample_fields(self) -> None:
        self.types["contacts"].properties |= {item.name: item for item in PROPERTIES}

    def notes(self) -> Mapping[str, str]:
        return {
            f"left of {self.burst.count:,} in {self.burst.per:g} s": f"{self.burst.remaining:,}",
            f"left of {self.daily.count:,} today": f"{self.daily.remaining:,}",
        }

    def routes(self, router: web.UrlDispatcher) -> None:
        for head in ("/crm/v3/objects/{type}", f"/crm/objects/{self.version}/{{type}}"):
            for name in ("upsert", "update", "create", "archive", "read"):
                router.add_post(f"{head}/batch/{name}", self._at(getattr(batch, name)))
            router.add_post(f"{head}/search", self._at(single.search))
            router.add_post(f"{head}/merge", self._at(single.merge))
            router.add_post(f"{head}/gdpr-delete", self._at(single.gdpr_delete))
            router.add_get(head, self._at(single.page))
            router.add_post(head, self._at(single.post))
            router.add_get(head + "/{id}", self._at(single.get))
            router.add_patch(head + "/{id}", self._at(single.patch))
            router.add_delete(head + "/{id}", self._at(single.delete))
        for head in ("/crm/v4/associations/{type}/{to}", f"/crm/associations/{self.version}/{{type}}/{{to}}"):
            router.add_get(head + "/labels", self._at(associations.labels))
            router.add_post(head + "/batch/associate/default", self._at(associations.make_default))
            router.add_post(head + "/batch/create", self._at(associations.make))
            router.add_post(head + "/batch/archive", self._at(associations.archive))
            router.add_post(head + "/batch/labels/archive", self._at(associations.archive_labels))
            router.add_post(head + "/batch/read", self._at(associations.read))
        for head in ("/crm/v3/lists", f"/crm/lists/{self.version}"):
            router.add_post(head + "/", self._at(lists.create))
            router.add_get(head + "/{list}", self._at(lists.get))
            router.add_put(head + "/{list}/memberships/add-and-remove", self._at(lists.change))
            router.add_get(head + "/records/{type}/{id}/memberships", self._at(lists.of_record))
        for head in ("/crm/v3/properties/{type}", f"/crm/properties/{self.version}/{{type}}"):
            router.add_get(head, self._at(metadata.properties))
            router.add_post(head, self._at(metadata.add_property))
            router.add_get(head + "/{name}", self._at(metadata.one_property))
        router.add_post("/oauth/v3/token", self._grant)
        router.add_get("/account-info/v3/details", self._details)
        router.add_get(_SCHEMAS, self._at(metadata.schemas))
        router.add_post(_SCHEMAS, self._at(metadata.add_schema))
        router.add_get(_SCHEMAS + "/{type}", self._at(metadata.one_schema))

    def _at(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def enter(request: web.Request) -> web.Response:
            try:
                return endpoint(await self._call(request))
            except Refusal as refusal:
                return refused(refusal)
            except (KeyError, TypeError, AttributeError, ValueError):
                return problem(400, "VALIDATION_ERROR", "Invalid input JSON on line 1, column 1")

        return enter

    async def _call(self, request: web.Request) -> Call:
        """Raises: Refusal, ValueError where the body is not a JSON object."""
        name = request.match_info.get("type", "contacts")
        kind = self.type_named(name)
        if kind is None:
            raise Refusal("VALIDATION_ERROR", f"Unable to infer object type from: {name}")
        body = orjson.loads(await request.read()) if request.method in ("POST", "PATCH", "PUT") else {}
        if not isinstance(body, dict):
            raise ValueError("not an object")
        return Call(self, request, kind, body, dated=f"/{self.version}/" in request.path)

    def writes(self, request: web.Request) -> bool:
        records = any(room in request.path for room in ("/objects/", "/associations/", "/memberships/"))
        return request.method != "GET" and records and not request.path.endswith(("/batch/read", "/search"))

    async def _details(self, _: web.Request) -> web.Response:
        known = {
            "portalId": self.portal,
            "accountType": "DEVELOPER_TEST",
            "timeZone": "US/Eastern",
            "uiDomain": "app.hubspot.com",
        }
        return web.json_response(known)

    async def _grant(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if form.pop("grant_type", "") != "refresh_token" or form != self.oauth_app:
            return web.json_response(
                {"error": "invalid_grant", "error_description": "missing or invalid refresh token"},
                status=400,
            )
        token = f"oauth-{len(self._given)}"
        self._given[token] = time.monotonic() + self.token_life
        given = {"access_token": token, "expires_in": int(self.token_life), "token_type": "bearer"}
        return web.json_response({**given, "refresh_token": form["refresh_token"]})

    def end_tokens(self) -> None:
        """No access token is good any more."""
        self._given = dict.fromkeys(self._given, 0.0)

    def _accepts(self, token: str) -> bool:
        if self.oauth_app is not None:
            return self._given.get(token, 0.0) > time.monotonic()
        return bool(token) and self.token in (None, token)

    def admit(self, request: web.Request) -> web.Response | None:
        if request.path.startswith("/oauth/"):
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self._accepts(token):
            return self.refusal(401)
        return self._over_limit(request) or self._out_of_scope(request)

    def _over_limit(self, request: web.Request) -> web.Response | None:
        """Search has a limit of its own beside the daily one."""
        searching = request.path.endswith("/search")
        between = "/associations/" in request.path
        if self.daily.remaining <= 0 or (between and self.associated.remaining <= 0):
            return rate_limited("DAILY")
        if not (self.search_limit if searching else self.burst).take():
            return secondly() if searching else rate_limited("TEN_SECONDLY_ROLLING", self.retry_after)
        self.daily.take()
        if between:
            self.associated.take()
        return None

    def _out_of_scope(self, request: web.Request) -> web.Response | None:
        kind = self.type_named(request.match_info.get("type", ""))
        area = "custom" if kind is None or kind.custom else kind.name
        place = "objects" if "/objects/" in request.path else "schemas"
        reading = request.method == "GET" or request.path.endswith(("/batch/read", "/search"))
        scope = f"crm.{place}.{area}.{'read' if reading else 'write'}"
        if scope not in self.missing_scopes:
            return None
        error = {
            "message": "One or more of the following scopes are required.",
            "context": {"requiredGranularScopes": [scope]},
        }
        return problem(
            403,
            "MISSING_SCOPES",
            "This app hasn't been granted all required scopes to make this call.",
            errors=[error],
        )

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        if status == 429:
            return secondly() if retry_after is None else rate_limited("TEN_SECONDLY_ROLLING", retry_after)
        if status == 404:
            return not_found()
        if status == 401 and code:
            return problem(401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired.")
        words = {
            400: (code, "Refused by a switch of the sandbox"),
            401: ("INVALID_AUTHENTICATION", "Authentication credentials not found. This API supports OAuth 2.0 authentication."),
            500: ("INTERNAL_ERROR", "There was an internal error. Please retry."),
        }  # fmt: skip
        return problem(status, *words[status])

    def dress(self, request: web.Request, answer: web.Response) -> None:
        """Search's answers carry the daily pair only (recorded); a refused token's none."""
        if answer.status in (401, 403):
            return
        limits: dict[str, object] = {"Daily": self.daily.count, "Daily-Remaining": self.daily.remaining}
        if not request.path.endswith("/search"):
            each = max(self.burst.count // 10, 1)
            limits |= {
                "Interval-Milliseconds": int(self.burst.per * 1000), "Max": self.burst.count, "Remaining": self.burst.remaining,
                "Secondly": each, "Secondly-Remaining": max(each - self.burst.recent(1.0), 0),
            }  # fmt: skip
        answer.headers.update({_LIMITS + name: str(value) for name, value in limits.items()})


__all__ = ["PORTAL", "HubSpotSandbox"]
