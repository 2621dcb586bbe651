"""A simulated Braze workspace over real HTTP: endpoints, API keys and their permissions, limits by endpoint.

From Braze's pages on these endpoints, on rate limits and errors, and recorded answers. What none of those says for certain is
an attribute of the class. Braze takes writes in and applies them later; this one applies them before it is next asked about them,
and with the switch `lag` shows them later (recorded: the first read after a write is mostly stale).
"""

from __future__ import annotations

import re
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.braze.catalogs import Catalog, Wrong, take
from backhaul.sandbox.braze.sample import SAMPLE
from backhaul.sandbox.braze.store import Attribute, Body, Refusal, Store, User, is_moment
from backhaul.sandbox.kit import RECORDS, Sandbox
from backhaul.sandbox.limits import WindowLimit

Endpoint = Callable[[web.Request, Body], web.Response]
_WHO = ("external_id", "braze_id", "user_alias")
_ARRAYS = ("attributes", "events", "purchases")
_NEEDED = {
    "events": ("name", "time"),
    "purchases": ("product_id", "currency", "price", "time"),
}
_PAGE = 50
_NOTHING = "Valid data must be provided in the 'attributes', 'events', or 'purchases' fields."


class Fatal(Exception):
    """An answer to the request as a whole."""

    def __init__(self, status: int, message: str, errors: list[Body] | None = None) -> None:
        super().__init__(message)
        self.status, self.errors = status, errors


class BrazeSandbox(Sandbox):
    """One workspace with a few custom attributes."""

    name = "Braze"
    sample = SAMPLE
    key: str | None = None
    """The REST API key; None takes any."""
    permissions: frozenset[str] | None = None
    """Such as users.track; None: all."""
    objects = 75
    """Of one request to /users/track, over its three arrays; plans by monthly active users have 50."""
    most_bytes = 4 * 1024 * 1024
    maintenance = False
    """Whether requests are taken in and answered with `queued`; here they are applied at once all the same."""
    needs_fields = True
    """Whether an export has to name its fields, as for workspaces made since August 2024."""

    def __init__(self, seed: int = 1, *, track: int = 3_000, interval: float = 3.0) -> None:
        super().__init__(seed)
        self._store = Store()
        self._taken: deque[tuple[str, Body]] = deque()
        for name, kind in _CUSTOM:
            self._store.attributes[name] = Attribute(name, kind, 25 if kind == "Array" else None)
        self.limits = {
            "/users/track": WindowLimit(track, interval),
            "/users/export/ids": WindowLimit(250, 60),
            "/users/delete": WindowLimit(20_000, 60),
            "/users/external_ids/rename": WindowLimit(1_000, 60),
            "/custom_attributes": WindowLimit(1_000, 3_600),
            _ITEMS: WindowLimit(16_000, 60),
            "/catalogs": WindowLimit(50, 60),
            "": WindowLimit(250_000, 3_600),
        }
        self.catalogs = {"restaurants": Catalog("restaurants", dict(_RESTAURANT))}

    @property
    def store(self) -> Store:
        """The workspace, with all that was taken in."""
        self._apply()
        return self._store

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        users = self.store.users.values()
        happened = [{"user": user.external_id, **one} for user in users for one in user.happened]
        return {
            "users": {user.braze_id: user.flat() for user in users},
            "events and purchases": {str(place): one for place, one in enumerate(happened)},
            **{f"catalogs/{name}": catalog.items for name, catalog in self.catalogs.items()},
        }

    def notes(self) -> Mapping[str, str]:
        limit = self.limits["/users/track"]
        return {f"left of {limit.count:,} in these {limit.per:g} s": f"{max(limit.remaining, 0):,}"}

    def routes(self, router: web.UrlDispatcher) -> None:
        for method, path, endpoint in (
            ("POST", "/users/track", self._track),
            ("POST", "/users/delete", self._delete),
            ("POST", "/users/export/ids", self._export),
            ("POST", "/users/external_ids/rename", self._rename),
            ("GET", "/custom_attributes", self._attributes),
            ("GET", "/catalogs", self._catalogs),
            ("PUT", "/catalogs/{catalog}/items", self._items),
            ("DELETE", "/catalogs/{catalog}/items", self._items),
        ):
            router.add_route(method, path, self._at(endpoint))

    def _at(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def enter(request: web.Request) -> web.Response:
            text = await request.read()
            try:
                if len(text) > self.most_bytes:
                    raise Fatal(413, "Request Entity Too Large")
                body = orjson.loads(text) if text else {}
                if not isinstance(body, dict):
                    raise Fatal(400, "The request body must be an object")
                return endpoint(request, body)
            except Wrong as wrong:
                return _answer({"message": "Invalid Request", "errors": [wrong.error()]}, wrong.status)
            except Fatal as fatal:
                more = {} if fatal.errors is None else {"errors": fatal.errors}
                return _answer({"message": str(fatal), **more}, fatal.status)
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                return _answer({"message": "Your request could not be parsed"}, 400)

        return enter

    def writes(self, request: web.Request) -> bool:
        return request.path in ("/users/track", "/users/delete", "/users/external_ids/rename") or _is_items(
            request.path
        )

    def admit(self, request: web.Request) -> web.Response | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not key or self.key not in (None, key):
            return self.refusal(401)
        needed = (
            _ITEMS_NEED.get(request.method) if _is_items(request.path) else _PERMISSIONS.get(request.path)
        )
        if self.permissions is not None and needed is not None and needed not in self.permissions:
            return _answer({"message": f"The API key does not have the permission {needed}"}, 401)
        return None if self._limit(request).take() else self.refusal(429)

    def _limit(self, request: web.Request) -> WindowLimit:
        return self.limits.get(_ITEMS if _is_items(request.path) else request.path, self.limits[""])

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        words = {
            400: code, 401: "Invalid API key: non-existent", 404: "Invalid URL", 429: "Rate limit exceeded",
            500: "Internal server error",
        }  # fmt: skip
        answer = _answer({"message": words[status]}, status)
        if retry_after is not None:
            answer.headers["Retry-After"] = f"{retry_after:g}"
        return answer

    def dress(self, request: web.Request, answer: web.Response) -> None:
        """Answers to requests without a good key have empty limits (recorded)."""
        limit = self._limit(request)
        said: tuple[Any, ...] = (limit.count, max(limit.remaining, 0), int(limit.resets))
        said = ("", "", "") if answer.status == 401 else said
        for name, value in zip(("Limit", "Remaining", "Reset"), said, strict=True):
            answer.headers[f"X-RateLimit-{name}"] = str(value)
        answer.headers["X-Request-Id"] = str(uuid.UUID(int=self.rng.getrandbits(128)))

    # users

    def _track(self, request: web.Request, body: Body) -> web.Response:
        sent = [(array, place, item) for array in _ARRAYS for place, item in enumerate(body.get(array) or ())]
        request[RECORDS] = len(sent)
        if not sent:
            raise Fatal(400, _NOTHING)
        if len(sent) > self.objects:
            raise Fatal(400, f"Max Input Length Exceeded: at most {self.objects} objects in a request")
        if self.faults.poison_key and any(self.faults.poison_key in _names(item) for _, _, item in sent):
            raise Fatal(400, "Refused by a switch of the sandbox")
        errors, done = [], []
        for array, place, item in sent:
            try:
                self._take(array, item)
                done.append(array)
            except Refusal as refusal:
                errors.append({"type": str(refusal), "input_array": array, "index": place})
        if not done:
            raise Fatal(400, _NOTHING, errors)
        if self.maintenance:
            return _answer({"message": "queued"}, 202)
        counted = self.spoil(done)
        counts = {f"{array}_processed": counted.count(array) for array in _ARRAYS if array in counted}
        return _answer({"message": "success", **counts, **({"errors": errors} if errors else {})}, 201)

    def _take(self, array: str, item: Body) -> None:
        """Raises: Refusal."""
        if self.refuses(*_names(item)):
            raise Refusal("Refused by a switch of the sandbox")
        if array == "attributes":
            self._store.check(item)
        for needed in _NEEDED.get(array, ()):
            if item.get(needed) in (None, ""):
                raise Refusal(f"'{needed}' is required")
        if array != "attributes" and not is_moment(item["time"]):
            raise Refusal("'time' is invalid")
        if array == "purchases":
            _check_price(item)
        self._remember(item)
        self._taken.append((array, item))
        if not str(item.get("external_id") or "").strip():  # whom it names has to be looked for
            self._apply()

    def _apply(self) -> None:
        """Raises: Refusal where the last one taken is of nobody."""
        while self._taken:
            array, item = self._taken.popleft()
            user = self._store.named(item)
            if user is None:
                alias = _is_alias(item)
                if item.get("_update_existing_only", alias) or (alias and array != "attributes"):
                    continue
                user = self._store.make(item)
            if array == "attributes":
                self._store.set(user, item)
            else:
                user.happened += ({"kind": array, **item},)

    def _delete(self, request: web.Request, body: Body) -> web.Response:
        kinds = [kind for kind in ("external_ids", "braze_ids", "user_aliases") if kind in body]
        if len(kinds) != 1:
            raise Fatal(400, "Exactly one of external_ids, user_aliases and braze_ids has to be given")
        asked = body[kinds[0]]
        request[RECORDS] = len(asked)
        if len(asked) > _PAGE:
            raise Fatal(400, f"At most {_PAGE} users may be deleted in a request")
        name = kinds[0].removesuffix("es" if kinds[0] == "user_aliases" else "s")
        if self.faults.poison_key and self.faults.poison_key in map(str, asked):
            raise Fatal(400, "Refused by a switch of the sandbox")
        for one in asked:
            user = self.store.named({name: one})
            if user is not None:
                self._remember({"external_id": user.external_id})
                self.store.remove(user)
        return _answer({"deleted": len(self.spoil(list(asked))), "message": "success"}, 201)

    def _rename(self, request: web.Request, body: Body) -> web.Response:
        """The previous id stays, deprecated, and cannot be renamed (page: /users/external_ids/rename). The texts of errors are
        from memory."""
        asked = body.get("external_id_renames") or []
        request[RECORDS] = len(asked)
        if not 0 < len(asked) <= _PAGE:
            raise Fatal(400, f"Between 1 and {_PAGE} renames have to be given")
        renamed, errors = [], []
        for place, one in enumerate(asked):
            old, new = str(one["current_external_id"]), str(one["new_external_id"])
            user = self.store.external.get(old)
            if user is None or user.external_id != old:
                errors.append(f"index {place}: current_external_id is not the primary external_id of a user")
            elif new in self.store.external:
                errors.append(f"index {place}: new_external_id is in use")
            else:
                self._remember({"external_id": new})
                user.external_id = new
                self.store.external[new] = user
                renamed.append(new)
        return _answer({"message": "success", "external_ids": renamed, "rename_errors": errors}, 201)

    def _export(self, request: web.Request, body: Body) -> web.Response:
        if self.needs_fields and not body.get("fields_to_export"):
            raise Fatal(400, "fields_to_export is required")
        asked: list[tuple[str, Any]] = [("external_id", one) for one in body.get("external_ids") or ()]
        asked += [("user_alias", one) for one in body.get("user_aliases") or ()]
        asked += [("braze_id", body["braze_id"])] if body.get("braze_id") else []
        if not 0 < len(asked) <= _PAGE:
            raise Fatal(400, f"Between 1 and {_PAGE} identifiers have to be given")
        found: list[tuple[Any, User | None]] = [(one, self._visible(name, one)) for name, one in asked]
        wanted = set(body.get("fields_to_export") or ())
        users = [user.export(wanted) for _, user in found if user is not None]
        unknown = [one for one, user in found if user is None]
        more = {"invalid_user_ids": unknown} if unknown else {}
        return _answer({"users": users, **more, "message": "success"}, 201)

    def _visible(self, name: str, one: Any) -> User | None:
        """A user as an export shows it."""
        return self.lag.shown((name, _alias(one)), self.store.named({name: one}))

    def _remember(self, item: Body) -> None:
        """Keeps what an export shows of a user that is written now, under each of its names."""
        if not self.faults.lag:
            return
        user = self.store.named(item)
        written = {(name, _alias(item[name])) for name in _WHO if item.get(name) is not None}
        held = set() if user is None else {("external_id", user.external_id), ("braze_id", user.braze_id)}
        held |= {("user_alias", _alias(alias)) for alias in user.aliases} if user is not None else set()
        for one in written | held:
            self.lag.wrote(one, user)

    def _catalogs(self, _: web.Request, __: Body) -> web.Response:
        return _answer(
            {"catalogs": [one.shown() for one in self.catalogs.values()], "message": "success"}, 200
        )

    def _items(self, request: web.Request, body: Body) -> web.Response:
        request[RECORDS] = len(body.get("items") or ())
        take(self, request.match_info["catalog"], request.method, body)
        return _answer({"message": "success"}, 202)

    def _attributes(self, request: web.Request, _: Body) -> web.Response:
        start = int(request.query.get("cursor", "0"))
        names = sorted(self.store.attributes)
        listed = [self.store.attributes[name].json() for name in names[start : start + _PAGE]]
        answer = _answer({"attributes": listed, "message": "success"}, 200)
        if start + _PAGE < len(names):
            there = f"http://{request.host}/custom_attributes?cursor={start + _PAGE}"
            answer.headers["Link"] = f'<{there}>; rel="next"'
        return answer


_PERMISSIONS = {
    "/users/track": "users.track", "/users/delete": "users.delete", "/users/export/ids": "users.export.ids",
    "/users/external_ids/rename": "users.external_ids.rename",
    "/custom_attributes": "custom_attributes.get", "/catalogs": "catalogs.get",
}  # fmt: skip
_ITEMS = "/catalogs/{catalog}/items"
_ITEMS_NEED = {"PUT": "catalogs.replace_items", "DELETE": "catalogs.delete_items"}
_RESTAURANT = (
    ("id", "string"), ("Name", "string"), ("Rating", "number"), ("Loyalty_Program", "boolean"), ("Open_Time", "time"),
    ("Location", "object"), ("Top_Dishes", "array"),
)  # fmt: skip
_CUSTOM = (
    ("plan_tier", "String"), ("health_score", "Number"), ("logins", "Number"), ("trial", "Boolean"), ("renews_at", "Date"),
    ("groups", "Array"), ("address", "Object"), ("pets", "Object Array"),
)  # fmt: skip


def _is_items(path: str) -> bool:
    return path.startswith("/catalogs/") and path.endswith("/items")


def _check_price(item: Body) -> None:
    """Raises: Refusal."""
    if not re.fullmatch("[A-Z]{3}", str(item["currency"])):
        raise Refusal("'currency' is not an ISO 4217 code")
    if isinstance(item["price"], bool) or not isinstance(item["price"], int | float):
        raise Refusal("'price' must be a number")


def _names(item: Body) -> list[str]:
    """What the user of an object goes by, for the switches."""
    names = [str(item[name]) for name in ("external_id", "braze_id") if item.get(name) is not None]
    alias = item.get("user_alias")
    if isinstance(alias, dict) and alias.get("alias_name") is not None:
        names.append(str(alias["alias_name"]))
    return names


def _alias(name: Any) -> Any:
    """A name of a user, an alias as a tuple."""
    return (str(name["alias_label"]), str(name["alias_name"])) if isinstance(name, dict) else str(name)


def _is_alias(item: Body) -> bool:
    return item.get("external_id") is None and item.get("braze_id") is None


def _answer(body: Body, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
