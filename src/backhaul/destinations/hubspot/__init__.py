"""HubSpot: contacts, companies, deals and custom objects, by its batch endpoints; associations and members of lists.

Facts are from HubSpot's OpenAPI documents (CRM objects and properties, v3 and 2026-09), its usage guidelines, recorded
answers, and issue threads of its client libraries. Every value is a string on the wire; an empty one clears. Answers
are read by their body, never by their status: a 200 may hold errors, and an input may be in neither list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote

from backhaul.destinations.hubspot.answers import (
    DAY,
    NOT_THERE,
    Sent,
    body_of,
    classify,
    left_today,
    outcomes,
)
from backhaul.destinations.hubspot.associations import Associations
from backhaul.destinations.hubspot.config import ASSOCIATIONS, HubSpotConfig
from backhaul.destinations.hubspot.fields import (
    NUMBERS,
    RECORD_ID,
    SEVERAL,
    choices,
    digits,
    field_of,
    fold,
    is_email,
    same,
)
from backhaul.destinations.hubspot.finding import Found, find, properties_of
from backhaul.destinations.hubspot.lists import Members
from backhaul.destinations.hubspot.moving import Moves
from backhaul.destinations.kit import (
    Account,
    Answer,
    Batch,
    Destination,
    Http,
    Spec,
    Token,
    Wire,
    listed,
    refusal_table,
)
from backhaul.errors import BackhaulError, Expired, Halt, Unsettled
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    FieldType,
    Gone,
    Left,
    ObjectSchema,
    Op,
    Outcome,
    Outcomes,
    PlannedBatch,
    Rate,
)

_TWICE = "another record has this value of a unique property: make it unique in the model, or merge the two in HubSpot"
_REFUSALS = refusal_table(
    record=("INVALID_EMAIL", "INVALID_OPTION", "INVALID_INTEGER", "INVALID_DATE", "INVALID_LONG", "VALIDATION_ERROR", NOT_THERE,
            "BAD_REQUEST"),
    configuration=("PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE", "INVALID_OBJECT_TYPE"),
    capacity=("402",),
    conflict=("CONFLICT", "OBJECT_ALREADY_EXISTS", "CONFLICTING_UNIQUE_VALUE"),
    transient=("RATE_LIMIT", "RATE_LIMITS", "INTERNAL_ERROR", "INTERNAL_SERVER_ERROR", "TIMEOUT"),
    credential=("EXPIRED_AUTHENTICATION", "INVALID_AUTHENTICATION", "MISSING_SCOPES"),
)  # fmt: skip
_FIXES = {
    "CONFLICT": _TWICE,
    "OBJECT_ALREADY_EXISTS": _TWICE,
    "CONFLICTING_UNIQUE_VALUE": _TWICE,
    NOT_THERE: "make it with a sync that runs first, or by mode upsert, and replay; or leave the row out of the model",
    "INVALID_EMAIL": "mend the address in the model, or leave out rows whose address HubSpot does not take",
    "INVALID_OPTION": "send the internal name of an option (not its label), or add the option to the property in HubSpot",
    "PROPERTY_DOESNT_EXIST": "create the property in HubSpot, or take the field out of the mapping",
    "READ_ONLY_VALUE": "HubSpot sets this property itself: take the field out of the mapping",
}
"""By an error's category, or the code that its message names."""


class HubSpot(Destination[HubSpotConfig]):
    """One HubSpot account."""

    spec: ClassVar[Spec] = Spec(
        name="hubspot",
        config=HubSpotConfig,
        docs="CRM objects: contacts, companies, deals, and custom objects by their type id or full name; "
        "`associations/FROM/TO` (and `/LABEL`), and `lists/ID` (members of a static list).",
        batch=dict.fromkeys(
            (Op.UPSERT, Op.UPDATE, Op.INSERT, Op.DELETE), BatchLimits(records=100, bytes=3_000_000)
        ),
        limits=(Rate("burst", 100, 10), Rate("day", 250_000, DAY), ASSOCIATIONS),
        concurrency=10,
        wire=Wire.TEXT,
        moves=True,
        states_account=True,
        index_lag=5.0,
        lag_source="records are read by batch/read, which is up to date, and not by search, which is not (recorded answers)",
        refusals=_REFUSALS,
        sources="HubSpot's error handling page and OpenAPI documents (category); recorded answers",
        fixes=_FIXES,
        nulls="A cleared property is sent as an empty string; a skipped one is left out.",
    )

    def __init__(self, config: HubSpotConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url
        self._moves: dict[str, Moves[Any]] = {}

    async def account(self) -> Account | None:
        """Return the portal (https://developers.hubspot.com/docs/api-reference/legacy/account/account-information/guide); every
        private app may ask."""
        answer = await self.http.request("GET", "/account-info/v3/details", allow=(403,))
        portal = answer.members().get("portalId") if answer.status == 200 else None
        return Account(str(portal), f"HubSpot portal {portal}") if portal else None

    @property
    def own_limits(self) -> tuple[Rate, ...]:
        return self.config.own_limits

    def endpoints(self, method: str, path: str) -> tuple[str, ...]:
        """Requests for associations have a limit of their own, besides."""
        return ("associations", "") if path.startswith(self.path("associations")) else ("",)

    def headers(self) -> Mapping[str, str]:
        given = self.config.access_token
        return {"Authorization": f"Bearer {given.get_secret_value() if given else self.token}"}

    async def authorise(self) -> Token | None:
        """By refresh token (OpenAPI document: oauth, v3); HubSpot asks to go by `expires_in`."""
        app = self.config
        if app.client_id is None or app.client_secret is None or app.refresh_token is None:
            return None
        form = {
            "grant_type": "refresh_token", "client_id": app.client_id, "client_secret": app.client_secret.get_secret_value(),
            "refresh_token": app.refresh_token.get_secret_value(),
        }  # fmt: skip
        said = await self.http.refresh("/oauth/v3/token", form)
        return Token(said["access_token"], said.get("expires_in"))

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        between = self._between(object)
        if between is None:
            return super().batch_limits(object, op, rows)
        return None if op is Op.INSERT else between.batch

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """Records that go by their ids are looked up where no earlier answer gave them."""
        between = self._between(object)
        if between is not None:
            return {"": between.extra_requests(identifiers, planned)}
        name = identifiers[0]
        direct = (
            planned.op is Op.UPDATE and not is_email(object, name) and planned.without_id == planned.records
        )
        by_id = planned.op in (Op.UPDATE, Op.DELETE) and name != RECORD_ID and not direct
        return {"": 1} if by_id and planned.without_id else {}

    def read_requests(self, object: str, identifiers: tuple[str, ...], records: int) -> int:
        between = self._between(object)
        return 1 if between is None else between.read_requests(identifiers, records)

    def _between(self, object: str) -> Associations | Members | None:
        """What is kept between records: `associations/contacts/companies`, `lists/42`; None: records."""
        kind, *rest = object.split("/")
        if kind == "lists" and rest:
            return Members(self, "/".join(rest), self._moves.setdefault(object, Moves()))
        if kind != "associations":
            return None
        if len(rest) < 2 or not all(rest[:2]):
            raise Halt(
                f"{object!r} names no two kinds of records",
                hint="write it as associations/contacts/companies",
            )
        return Associations(
            self, rest[0], rest[1], "/".join(rest[2:]), self._moves.setdefault(object, Moves())
        )

    def path(self, room: str, *more: str) -> str:
        """`room` is objects, properties, associations or lists; dated versions come behind it."""
        version = self.config.api_version
        undated = "v4" if room == "associations" else "v3"
        place = f"{undated}/{room}" if version == "v3" else f"{room}/{version}"
        return "/".join([f"/crm/{place}", *(quote(part, safe="") for part in more)])

    async def _post(self, object: str, action: str, body: Mapping[str, Any]) -> Answer:
        return await self.http.request("POST", self.path("objects", object, "batch", action), json=body)

    async def describe(self, object: str) -> ObjectSchema:
        between = self._between(object)
        if between is not None:
            return await between.describe(object)
        answer = await self.http.request("GET", self.path("properties", object))
        if answer.status == 404:
            raise Halt(
                f"HubSpot has no object {object!r}", hint="custom objects go by 2-… or their full name"
            )
        items = [
            item
            for item in listed(body_of(answer), "results")
            if item.get("name") and not item.get("archived")
        ]
        found = [field_of(item, object) for item in items]
        if not found:
            raise Unsettled("HubSpot's answer has no list of properties")
        record_id = Field(RECORD_ID, FieldType.STRING, writable=False, unique=True)
        return ObjectSchema(object, {field.name: field for field in found} | {RECORD_ID: record_id})

    async def write(self, batch: Batch) -> Outcomes:
        """Upserts by a unique property; updates and archives by record id."""
        between = self._between(batch.object)
        if between is not None:
            return await between.write(batch)
        name, keys = batch.identifiers[0], batch.keys
        if batch.op is Op.INSERT:
            return await self._send(batch, "create", [{}] * len(keys))
        by_property = [{"idProperty": name, "id": key} for key in keys]
        if batch.op is Op.UPSERT and name == RECORD_ID:
            raise Halt(
                "HubSpot gives record ids itself", hint="upsert by a unique property, or use mode: update"
            )
        if batch.op is Op.UPSERT:
            return await self._send(batch, "upsert", by_property)
        direct = name != RECORD_ID and not is_email(batch.object, name) and not any(batch.remote_ids)
        if batch.op is Op.UPDATE and direct:
            return await self._send(batch, "update", by_property)
        return await self._by_record_id(batch)

    async def _send(self, batch: Batch, action: str, ids: Sequence[Mapping[str, str] | None]) -> Outcomes:
        """One request with the records that have an id in `ids` (None: left out), traced by their place in it."""
        chosen = [
            (key, given, record)
            for key, given, record in zip(batch.keys, ids, batch.records(), strict=True)
            if given is not None
        ]
        several = frozenset(field.name for field in batch.fields if field.native_type == SEVERAL)
        numbers = frozenset(field.name for field in batch.fields if field.type in NUMBERS)
        inputs = [
            {**given, "objectWriteTraceId": str(place), "properties": _properties(record, several, numbers)}
            for place, (_, given, record) in enumerate(chosen)
        ]
        answer = await self._post(batch.object, action, {"inputs": inputs})
        name = batch.identifiers[0] if action == "create" or "idProperty" in chosen[0][1] else RECORD_ID
        folded = partial(fold, batch.object, name)
        values = [folded(given.get("id", key)) for key, given, _ in chosen]
        return Outcomes(
            tuple(outcomes(body_of(answer), Sent(name, [key for key, _, _ in chosen], values, folded)))
        )

    async def _by_record_id(self, batch: Batch) -> Outcomes:
        """batch/archive takes nothing but record ids, batch/update no e-mail (HubSpot/hubspot-api-nodejs#548) and no
        hs_object_id as idProperty; a record found by its own id may change its identifier."""
        name, keys = batch.identifiers[0], batch.keys
        ids = dict(zip(keys, keys if name == RECORD_ID else batch.remote_ids, strict=True))
        unknown = [key for key in keys if ids[key] is None]
        found = await find(self, batch.object, name, unknown) if unknown else Found({}, ())
        ids |= {key: str(record["id"]) for key, record in found.held.items()}
        if batch.op is Op.DELETE:
            archived = await self._archive(
                batch.object, {key: known for key, known in ids.items() if known is not None}
            )
            return Outcomes((*archived, *(Delivered(key) for key in found.gone)))
        missing = [Gone(key, NOT_THERE, f"HubSpot has no record with this {name}") for key in found.gone]
        if not any(ids.values()):
            return Outcomes(tuple(missing))
        sent = await self._send(
            batch, "update", [None if known is None else {"id": known} for known in ids.values()]
        )
        return Outcomes((*sent.items, *missing))

    async def _archive(self, object: str, ids: Mapping[str, str]) -> list[Outcome]:
        """204 is the answer for the batch as a whole, also where a record is not there."""
        if not ids:
            return []
        answer = await self._post(
            object, "archive", {"inputs": [{"id": record_id} for record_id in ids.values()]}
        )
        said = body_of(answer) if answer.body else {}
        if listed(said, "errors"):
            return outcomes(said, Sent(RECORD_ID, list(ids), list(ids.values()), str))
        return [Delivered(key, record_id) for key, record_id in ids.items()]

    async def erase(self, batch: Batch) -> Outcomes:
        """Contacts by the privacy delete (OpenAPI document: contacts, gdpr-delete), by their ids alone: an e-mail that nobody has
        would be blocked from ever being a contact."""
        if not _is_contacts(batch.object):
            return await self.write(batch)
        name, keys = batch.identifiers[0], batch.keys
        ids = dict(zip(keys, keys if name == RECORD_ID else batch.remote_ids, strict=True))
        unknown = [key for key in keys if ids[key] is None]
        if unknown:
            found = (await find(self, batch.object, name, unknown)).whole(unknown)
            ids |= {key: str(record["id"]) for key, record in found.held.items()}
        path = self.path("objects", batch.object, "gdpr-delete")
        for known in filter(None, ids.values()):
            await self.http.request("POST", path, json={"objectId": known})
        return Outcomes(tuple(Delivered(key, known) for key, known in ids.items()))

    def describe_delete(self, object: str, *, erase: bool = False) -> str:
        if self._between(object) is not None:
            return (
                "association removed"
                if object.startswith("associations/")
                else super().describe_delete(object)
            )
        if erase and _is_contacts(object):
            return "permanently deleted (HubSpot's privacy delete)"
        return "archived (HubSpot can restore it for 90 days)"

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        between = self._between(object)
        if between is not None:
            return await between.read(object, identifiers, keys)
        found = await find(self, object, identifiers[0], keys, fields)
        return {key: properties_of(record) for key, record in found.held.items()}

    async def lookup(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str]
    ) -> Mapping[str, Sequence[str | None]]:
        found = (await find(self, object, identifiers[0], keys)).whole(keys)
        return {key: (str(record["id"]),) for key, record in found.held.items()}

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        return same(field, sent, held)

    def left(self, answer: Answer) -> Mapping[float, Left]:
        return left_today(answer, self.ours)

    def classify(self, answer: Answer) -> BackhaulError | None:
        if answer.status == 401 and self.config.access_token is None:
            return Expired("HubSpot does not accept the access token any more")
        return classify(answer)


def _is_contacts(object: str) -> bool:
    return is_email(object, "email")


def _properties(record: dict[str, Any], several: frozenset[str], numbers: frozenset[str]) -> dict[str, Any]:
    """What is written: everything but the record id, which only finds a record. `several`: properties of several choices."""
    return {
        name: choices(value) if name in several else digits(value) if name in numbers else value
        for name, value in record.items()
        if name != RECORD_ID
    }
