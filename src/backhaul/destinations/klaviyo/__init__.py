"""Klaviyo: profiles, one by one for small plans and by bulk import jobs for others; members of lists; events.

What is known of its API: Klaviyo's OpenAPI document, revision 2026-07-15 (github.com/klaviyo/openapi). It does not say how an
import error names its profile: both the payload that the error repeats and its pointer are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import orjson
from pydantic import Field as Setting

from backhaul.destinations.kit import (
    Account,
    Answer,
    Batch,
    Destination,
    Http,
    Job,
    JobsConfig,
    Secret,
    Spec,
    Unsupported,
    classify_status,
    held_as_sent,
    inner,
    listing,
    no_such_object,
    paged,
    refusal_table,
)
from backhaul.destinations.klaviyo import events, lists
from backhaul.destinations.klaviyo.answers import errors_of, key_at, place_of, refused_by_place
from backhaul.errors import BackhaulError, Halt, Refused, Unsettled
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    FieldType,
    Frame,
    Gone,
    ObjectSchema,
    Op,
    Outcome,
    Outcomes,
    PlannedBatch,
    Rate,
    Rejected,
)
from backhaul.values import Duration

_MEDIA = "application/vnd.api+json"
_WHO = ("external_id", "email", "phone_number")
_TEXTS = ("first_name", "last_name", "organization", "locale", "title", "image")
_ROOMS = ("location", "properties")
"""Attributes that have members of their own."""
_ACCOUNTS, _JOBS = "/api/accounts", "/api/profile-bulk-import-jobs"
_LARGEST = 100_000
"""Bytes of one profile."""
_BULK = BatchLimits(records=10_000, bytes=4_900_000, each=_LARGEST)
"""10,000 profiles and 5 MB a job, less what is put around them."""
_MOVE = BatchLimits(1, _LARGEST, each=_LARGEST, endpoint="update")
_READ = 100


def _limits(burst: int, steady: int, endpoint: str = "") -> tuple[Rate, Rate]:
    """Each endpoint has a limit of its own, a second and a minute."""
    return Rate("burst", burst, 1, endpoint), Rate("steady", steady, 60, endpoint)


_REFUSALS = refusal_table(
    record=("invalid", "required", "not_found", "too_large", "error"),
    configuration=("method_not_allowed", "unsupported_media_type"),
    capacity=("402",),
    reference_missing=(lists.NOT_THERE,),
    conflict=("duplicate_profile", "conflict"),
    transient=("throttled", "service_unavailable"),
    credential=("not_authenticated", "authentication_failed"),
)


class KlaviyoConfig(JobsConfig):
    """The keys of `type: klaviyo`."""

    api_key: Secret
    """A private key (`pk_…`) with the scopes profiles:read, profiles:write, lists:read and lists:write."""
    base_url: str = "https://a.klaviyo.com"
    api_version: str = Setting(default="2026-07-15", pattern=r"^\d{4}-\d\d-\d\d(\.[a-z]+)?$")
    """The `revision` of the API."""
    bulk_above: int = Setting(default=10, ge=0)
    """Plans with more records than this go as bulk import jobs."""
    poll_interval: Duration = Duration(2.0)
    """How often a job is asked about."""

    known_endpoints: ClassVar = (
        "accounts",
        "status",
        "errors",
        "profiles",
        "single",
        "update",
        "events",
        "lists",
        "memberships",
    )


class Klaviyo(Destination[KlaviyoConfig]):
    """One account."""

    spec: ClassVar[Spec] = Spec(
        name="klaviyo",
        config=KlaviyoConfig,
        docs="`profiles`, by `external_id`, `email` or `phone_number` (mode `upsert`); members of lists as `lists/ID`; "
        "`events/METRIC` (mode `insert`).",
        batch={Op.UPSERT: _BULK, Op.INSERT: events.LIMITS, Op.DELETE: lists.LIMITS, Op.MOVE: _MOVE},
        limits=(
            *_limits(10, 150),
            *_limits(1, 15, "accounts"),
            *_limits(10, 150, "status"),
            *_limits(10, 150, "errors"),
            *_limits(75, 750, "profiles"),
            *_limits(75, 750, "single"),
            *_limits(75, 750, "update"),
            *_limits(10, 150, "events"),
            *_limits(10, 150, "lists"),
            *_limits(3, 60, "memberships"),
        ),
        concurrency=20,
        repeatable=frozenset(Op),
        read_lag=30.0,
        lag_source="profiles are found by a filter some time after they were written; Klaviyo names no bound (from memory)",
        nulls="null clears the field; a property stays, with no value.",
        refusals=_REFUSALS,
        sources="Klaviyo's error page and OpenAPI document; recorded answers",
        states_account=True,
        fixes={
            "too_large": "Klaviyo takes 100 KB a profile: shorten its longest values, or map fewer",
            "invalid": "mend what the message names; a phone number is E.164 (+15005550006) and has to exist",
            lists.NOT_THERE: "make it with a sync of profiles that runs first, and replay; or leave the row out of the model",
            "duplicate_profile": "another profile has one of these identifiers: make them unique in the model, or merge the two",
        },
    )

    def __init__(self, config: KlaviyoConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    def headers(self) -> Mapping[str, str]:
        key = self.config.api_key.get_secret_value()
        return {
            "Authorization": f"Klaviyo-API-Key {key}", "revision": self.config.api_version,
            "Accept": _MEDIA, "Content-Type": _MEDIA,
        }  # fmt: skip

    async def account(self) -> Account | None:
        """Return the account of the key, which needs the scope accounts:read
        (https://developers.klaviyo.com/en/reference/get_accounts)."""
        answer = await self.http.request("GET", _ACCOUNTS, allow=(403,))
        found = answer.members().get("data") if answer.status == 200 else None
        code = (
            found[0].get("id") if isinstance(found, list) and found and isinstance(found[0], dict) else None
        )
        return Account(str(code), f"Klaviyo account {code}") if code else None

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        if object.startswith(events.PREFIX):
            return events.LIMITS if op is Op.INSERT else None
        if object.startswith(lists.PREFIX):
            return lists.LIMITS if op in (Op.UPSERT, Op.DELETE) else None
        if op is Op.MOVE:
            return _MOVE
        if op is not Op.UPSERT:
            return None
        return (
            _BULK
            if rows > self.config.bulk_above
            else BatchLimits(1, _LARGEST, each=_LARGEST, endpoint="single")
        )

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """A job is asked about."""
        job = object == "profiles" and planned.op is Op.UPSERT and planned.total > self.config.bulk_above
        return {"status": 1} if job else {}

    def endpoints(self, method: str, path: str) -> tuple[str, ...]:
        """The next page of a listing is a whole address."""
        path = urlsplit(path).path
        if path == _JOBS:
            return ("",)
        if path.startswith(f"{_JOBS}/"):
            return ("errors" if "/import-errors" in path else "status",)
        if path.endswith("/relationships/profiles"):
            return ("lists",)
        if path.startswith("/api/profiles/") and path.endswith("/lists"):
            return ("memberships",)
        if method == "PATCH":
            return ("update",)
        return (
            {events.PATH: "events", "/api/profile-import": "single", _ACCOUNTS: "accounts"}.get(
                path, "profiles"
            ),
        )

    async def describe(self, object: str) -> ObjectSchema:
        if object.startswith(lists.PREFIX):
            return await lists.described(self.http, object)
        if object.startswith(events.PREFIX) and object != events.PREFIX:
            await self.http.request("GET", "/api/profiles", params={"page[size]": "1"})
            return ObjectSchema(object, events.fields(), open=True)
        if object != "profiles":
            raise no_such_object(object, ["profiles", "lists/ID", "events/METRIC"], "Klaviyo")
        await self.http.request("GET", "/api/profiles", params={"page[size]": "1"})
        text = FieldType.STRING
        who = {
            name: Field(name, text, unique=True, case_insensitive=name == "email", trims=name == "email")
            for name in _WHO
        }
        who["phone_number"] = Field("phone_number", FieldType.PHONE, unique=True)
        own = {name: Field(name, text) for name in _TEXTS} | {
            name: Field(name, FieldType.JSON) for name in _ROOMS
        }
        return ObjectSchema(object, who | own, open=True)

    def moves(self, object: str, identifiers: tuple[str, ...]) -> Op | None:
        return Op.MOVE if object == "profiles" and identifiers[0] in _WHO else None

    def frame(self, object: str, op: Op, identifiers: tuple[str, ...]) -> Frame | None:
        return Frame("attributes", {"type": "profile"}) if object == "profiles" else None

    async def write(self, batch: Batch) -> Outcomes | Job:
        """Raises: Halt: Klaviyo has no such attribute."""
        if batch.object != "profiles":
            of_list = batch.object.startswith(lists.PREFIX)
            return await (lists.written if of_list else events.written)(self.http, batch)
        strange = {field.name.partition(".")[0] for field in batch.fields} - {*_WHO, *_TEXTS, *_ROOMS}
        if strange:
            raise Halt(f"Klaviyo's profiles have no {min(strange)!r}", hint="map it as properties.NAME")
        if batch.op is Op.MOVE:
            return await self._move(batch)
        if len(batch) == 1:
            return await self._one(batch.keys[0], batch.text())
        start = b'{"data":{"type":"profile-bulk-import-job","attributes":{"profiles":{"data":['
        answer = await self.http.request("POST", _JOBS, body=start + batch.text() + b"]}}}}")
        if answer.status == 400:
            return Outcomes(tuple(refused_by_place(batch.keys, answer)))
        job = inner(answer.json(), "data", "id")
        if not isinstance(job, str):
            raise Unsettled("Klaviyo's answer has no job")
        return Job(job, float(self.config.poll_interval))

    async def _move(self, batch: Batch) -> Outcomes:
        """Find the profile by its previous identifier, or by the new one where an earlier attempt wrote it, and update it by its
        id (Update Profile)."""
        name, key, previous = batch.identifiers[0], batch.keys[0], batch.previous_keys[0]
        ids = await self._ids(name, [previous]) or await self._ids(name, [key])
        if not ids:
            return Outcomes((Gone(key, "not_found", "Klaviyo has no such profile"),))
        (profile,) = batch.records()
        body = {"data": {**profile, "id": ids[0]}}
        answer = await self.http.request("PATCH", f"/api/profiles/{quote(ids[0], safe='')}", json=body)
        if inner(answer.json(), "data", "id") != ids[0]:
            raise Unsettled("Klaviyo's answer is not about the profile")
        return Outcomes((Delivered(key, ids[0]),))

    async def _ids(self, name: str, keys: Sequence[str]) -> list[str]:
        asked = {"filter": f"any({name},{orjson.dumps(list(keys)).decode()})"}
        answer = await self.http.request("GET", "/api/profiles", params=asked)
        return [str(profile["id"]) for profile in listing(answer.json(), "data")]

    async def _one(self, key: str, profile: bytes) -> Outcomes:
        answer = await self.http.request("POST", "/api/profile-import", body=b'{"data":' + profile + b"}")
        own = inner(answer.json(), "data", "id")
        if not isinstance(own, str):
            raise Unsettled("Klaviyo's answer has no profile")
        return Outcomes((Delivered(key, own, created=answer.status == 201),))

    async def collect(self, batch: Batch, job: str) -> Outcomes | Job:
        """Of a job that was cancelled, nothing; of one that is not known any more, what the profiles show. One that holds fewer
        profiles than its batch, of which some were refused before it was made, does not say which: only those that its errors
        repeat are settled."""
        answer = await self.http.request("GET", f"{_JOBS}/{job}", allow=(404,))
        about = inner(answer.json(), "data", "attributes")
        if answer.status == 404 and errors_of(answer):
            names = [field.name for field in batch.fields]
            found = await self.read(batch.object, batch.identifiers, batch.keys, names)
            return Outcomes(tuple(held_as_sent(batch, found, self.same, into="attributes")))
        if not isinstance(about, dict) or about.get("status") not in (
            "queued",
            "processing",
            "complete",
            "cancelled",
        ):
            raise Unsettled("Klaviyo's answer says nothing of the job")
        if about["status"] == "cancelled":
            return Outcomes(())
        if about["status"] != "complete":
            return Job(job, float(self.config.poll_interval))
        failed = about.get("failed_count")
        if not isinstance(failed, int):
            raise Unsettled("Klaviyo's answer does not say how many failed")
        whole = about.get("total_count") == len(batch)
        refused = await self._failures(batch, job, whole=whole) if failed else {}
        if whole and not failed:
            return Outcomes(everything=True)
        if not whole or len(refused) < failed:  # somebody is refused, and nobody says who
            return Outcomes(tuple(refused.values()))
        return Outcomes(tuple(refused.get(key) or Delivered(key) for key in batch.keys))

    async def _failures(self, batch: Batch, job: str, *, whole: bool) -> dict[str, Outcome]:
        """By key; places are those of the batch where the job is `whole`."""
        profiles = zip(batch.keys, batch.records(), strict=True)
        keys = {_named_by(profile["attributes"]): key for key, profile in profiles}
        refused: dict[str, Outcome] = {}
        first = f"{_JOBS}/{job}/import-errors?page[size]=100"

        async def page(path: str) -> tuple[list[Any], str | None]:
            said = (await self.http.request("GET", path or first)).json()
            return listing(said, "data"), inner(said, "links", "next")

        async for error in paged(page):
            about = error.get("attributes") or {}
            key = keys.get(_named_by(_attributes(about.get("original_payload"))))
            if key is None and whole:
                key = key_at(batch.keys, about)
            if key is not None:
                said = str(about.get("detail") or about.get("title"))
                refused[key] = Rejected(key, str(about.get("code") or "invalid"), said)
        return refused

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        if object.startswith(lists.PREFIX):
            return await lists.read(self.http, object, identifiers[0], keys)
        if object != "profiles":
            raise Unsupported("Klaviyo's events are not read back")
        if identifiers[0] not in _WHO:
            raise Unsupported(f"Klaviyo cannot be asked for {identifiers[0]}")
        fold = str.lower if identifiers[0] == "email" else str
        wanted = {fold(key): key for key in keys}
        for low in range(0, len(keys), _READ):
            some = orjson.dumps(list(keys[low : low + _READ])).decode()
            asked = {"filter": f"any({identifiers[0]},{some})", "page[size]": str(_READ)}
            answer = await self.http.request("GET", "/api/profiles", params=asked)
            for profile in listing(answer.json(), "data"):
                held = profile.get("attributes") or {}
                key = wanted.get(fold(str(held.get(identifiers[0]))))
                if key is not None:
                    found[key] = {name: inner(held, *name.split(".")) for name in fields}
        return found

    def classify(self, answer: Answer) -> BackhaulError | None:
        """A 400 that names records by their places is read by `write`."""
        error = classify_status(answer)
        if not isinstance(error, Refused):
            return error
        said = errors_of(answer)
        if answer.status == 400 and said and all(place_of(one) is not None for one in said):
            return None
        first = said[0] if said else {}
        code = str(first.get("code") or answer.status)
        return Refused(str(first.get("detail") or error), code=code, kind=error.kind)


def _attributes(payload: Any) -> Mapping[str, Any]:
    found = inner(payload, "attributes") or inner(payload, "data", "attributes") or payload
    return found if isinstance(found, dict) else {}


def _named_by(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a profile goes by, as an import error repeats it."""
    return tuple(record.get(name) for name in _WHO)
