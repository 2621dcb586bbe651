"""A simulated Klaviyo account: profiles, bulk import jobs, and their limits.

From Klaviyo's OpenAPI document, revision 2026-07-15. From memory: that an import error repeats the profile that was sent, and
what is said of identifiers that belong to two profiles. With the switch `lag` listings show a profile that much later.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.kit import RECORDS, Sample, Sandbox, template
from backhaul.sandbox.klaviyo.documents import body_of, inner, list_document, profile_document, respond, stamp
from backhaul.sandbox.klaviyo.profiles import WHO, Body, Invalid, check, fold, keys_of
from backhaul.sandbox.limits import RollingLimit

_FILTER = re.compile(r"(any|equals)\((\w+),(.+)\)", re.DOTALL)
_REVISION = re.compile(r"\d{4}-\d\d-\d\d(\.[a-z]+)?")
_MEDIA = ("application/vnd.api+json", "application/json")
_JOBS = "/api/profile-bulk-import-jobs"
_LIMITS = {
    f"POST {_JOBS}": (10, 150), f"GET {_JOBS}/{{id}}": (10, 150), f"GET {_JOBS}/{{id}}/import-errors": (10, 150),
    "GET /api/accounts": (1, 15),
    "GET /api/profiles": (75, 750), "PATCH /api/profiles/{id}": (75, 750),
    "POST /api/profile-import": (75, 750), "POST /api/event-bulk-create-jobs": (10, 150),
    "POST /api/lists/{id}/relationships/profiles": (10, 150), "DELETE /api/lists/{id}/relationships/profiles": (10, 150),
    "GET /api/lists/{id}": (75, 750), "GET /api/lists": (75, 750), "GET /api/profiles/{id}/lists": (3, 60),
}  # fmt: skip
"""Requests a second and a minute, each endpoint's own."""
_AT_ONCE = 200
"""Profiles of a job that are applied before anything else is looked at."""
_MEMBERS = 1_000
"""Profiles of one change of a list, and events of one request."""
_MOST, WHOLE, _EACH, _PAGE = 10_000, 5_000_000, 100_000, 100


@dataclass
class ImportJob:
    """One job; it is applied when its time has come."""

    id: str
    profiles: list[Body]
    due: float
    errors: list[Body] = field(default_factory=list)
    applied: int = 0
    """So many of its profiles."""
    created: str = field(default_factory=lambda: stamp())

    @property
    def done(self) -> bool:
        return self.applied == len(self.profiles)


class KlaviyoSandbox(Sandbox):
    """One account."""

    name = "Klaviyo"
    sample = Sample(
        type="klaviyo", credentials={"api_key": "local-sandbox-key"}, object="profiles",
        identify={"external_id": "contact_id::varchar"},
        fields={
            "email": "email", "first_name": "first_name", "last_name": "last_name", "title": "left(job_title, 100)",
            "properties.plan": "plan", "properties.seats": "seats", "properties.health": "health",
            "properties.last_seen": "last_seen",
        },
    )  # fmt: skip
    credential = "api_key"
    api_key: str | None = None
    """None takes any."""
    job_seconds = 0.5
    job_life = 604_800.0
    """Seconds after which a job is not known any more; the document has `expires_at`, and no number."""

    account = "VdX9Qa"
    """The account's id: another one is another account."""

    def __init__(self, seed: int = 1, *, scale: int = 1) -> None:
        """`scale`: so many times the limits."""
        super().__init__(seed)
        self.profiles: dict[str, Body] = {}
        self.named: dict[tuple[str, str], str] = {}
        """Profile id by ("email", …), ("external_id", …) and ("phone_number", …)."""
        self.jobs: dict[str, ImportJob] = {}
        self.limits = {
            endpoint: (RollingLimit(burst * scale, 1), RollingLimit(steady * scale, 60))
            for endpoint, (burst, steady) in _LIMITS.items()
        }
        self._numbers = count(1)
        self.lists: dict[str, set[str]] = {"Y6nRLr": set()}
        """Profile ids by list."""
        self.events: dict[tuple[str, str, str], Body] = {}
        """By profile, metric and unique_id: the first one stays."""

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/api/profile-import", self._import)
        router.add_get("/api/accounts", self._accounts)
        router.add_get("/api/profiles", self._profiles)
        router.add_get("/api/profiles/", self._profiles)
        router.add_patch("/api/profiles/{id}", self._change)
        router.add_post(_JOBS, self._create)
        router.add_get(f"{_JOBS}/{{id}}", self._job)
        router.add_get(f"{_JOBS}/{{id}}/import-errors", self._errors)
        router.add_get("/api/lists", self._lists)
        router.add_get("/api/lists/{id}", self._list)
        router.add_post("/api/lists/{id}/relationships/profiles", self._members)
        router.add_delete("/api/lists/{id}/relationships/profiles", self._members)
        router.add_get("/api/profiles/{id}/lists", self._lists_of)
        router.add_post("/api/event-bulk-create-jobs", self._events)

    async def _accounts(self, _: web.Request) -> web.Response:
        named = {"test_account": True, "contact_information": {"organization_name": "Sandbox"}}
        return web.json_response({"data": [{"type": "account", "id": self.account, "attributes": named}]})

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        jobs = {
            job.id: {"profiles": len(job.profiles), "failed": len(job.errors), "done": job.done}
            for job in self.jobs.values()
        }
        members = {
            f"lists/{own}": {one: self.profiles[one] for one in ids} for own, ids in self.lists.items() if ids
        }
        events = {"/".join(name): event for name, event in self.events.items()}
        return {"profiles": self.profiles, "jobs": jobs, "events": events, **members}

    def writes(self, request: web.Request) -> bool:
        return request.method != "GET"

    def admit(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "").removeprefix("Klaviyo-API-Key ")
        if not given or self.api_key not in (None, given):
            return self.refusal(401, "not_authenticated")
        if not _REVISION.fullmatch(request.headers.get("revision", "")):
            return self.refusal(400, "revision_required")
        if request.can_read_body and request.content_type not in _MEDIA:
            return self.refusal(415, "unsupported_media_type")
        if not 1 <= int(request.query.get("page[size]", 20)) <= _PAGE:
            return self.refusal(400, "invalid")
        windows = self.limits.get(f"{request.method} {template(request).rstrip('/')}", ())
        return None if all(limit.take() for limit in windows) else self.refusal(429, retry_after=1)

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        words = {401: "not_authenticated", 404: "not_found", 429: "throttled", 500: "error"}
        error = {"id": "0", "status": status, "code": code or words.get(status, "invalid"), "title": "Refused.",
                 "detail": "The request is refused.", "source": {"pointer": "/data/"}}  # fmt: skip
        answer = respond({"errors": [error]}, status)
        if status == 429 and retry_after is not None:
            answer.headers["Retry-After"] = f"{retry_after:g}"
        return answer

    async def _import(self, request: web.Request) -> web.Response:
        body = await request.read()
        data = body_of(body).get("data") or {}
        request[RECORDS] = 1
        attributes = data.get("attributes") or {}
        if len(body) > _EACH:
            return self.refusal(413, "payload_too_large")
        if data.get("type") != "profile":
            return self.refusal(400, "invalid")
        if self.faults.poison_key and self.faults.poison_key in keys_of(attributes):
            return self.refusal(400, "unwelcome")
        try:
            own, created = self.store(attributes)
        except Invalid as invalid:
            return respond(
                {"errors": [invalid.json("/data")]}, 409 if invalid.code == "duplicate_profile" else 400
            )
        return respond({"data": self._shown(own)}, 201 if created else 200)

    async def _change(self, request: web.Request) -> web.Response:
        own, data = request.match_info["id"], body_of(await request.read()).get("data") or {}
        request[RECORDS] = 1
        if own not in self.profiles or (data.get("id"), data.get("type")) != (own, "profile"):
            return self.refusal(404 if own not in self.profiles else 400)
        try:
            self.store(data.get("attributes") or {}, own)
        except Invalid as invalid:
            return respond(
                {"errors": [invalid.json("/data")]}, 409 if invalid.code == "duplicate_profile" else 400
            )
        return respond({"data": self._shown(own)})

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.read()
        data = body_of(body).get("data") or {}
        profiles = inner(data, "attributes", "profiles", "data") or []
        request[RECORDS] = len(profiles)
        if len(body) > WHOLE:
            return self.refusal(413, "payload_too_large")
        typed = data.get("type") == "profile-bulk-import-job" and all(
            item.get("type") == "profile" for item in profiles
        )
        if not typed or not 0 < len(profiles) <= _MOST:
            return self.refusal(400, "invalid")
        if self.faults.poison_key and any(
            self.faults.poison_key in keys_of(item["attributes"]) for item in profiles
        ):
            return self.refusal(400, "unwelcome")
        large = [place for place, item in enumerate(profiles) if len(orjson.dumps(item)) > _EACH]
        if large:
            errors = [
                Invalid("properties", "The profile is larger than 100KB.").json(
                    f"/data/attributes/profiles/data/{place}"
                )
                for place in large
            ]
            return respond({"errors": errors}, 400)
        job = ImportJob(f"job{next(self._numbers):024}", profiles, time.monotonic() + self.job_seconds)
        self.jobs[job.id] = job
        return respond({"data": self._about(job)}, 202)

    async def _work(self, job: ImportJob) -> None:
        """Applies a job whose time has come, and lets others in meanwhile."""
        while not job.done and time.monotonic() >= job.due:
            self._apply(job, job.applied + _AT_ONCE)
            await asyncio.sleep(0)

    def _about(self, job: ImportJob) -> Body:
        counts = {
            "total_count": len(job.profiles),
            "completed_count": len(job.profiles) if job.done else 0,
            "failed_count": len(job.errors),
        }
        about = {"status": "complete" if job.done else "processing", "created_at": job.created, **counts,
                 "completed_at": stamp() if job.done else None, "expires_at": None, "started_at": job.created}  # fmt: skip
        links = {"self": f"https://a.klaviyo.com{_JOBS}/{job.id}/"}
        return {"type": "profile-bulk-import-job", "id": job.id, "attributes": about, "links": links}

    def _apply(self, job: ImportJob, end: int) -> None:
        """Applies its profiles up to there."""
        low, job.applied = job.applied, min(end, len(job.profiles))
        for place in range(low, job.applied):
            item = job.profiles[place]
            try:
                self.store(item.get("attributes") or {})
            except Invalid as invalid:
                error = invalid.json(f"/data/attributes/profiles/data/{place}")
                del error["id"]
                job.errors.append(
                    {
                        "type": "import-error",
                        "id": f"{job.id}-{place}",
                        "attributes": {**error, "original_payload": item["attributes"]},
                    }
                )

    async def _known(self, request: web.Request) -> ImportJob | None:
        """The job that is asked about, as it is now; None: there is none, or none any more."""
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return None
        await self._work(job)
        return job if time.monotonic() < job.due + self.job_life else None

    async def _job(self, request: web.Request) -> web.Response:
        job = await self._known(request)
        if job is None:
            return self.refusal(404)
        return respond({"data": self._about(job)})

    async def _errors(self, request: web.Request) -> web.Response:
        job = await self._known(request)
        if job is None:
            return self.refusal(404)
        size, low = int(request.query.get("page[size]", 20)), int(request.query.get("page[cursor]", 0))
        more = low + size < len(job.errors)
        links = {"self": str(request.url)}
        if more:
            links["next"] = (
                f"{request.scheme}://{request.host}{request.path}?page[size]={size}&page[cursor]={low + size}"
            )
        return respond({"data": self.spoil(job.errors[low : low + size]), "links": links})

    async def _profiles(self, request: web.Request) -> web.Response:
        owns = list(self.profiles)
        if given := request.query.get("filter"):
            found = _FILTER.fullmatch(given)
            if found is None or found[2] not in (*WHO, "id"):
                return self.refusal(400, "invalid")
            values = orjson.loads(found[3])
            values = values if isinstance(values, list) else [values]
            if len(values) > _PAGE:
                return self.refusal(400, "invalid")
            named = [fold(found[2], value) for value in values]
            owns = [own for name in named if (own := self.lag.shown(name, self.named.get(name)))]
        size = int(request.query.get("page[size]", 20))
        links = {"self": str(request.url)}
        shown = ((own, self.lag.shown(own, self.profiles.get(own))) for own in dict.fromkeys(owns))
        data = [profile_document(own, attributes) for own, attributes in shown if attributes is not None]
        return respond({"data": data[:size], "links": links})

    async def _lists(self, _: web.Request) -> web.Response:
        return respond(
            {
                "data": [list_document(own) for own in self.lists],
                "links": {"self": "https://a.klaviyo.com/api/lists/"},
            }
        )

    async def _list(self, request: web.Request) -> web.Response:
        own = request.match_info["id"]
        return respond({"data": list_document(own)}) if own in self.lists else self.refusal(404)

    async def _lists_of(self, request: web.Request) -> web.Response:
        """The lists of a profile."""
        own = request.match_info["id"]
        if own not in self.profiles:
            return self.refusal(404)
        held = [list_document(name) for name, members in self.lists.items() if own in members]
        return respond({"data": held, "links": {"self": str(request.url)}})

    async def _members(self, request: web.Request) -> web.Response:
        """From memory: a profile that is not there is a 404 for the request as a whole."""
        data = body_of(await request.read()).get("data")
        members = self.lists.get(request.match_info["id"])
        if members is None:
            return self.refusal(404)
        if not isinstance(data, list) or not 0 < len(data) <= _MEMBERS:
            return self.refusal(400, "invalid")
        request[RECORDS] = len(data)
        ids = [item.get("id") for item in data if item.get("type") == "profile"]
        if len(ids) != len(data):
            return self.refusal(400, "invalid")
        if not self.profiles.keys() >= set(ids):
            return self.refusal(404)
        (members.difference_update if request.method == "DELETE" else members.update)(ids)
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.Response:
        """Of events with one unique_id, of one profile and metric, the first stays. From memory: an error names its place."""
        body = await request.read()
        data = body_of(body).get("data") or {}
        sent = inner(data, "attributes", "events-bulk-create", "data") or []
        request[RECORDS] = len(sent)
        if len(body) > WHOLE:
            return self.refusal(413, "payload_too_large")
        if data.get("type") != "event-bulk-create-job" or not 0 < len(sent) <= _MEMBERS:
            return self.refusal(400, "invalid")
        taken, errors = [], []
        for place, item in enumerate(sent):
            try:
                taken.append(self._event(item["attributes"]))
            except Invalid as invalid:
                errors.append(invalid.json(f"/data/attributes/events-bulk-create/data/{place}"))
        if errors:
            return respond({"errors": errors}, 400)
        for name, event in taken:
            self.events.setdefault(name, event)
        return web.Response(status=202)

    def _event(self, item: Body) -> tuple[tuple[str, str, str], Body]:
        """Raises: Invalid."""
        profile = item["profile"]["data"]
        (event,) = [one["attributes"] for one in item["events"]["data"]]
        name = event["metric"]["data"]["attributes"].get("name") or ""
        if not 0 < len(name) < 128:
            raise Invalid("metric", "A metric's name has less than 128 characters.")
        if self.refuses(str(event.get("unique_id"))):
            raise Invalid("properties", "refused by a switch of the sandbox")
        own = profile.get("id")
        if own is None:
            own, _ = self.store(profile.get("attributes") or {})
        elif own not in self.profiles:
            raise Invalid("profile", "A profile with this id does not exist.")
        return (own, name, str(event.get("unique_id") or event.get("time"))), event

    def _shown(self, own: str) -> Body:
        return profile_document(own, self.profiles[own])

    def store(self, attributes: Body, own: str = "") -> tuple[str, bool]:
        """Make or update a profile, or update the one with this id. Return its id, and whether it is new. Raises: Invalid."""
        check(attributes)
        named = [fold(kind, attributes[kind]) for kind in WHO if attributes.get(kind)]
        if self.refuses(*keys_of(attributes)):
            raise Invalid("properties", "refused by a switch of the sandbox")
        owners = {self.named[name] for name in named if name in self.named} | ({own} if own else set())
        if len(owners) > 1:
            raise Invalid(
                "email", "A profile already exists with one of these identifiers.", "duplicate_profile"
            )
        own = next(iter(owners), "") or f"01SANDBOX{next(self._numbers):017}"
        self._remember(own, named)
        held = self.profiles.setdefault(own, {"properties": {}, "location": {}})
        self._unname(own, {kind for kind, _ in named})
        for name, value in attributes.items():
            held[name] = {**held[name], **(value or {})} if name in ("properties", "location") else value
        self.named |= dict.fromkeys(named, own)
        return own, not owners

    def _remember(self, own: str, named: list[tuple[str, str]]) -> None:
        """Keeps what listings show of a profile that is written now, by its id and by its names."""
        if not self.faults.lag:
            return
        held = self.profiles.get(own, {})
        before = [fold(kind, held[kind]) for kind in WHO if held.get(kind)]
        for name in {*named, *before}:
            self.lag.wrote(name, self.named.get(name))
        self.lag.wrote(own, self.profiles.get(own))

    def _unname(self, own: str, kinds: set[str]) -> None:
        for kind in kinds:
            held = self.profiles[own].get(kind)
            if held and self.named.get(fold(kind, held)) == own:
                del self.named[fold(kind, held)]

    def drop(self, own: str) -> None:
        del self.profiles[own]
        self.named = {name: held for name, held in self.named.items() if held != own}
