"""A simulated Iterable project over real HTTP: endpoints, authorisation, limits.

From Iterable's own client (Iterable/api-client), block/iterable-go, older Swagger documents, and recorded answers. What none
of those says for certain is an attribute of the class. Iterable applies writes after it has answered; with the switch `lag` a
profile is shown that much later.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.iterable.project import Failed, Project
from backhaul.sandbox.iterable.sample import SAMPLE
from backhaul.sandbox.kit import RECORDS, Sandbox
from backhaul.sandbox.limits import RollingLimit

Endpoint = Callable[[web.Request, dict[str, Any]], web.Response]
_REASONS = ("invalid", "notFound", "forgotten", "conflict", "invalidData")
_MOST, _LARGEST = 1000, 4_000_000
_EVENT_ID = 512
_ITEM = re.compile(r"[A-Za-z0-9-]{1,255}")


class Refusal(Exception):
    """The whole request is refused."""

    def __init__(self, code: str, message: str, status: int = 400, params: Any = None) -> None:
        super().__init__(message)
        self.answer = said(status, code, message, params)


class IterableSandbox(Sandbox):
    """One project with users, two lists, and events."""

    name = "Iterable"
    sample = SAMPLE
    credential = "api_key"
    api_key: str | None = None
    """The key; None takes any."""
    most_fields = 1_000
    """Unique fields of a project, a soft limit (older Swagger documents)."""

    def __init__(
        self, seed: int = 1, *, by_email: bool = True, bulk: int = 10, deletes: int = 3, lists: int = 5, reads: int = 500
    ) -> None:  # fmt: skip
        """Requests a second, of each bulk endpoint and others. 10 and 3 are the Swagger documents', the rest is from memory."""
        super().__init__(seed)
        self.project = Project(by_email)
        self.project.lists = {101: ("Customers", "Standard", set()), 102: ("Recently seen", "Dynamic", set())}
        self.limits = {
            **{kind: RollingLimit(bulk, 1) for kind in ("users", "events", "catalogs")},
            "lists": RollingLimit(lists, 1),
            "delete": RollingLimit(deletes, 1),
            "read": RollingLimit(reads, 1),
        }

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/users/getFields", self._at(self._fields))
        router.add_get("/api/lists", self._at(self._lists))
        router.add_post("/api/users/bulkUpdate", self._at(self._bulk_update))
        router.add_post("/api/users/update", self._at(self._update))
        router.add_post("/api/users/updateEmail", self._at(self._update_email))
        router.add_post("/api/events/trackBulk", self._at(self._track))
        router.add_post("/api/lists/subscribe", self._at(self._subscribe))
        router.add_post("/api/lists/unsubscribe", self._at(self._unsubscribe))
        router.add_get("/api/catalogs", self._at(self._catalogs))
        router.add_get("/api/catalogs/{catalog}/fieldMappings", self._at(self._mappings))
        router.add_post("/api/catalogs/{catalog}/items", self._at(self._items))
        router.add_delete("/api/catalogs/{catalog}/items", self._at(self._remove_items))
        router.add_get("/api/catalogs/{catalog}/items/{item}", self._at(self._item))
        for path in ("/api/users/byUserId/{userId}", "/api/users/{email}"):
            router.add_get(path, self._at(self._user))
            router.add_delete(path, self._at(self._delete))

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        members = {name: {one: {"userId or email": one} for one in sorted(people)}
                   for name, _, people in self.project.lists.values() if people}  # fmt: skip
        users = {user.name: user.shown()["dataFields"] for user in self.project.users}
        return {"users": users, "events": self.project.events, **members, **self.project.catalogs}

    def writes(self, request: web.Request) -> bool:
        return request.method != "GET"

    def admit(self, request: web.Request) -> web.Response | None:
        key = request.headers.get("Api-Key", "")
        if not key or self.api_key not in (None, key):
            return self.refusal(401)
        kind = request.path.split("/")[2]
        if request.method == "GET" or (request.method == "DELETE" and kind == "users"):
            kind = "read" if request.method == "GET" else "delete"
        return None if self.limits[kind].take() else self.refusal(429)

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        words = {
            400: (code or "BadParams", "Refused by a switch of the sandbox"),
            401: ("BadApiKey", "Invalid API key"),
            404: ("NotFound", "Endpoint not found"),
            429: ("RateLimitExceeded", "Rate limit exceeded for this endpoint"),
            500: ("GenericError", "An unexpected error occurred"),
        }
        answer = said(status, *words[status])
        if status == 429 and retry_after is not None:
            answer.headers["Retry-After"] = f"{retry_after:g}"
        return answer

    def _at(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def enter(request: web.Request) -> web.Response:
            try:
                data = await request.read()
                return endpoint(request, _body(data) if data or request.method == "POST" else {})
            except Refusal as refusal:
                return refusal.answer

        return enter

    def _fields(self, _: web.Request, __: dict[str, Any]) -> web.Response:
        return _json({"fields": self.project.fields})

    def _lists(self, _: web.Request, __: dict[str, Any]) -> web.Response:
        return _json({
            "lists": [
                {"id": number, "name": name, "createdAt": 1624575876355, "listType": kind}
                for number, (name, kind, _) in self.project.lists.items()
            ]
        })  # fmt: skip

    def _bulk_update(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        users, answer = self._many(request, body, "users"), Answer(self)
        self._check_types(users)
        dropped = self._new_fields(users, body)
        for user in users:
            data = {
                name: value for name, value in (user.get("dataFields") or {}).items() if name not in dropped
            }
            self._remember(user)
            answer.add(user, partial(self.project.store, user, data))
        return answer.whole(filteredOutFields=sorted(dropped))

    def _update(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        self._check_types([body])
        self._new_fields([body], {"createNewFields": True, **body})
        self._remember(body)
        try:
            self.project.store(body, body.get("dataFields") or {})
        except Failed as failed:
            raise Refusal("InvalidEmailAddressError", failed.reason) from None
        return said(200, "Success", "")

    def _update_email(self, _: web.Request, body: dict[str, Any]) -> web.Response:
        """Projects by e-mail only (Iterable/api-client); the profile keeps everything but its address."""
        if not self.project.by_email:
            raise Refusal("BadParams", "The e-mail of a user can be changed in projects by e-mail only")
        current, user_id, new = (body.get(name) for name in ("currentEmail", "currentUserId", "newEmail"))
        user = self.project.find(current, user_id)
        if user is None:
            raise Refusal("UnknownEmailError" if current else "UnknownUserIdError", "User does not exist")
        try:
            self.project.person({"email": new})
        except Failed:
            raise Refusal("InvalidEmailAddressError", f"Invalid email: {new}") from None
        if self.project.find(new, None) not in (None, user):
            raise Refusal("EmailAlreadyExists", f"A user with the email {new} exists")
        self._remember(user.shown())
        self._remember({"email": new})
        self.project.remove(user)
        user.email = new
        self.project.add(user)
        return said(200, "Success", "")

    def _check_types(self, users: list[dict[str, Any]]) -> None:
        """Raises: Refusal: the whole request, for one value of another type."""
        for user in users:
            if self.faults.poison_key in (user.get("userId"), user.get("email")) and self.faults.poison_key:
                raise Refusal("RequestFieldsTypesMismatched", "The request does not have the same data types")
            for name, value in self.project.mismatches(user.get("dataFields") or {}):
                known = self.project.fields[name]
                error = {"incomingTypes": ["string", "keyword"], "expectedType": known, "category": "user",
                         "offendingValue": value, "_type": "UnexpectedType"}  # fmt: skip
                raise Refusal(
                    "RequestFieldsTypesMismatched",
                    "The request does not have the same data types as the data previously submitted. "
                    f"Field '{name}' already exists for type 'user' and has a data type of '{known}'.",
                    params={"validationErrors": {f"my_project_etl:::{name}": error}},
                )

    def _new_fields(self, users: list[dict[str, Any]], body: Mapping[str, Any]) -> set[str]:
        """The fields that are left out, because the project does not have them and is not to make them."""
        new = {name for user in users for name in self.project.unknown(user.get("dataFields") or {})}
        if new and body.get("createNewFields"):
            if len(self.project.fields) + len(new) > self.most_fields:
                raise Refusal("UniqueFieldsLimitExceeded", "The project has its most unique fields")
            for user in users:
                self.project.learn(user.get("dataFields") or {})
            return set()
        return new

    def _track(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        answer = Answer(self)
        for event in self._many(request, body, "events"):
            answer.add(event, partial(self._event, event))
        return answer.whole(disallowedEventNames=[])

    def _event(self, event: dict[str, Any]) -> None:
        self.project.person(event)
        long = len(str(event.get("id") or "")) > _EVENT_ID
        if long or not event.get("eventName") or not isinstance(event.get("createdAt", 0), int):
            raise Failed("invalidDataEmails" if event.get("email") else "invalidDataUserIds")
        self.project.events[str(event.get("id") or len(self.project.events))] = event

    def _subscribe(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        def join(members: set[str], person: dict[str, Any]) -> None:
            self._remember(person)
            self.project.store({**person, "preferUserId": True}, {})
            members.add(str(person.get("userId") or person.get("email")))

        return self._members(request, body, join)

    def _unsubscribe(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        """Who is not there is named (block/iterable-go, batch/list_unsubscribe.go)."""

        def leave(members: set[str], person: dict[str, Any]) -> None:
            if self.project.find(person.get("email"), person.get("userId")) is None:
                raise Failed("notFoundEmails" if person.get("email") else "notFoundUserIds")
            members.discard(str(person.get("userId") or person.get("email")))

        return self._members(request, body, leave)

    def _members(
        self, request: web.Request, body: dict[str, Any], act: Callable[[set[str], dict[str, Any]], None]
    ) -> web.Response:
        found, answer = self.project.lists.get(body.get("listId", 0)), Answer(self)
        if found is None or found[1] != "Standard":
            raise Refusal("BadParams", f"List {body.get('listId')} does not exist or is not static")
        for person in self._many(request, body, "subscribers"):
            answer.add(person, partial(self._member, act, found[2], person))
        return answer.whole()

    def _member(
        self, act: Callable[[set[str], dict[str, Any]], None], members: set[str], person: dict[str, Any]
    ) -> None:
        self.project.person(person)
        act(members, person)

    def _user(self, request: web.Request, _: dict[str, Any]) -> web.Response:
        email, user_id = self._named(request)
        found = self.project.find(email, user_id)
        user = self.lag.shown(("email", email.lower()) if email is not None else ("id", user_id), found)
        return _json({"user": user.shown()} if user is not None else {})

    def _remember(self, person: Mapping[str, Any]) -> None:
        """Keeps what a read shows of a profile that is written now, under each of its names."""
        if not self.faults.lag:
            return
        user = self.project.find(person.get("email"), person.get("userId"))
        given = (("email", str(person.get("email") or "").lower()), ("id", str(person.get("userId") or "")))
        for kind, name in {*given, *(user.names() if user is not None else ())}:
            by_email = kind == "email"
            self.lag.wrote(
                (kind, name), self.project.find(name if by_email else None, None if by_email else name)
            )

    def _delete(self, request: web.Request, _: dict[str, Any]) -> web.Response:
        user = self.project.find(*self._named(request))
        request[RECORDS] = 1
        if user is None:
            by_email = "email" in request.match_info
            raise Refusal("UnknownEmailError" if by_email else "UnknownUserIdError", "User does not exist")
        for one in self.project.sharing(user) if "userId" in request.match_info else [user]:
            self._remember(one.shown())
            self.project.remove(one)
        return said(200, "Success", "")

    def _named(self, request: web.Request) -> tuple[str | None, str | None]:
        email = request.match_info.get("email")
        if email is not None and "@" not in email:
            raise Refusal("InvalidEmailAddressError", f"Invalid email: {email}")
        return email, request.match_info.get("userId")

    def _catalogs(self, _: web.Request, __: dict[str, Any]) -> web.Response:
        names = [{"name": name} for name in self.project.catalogs]
        return said(200, "Success", "", {"catalogNames": names, "totalCatalogsCount": len(names)})

    def _mappings(self, request: web.Request, _: dict[str, Any]) -> web.Response:
        items, types = self._catalog(request), self.project.mappings[request.match_info["catalog"]]
        names = {name for item in items.values() for name in item}
        more = {"definedMappings": types, "undefinedFields": sorted(names - types.keys())}
        return said(200, "Success", "", more)

    def _items(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        """All or none: an id that may not be, or a field with a dot, refuses the request."""
        held, documents = self._catalog(request), body.get("documents")
        if not isinstance(documents, dict) or not 0 < len(documents) <= _MOST:
            raise Refusal("BadParams", f"documents is required and has at most {_MOST} items")
        request[RECORDS] = len(documents)
        for item, value in documents.items():
            if not _ITEM.fullmatch(item) or not isinstance(value, dict) or any("." in name for name in value):
                raise Refusal("BadParams", "Item ids are alphanumeric and dashes; field names have no period")
            if self.refuses(item) or (self.faults.poison_key and self.faults.poison_key == item):
                raise Refusal("BadParams", "Refused by a switch of the sandbox")
        for item, value in documents.items():
            kept = held.get(item, {}) if body.get("replaceUploadedFieldsOnly") else {}
            held[item] = {**kept, **value}
        return said(202, "Success", "Request to bulk-upload received")

    def _remove_items(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        held, asked = self._catalog(request), body.get("itemIds")
        if not isinstance(asked, list) or not 0 < len(asked) <= _MOST:
            raise Refusal("BadParams", f"itemIds is required and has at most {_MOST} ids")
        request[RECORDS] = len(asked)
        for item in asked:
            held.pop(str(item), None)
        return said(202, "Success", "Request to bulk-delete received")

    def _item(self, request: web.Request, _: dict[str, Any]) -> web.Response:
        item, catalog = request.match_info["item"], request.match_info["catalog"]
        held = self._catalog(request).get(item)
        if held is None:
            raise Refusal("NotFound", f"Item {item} was not found", 404)
        return _json({
            "catalogName": catalog, "itemId": item, "lastModified": 0, "size": len(orjson.dumps(held)), "value": held
        })  # fmt: skip

    def _catalog(self, request: web.Request) -> dict[str, dict[str, Any]]:
        name = request.match_info["catalog"]
        if name not in self.project.catalogs:
            raise Refusal("NotFound", f"Catalog {name} was not found", 404)
        return self.project.catalogs[name]

    def _many(self, request: web.Request, body: dict[str, Any], name: str) -> list[dict[str, Any]]:
        """Raises: Refusal: it is not a list of objects, or too long a one."""
        items = body.get(name)
        if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
            raise Refusal("BadParams", f"{name} is required and has objects")
        if len(items) > _MOST:
            raise Refusal("BatchTooLarge", f"At most {_MOST} {name} a request", 413)
        request[RECORDS] = len(items)
        return items


class Answer:
    """The answer to many records: those that failed by name, the others counted."""

    def __init__(self, sandbox: IterableSandbox) -> None:
        self.sandbox = sandbox
        self.failed: dict[str, list[str]] = {}
        self.done = 0

    def add(self, person: Mapping[str, Any], act: Callable[[], None]) -> None:
        who = "Emails" if person.get("email") else "UserIds"
        name = str(person.get("email") or person.get("userId") or "")
        try:
            if self.sandbox.refuses(name):
                raise Failed(f"invalidData{who}")
            act()
            self.done += 1
        except Failed as failed:
            self.failed.setdefault(failed.reason, []).append(name)

    def whole(self, **more: Any) -> web.Response:
        counted = len(self.sandbox.spoil([None] * self.done))
        lists = {
            reason + who: self.failed.get(reason + who, [])
            for reason in _REASONS
            for who in ("Emails", "UserIds")
        }
        return _json({
            "successCount": counted, "failCount": sum(map(len, self.failed.values())),
            "invalidEmails": lists["invalidEmails"], "invalidUserIds": lists["invalidUserIds"],
            "createdFields": [], "noOpEmails": [], "noOpUserIds": [], "failedUpdates": lists, **more,
        })  # fmt: skip


def _body(data: bytes) -> dict[str, Any]:
    if len(data) > _LARGEST:
        raise Refusal("BatchTooLarge", "The body is too large", 413)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise Refusal("BadJsonBody", "Invalid JSON body") from None
    if not isinstance(body, dict):
        raise Refusal("BadJsonBody", "Invalid JSON body")
    return body


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def said(status: int, code: str, message: str, params: Any = None) -> web.Response:
    """The envelope of everything but lists of outcomes."""
    return _json({"msg": message, "code": code, "params": params}, status)
