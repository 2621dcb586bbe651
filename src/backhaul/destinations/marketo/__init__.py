"""Marketo Engage: leads, custom objects, and members of static lists, three hundred at a time.

Facts are from Adobe's REST guide (Authentication, Leads, Custom Objects, List Membership, Lead Database, Error Codes,
Integration Best Practices), its Swagger documents, and recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

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
    Token,
    Wire,
    held_as_sent,
    no_such_object,
    paged,
)
from backhaul.destinations.marketo import bulk
from backhaul.destinations.marketo.answers import (
    DAY,
    FIXES,
    REFUSALS,
    by_id,
    by_number,
    by_place,
    classify,
    left_today,
    page,
    reading,
    results,
)
from backhaul.destinations.marketo.fields import custom_fields, fold, lead_fields, outgoing, same
from backhaul.errors import BackhaulError, Halt, NotApplied, Unsettled
from backhaul.types import (
    BatchLimits,
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

_BATCH = BatchLimits(records=300, bytes=950_000)
"""300 records and 1 MB a request, less what is put around and into the records."""
_CALLS = 50_000
"""Calls a day that most subscriptions have; 10,000 at least."""
_SHORT = 2.0
"""Seconds. Marketo gives the same token until it ends: one with less left would end on its way."""
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_ID = "id"
_NOT_THERE = "1004"
_LEAD = reading((_NOT_THERE,))
_MEMBER = reading((_NOT_THERE, "1015"))
_CUSTOM = reading(("1013",), "marketoGUID")

Record = dict[str, Any]


class MarketoConfig(JobsConfig):
    """The keys of `type: marketo`."""

    base_url: str
    """The REST endpoint of Admin > Web Services, such as https://123-ABC-456.mktorest.com, or a simulation's address."""
    identity_url: str | None = None
    """The Identity endpoint of Admin > Web Services; unset: /identity under base_url."""
    client_id: str
    """Of the custom service in Admin > LaunchPoint."""
    client_secret: Secret
    api_version: str = Setting(default="v1", pattern=r"^v\d+$")
    partition: str | None = None
    """The lead partition that new leads come into; unset: the default one."""
    bulk_above: int | None = Setting(default=None, ge=0)
    """Leads of a plan above which upserts go as files of a bulk import; unset: never."""


class Marketo(Destination[MarketoConfig]):
    """One Marketo instance."""

    spec: ClassVar[Spec] = Spec(
        name="marketo",
        config=MarketoConfig,
        docs="`leads`, `customobjects/NAME`, and `lists/ID` (members of a static list).",
        batch=dict.fromkeys((Op.UPSERT, Op.UPDATE, Op.DELETE, Op.MOVE), _BATCH),
        limits=(Rate("window", 100, 20), Rate("day", _CALLS, DAY)),
        concurrency=5,
        deltas=True,
        late=3.0,
        read_lag=10.0,
        lag_source="a lead that was just made is not always found at once; Marketo names no bound (from memory)",
        refusals=REFUSALS,
        sources="Adobe's Marketo REST guide, Error Codes; recorded answers",
        fixes=FIXES,
        nulls="A cleared field is sent as null; Marketo holds no empty text, and a boolean that is cleared is false.",
    )

    def __init__(self, config: MarketoConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url.rstrip("/").removesuffix("/rest")

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def account(self) -> Account | None:
        """Return the instance, by the Munchkin id that its REST address begins with (https://developers.marketo.com/rest-api)."""
        host = self.address
        if not host.endswith(".mktorest.com"):
            return None
        return Account(host, f"Marketo instance {host.partition('.')[0].upper()}")

    async def authorise(self) -> Token | None:
        identity = (self.config.identity_url or f"{self.base_url}/identity").rstrip("/")
        form = {
            "grant_type": "client_credentials",
            "client_id": self.config.client_id,
            "client_secret": self.config.client_secret.get_secret_value(),
        }
        said = await self.http.login(f"{identity}/oauth/token", form)
        life = said.get("expires_in")
        if isinstance(life, int | float) and life < _SHORT:
            raise NotApplied("Marketo's access token is about to end; another is to be had after that")
        return Token(said["access_token"], float(life) if isinstance(life, int | float) else None)

    async def open(self) -> None:
        """Asks how many calls everybody has made today: what is left of the quota is what all have left."""
        await self._get("stats", "usage")

    def left(self, answer: Answer) -> Mapping[float, Left]:
        given = self.config.rate_limits
        quota = _CALLS if given is None else next((rate.count for rate in given if rate.per == DAY), None)
        return {} if quota is None else left_today(answer, quota, self.ours)

    def _path(self, *parts: str) -> str:
        return f"/rest/{self.config.api_version}/{'/'.join(quote(part, safe='') for part in parts)}.json"

    async def _get(self, *parts: str) -> list[Record]:
        return page(await self.http.request("GET", self._path(*parts)))[0]

    async def _post(self, *parts: str, body: Mapping[str, Any]) -> list[Record]:
        return results(await self.http.request("POST", self._path(*parts), json=body))

    async def describe(self, object: str) -> ObjectSchema:
        kind, _, name = object.partition("/")
        if kind == "customobjects" and name:
            found = await self._get(kind, name, "describe")
            if not found:
                known = [
                    f"{kind}/{item.get('apiName') or item.get('name')}" for item in await self._get(kind)
                ]
                raise no_such_object(object, ["leads", *known], "Marketo")
            return ObjectSchema(object, custom_fields(found[0]))
        if object != "leads" and not (kind == "lists" and name.isdecimal()):
            raise no_such_object(object, ["leads", "customobjects/NAME", "lists/ID"], "Marketo")
        fields = await self._lead_fields()
        if kind == "leads":
            return ObjectSchema(object, fields)
        if not await self._get(kind, name):
            raise Halt(
                f"Marketo has no static list {name}", hint="its id is in its address, such as #ST1001A1"
            )
        members = [replace(field, writable=False) for field in fields.values() if field.unique]
        return ObjectSchema(object, {field.name: field for field in members})

    async def _lead_fields(self) -> dict[str, Field]:
        """`describe` knows names, types and what is read-only; `describe2` what a lead is found by."""
        described, more = await self._get("leads", "describe"), await self._get("leads", "describe2")
        searchable = [name for item in more for names in item.get("searchableFields") or () for name in names]
        if not described or not searchable:
            raise Unsettled("Marketo's answer has no fields")
        return lead_fields(described, searchable)

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        return bulk.LIMITS if self._as_file(object, op, rows) else super().batch_limits(object, op, rows)

    def moves(self, object: str, identifiers: tuple[str, ...]) -> Op | None:
        """A lead keeps its id, by which any other field can be changed; what tells custom objects apart cannot."""
        return Op.MOVE if object == "leads" and identifiers != (_ID,) else None

    def wire(self, object: str, op: Op, rows: int) -> Wire:
        return Wire.CSV if self._as_file(object, op, rows) else Wire.JSON

    def opening_requests(self, object: str) -> int:
        """The token, what is left of the daily quota, and the description, which takes several requests for leads and lists."""
        return 2 + {"leads": 2, "lists": 3}.get(object.partition("/")[0], 1)

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """A file is asked about; leads whose ids no earlier answer gave are looked up, members of a list always."""
        if self._as_file(object, planned.op, planned.total):
            return {"": 1}
        added = object.startswith("lists/") and planned.op is not Op.DELETE
        by_id = not object.startswith("customobjects/") and (added or planned.op is not Op.UPSERT)
        return {"": 1} if by_id and (added or planned.without_id) and identifiers != (_ID,) else {}

    def _as_file(self, object: str, op: Op, rows: int) -> bool:
        above = self.config.bulk_above
        return above is not None and rows > above and op is Op.UPSERT and object == "leads"

    async def write(self, batch: Batch) -> Outcomes | Job:
        commas = [key for key in batch.keys if "," in key] if len(batch.identifiers) == 1 else []
        if commas:  # those that are not named leave again without them
            return Outcomes(tuple(Rejected(key, "comma", "its identifier has a comma") for key in commas))
        kind, _, name = batch.object.partition("/")
        if kind == "customobjects":
            return await self._write_custom(batch, name)
        if kind == "lists":
            return await self._write_members(batch, name)
        if batch.op is Op.UPSERT and batch.identifiers[0] == _ID:
            raise Halt("Marketo gives ids itself", hint="upsert by another field, or use mode: update")
        return await (self._import(batch) if batch.wire is Wire.CSV else self._write_leads(batch))

    async def _import(self, batch: Batch) -> Job:
        """Marketo works on a file as soon as it has it."""
        body, kind = bulk.form(batch)
        params = {"format": "csv", "lookupField": batch.identifiers[0]}
        params |= {"partitionName": self.config.partition} if self.config.partition else {}
        path = f"{self._bulk}.json?{urlencode(params)}"
        said = results(await self.http.request("POST", path, body=body, headers={"Content-Type": kind}))
        if len(said) != 1 or "batchId" not in said[0]:
            raise Unsettled("Marketo's answer does not name the import")
        return Job(str(said[0]["batchId"]), bulk.wait(batch))

    @property
    def _bulk(self) -> str:
        return f"/bulk/{self.config.api_version}/leads"

    async def collect(self, batch: Batch, job: str) -> Outcomes | Job:
        path = f"{self._bulk}/batch/{quote(job, safe='')}"
        said, _ = page(await self.http.request("GET", f"{path}.json"))
        if not said:  # Marketo knows imports for seven days (guide: Bulk Import)
            names = [field.name for field in batch.fields]
            found = await self.read(batch.object, batch.identifiers, batch.keys, names)
            return Outcomes(tuple(held_as_sent(batch, found, self.same)))
        if bulk.goes_on(said[0]):
            return Job(job, bulk.wait(batch, again=True))
        wrong = said[0].get("numOfRowsFailed")
        failures = await self.http.request("GET", f"{path}/failures.json") if wrong else None
        warned = said[0].get("numOfRowsWithWarning")
        warnings = await self.http.request("GET", f"{path}/warnings.json") if warned else None
        return Outcomes(tuple(bulk.outcomes(batch, said[0], failures, warnings)))

    async def _write_leads(self, batch: Batch) -> Outcomes:
        """Upserts by the lookup field; updates and deletes by the leads' own ids, so that an identifier may change."""
        by, records = batch.identifiers[0], outgoing(batch.records(), batch.fields)
        if batch.op is Op.UPSERT:
            own = {"partitionName": self.config.partition} if self.config.partition else {}
            body = {"action": "createOrUpdate", "lookupField": by, **own, "input": records}
            return Outcomes(tuple(by_place(await self._post("leads", body=body), batch.keys, _LEAD)))
        ids, failed = await self._ids(batch, batch.remote_ids)
        if not ids:
            return Outcomes(tuple(failed))
        sent: list[Record] = [{_ID: int(own)} for own in ids.values()]
        if batch.op is Op.DELETE:
            found = await self._post("leads", "delete", body={"input": sent})
        else:
            held = dict(zip(batch.keys, records, strict=True))
            sent = [{**held[key], _ID: int(own)} for key, own in ids.items()]
            found = await self._post(
                "leads", body={"action": "updateOnly", "lookupField": _ID, "input": sent}
            )
        return Outcomes((*by_place(found, list(ids), _LEAD, list(ids.values())), *failed))

    async def _ids(self, batch: Batch, given: Sequence[str | None]) -> tuple[dict[str, str], list[Outcome]]:
        """The lead's id of each key, where it is not given, and what becomes of keys that have none or several."""
        by = batch.identifiers[0]
        known = batch.keys if by == _ID else given
        ids = {key: [own] for key, own in zip(batch.keys, known, strict=True) if own is not None}
        held = dict(zip(batch.keys, batch.previous_keys if batch.op is Op.MOVE else batch.keys, strict=True))
        unknown = {name: key for key, name in held.items() if key not in ids}
        found = await self._find(("leads",), by, list(unknown), (_ID,)) if unknown else {}
        ids |= {unknown[name]: [str(lead[_ID]) for lead in leads] for name, leads in found.items()}
        several = {key: each for key, each in ids.items() if len(each) > 1}
        failed: list[Outcome] = [
            Gone(key, _NOT_THERE, "Lead not found") for key in batch.keys if key not in ids
        ]
        failed += [
            Rejected(key, "1007", f"several leads: {', '.join(each)}") for key, each in several.items()
        ]
        return {key: each[0] for key, each in ids.items() if len(each) == 1}, failed

    async def _write_members(self, batch: Batch, name: str) -> Outcomes:
        """A list takes leads by their ids alone. Who comes in is looked up: an identifier may belong to another lead by now."""
        given = batch.remote_ids if batch.op is Op.DELETE else [None] * len(batch)
        ids, failed = await self._ids(batch, given)
        if not ids:
            return Outcomes(tuple(failed))
        path = f"{self._path('lists', name, 'leads')}?{urlencode([(_ID, own) for own in ids.values()])}"
        method = "DELETE" if batch.op is Op.DELETE else "POST"
        found = results(await self.http.request(method, path))
        return Outcomes((*by_id(found, ids, _MEMBER), *failed))

    async def _write_custom(self, batch: Batch, name: str) -> Outcomes:
        """By what tells its records apart, which cannot be changed."""
        if batch.op is Op.DELETE:
            body: Record = {"deleteBy": "dedupeFields", "input": batch.records()}
            found = await self._post("customobjects", name, "delete", body=body)
            return Outcomes(tuple(by_number(found, batch.keys, _CUSTOM)))
        action = "updateOnly" if batch.op is Op.UPDATE else "createOrUpdate"
        records = outgoing(batch.records(), batch.fields)
        body = {"action": action, "dedupeBy": "dedupeFields", "input": records}
        found = await self._post("customobjects", name, body=body)
        return Outcomes(tuple(by_number(found, batch.keys, _CUSTOM)))

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, Record]:
        kind, _, name = object.partition("/")
        names = list(dict.fromkeys((*identifiers, *fields)))
        if kind == "customobjects" and len(identifiers) > 1:
            found = await self._find_compound(name, identifiers, keys, names)
        elif kind == "customobjects":
            found = await self._find((kind, name), identifiers[0], keys, names)
        else:
            found = await self._find(("leads",), identifiers[0], keys, (_ID, *names))
        if kind == "lists":
            found = await self._members(name, found)
        return {key: {name: held[0].get(name) for name in names} for key, held in found.items()}

    async def _members(self, name: str, leads: Mapping[str, list[Record]]) -> dict[str, list[Record]]:
        """Those of the leads that are in the list."""
        ids = [(_ID, str(lead[_ID])) for each in leads.values() for lead in each]
        path = f"{self._path('lists', name, 'leads', 'ismember')}?{urlencode(ids)}"
        listed = page(await self.http.request("GET", path))[0] if ids else []
        members = {item.get(_ID) for item in listed if item.get("status") == "memberof"}
        return {key: each for key, each in leads.items() if each[0][_ID] in members}

    async def _find(
        self, parts: tuple[str, ...], by: str, keys: Sequence[str], names: Sequence[str]
    ) -> dict[str, list[Record]]:
        """Records by one field; as a form, since three hundred values are too long for an address."""
        exact, asked = set(keys), {fold(key): key for key in keys}
        form = {
            "filterType": by,
            "filterValues": ",".join(keys),
            "fields": ",".join(dict.fromkeys((by, *names))),
        }
        path = f"{self._path(*parts)}?_method=GET"

        async def ask(token: str) -> tuple[list[Record], str]:
            body = urlencode(form | ({"nextPageToken": token} if token else {})).encode()
            return page(await self.http.request("POST", path, body=body, headers=_FORM))

        found: dict[str, list[Record]] = {}
        async for item in paged(ask):
            held = str(item.get(by))
            key = held if held in exact else asked.get(fold(held))
            if key is not None:
                found.setdefault(key, []).append(item)
        return found

    async def _find_compound(
        self, name: str, identifiers: Sequence[str], keys: Sequence[str], names: Sequence[str]
    ) -> dict[str, list[Record]]:
        """Records by several fields together, of which there is one each."""
        texts = {key: orjson.loads(key) for key in keys}
        asked = {tuple(map(fold, values)): key for key, values in texts.items()}
        wanted = [dict(zip(identifiers, values, strict=True)) for values in texts.values()]
        body = {"filterType": "dedupeFields", "fields": list(names), "input": wanted}
        path = f"{self._path('customobjects', name)}?_method=GET"
        items, _ = page(await self.http.request("POST", path, json=body))
        named = [(asked.get(tuple(fold(item.get(one)) for one in identifiers)), item) for item in items]
        return {key: [item] for key, item in named if key is not None}

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        return same(field, sent, held)

    def classify(self, answer: Answer) -> BackhaulError | None:
        return classify(answer)
