"""A simulated Zendesk Support account over real HTTP: endpoints, authorisation, job statuses, limits.

From Zendesk's references of users, organizations, job statuses and rate limits, zenpy's source and recorded answers. What none
of those says for certain is an attribute of the class.
"""

from __future__ import annotations

import base64
import binascii
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.kit import RECORDS, Sandbox
from backhaul.sandbox.limits import RollingLimit, WindowLimit
from backhaul.sandbox.zendesk.sample import SAMPLE
from backhaul.sandbox.zendesk.store import Record, Refusal, Room, fresh, invalid, not_found, stamp

Body = dict[str, Any]
Endpoint = Callable[[web.Request, Body], tuple[int, Any]]


class ZendeskSandbox(Sandbox):
    """One account with users and organizations, and a few custom fields of each."""

    name = "Zendesk"
    sample = SAMPLE
    token: str | None = None
    """The API or OAuth token; None takes any."""
    bulk_users = True
    """Whether Zendesk's support has enabled create_or_update_many for the account."""
    batch_size = 100
    jobs_at_once = 30
    """Jobs that are queued or working; one more is refused. From memory."""
    job_seconds = 0.0
    unknown_organization = 404
    """The status of a user whose organization is not there; 422 names the attribute (reports of client libraries)."""
    """How long a job is worked on; its records are written when it begins."""
    job_life = 86_400.0
    """Seconds for which a job that is over is known (reference: job statuses)."""
    failing_jobs = 0
    """So many jobs to come fail as a whole, and nothing of them is applied."""
    per_user = 0
    """Updates of one user in a minute; 0: as many as one likes. From memory 5, and for single updates alone."""

    def __init__(self, seed: int = 1, *, minute: int = 400, interval: float = 60.0) -> None:
        super().__init__(seed)
        self.rooms = fresh()
        self.limit = WindowLimit(minute, interval)
        self.jobs: dict[str, tuple[float, Body]] = {}
        self._pending: dict[str, Callable[[], None]] = {}
        """Jobs whose records are not written yet."""
        self._updates: dict[int, RollingLimit] = defaultdict(lambda: RollingLimit(self.per_user, 60.0))

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return {
            name: {str(record.id): room.flat(record) for record in room.live()}
            for name, room in self.rooms.items()
        }

    def notes(self) -> Mapping[str, str]:
        return {f"left of {self.limit.count:,} in this minute": f"{self.limit.remaining:,}"}

    def routes(self, router: web.UrlDispatcher) -> None:
        users = "{object:users|organizations}"
        for method, path, endpoint in (
            ("POST", f"{users}/create_or_update", self._upsert),
            ("POST", "users/create_or_update_many", self._upsert_many),
            ("POST", f"{users}/create_many", self._create_many),
            ("PUT", f"{users}/update_many", self._update_many),
            ("DELETE", f"{users}/destroy_many", self._destroy_many),
            ("GET", f"{users}/show_many", self._show_many),
            ("GET", f"{users}/{{id:[0-9]+}}", self._show),
            ("PUT", f"{users}/{{id:[0-9]+}}", self._update),
            ("DELETE", f"{users}/{{id:[0-9]+}}", self._destroy),
            ("DELETE", "deleted_users/{id:[0-9]+}", self._destroy_for_good),
            ("GET", users, self._list),
            ("POST", users, self._create),
            ("GET", "users/{id:[0-9]+}/identities", self._identities),
            ("PUT", "users/{id:[0-9]+}/identities/{identity:[0-9]+}/make_primary", self._make_primary),
            ("GET", "{fields:user_fields|organization_fields}", self._fields),
            ("GET", "job_statuses/show_many", self._jobs),
            ("GET", "job_statuses/{job:[^./]+}", self._job_status),
        ):
            for suffix in ("", ".json"):
                router.add_route(method, f"/api/v2/{path}{suffix}", self._at(endpoint))

    def _at(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def enter(request: web.Request) -> web.Response:
            text = await request.read()
            try:
                status, body = endpoint(request, orjson.loads(text) if text else {})
                return _answer(body, status)
            except Refusal as refusal:
                return _answer(refusal.json(), refusal.status)
            except _Throttled as said:
                return web.Response(status=429, text=str(said), headers={"Retry-After": "27"})
            except (KeyError, TypeError, AttributeError, ValueError):
                error = {"title": "Invalid attribute", "message": "You passed an invalid value"}
                return _answer({"error": error}, 400)

        return enter

    def writes(self, request: web.Request) -> bool:
        return request.method != "GET"

    def admit(self, request: web.Request) -> web.Response | None:
        self.work_on()
        if not self._accepts(request.headers.get("Authorization", "")):
            return self.refusal(401)
        return None if self.limit.take() else self.refusal(429, retry_after=self._resets)

    @property
    def _resets(self) -> int:
        return max(int(self.limit.resets - time.time()), 0) + 1

    def _accepts(self, header: str) -> bool:
        """An API token goes with an agent's address, `ada@example.com/token:…`; a password is never taken."""
        scheme, _, given = header.partition(" ")
        if scheme == "Basic":
            try:
                who, _, given = base64.b64decode(given).decode().partition(":")
            except (binascii.Error, ValueError):
                return False
            if not who.endswith("/token"):
                return False
        return scheme in ("Basic", "Bearer") and bool(given) and self.token in (None, given)

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        bodies: dict[int, Body] = {
            400: {"error": code, "description": "Refused by a switch of the sandbox"},
            401: {"error": "Couldn't authenticate you"},
            404: {"error": {"title": "Invalid endpoint", "message": "Not found"}},
            429: {"error": "APIRateLimitExceeded", "description": "Number of allowed API requests per minute exceeded"},
            500: {"error": "InternalError", "description": "Something went wrong"},
        }  # fmt: skip
        answer = _answer(bodies[status], status)
        if retry_after is not None:
            answer.headers["Retry-After"] = f"{retry_after:g}"
        return answer

    def dress(self, request: web.Request, answer: web.Response) -> None:
        if answer.status == 401:
            return
        count, left = str(self.limit.count), str(max(self.limit.remaining, 0))
        answer.headers.update({"X-Rate-Limit": count, "X-Rate-Limit-Remaining": left})
        answer.headers.update(
            {"ratelimit-limit": count, "ratelimit-remaining": left, "ratelimit-reset": str(self._resets)}
        )

    def _room(self, request: web.Request) -> Room:
        return self.rooms["users" if "/users" in request.path else "organizations"]

    def _url(self, request: web.Request) -> str:
        return f"http://{request.host}"

    def _faulted(self, item: Body, record: Record | None = None) -> None:
        """Raises: Refusal where a switch refuses this record."""
        own = record.values.get("external_id") if record is not None else None
        keys = [str(key) for key in (item.get("external_id"), own, item.get("email")) if key]
        if self.refuses(*keys):
            raise invalid("name", "Name: refused by a switch of the sandbox")

    def _poisoned(self, request: web.Request, items: Sequence[Body]) -> None:
        request[RECORDS] = len(items)
        if self.faults.poison_key and any(
            item.get("external_id") == self.faults.poison_key for item in items
        ):
            raise invalid("base", "Refused by a switch of the sandbox")

    # one record

    def _save(self, room: Room, record: Record | None, item: Body) -> Record:
        self._faulted(item, record)
        organization = item.get("organization_id") if room.is_users else None
        if organization is not None and not self._is_there(organization):
            if self.unknown_organization == 404:
                raise not_found()
            raise invalid("organization", "Organization cannot be blank", "BlankValue")
        return room.save(record, item)

    def _is_there(self, organization: Any) -> bool:
        return any(str(one.id) == str(organization) for one in self.rooms["organizations"].live())

    def _one(self, room: Room, record: Record, request: web.Request, status: int = 200) -> tuple[int, Body]:
        kept = request.method == "GET" or self.spoil([record])
        return status, {room.one: room.json(record, self._url(request))} if kept else {}

    def _upsert(self, request: web.Request, body: Body) -> tuple[int, Body]:
        room, item = self._room(request), body[self._room(request).one]
        self._poisoned(request, [item])
        found = room.matched(item)
        return self._one(room, self._save(room, found, item), request, 200 if found else 201)

    def _create(self, request: web.Request, body: Body) -> tuple[int, Body]:
        room = self._room(request)
        self._poisoned(request, [body[room.one]])
        return self._one(room, self._save(room, None, body[room.one]), request, 201)

    def _update(self, request: web.Request, body: Body) -> tuple[int, Body]:
        room = self._room(request)
        record = room.at(request.match_info["id"])
        self._poisoned(request, [body[room.one]])
        if self.per_user and room.is_users and not self._updates[record.id].take():
            raise _Throttled(
                "You have exceeded the rate limit for updating a single unique user. user email:  id:  external_id: "
            )
        return self._one(room, self._save(room, record, body[room.one]), request)

    def _destroy(self, request: web.Request, _: Body) -> tuple[int, Any]:
        room = self._room(request)
        record = room.at(request.match_info["id"])
        self._poisoned(request, [record.values])
        room.remove(record)
        return (200, {room.one: room.json(record, self._url(request))}) if room.is_users else (204, None)

    def _destroy_for_good(self, request: web.Request, _: Body) -> tuple[int, Any]:
        """Only of a user that was deleted."""
        room = self.rooms["users"]
        record = room.records.get(int(request.match_info["id"]))
        if record is None or record.active:
            raise not_found()
        del room.records[record.id]
        return 200, {"deleted_user": {"id": record.id, "active": False, "email": None}}

    def _show(self, request: web.Request, _: Body) -> tuple[int, Body]:
        room = self._room(request)
        return self._one(room, room.at(request.match_info["id"]), request)

    def _list(self, request: web.Request, _: Body) -> tuple[int, Body]:
        room = self._room(request)
        listed = [room.json(record, self._url(request)) for record in room.live()[:100]]
        return 200, {room.many: listed, "next_page": None, "previous_page": None, "count": len(room.live())}

    def _identities(self, request: web.Request, _: Body) -> tuple[int, Body]:
        record = self.rooms["users"].at(request.match_info["id"])
        listed = [
            {
                "id": number,
                "user_id": record.id,
                "type": "email",
                "value": email,
                "verified": True,
                "primary": place == 0,
            }
            for place, (number, email) in enumerate(record.emails.items())
        ]
        return 200, {"identities": listed, "next_page": None, "previous_page": None, "count": len(listed)}

    def _make_primary(self, request: web.Request, body: Body) -> tuple[int, Body]:
        record = self.rooms["users"].at(request.match_info["id"])
        number = int(request.match_info["identity"])
        if number not in record.emails:
            raise not_found()
        record.emails = {number: record.emails[number], **record.emails}
        return self._identities(request, body)

    def _fields(self, request: web.Request, _: Body) -> tuple[int, Body]:
        name = request.match_info["fields"]
        room = next(room for room in self.rooms.values() if room.custom == name)
        size, after = int(request.query.get("page[size]", 100)), int(request.query.get("page[after]", 0))
        every = [item.json() for item in room.fields.values()]
        more = after + size < len(every)
        meta = {"has_more": more, "after_cursor": str(after + size) if more else None, "before_cursor": None}
        return 200, {name: every[after : after + size], "meta": meta, "links": {"prev": None, "next": None}}

    # many records

    def _show_many(self, request: web.Request, _: Body) -> tuple[int, Body]:
        room, query = self._room(request), request.query
        name = "ids" if "ids" in query else "external_ids"
        asked = [item for item in query[name].split(",") if item]
        if len(asked) > self.batch_size:
            raise Refusal(400, "TooManyValues", f"{name} takes {self.batch_size} values")
        found = [
            self.rooms[room.many].records.get(int(one)) if name == "ids" else room.held("external_id", one)
            for one in asked
        ]
        listed = [room.json(record, self._url(request)) for record in found if record is not None]
        return 200, {room.many: listed, "next_page": None, "previous_page": None, "count": len(listed)}

    def _items(self, request: web.Request, body: Body) -> list[Body]:
        """Raises: Refusal."""
        items: list[Body] = body[self._room(request).many]
        if not 0 < len(items) <= self.batch_size:
            words = f"Too many or no items: at most {self.batch_size} at a time"
            raise Refusal(400, "TooManyItems", words)
        self._poisoned(request, items)
        return items

    def _upsert_many(self, request: web.Request, body: Body) -> tuple[int, Body]:
        if not self.bulk_users:
            raise Refusal(403, "Forbidden", "You do not have access to this page.")
        room, items = self._room(request), self._items(request, body)

        def row(item: Body) -> Body:
            found = room.matched(item)
            return {"id": self._save(room, found, item).id, "status": "Updated" if found else "Created"}

        return self._handed_over(request, items, row)

    def _create_many(self, request: web.Request, body: Body) -> tuple[int, Body]:
        room, items = self._room(request), self._items(request, body)
        return self._handed_over(
            request, items, lambda item: {"id": self._save(room, None, item).id, "status": "Created"}
        )

    def _update_many(self, request: web.Request, body: Body) -> tuple[int, Body]:
        room, items = self._room(request), self._items(request, body)

        def row(item: Body) -> Body:
            record = room.at(item["id"])
            self._save(room, record, {name: value for name, value in item.items() if name != "id"})
            return {"id": record.id, "action": "update", "status": "Updated", "success": True}

        return self._handed_over(request, items, row)

    def _destroy_many(self, request: web.Request, _: Body) -> tuple[int, Body]:
        room = self._room(request)
        name = "ids" if "ids" in request.query else "external_ids"
        items: list[Body] = [{name: one} for one in request.query[name].split(",")]
        if len(items) > self.batch_size:
            raise Refusal(400, "TooManyValues", f"{name} takes {self.batch_size} values")
        request[RECORDS] = len(items)

        def row(item: Body) -> Body:
            record = room.at(item["ids"]) if name == "ids" else room.held("external_id", item[name])
            if record is None:
                raise not_found()
            self._faulted(record.values)
            room.remove(record)
            return {"id": record.id, "action": "delete", "status": "Deleted", "success": True}

        return self._handed_over(request, items, row)

    def _handed_over(
        self, request: web.Request, items: Sequence[Body], row: Callable[[Body], Body]
    ) -> tuple[int, Body]:
        """A job whose records are written when `job_seconds` are over; a failed row has a place and no id."""
        if sum(time.monotonic() < done for done, _ in self.jobs.values()) >= self.jobs_at_once:
            raise Refusal(429, "TooManyJobs", "too many jobs are queued or running")
        fails = self.failing_jobs > 0
        self.failing_jobs -= fails
        job = f"V3-{uuid.uuid4().hex}"
        status: Body = {
            "id": job, "url": f"{self._url(request)}/api/v2/job_statuses/{job}.json", "total": len(items),
            "progress": len(items), "status": "completed", "message": f"Completed at {stamp()}", "results": [],
        }  # fmt: skip
        if fails:
            status |= {"progress": 0, "status": "failed", "message": "The job failed", "results": None}
        else:
            self._pending[job] = partial(self._work, status, items, row)
        self.jobs[job] = (time.monotonic() + self.job_seconds, status)
        self.work_on()
        waiting = {"progress": None, "status": "queued", "message": None, "results": None}
        return 200, {"job_status": {**status, **waiting}}

    def _work(self, status: Body, items: Sequence[Body], row: Callable[[Body], Body]) -> None:
        results: list[Body] = []
        for place, item in enumerate(items):
            try:
                results.append(row(item))
            except Refusal as refusal:
                said = {"error": refusal.error, "details": str(refusal), "status": "Failed"}
                results.append({"index": place, **said})
        status["results"] = self.spoil(results)

    def work_on(self, *, everything: bool = False) -> None:
        """Applies the jobs whose time is over, or all."""
        now = time.monotonic()
        for job in [job for job in self._pending if everything or now >= self.jobs[job][0]]:
            self._pending.pop(job)()

    def _status(self, job: str) -> Body:
        done, status = self.jobs[job]
        working = {"progress": None, "status": "working", "message": None, "results": None}
        return {**status, **working} if time.monotonic() < done else status

    def _forget_jobs(self) -> None:
        now = time.monotonic()
        self.jobs = {job: kept for job, kept in self.jobs.items() if now < kept[0] + self.job_life}

    def _jobs(self, request: web.Request, _: Body) -> tuple[int, Body]:
        self._forget_jobs()
        asked = [job for job in request.query["ids"].split(",") if job in self.jobs]
        return 200, {"job_statuses": [self._status(job) for job in asked]}

    def _job_status(self, request: web.Request, _: Body) -> tuple[int, Body]:
        self._forget_jobs()
        if request.match_info["job"] not in self.jobs:
            raise not_found()
        return 200, {"job_status": self._status(request.match_info["job"])}


class _Throttled(Exception):
    """One record is written too often."""


def _answer(body: Any, status: int = 200) -> web.Response:
    data = b"" if body is None else orjson.dumps(body)
    return web.Response(body=data, status=status, content_type="application/json", charset="utf-8")
