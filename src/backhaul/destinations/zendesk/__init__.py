"""Zendesk Support: users and organizations, a hundred at a time as job statuses.

Facts are from Zendesk's Users, Organizations, Job Statuses and rate-limit references, zenpy's source and recorded answers. A
job's results hold Zendesk's ids and no keys: each is found by reading the record back. An account that may not use
create_or_update_many answers 403, and its users go one by one.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field as Setting
from pydantic import model_validator

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
    held_as_sent,
    inner,
    listed,
    listing,
    no_such_object,
    paged,
    refusal_table,
)
from backhaul.destinations.zendesk.answers import (
    body_of,
    classify,
    left_in_minute,
    not_now,
    of_one_record,
    said,
    without_organization,
)
from backhaul.destinations.zendesk.fields import (
    KEY,
    KINDS,
    custom_field,
    fold,
    members,
    same,
    standard_fields,
    tags_of,
    values_of,
)
from backhaul.destinations.zendesk.jobs import attributed, deleted
from backhaul.errors import BackhaulError, Forbidden, Halt, Refused, SendError, Unsettled
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    Gone,
    Left,
    ObjectSchema,
    Op,
    Outcome,
    Outcomes,
    PlannedBatch,
    Rate,
    Rejected,
)
from backhaul.values import Duration

_WORKING = ("queued", "working")
_A_JOB_IS = 3
"""Requests, at least: it is handed over, asked about, and its records are read."""
_JOB_ASKED = 1
"""How often a job of a hundred is asked about, where Zendesk is done with it within the interval."""
_REFUSALS = refusal_table(
    record=("RecordInvalid", "RecordNotFound", "InvalidValue", "BlankValue", "Failed", "comma"),
    configuration=("InvalidEndpoint", "Forbidden"),
    capacity=("402",),
    conflict=("DuplicateValue",),
    transient=("TooManyJobs", "DatabaseConflict"),
)
_FIXES = {
    "RecordInvalid": "mend the value in the model; a user needs a name, and an e-mail that no other user has",
    "RecordNotFound": "it was deleted in Zendesk: use mode upsert to have it made again, or leave the row out",
    "comma": "Zendesk takes external ids in lists with commas between: leave the comma out of yours",
    "DuplicateValue": "another record has this name or e-mail: make it unique in the model, or merge the two in Zendesk",
}

Record = dict[str, Any]


class ZendeskConfig(JobsConfig):
    """A Zendesk account, by an agent's e-mail and an API token, or by an OAuth access token."""

    base_url: str
    """The account, such as https://acme.zendesk.com, or a simulation's address."""
    email: str | None = None
    """The agent whose API token it is."""
    api_token: Secret | None = None
    access_token: Secret | None = None
    """An OAuth access token, in place of email and api_token."""
    api_version: str = Setting(default="v2", pattern=r"^v\d+$")
    bulk: bool = True
    """Users go a hundred at a time; false: one by one. An account that may not is found out, at the cost of a request."""
    poll_interval: Duration = Duration(2.0)
    """Between two questions about a job."""
    skip_verify_email: bool = True
    """Users that are created get no e-mail from Zendesk to verify their address."""

    @model_validator(mode="after")
    def _one_credential(self) -> ZendeskConfig:
        basic = (self.email is not None, self.api_token is not None)
        if any(basic) is not all(basic) or any(basic) is (self.access_token is not None):
            raise ValueError("give email and api_token, or access_token")
        return self


class Zendesk(Destination[ZendeskConfig]):
    """One Zendesk account."""

    spec: ClassVar[Spec] = Spec(
        name="zendesk",
        config=ZendeskConfig,
        docs="users and organizations, with their custom fields.",
        batch=dict.fromkeys((Op.UPSERT, Op.UPDATE, Op.DELETE), BatchLimits(records=100)),
        limits=(Rate("minute", 400, 60),),
        concurrency=8,
        moves=True,
        late=1.0,
        lag_source="a job that is complete is applied, and reads are by show_many and not by search, which is minutes behind "
        "(developer.zendesk.com, Search)",
        refusals=_REFUSALS,
        sources="Zendesk's developer reference (errors, job statuses); recorded answers",
        fixes=_FIXES,
        nulls="A cleared field is sent as null; a skipped one is left out.",
    )

    def __init__(self, config: ZendeskConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url
        self._bulk = config.bulk
        self._tags: dict[str, set[str]] = {}
        """Of each kind, the tags that its custom fields add."""

    async def account(self) -> Account | None:
        """Return the account, by the subdomain, which Zendesk gives to one account alone (https://developer.zendesk.com/api-reference)."""
        host = self.address
        return (
            Account(host, f"Zendesk account {host.partition('.')[0]}")
            if host.endswith(".zendesk.com")
            else None
        )

    def headers(self) -> Mapping[str, str]:
        config = self.config
        if config.access_token is not None:
            return {"Authorization": f"Bearer {config.access_token.get_secret_value()}"}
        token = "" if config.api_token is None else config.api_token.get_secret_value()
        basic = base64.b64encode(f"{config.email}/token:{token}".encode()).decode()
        return {"Authorization": f"Basic {basic}"}

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        """A few records go one by one: a job is at least three requests."""
        single = object == "users" and op is Op.UPSERT and not self._bulk
        alone = single or 0 < rows <= _A_JOB_IS
        return BatchLimits(records=1) if alone else super().batch_limits(object, op, rows)

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """A job is asked about until it is over, then its records are read. What goes by Zendesk's ids is looked up first, and
        makes a second job of what is not there."""
        if planned.records == 1 or identifiers[0] != KEY:
            return {"": planned.records - 1}
        by_id = planned.op is Op.UPDATE or (planned.op is Op.UPSERT and object != "users")
        return {"": _JOB_ASKED + 1 + (by_id and planned.without_id > 0)}

    def read_requests(self, object: str, identifiers: tuple[str, ...], records: int) -> int:
        return 1 if identifiers[0] == KEY else 0

    async def _ask(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, str] | None = None
    ) -> Answer:
        """Raises: Halt at a 403."""
        answer = await self._request(method, path, json=json, params=params)
        if answer.status == 403:
            raise Forbidden(
                f"Zendesk refuses this: {' '.join(said(answer)) or 'HTTP 403'}", hint="is the agent an admin?"
            )
        return answer

    async def _request(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, str] | None = None
    ) -> Answer:
        place = f"/api/{self.config.api_version}/{path}"
        return await self.http.request(method, place, json=json, params=params)

    async def describe(self, object: str) -> ObjectSchema:
        if object not in KINDS:
            raise no_such_object(object, KINDS, "Zendesk")
        kind = KINDS[object]

        async def page(after: str) -> tuple[list[Record], str | None]:
            params = {"page[size]": "100"} | ({"page[after]": after} if after else {})
            body = body_of(await self._ask("GET", kind.custom, params=params))
            more = inner(body, "meta", "has_more")
            return listing(body, kind.custom), inner(body, "meta", "after_cursor") if more else None

        items = [item async for item in paged(page) if item.get("active") is not False]
        self._tags[object] = {tag for item in items for tag in tags_of(item)}
        found = [custom_field(kind, item) for item in items]
        return ObjectSchema(object, standard_fields(kind) | {field.name: field for field in found})

    async def write(self, batch: Batch) -> Outcomes | Job:
        name = batch.identifiers[0]
        if name not in KINDS[batch.object].keys:
            raise Halt(f"Zendesk finds no {batch.object} by {name}", hint="identify by external_id")
        commas = [key for key in batch.keys if "," in key]
        if commas:  # those that are not named leave again without them
            return Outcomes(tuple(Rejected(key, "comma", "its external_id has a comma") for key in commas))
        records = [self._outgoing(batch, record) for record in batch.records()]
        alone = len(batch) == 1 and (batch.op is Op.UPSERT or batch.remote_ids[0] is not None)
        if name != KEY or alone:
            return await self._each(batch, records)
        if batch.op is Op.DELETE:
            return await self._hand_over("DELETE", batch.object, "destroy_many", list(batch.keys))
        if batch.op is Op.UPSERT and batch.object == "users":
            return await self._upsert_users(batch, records)
        return await self._by_id(batch, records)

    def _outgoing(self, batch: Batch, record: Record) -> Record:
        fresh = batch.object == "users" and batch.op is Op.UPSERT and self.config.skip_verify_email
        return {**record, "skip_verify_email": True} if fresh else record

    async def _upsert_users(self, batch: Batch, records: list[Record]) -> Outcomes | Job:
        if not self._bulk:
            return await self._each(batch, records)
        answer = await self._request("POST", "users/create_or_update_many", json={"users": records})
        if answer.status != 403:
            return self._job(answer)
        self._bulk = False
        return await self._each(batch, records)

    async def _by_id(self, batch: Batch, records: list[Record]) -> Outcomes | Job:
        """Updates by Zendesk's own ids, and creates of organizations that are not there; two jobs where there are both."""
        ids = dict(zip(batch.keys, batch.remote_ids, strict=True))
        asked = [key for key, known in ids.items() if known is None]
        ids |= {key: str(record["id"]) for key, record in (await self._held(batch.object, asked)).items()}
        both = list(zip(batch.keys, records, strict=True))
        there = [{**record, "id": int(ids[key] or 0)} for key, record in both if ids[key] is not None]
        absent = [record for key, record in both if ids[key] is None]
        if batch.op is Op.UPDATE and not there:
            return Outcomes(tuple(Gone(key, "RecordNotFound", "not in Zendesk") for key in batch.keys))
        handed = []
        if there:
            handed.append(await self._hand_over("PUT", batch.object, "update_many", there))
        if absent and batch.op is Op.UPSERT:
            handed.append(await self._hand_over("POST", batch.object, "create_many", absent))
        return Job(",".join(job.id for job in handed), handed[0].wait)

    async def _hand_over(self, method: str, object: str, action: str, items: Sequence[Any]) -> Job:
        """Zendesk begins at once, before its id can be kept: what is handed over may be repeated."""
        if action == "destroy_many":
            params = {"external_ids": ",".join(items)}
            return self._job(await self._ask(method, f"{object}/{action}", params=params))
        return self._job(await self._ask(method, f"{object}/{action}", json={object: items}))

    def _job(self, answer: Answer) -> Job:
        status = body_of(answer).get("job_status") or {}
        if not status.get("id"):
            raise Unsettled("Zendesk's answer has no job")
        return Job(str(status["id"]), float(self.config.poll_interval))

    async def collect(self, batch: Batch, job: str) -> Outcomes | Job:
        """Zendesk keeps jobs for a day; after that the records tell."""
        answer = await self._ask("GET", "job_statuses/show_many", params={"ids": job})
        jobs = [] if answer.status == 404 else listing(body_of(answer), "job_statuses")
        if any(status.get("status") in _WORKING for status in jobs):
            return Job(job, float(self.config.poll_interval))
        held = await self._held(batch.object, batch.keys)
        if len(jobs) < len(job.split(",")):
            return Outcomes(tuple(await self._promoted(batch, await self._as_sent(batch, held), held)))
        if batch.op is Op.DELETE:
            return Outcomes(tuple(deleted(batch, jobs, held)))
        outcomes = self._of_organizations(batch, attributed(batch, jobs, held))
        return Outcomes(tuple(await self._promoted(batch, outcomes, held)))

    def _of_organizations(self, batch: Batch, outcomes: list[Outcome]) -> list[Outcome]:
        """With what is not there of a user to be made, its organization, told from a user that is not there."""
        if batch.object != "users" or batch.op is not Op.UPSERT:
            return outcomes
        members = {
            key
            for key, record in zip(batch.keys, batch.records(), strict=True)
            if record.get("organization_id") is not None
        }
        return [
            without_organization(item.key, item.code, item.message)
            if isinstance(item, Gone) and item.key in members
            else item
            for item in outcomes
        ]

    async def _as_sent(self, batch: Batch, held: Mapping[str, Record]) -> list[Outcome]:
        """The records of a forgotten job that are as they were sent; an e-mail may still be no primary one."""
        names = [field.name for field in batch.fields]
        values = {key: values_of(record, names) for key, record in held.items()}
        await self._load_tags(batch.object, names)
        found = held_as_sent(batch, values, self.same, apart=("email",) if batch.object == "users" else ())
        return [replace(one, remote_id=str(held[one.key]["id"])) if one.key in held else one for one in found]

    async def _promoted(
        self, batch: Batch, outcomes: list[Outcome], held: Mapping[str, Record]
    ) -> list[Outcome]:
        """A new e-mail of a user that has one is made its primary one: Zendesk only adds it (recorded). A user that was deleted
        has none, and no identities."""
        if batch.op is Op.DELETE:
            return outcomes
        sent = {key: record.get("email") for key, record in zip(batch.keys, batch.records(), strict=True)}
        late = [
            (held[item.key], str(sent[item.key]))
            for item in outcomes
            if isinstance(item, Delivered)
            and batch.object == "users"
            and sent.get(item.key)
            and item.key in held
            if fold(held[item.key].get("email") or "") != fold(sent[item.key])
        ]
        refused = await asyncio.gather(*(self._make_primary(record, email) for record, email in late))
        own = {str(record["id"]): answer for (record, _), answer in zip(late, refused, strict=True) if answer}
        return [
            not_now(item.key, own[item.remote_id])
            if isinstance(item, Delivered) and item.remote_id in own
            else item
            for item in outcomes
        ]

    async def _make_primary(self, record: Record, email: str) -> Answer | None:
        """The answer that says that it is not done."""
        path = f"users/{record['id']}/identities"
        identities = listed(body_of(await self._ask("GET", path)), "identities")
        chosen = [
            item
            for item in identities
            if item.get("type") == "email"
            and fold(item.get("value")) == fold(email)
            and not item.get("primary")
        ]
        if not chosen:
            return None
        answer = await self._ask("PUT", f"{path}/{chosen[0]['id']}/make_primary", json={})
        return None if 200 <= answer.status < 300 else answer

    async def _each(self, batch: Batch, records: list[Record]) -> Outcomes:
        """One request a record. What became of one says nothing of another: those without an answer are left open.

        Raises:
            BackhaulError: of all of them, if none was answered.
        """
        known = zip(batch.keys, records, batch.remote_ids, strict=True)
        tasks = (self._single(batch, key, record, own) for key, record, own in known)
        settled = await asyncio.gather(*tasks, return_exceptions=True)
        outcomes: list[Outcome] = []
        for key, item in zip(batch.keys, settled, strict=True):
            if isinstance(item, Refused) and len(batch) > 1:
                outcomes.append(Rejected(key, item.code, str(item), item.kind))
            elif isinstance(item, BaseException) and (not isinstance(item, SendError) or len(batch) == 1):
                raise item
            elif not isinstance(item, BaseException):
                outcomes += item
        failed = [item for item in settled if isinstance(item, SendError)]
        if not outcomes and failed:
            raise failed[0]
        return Outcomes(tuple(outcomes))

    async def _single(self, batch: Batch, key: str, record: Record, own: str | None) -> list[Outcome]:
        kind = KINDS[batch.object]
        if batch.op is not Op.UPSERT and own is None:
            raise Halt(f"{batch.object} are {batch.op}d by external_id alone", hint="identify by external_id")
        body, path = {kind.one: record}, f"{batch.object}/{own}"
        if batch.op is Op.UPSERT:
            answer = await self._ask("POST", f"{batch.object}/create_or_update", json=body)
        elif batch.op is Op.UPDATE:
            answer = await self._ask("PUT", path, json=body)
        else:
            answer = await self._ask("DELETE", path)
        if of_one_record(answer):
            return [not_now(key, answer)]
        if answer.status == 404:
            member = batch.op is Op.UPSERT and record.get("organization_id") is not None
            return [(without_organization if member else Gone)(key, *said(answer))]
        if answer.status == 204:
            return [Delivered(key, own)]
        held = body_of(answer).get(kind.one) or {}
        if held.get("id") is None:
            return []
        outcomes: list[Outcome] = [Delivered(key, str(held["id"]), answer.status == 201)]
        return await self._promoted(batch, outcomes, {key: held})

    async def erase(self, batch: Batch) -> Outcomes | Job:
        """Users are deleted, and then permanently (reference: Users, Permanently Delete User)."""
        if batch.object != "users":
            return await self.write(batch)
        ids = dict(zip(batch.keys, batch.remote_ids, strict=True))
        asked = [key for key, known in ids.items() if known is None]
        if asked and batch.identifiers[0] != KEY:
            raise Halt("users are deleted by external_id alone", hint="identify by external_id")
        ids |= {key: str(record["id"]) for key, record in (await self._held(batch.object, asked)).items()}
        for own in filter(None, ids.values()):
            for place in ("users", "deleted_users"):
                answer = await self._ask("DELETE", f"{place}/{own}")
                if answer.status != 404:
                    body_of(answer)
        return Outcomes(tuple(Delivered(key, own) for key, own in ids.items()))

    def describe_delete(self, object: str, *, erase: bool = False) -> str:
        if object != "users":
            return "deleted"
        return "permanently deleted" if erase else "deleted (Zendesk keeps it among the deleted users)"

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        if identifiers[0] != KEY:
            return await super().read(object, identifiers, keys, fields)
        await self._load_tags(object, fields)
        return {key: values_of(record, fields) for key, record in (await self._held(object, keys)).items()}

    async def _load_tags(self, object: str, fields: Sequence[str]) -> None:
        if "tags" in fields and object not in self._tags:
            await self.describe(object)

    async def _held(self, object: str, keys: Sequence[str]) -> dict[str, Record]:
        """Records by external_id, from show_many, which does not lag as search does."""
        if not keys:
            return {}
        answer = await self._ask("GET", f"{object}/show_many", params={"external_ids": ",".join(keys)})
        found = [] if answer.status == 404 else listing(body_of(answer), object)
        asked = {fold(key): key for key in keys}
        return {
            asked[fold(item.get(KEY))]: item
            for item in found
            if fold(item.get(KEY)) in asked and item.get("active") is not False
        }

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        """Zendesk adds the tags of a record's dropdowns and checkboxes to its `tags`."""
        if field.name == "tags":
            added = members(held) - members(sent)
            return members(sent) <= members(held) and added <= set().union(*self._tags.values())
        return same(field, sent, held)

    def left(self, answer: Answer) -> Mapping[float, Left]:
        return left_in_minute(answer)

    def classify(self, answer: Answer) -> BackhaulError | None:
        return classify(answer)
