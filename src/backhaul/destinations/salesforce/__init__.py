"""Salesforce: any object, standard or custom, by its external id.

Facts are from Salesforce's REST API guide (sObject Collections, Describe, Query, headers), recorded answers, and issue
threads of client libraries. A record is attributed by its place in the answer, which that API promises.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote

from backhaul.destinations.kit import (
    Account,
    Answer,
    Batch,
    Destination,
    Http,
    Job,
    Spec,
    Token,
    Wire,
    held_as_sent,
    listing,
    paged,
)
from backhaul.destinations.salesforce import atomic, bulk
from backhaul.destinations.salesforce.answers import (
    DAY,
    FIXES,
    REFUSALS,
    classify,
    left,
    missed,
    outcomes,
    refused,
)
from backhaul.destinations.salesforce.fields import (
    RECORD_ID,
    SEVERAL,
    field_of,
    fold,
    held,
    joined,
    literal,
    parent_fields,
    parent_names,
    same,
    selected,
    unparented,
)
from backhaul.destinations.salesforce.login import SalesforceConfig, grant
from backhaul.errors import BackhaulError, Halt, Unsettled
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

_ORG = re.compile(r"/id/(00D\w+)/")
_QUERY = 6_000
"""Characters of the values in one query. Salesforce takes 16,384 bytes of address and headers; a proxy on the way often 8,192."""

_VALUE = 30
"""Characters of one value in a query, as a guess at what a plan costs."""


class Salesforce(Destination[SalesforceConfig]):
    """One Salesforce org."""

    spec: ClassVar[Spec] = Spec(
        name="salesforce",
        config=SalesforceConfig,
        docs="Any object, standard or custom, by its API name; upserts by an external id field.",
        batch=dict.fromkeys(
            (Op.UPSERT, Op.UPDATE, Op.INSERT, Op.DELETE), BatchLimits(atomic.COLLECTION, 3_000_000)
        ),
        limits=(Rate("day", 100_000, DAY),),
        concurrency=4,
        moves=True,
        deltas=True,
        csv_null=bulk.NULL,
        states_account=True,
        index_lag=0.0,
        refusals=REFUSALS,
        sources="SOAP API Developer Guide, StatusCode; recorded answers",
        fixes=FIXES,
        nulls="A cleared field is sent as null (in a bulk job #N/A); a skipped one is left out. Salesforce holds no empty text.",
    )

    def __init__(self, config: SalesforceConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url
        self._org = ""
        self._schemas: dict[str, ObjectSchema] = {}
        self._references: dict[str, dict[str, str]] = {}
        """Of each object, the fields that refer to parents by their relationships' names."""

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}", **self._wishes()}

    def index_lag(self, object: str) -> float | None:
        """SOQL is up to date, but a request whose answer was lost may not be over."""
        return float(self.config.works_on)

    def _wishes(self) -> Mapping[str, str]:
        """Headers that say how records are to be saved."""
        own = {}
        if self.config.save_duplicates:
            own["Sforce-Duplicate-Rule-Header"] = "allowSave=true"
        if not self.config.assignment_rules:
            own["Sforce-Auto-Assign"] = "FALSE"
        return own

    async def authorise(self) -> Token | None:
        form = grant(self.config)
        ask = self.http.refresh if "refresh_token" in form else self.http.login
        said = await ask("/services/oauth2/token", form)
        if found := _ORG.search(str(said.get("id"))):
            self._org = found[1]
        return Token(said["access_token"])

    async def account(self) -> Account | None:
        """Return the org, which the token's answer names in `id`, https://login.salesforce.com/id/ORG/USER (Salesforce help:
        Identity URLs). A Salesforce sandbox is another org."""
        await self.http.sign_in()
        return Account(self._org, f"Salesforce org {self._org}") if self._org else None

    def _path(self, *parts: str) -> str:
        named = "/".join(quote(part, safe="") for part in parts)
        return f"/services/data/v{self.config.api_version}/{named}"

    async def describe(self, object: str) -> ObjectSchema:
        items = await self._items(object)
        found = [field_of(item) for item in items]
        parents = [item for item in items if item.get("relationshipName") in self.config.parents]
        self._references[object] = {}
        for item in parents:
            for target, named in parent_names(item).items():
                found += parent_fields(item, named, await self._items(target))
                self._references[object][named] = item["name"]
        self._schemas[object] = ObjectSchema(object, {field.name: field for field in found})
        return self._schemas[object]

    async def _items(self, object: str) -> list[dict[str, Any]]:
        """An object's fields, as its describe has them."""
        answer = await self.http.request("GET", self._path("sobjects", object, "describe"))
        said = answer.json()
        if answer.status == 404 or not isinstance(said, dict):
            raise Halt(
                f"Salesforce has no object {object!r} that the app's user may see",
                hint="give its API name; custom ones end in __c",
            )
        if not said.get("fields"):
            raise Unsettled("Salesforce's answer has no list of fields")
        return list(said["fields"])

    async def _field(self, object: str, identifiers: Sequence[str]) -> Field:
        """The one field that identifies a record."""
        if len(identifiers) != 1:
            raise Halt(
                "Salesforce identifies a record by one field", hint="name one external id under identify"
            )
        schema = self._schemas.get(object) or await self.describe(object)
        return schema.fields.get(identifiers[0], Field(identifiers[0]))

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        if self.config.atomic and op in atomic.OPS:
            return atomic.LIMITS
        return bulk.LIMITS if self._as_job(op, rows) else super().batch_limits(object, op, rows)

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """Jobs; and look-ups of the ids of records that are updated or deleted, in as many queries as their values ask for."""
        if self._as_job(planned.op, planned.total):
            return {"": bulk.EXTRA_REQUESTS}
        asked = (
            planned.without_id if planned.op in (Op.UPDATE, Op.DELETE) and identifiers[0] != RECORD_ID else 0
        )
        return {"": -(-asked * _VALUE // _QUERY)}

    def wire(self, object: str, op: Op, rows: int) -> Wire:
        return Wire.CSV if self._as_job(op, rows) else Wire.JSON

    def _as_job(self, op: Op, rows: int) -> bool:
        return op in bulk.OPS and rows > self.config.bulk_above and not self.config.atomic

    async def write(self, batch: Batch) -> Outcomes | Job:
        """Upserts by the external id; updates and deletes by the records' own ids."""
        by = await self._field(batch.object, batch.identifiers)
        if batch.op is Op.UPSERT and by.name == RECORD_ID:
            raise Halt(
                "Salesforce gives ids itself", hint="upsert by an external id field, or use mode: update"
            )
        if batch.wire is Wire.CSV:
            return await self._hand_over(batch)
        if batch.op in (Op.UPDATE, Op.DELETE):
            return await self._by_record_id(batch, by)
        path = ("composite", "sobjects", *((batch.object, by.name) if batch.op is Op.UPSERT else ()))
        method = "PATCH" if batch.op is Op.UPSERT else "POST"
        return missed(batch.parts, await self._send(method, path, batch.keys, self._typed(batch)))

    async def _hand_over(self, batch: Batch) -> Job:
        """Nothing of a job is applied before it is closed."""
        file = bulk.file(batch)
        created = await self.http.request("POST", self._path("jobs", "ingest"), json=bulk.order(batch))
        said = created.json()
        if created.status == 404 or not isinstance(said, dict):
            raise refused(created)
        job, kind = str(said["id"]), {"Content-Type": "text/csv; charset=UTF-8"}
        path = self._path("jobs", "ingest", job, "batches")
        await self.http.request("PUT", path, body=file, headers=kind)
        return Job(job, 0.0)

    async def collect(self, batch: Batch, job: str) -> Outcomes | Job:
        path = ("jobs", "ingest", job)
        answer = await self.http.request("GET", self._path(*path))
        if answer.status == 404:  # Salesforce keeps jobs for seven days
            names = [field.name for field in batch.fields]
            found = await self.read(batch.object, batch.identifiers, batch.keys, names)
            return Outcomes(tuple(held_as_sent(batch, found, self.same, csv_null=bulk.NULL)))
        said = answer.json()
        if said["state"] == "Open":
            await self.http.request("PATCH", self._path(*path), json={"state": "UploadComplete"})
        if said["state"] in ("Open", *bulk.WORKING):
            return Job(job, bulk.wait(batch))
        files = [await self.http.request("GET", self._path(*path, name)) for name in bulk.RESULTS]
        return missed(batch.parts, Outcomes(tuple(bulk.outcomes(batch, said, *files))))

    async def _send(
        self, method: str, path: Sequence[str], keys: Sequence[str], records: Sequence[Mapping[str, Any]]
    ) -> Outcomes:
        if self.config.atomic:
            order = atomic.order(method, self._path(*path), records, self._wishes())
            return atomic.outcomes(await self.http.request("POST", self._path("composite"), json=order), keys)
        body = {"allOrNone": False, "records": records}
        return outcomes(await self.http.request(method, self._path(*path), json=body), keys)

    def _typed(self, batch: Batch) -> list[dict[str, Any]]:
        """The records as a collection wants them, each with its object."""
        attributes, parents = {"type": batch.object}, self._references.get(batch.object, {})
        records = batch.records()
        for name in (field.name for field in batch.fields if field.native_type == SEVERAL):
            for record in records:
                if name in record:
                    record[name] = joined(record[name])
        return [{"attributes": attributes, **unparented(record, parents)} for record in records]

    async def _by_record_id(self, batch: Batch, by: Field) -> Outcomes:
        """A collection of updates or deletes takes ids alone; those that no earlier answer gave are asked for."""
        known = batch.keys if by.name == RECORD_ID else batch.remote_ids
        ids = {key: [given] for key, given in zip(batch.keys, known, strict=True) if given is not None}
        unknown = [key for key in batch.keys if key not in ids]
        found = await self._find(batch.object, by, unknown, ()) if unknown else {}
        ids |= {key: [str(record["Id"]) for record in records] for key, records in found.items()}
        failed = [
            _not_one(key, by.name, ids.get(key, ())) for key in batch.keys if len(ids.get(key, ())) != 1
        ]
        sent = {key: each[0] for key, each in ids.items() if len(each) == 1}
        if not sent:
            return Outcomes(tuple(failed))
        if batch.op is Op.DELETE:
            params = {"ids": ",".join(sent.values()), "allOrNone": "false"}
            answer = await self.http.request("DELETE", self._path("composite", "sobjects"), params=params)
            return Outcomes((*outcomes(answer, list(sent)).items, *failed))
        records = dict(zip(batch.keys, self._typed(batch), strict=True))
        fixed = {RECORD_ID} if by.writable else {RECORD_ID, by.name}
        chosen = [{**_without(records[key], fixed), "id": record_id} for key, record_id in sent.items()]
        written = await self._send("PATCH", ("composite", "sobjects"), list(sent), chosen)
        return Outcomes((*written.items, *failed))

    def describe_delete(self, object: str, *, erase: bool = False) -> str:
        """No REST request empties the recycle bin of one record."""
        return "deleted (Salesforce keeps it in the recycle bin for 15 days)"

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        found = await self._find(object, await self._field(object, identifiers), keys, fields)
        names = dict.fromkeys((*identifiers, *fields))
        return {key: {name: held(records[0], name) for name in names} for key, records in found.items()}

    async def lookup(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str]
    ) -> Mapping[str, Sequence[str | None]]:
        found = await self._find(object, await self._field(object, identifiers), keys, ())
        return {key: [str(record["Id"]) for record in records] for key, records in found.items()}

    async def _find(
        self, object: str, by: Field, keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """Records by key through SOQL, which is up to date; in as many queries as their length asks for."""
        asked: dict[str, list[str]] = {}
        for key in keys:
            asked.setdefault(fold(by, key), []).append(key)
        names = selected((RECORD_ID, by.name, *fields))
        found: dict[str, list[dict[str, Any]]] = {}
        for values in _pieces([literal(by, key) for key in keys]):
            query = f"SELECT {names} FROM {object} WHERE {by.name} IN ({values})"
            async for record in paged(partial(self._page, query)):
                for key in asked.get(fold(by, record.get(by.name)), ()):
                    found.setdefault(key, []).append(record)
        return found

    async def _page(self, query: str, path: str) -> tuple[list[dict[str, Any]], str | None]:
        """Records of a query, and where more of them are."""
        place, asked = (path, None) if path else (self._path("query"), {"q": query})
        answer = await self.http.request("GET", place, params=asked)
        said = answer.json()
        if answer.status == 404 or not isinstance(said, dict):
            raise refused(answer)
        return listing(said, "records"), None if said.get("done", True) else str(said["nextRecordsUrl"])

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        return same(field, sent, held)

    def left(self, answer: Answer) -> Mapping[float, Left]:
        return left(answer, self.ours)

    def classify(self, answer: Answer) -> BackhaulError | None:
        return classify(answer)


def _without(record: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A record without what finds it and cannot be written: its own id, an auto number."""
    return {name: value for name, value in record.items() if name not in names}


def _not_one(key: str, name: str, ids: Sequence[str]) -> Outcome:
    if ids:
        said = f"{len(ids)} records have this {name}: {', '.join(ids[:5])}"
        return Rejected(key, "DUPLICATE_EXTERNAL_ID", said)
    return Gone(key, "NOT_FOUND", f"Salesforce has no record with this {name}")


def _pieces(values: Sequence[str]) -> Iterator[str]:
    """The values joined by commas, cut where a query would become too long once it is in an address."""
    part, size = list[str](), 0
    for value in values:
        length = len(quote(value)) + 3
        if part and size + length > _QUERY:
            yield ",".join(part)
            part, size = [], 0
        part.append(value)
        size += length
    if part:
        yield ",".join(part)
