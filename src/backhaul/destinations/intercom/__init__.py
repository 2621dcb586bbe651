"""Intercom: contacts and companies, one record a request: it has neither batches nor an upsert of contacts.

Facts are from Intercom's OpenAPI document (2.16), its rate-limit page and recorded answers. A contact that is not known by
Intercom's id is created; the 409 of one that is there already names it, and it is adopted where it is this record's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field as Setting

from backhaul.destinations.intercom.answers import classify, left_in_window, record_of
from backhaul.destinations.intercom.fields import (
    KEYS,
    OWN_ID,
    STANDARD,
    custom_field,
    outgoing,
    same,
    standard_fields,
    values_of,
)
from backhaul.destinations.intercom.one import NOT_THERE, One, Record, find
from backhaul.destinations.kit import (
    Account,
    Answer,
    Batch,
    Destination,
    DestinationConfig,
    Http,
    Secret,
    Spec,
    no_such_object,
    refusal_table,
)
from backhaul.errors import BackhaulError, Halt, Unsettled
from backhaul.types import (
    BatchLimits,
    Field,
    Left,
    ObjectSchema,
    Op,
    Outcome,
    Outcomes,
    PlannedBatch,
    Rate,
)

_TWICE = "another contact has this e-mail or id: make it unique in the model, or merge the two in Intercom"
_SEARCH_LAG = 60.0
"""Seconds after which search is believed to find a contact. "Minutes", says Intercom's document, and names no bound; a run waits
no longer than this for one record."""
_REFUSALS = refusal_table(
    record=("parameter_invalid", "parameter_not_found", "client_error", "bad_request", NOT_THERE, "ambiguous", "lead_by_email",
            "external_id", "company_id", "content_too_large"),
    configuration=("intercom_version_invalid", "media_type_not_acceptable", "api_plan_restricted"),
    capacity=("402",),
    reference_missing=("company_not_found",),
    conflict=("conflict", "unique_user_constraint"),
    transient=("rate_limit_exceeded", "server_error", "service_unavailable", "client_timeout"),
    credential=("unauthorized", "token_not_found", "token_revoked", "token_blocked", "token_expired", "token_unauthorized"),
)  # fmt: skip
_FIXES = {
    "conflict": _TWICE,
    "ambiguous": _TWICE,
    NOT_THERE: "it was deleted or merged in Intercom: use mode upsert to have it made again, or leave the row out",
    "parameter_invalid": "mend the value in the model, or the type of the attribute in Intercom",
    "lead_by_email": "leads may share an e-mail: identify them by id and use mode: update",
    "external_id": "Intercom keeps the external_id that it gave a lead: identify leads by id",
    "company_id": "Intercom never changes a company_id: delete the old company there, then forget or reset the row",
}


class IntercomConfig(DestinationConfig):
    """An Intercom workspace, by the access token of an app in it."""

    access_token: Secret
    base_url: str = "https://api.intercom.io"
    """The region's address (api.eu.intercom.io, api.au.intercom.io), or a simulation's."""
    api_version: str = Setting(default="2.16", pattern=r"^[1-9]\d?\.\d{1,2}$")
    """Sent as Intercom-Version."""
    deletes: Literal["archive", "erase"] = "archive"
    """Whether a contact that leaves the model is archived, which can be undone, or deleted for good."""
    longest_text: int = Setting(default=255, ge=1)
    """Characters of a custom text attribute; from memory, no public document says it."""


class Intercom(Destination[IntercomConfig]):
    """One Intercom workspace."""

    spec: ClassVar[Spec] = Spec(
        name="intercom",
        config=IntercomConfig,
        docs="contacts and companies, with their custom attributes.",
        batch=dict.fromkeys((Op.UPSERT, Op.UPDATE, Op.INSERT, Op.DELETE), BatchLimits(records=1)),
        limits=(Rate("window", 1_666, 10),),
        concurrency=20,
        moves=True,
        index_lag=5.0,
        lag_source="contacts by e-mail are searched for, in an index that is minutes behind (OpenAPI document)",
        refusals=_REFUSALS,
        sources="Intercom's HTTP responses page (error codes); recorded answers",
        fixes=_FIXES,
        states_account=True,
        nulls="A cleared attribute is sent as null; a skipped one is left out.",
    )

    def __init__(self, config: IntercomConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    def headers(self) -> Mapping[str, str]:
        return {
            "Authorization": f"Bearer {self.config.access_token.get_secret_value()}",
            "Accept": "application/json",
            "Intercom-Version": self.config.api_version,
        }

    async def account(self) -> Account | None:
        """Return the workspace of the token: `app` (https://developers.intercom.com/docs/references/rest-api/api.intercom.io/admins)."""
        answer = await self.http.request("GET", "/me", allow=(403,))
        app = answer.members().get("app") if answer.status == 200 else None
        code = app.get("id_code") if isinstance(app, dict) else None
        return Account(str(code), f"Intercom workspace {code}") if code else None

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        """POST /companies updates a company that is there: nothing only inserts one."""
        if object == "companies" and op is Op.INSERT:
            return None
        return super().batch_limits(object, op, rows)

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """Records that go by Intercom's ids are looked up where no earlier answer gave them."""
        by_email = object == "contacts" and identifiers == ("email",)
        looked_up = planned.op in (Op.UPDATE, Op.DELETE) or (planned.op is Op.UPSERT and by_email)
        return {"": planned.without_id} if looked_up and identifiers != (OWN_ID,) else {}

    def read_requests(self, object: str, identifiers: tuple[str, ...], records: int) -> int:
        """One by one, and by e-mail twice."""
        return records * (2 if identifiers == ("email",) else 1)

    async def describe(self, object: str) -> ObjectSchema:
        if object not in STANDARD:
            raise no_such_object(object, STANDARD, "Intercom")
        model = {"contacts": "contact", "companies": "company"}[object]
        answer = await self.http.request("GET", "/data_attributes", params={"model": model})
        listed = record_of(answer).get("data")
        if not isinstance(listed, list):
            raise Unsettled("Intercom's answer has no list of attributes")
        custom = [
            custom_field(item, self.config.longest_text)
            for item in listed
            if item.get("custom") and not item.get("archived")
        ]
        return ObjectSchema(object, standard_fields(object) | {field.name: field for field in custom})

    async def write(self, batch: Batch) -> Outcomes:
        return await self._write(batch)

    async def erase(self, batch: Batch) -> Outcomes:
        """A contact is deleted for good, whatever `deletes` says of those that leave the model."""
        return await self._write(batch, erases=True)

    def describe_delete(self, object: str, *, erase: bool = False) -> str:
        if object != "contacts":
            return "archived (Intercom's delete of a company)"
        return "permanently deleted" if erase or self.config.deletes == "erase" else "archived"

    async def _write(self, batch: Batch, *, erases: bool = False) -> Outcomes:
        name, key, known = batch.identifiers[0], batch.keys[0], batch.remote_ids[0]
        record = outgoing(batch.records()[0], batch.fields)
        if name != OWN_ID and name not in KEYS[batch.object]:
            raise Halt(f"Intercom finds no {batch.object} by {name}", hint=f"by {KEYS[batch.object]} or id")
        if name == OWN_ID and batch.op in (Op.INSERT, Op.UPSERT):
            raise Halt("Intercom gives ids itself", hint="identify by a key of yours, or use mode: update")
        archives = self.config.deletes == "archive" and not erases
        one = One(self.http, batch.object, name, key, record, archives)
        if name == OWN_ID:
            known = key
        if batch.op is Op.DELETE:
            return _only(await one.delete(known))
        if batch.op is Op.INSERT:
            return _only(await one.insert())
        return _only(await (one.update(known) if batch.op is Op.UPDATE else one.upsert(known)))

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """What search finds may be older than what was written: it is read once more by its id."""
        name = identifiers[0]
        held = {key: found[0] for key, found in (await self._held(object, name, keys)).items()}
        if name == "email":
            ids = {key: str(record[OWN_ID]) for key, record in held.items()}
            fresh = await self._held(object, OWN_ID, list(ids.values()))
            held = {key: fresh[own][0] for key, own in ids.items() if own in fresh}
        return {key: values_of(record, fields) for key, record in held.items()}

    def read_lag_of(self, object: str, identifiers: tuple[str, ...]) -> float:
        """By e-mail it is search that finds a contact."""
        searched = identifiers == ("email",) and self.config.read_lag is None
        return _SEARCH_LAG if searched else self.read_lag

    async def lookup(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str]
    ) -> Mapping[str, Sequence[str | None]]:
        held = await self._held(object, identifiers[0], keys)
        return {key: [str(record[OWN_ID]) for record in found] for key, found in held.items()}

    async def _held(self, object: str, name: str, keys: Sequence[str]) -> dict[str, list[Record]]:
        found = await asyncio.gather(*(find(self.http, object, name, key) for key in keys))
        return {key: records for key, records in zip(keys, found, strict=True) if records}

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        return same(field, sent, held)

    def left(self, answer: Answer) -> Mapping[float, Left]:
        return left_in_window(answer)

    def classify(self, answer: Answer) -> BackhaulError | None:
        return classify(answer)


def _only(outcome: Outcome | None) -> Outcomes:
    return Outcomes(() if outcome is None else (outcome,))
