"""A simulated Intercom workspace over real HTTP: endpoints, authorisation, versions, ten-second windows.

From Intercom's OpenAPI document (2.16), its rate-limit page and recorded answers. What none of those says for certain is an
attribute of the class.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.intercom import companies, contacts
from backhaul.sandbox.intercom.attributes import Attribute, Refusal, defined, fresh
from backhaul.sandbox.intercom.sample import SAMPLE
from backhaul.sandbox.intercom.store import WORKSPACE, Item, Room
from backhaul.sandbox.kit import RECORDS, Sandbox
from backhaul.sandbox.limits import WindowLimit

Endpoint = Callable[["IntercomSandbox", web.Request, dict[str, Any]], Any]


class IntercomSandbox(Sandbox):
    """One workspace with contacts and companies, and a few custom attributes of each."""

    name = "Intercom"
    sample = SAMPLE
    versions = ("2.11", "2.12", "2.13", "2.14", "2.15", "2.16")
    token: str | None = None
    """The access token; None takes any."""
    unique_emails = True
    """Whether two users may not have one e-mail; recorded conflicts do not say which detail matched."""
    single_company = False
    """Whether a company asked for by company_id comes alone, as the document's words say, or in a list, as its schema does."""
    unrestorable = 400
    """The status for a contact that cannot be unarchived; 500 was recorded too."""

    workspace = WORKSPACE
    """The workspace's id: another one is another account."""

    def __init__(self, seed: int = 1, *, window: int = 1_667, interval: float = 10.0) -> None:
        super().__init__(seed)
        self.attributes = fresh()
        self.contacts = Room("contact", self.attributes["contact"], ("external_id", "email"))
        self.companies = Room("company", self.attributes["company"], ("company_id",))
        self.limit = WindowLimit(window, interval)
        for number, (model, name, kind) in enumerate(_CUSTOM):
            self.attributes[model][name] = Attribute(name, model, kind, custom=True, id=number + 1)

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return {
            "contacts": {key: item.flat() for key, item in self.contacts.live.items()},
            "archived contacts": {key: item.flat() for key, item in self.contacts.archived.items()},
            "companies": {key: item.flat() for key, item in self.companies.live.items()},
        }

    def notes(self) -> Mapping[str, str]:
        return {
            f"left of {self.limit.count:,} in these {self.limit.per:g} s": f"{max(self.limit.remaining, 0):,}"
        }

    def routes(self, router: web.UrlDispatcher) -> None:
        for method, path, endpoint in (
            ("GET", "/me", _me),
            ("GET", "/data_attributes", _attributes),
            ("POST", "/data_attributes", _add_attribute),
            *contacts.ENDPOINTS,
            *companies.ENDPOINTS,
        ):
            router.add_route(method, path, self._at(endpoint))

    def _at(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def enter(request: web.Request) -> web.Response:
            text = await request.read()
            try:
                body = orjson.loads(text) if text else {}
                if not isinstance(body, dict):
                    raise ValueError("not an object")
                return _answer(endpoint(self, request, body))
            except Refusal as refusal:
                return error(refusal.status, refusal.code, str(refusal), refusal.field)
            except (KeyError, TypeError, AttributeError, ValueError):
                return error(400, "parameter_invalid", "the request body is not what this endpoint takes")

        return enter

    def faulted(self, request: web.Request, *keys: str) -> None:
        """Counts the record of a write. Raises: Refusal where a switch refuses it."""
        request[RECORDS] = 1
        named = [key for key in keys if key]
        if self.refuses(*named) or (self.faults.poison_key and self.faults.poison_key in named):
            raise Refusal(400, "parameter_invalid", "Refused by a switch of the sandbox")

    def shown(self, item: Item) -> dict[str, Any]:
        """The answer to a write: one object, or none of it where a switch leaves it out."""
        kept = self.spoil([item])
        return self.whole(item) if kept else {}

    def whole(self, item: Item) -> dict[str, Any]:
        if item.id in self.companies.live:
            users = sum(item.id in one.companies for one in self.contacts.live.values())
            return item.company(users)
        return item.contact()

    def writes(self, request: web.Request) -> bool:
        return request.method != "GET" and not request.path.endswith(("/search", "/data_attributes"))

    def admit(self, request: web.Request) -> web.Response | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token or self.token not in (None, token):
            return self.refusal(401)
        if not re.search(r"application/json|\*/\*", request.headers.get("Accept", "*/*")):
            return error(406, "media_type_not_acceptable", "The Accept header should be application/json")
        version = request.headers.get("Intercom-Version", self.versions[-1])
        if version not in self.versions:
            return error(400, "intercom_version_invalid", "The requested version could not be found")
        return None if self.limit.take() else self.refusal(429)

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        words = {
            400: (code, "Refused by a switch of the sandbox"),
            401: ("unauthorized", "Access Token Invalid"),
            404: ("not_found", "The requested resource was not found"),
            429: ("rate_limit_exceeded", f"Exceeded rate limit of {self.limit.count} in {self.limit.per:g}_seconds"),
            500: ("server_error", "An unexpected error occurred"),
        }  # fmt: skip
        answer = error(status, *words[status])
        if retry_after is not None:
            answer.headers["Retry-After"] = f"{retry_after:g}"
        return answer

    def dress(self, request: web.Request, answer: web.Response) -> None:
        """Answers to requests that are not let in carry no limits (vendor page: rate limiting)."""
        answer.headers["Intercom-Version"] = request.headers.get("Intercom-Version", self.versions[-1])
        if answer.status == 401:
            return
        left, ends = max(self.limit.remaining, 0), int(self.limit.resets)
        limits = {"Limit": self.limit.count, "Remaining": left, "Reset": ends}
        answer.headers.update({f"X-RateLimit-{name}": str(value) for name, value in limits.items()})


_CUSTOM = (
    ("contact", "plan_tier", "string"), ("contact", "health_score", "float"), ("contact", "logins", "integer"),
    ("contact", "trial", "boolean"), ("contact", "renews_at", "date"), ("company", "tier", "string"),
    ("company", "seats", "integer"),
)  # fmt: skip


def error(status: int, code: str, message: str, field: str | None = None) -> web.Response:
    one = {"code": code, "message": message} | ({"field": field} if field else {})
    return _answer({"type": "error.list", "request_id": str(uuid.uuid4()), "errors": [one]}, status)


def _answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", charset="utf-8"
    )


def _me(account: IntercomSandbox, _: web.Request, __: dict[str, Any]) -> dict[str, Any]:
    app = {
        "type": "app",
        "id_code": account.workspace,
        "name": "Sandbox",
        "region": "US",
        "timezone": "Etc/UTC",
        "created_at": 1,
    }
    return {
        "type": "admin",
        "id": "1",
        "email": "ada@example.com",
        "name": "Ada",
        "email_verified": True,
        "app": app,
    }


def _attributes(account: IntercomSandbox, request: web.Request, _: dict[str, Any]) -> dict[str, Any]:
    model = request.query.get("model")
    if model is not None and model not in account.attributes:
        raise Refusal(400, "parameter_invalid", f"model={model} is not supported")
    shown = request.query.get("include_archived") == "true"
    listed = [
        attribute.json()
        for name, held in account.attributes.items()
        for attribute in held.values()
        if model in (None, name) and (shown or not attribute.archived)
    ]
    return {"type": "list", "data": listed}


def _add_attribute(account: IntercomSandbox, _: web.Request, body: dict[str, Any]) -> dict[str, Any]:
    number = sum(map(len, account.attributes.values())) + 1
    made = defined(body, account.attributes, number)
    account.attributes[made.model][made.name] = made
    return made.json()
