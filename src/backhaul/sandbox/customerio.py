"""A simulated Customer.io workspace: the Track API's batches and single calls, and what the App API says of a person.

From Customer.io's OpenAPI document of the Track API, its page of invalid requests, and recorded answers. From memory: that a
batch says of a person with too long an attribute what a single call says, and the words about objects. What is taken in is
applied before somebody asks, and with the switch `lag` the App API shows it that much later.
"""

from __future__ import annotations

from base64 import b64decode
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.kit import RECORDS, Sample, Sandbox
from backhaul.sandbox.limits import RollingLimit

Body = dict[str, Any]
_WHOLE, _EACH = 500_000, 32_000
"""Bytes of a batch, and of one operation."""
_NAME, _VALUE, _ATTRIBUTES = 150, 1_000, 300
_WHO = ("id", "email", "cio_id")
_ACTIONS = {
    "person": ("identify", "delete", "event"),
    "object": ("identify", "delete", "add_relationships", "delete_relationships"),
}


class Invalid(Exception):
    """One operation is not taken."""

    def __init__(self, name: str, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.error = {"reason": reason, "field": name, "message": message}


@dataclass
class Person:
    """One profile."""

    cio_id: str
    attributes: Body = field(default_factory=dict)
    events: list[Body] = field(default_factory=list)

    def shown(self) -> Body:
        return {**self.attributes, "cio_id": self.cio_id}


@dataclass
class Thing:
    """One object, and who is related to it: ("id", "42")."""

    attributes: Body = field(default_factory=dict)
    people: set[tuple[str, str]] = field(default_factory=set)


class CustomerIoSandbox(Sandbox):
    """One workspace; Track API and App API are at one address."""

    name = "Customer.io"
    sample = Sample(
        type="customerio", credentials={"site_id": "local-sandbox", "api_key": "local-sandbox-key", "app_key": "local-app-key"},
        object="people", identify={"id": "contact_id::varchar"},
        fields={
            "email": "email", "first_name": "first_name", "plan": "plan", "seats": "seats", "health": "health",
            "last_seen": "epoch(last_seen)::bigint",
        },
    )  # fmt: skip
    site: tuple[str, str] | None = None
    """site_id and api_key; None takes any."""

    environment = 1
    """The workspace's id: another one is another account."""

    def __init__(self, seed: int = 1, *, track: int = 100, app: int = 10) -> None:
        """`track`, `app`: requests a second."""
        super().__init__(seed)
        self._people: dict[str, Person] = {}
        """By cio_id."""
        self._named: dict[tuple[str, str], str] = {}
        """cio_id by ("id" or "email", what it is)."""
        self._taken: deque[tuple[str, str, Body]] = deque()
        self.object_types = {"1"}
        self.objects: dict[tuple[str, str], Thing] = {}
        """By type and object_id."""
        self.track, self.app_limit = RollingLimit(track, 1.0), RollingLimit(app, 1.0)
        self._numbers = count(0xB79E0600840B850B)

    @property
    def people(self) -> dict[str, Person]:
        """By cio_id, with all that was taken in."""
        self._apply()
        return self._people

    @property
    def named(self) -> dict[tuple[str, str], str]:
        """cio_id by ("id" or "email", what it is)."""
        self._apply()
        return self._named

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/accounts/region", self._region)
        router.add_post("/api/v2/batch", self._batch)
        router.add_post("/api/v2/entity", self._entity)
        router.add_put("/api/v1/customers/{id}", self._identify)
        router.add_delete("/api/v1/customers/{id}", self._delete)
        router.add_post("/api/v1/customers/{id}/events", self._track)
        router.add_get("/v1/customers/{id}/attributes", self._attributes)

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        things = {"/".join(name): {**one.attributes, "related to": sorted(":".join(who) for who in one.people)}
                  for name, one in self.objects.items()}  # fmt: skip
        return {"people": {own: person.shown() for own, person in self.people.items()}, "objects": things,
                "events": {f"{own}/{number}": event for own, person in self.people.items()
                           for number, event in enumerate(person.events)}}  # fmt: skip

    def writes(self, request: web.Request) -> bool:
        return request.method != "GET"

    def admit(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if request.path.startswith("/v1/"):
            known, limit = given.startswith("Bearer "), self.app_limit
        else:
            known, limit = self._signed(given), self.track
        if not known:
            return self.refusal(401)
        return None if limit.take() else self.refusal(429)

    def _signed(self, given: str) -> bool:
        try:
            site, _, key = b64decode(given.removeprefix("Basic "), validate=True).decode().partition(":")
        except ValueError:
            return False
        return given.startswith("Basic ") and (
            bool(site and key) if self.site is None else (site, key) == self.site
        )

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        words = {
            400: code or "malformed request",
            401: "unauthorized",
            404: "not found",
            429: "too many requests",
        }
        answer = web.json_response({"meta": {"error": words.get(status, "internal error")}}, status=status)
        if status == 429 and retry_after is not None:
            answer.headers["Retry-After"] = f"{retry_after:g}"
        return answer

    async def _region(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"url": "track.customer.io", "data_center": "us", "environment_id": self.environment}
        )

    async def _batch(self, request: web.Request) -> web.Response:
        body = await request.read()
        if len(body) > _WHOLE:
            return self.refusal(413)
        operations = _object(body).get("batch")
        if not isinstance(operations, list) or not operations:
            return self.refusal(400, "batch must be a list of operations")
        request[RECORDS] = len(operations)
        poison = self.faults.poison_key
        if poison and any(poison in _keys(item) for item in operations):
            return self.refusal(400, "a record is not welcome")
        errors = []
        for place, item in enumerate(operations):
            try:
                self._do(item)
            except Invalid as invalid:
                errors.append({"batch_index": place, **invalid.error})
        return web.json_response({"errors": errors} if errors else {}, status=207 if errors else 200)

    async def _entity(self, request: web.Request) -> web.Response:
        return self._one(_object(await request.read()))

    async def _identify(self, request: web.Request) -> web.Response:
        attributes = _object(await request.read())
        return self._one(
            {"type": "person", "identifiers": _who(request), "action": "identify", "attributes": attributes}
        )

    async def _delete(self, request: web.Request) -> web.Response:
        return self._one({"type": "person", "identifiers": _who(request), "action": "delete"})

    async def _track(self, request: web.Request) -> web.Response:
        body = _object(await request.read())
        event = {
            "name": body.get("name"),
            "attributes": body.get("data") or {},
            "timestamp": body.get("timestamp"),
        }
        return self._one({"type": "person", "identifiers": _who(request), "action": "event", **event})

    def _one(self, operation: Body) -> web.Response:
        try:
            self._do(operation)
        except Invalid as invalid:
            return self.refusal(400, str(invalid))
        return web.json_response({})

    async def _attributes(self, request: web.Request) -> web.Response:
        kind, name = request.query.get("id_type", "id"), request.match_info["id"]
        who = (kind, name.lower() if kind == "email" else name)
        person = self.lag.shown(who, self._person(*who))
        if person is None:
            return web.json_response({"errors": [{"detail": "not found", "status": "404"}]}, status=404)
        attributes = {
            name: value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in person.shown().items()
        }
        return web.json_response(
            {"customer": {"id": attributes.get("id", ""), "attributes": attributes, "unsubscribed": False}}
        )

    def _person(self, kind: str, name: str) -> Person | None:
        return self.people.get(name if kind == "cio_id" else self.named.get((kind, name), ""))

    def _remember(self, kind: str, name: str, attributes: Body) -> None:
        """Keeps what the App API shows of a person who is written now, under each of their names."""
        if not self.faults.lag:
            return
        person = self._person(kind, name)
        held = person.shown() if person is not None else {}
        given = (
            (who, str(one[who])) for one in (held, attributes, {kind: name}) for who in _WHO if one.get(who)
        )
        for who, one in {(who, one.lower() if who == "email" else one) for who, one in given}:
            self.lag.wrote((who, one), self._person(who, one))

    def _do(self, item: Any) -> None:
        """Takes an operation in. Raises: Invalid."""
        kind = item.get("type") if isinstance(item, dict) else None
        if kind not in _ACTIONS or item.get("action") not in _ACTIONS[kind]:
            raise Invalid("action", "type is person or object, action one that it has")
        if len(orjson.dumps(item)) > _EACH:
            raise Invalid("attributes", "operation is larger than 32KB")
        if kind == "object":
            self._do_object(item)
            return
        kind, name = self._identifier(item.get("identifiers"))
        if self.refuses(name):
            raise Invalid("identifiers", "refused by a switch of the sandbox")
        if item["action"] == "event" and not item.get("name"):
            raise Invalid("name", "name cannot be blank", "required")
        if item["action"] == "identify":
            _check(item.get("attributes") or {})
        self._remember(kind, name, item.get("attributes") or {})
        self._taken.append((kind, name, item))

    def _do_object(self, item: Body) -> None:
        """Raises: Invalid."""
        who = item.get("identifiers") or {}
        kind, name = str(who.get("object_type_id") or ""), str(who.get("object_id") or "")
        if kind not in self.object_types:
            raise Invalid("object_type_id", "object type does not exist")
        if not 0 < len(name) <= _NAME:
            raise Invalid("object_id", "object_id is required, and has 150 characters at most", "required")
        if self.refuses(name):
            raise Invalid("identifiers", "refused by a switch of the sandbox")
        if item["action"] == "identify":
            _check(item.get("attributes") or {})
        related = [self._identifier(one.get("identifiers")) for one in item.get("cio_relationships") or ()]
        if item["action"].endswith("relationships") and not related:
            raise Invalid("cio_relationships", "at least one relationship is required", "required")
        held = self.objects.get((kind, name))
        if item["action"] == "delete":
            self.objects.pop((kind, name), None)
            return
        if held is None:
            held = self.objects[kind, name] = Thing()
        for key, value in (item.get("attributes") or {}).items():
            if value is None or value == "":
                held.attributes.pop(key, None)
            else:
                held.attributes[key] = value
        (held.people.difference_update if item["action"] == "delete_relationships" else held.people.update)(
            related
        )

    def _apply(self) -> None:
        while self._taken:
            kind, name, item = self._taken.popleft()
            own = name if kind == "cio_id" else self._named.get((kind, name))
            if item["action"] == "delete":
                self._drop(own)
            elif item["action"] == "event":
                self._happen(own, kind, name, item)
            else:
                self._store(own, kind, name, dict(item.get("attributes") or {}))

    def _identifier(self, given: Any) -> tuple[str, str]:
        named = {
            kind: str(value)
            for kind, value in (given or {}).items()
            if kind in _WHO and value not in (None, "")
        }
        if len(named) != 1:
            raise Invalid("identifiers", "exactly one of id, email, cio_id is required", "required")
        ((kind, name),) = named.items()
        if kind == "email" and "@" not in name:
            raise Invalid("email", "is not an e-mail address")
        return kind, name.lower() if kind == "email" else name

    def drop(self, own: str | None) -> None:
        """Takes a person away."""
        self._apply()
        self._drop(own)

    def _drop(self, own: str | None) -> None:
        person = self._people.pop(own, None) if own else None
        for name in [name for name, held in self._named.items() if person is not None and held == own]:
            del self._named[name]

    def _happen(self, own: str | None, kind: str, name: str, item: Body) -> None:
        person = self._people.get(own or "") or self._make(kind, name)
        person.events.append(
            {key: item[key] for key in ("name", "timestamp", "attributes") if item.get(key) is not None}
        )

    def _make(self, kind: str, name: str) -> Person:
        person = Person(f"{next(self._numbers):x}")
        self._people[person.cio_id] = person
        self._named[kind, name] = person.cio_id
        person.attributes[kind] = name
        return person

    def _store(self, own: str | None, kind: str, name: str, attributes: Body) -> None:
        only = attributes.pop("_update", False)
        attributes.pop("_timestamp", None)
        person = self._people.get(own or "")
        if person is None and (only or kind == "cio_id"):
            return  # taken, and dropped
        names = {who: _fold(who, attributes[who]) for who in ("id", "email") if attributes.get(who)}
        if any(self._named.get((who, one), own) != own for who, one in names.items()):
            return  # taken, and a failure in the activity log
        known = person.attributes.get("id") if person is not None else None
        if "id" in names and kind != "cio_id" and known not in (None, names["id"]):
            return  # an id that is set is changed by cio_id alone: a failure in the activity log too
        person = person or self._make(kind, name)
        for who, one in names.items():
            self._named.pop((who, _fold(who, person.attributes.get(who))), None)
            self._named[who, one] = person.cio_id
        for key, value in attributes.items():
            if value is None or value == "":
                person.attributes.pop(key, None)
            else:
                person.attributes[key] = str(value) if key == "id" else value


def _fold(who: str, name: Any) -> str:
    return str(name).lower() if who == "email" else str(name)


def _check(attributes: Body) -> None:
    """Raises: Invalid."""
    if len(attributes) > _ATTRIBUTES:
        raise Invalid("attributes", f"cannot identify more than {_ATTRIBUTES} attributes in one request")
    for key, value in attributes.items():
        if len(key) > _NAME // 4 and len(key.encode()) > _NAME:  # UTF-8 has four bytes a character at most
            raise Invalid(key, f"attribute name cannot be longer than {_NAME} bytes")
        if isinstance(value, str) and len(value) > _VALUE // 4 and len(value.encode()) > _VALUE:
            raise Invalid(key, f"value for attribute {key!r} cannot be longer than {_VALUE} bytes")


def _object(body: bytes) -> Body:
    try:
        found = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _who(request: web.Request) -> Body:
    """The identifier in a path: an id, an e-mail address, or `cio_` and a cio_id."""
    named = request.match_info["id"]
    if named.startswith("cio_"):
        return {"cio_id": named.removeprefix("cio_")}
    return {"email" if "@" in named else "id": named}


def _keys(item: Any) -> tuple[str, ...]:
    who = item.get("identifiers") if isinstance(item, dict) else None
    return tuple(str(value) for value in who.values()) if isinstance(who, dict) else ()
