"""HubSpot: contacts, companies, deals and custom objects, by its batch endpoints.

Facts are from HubSpot's OpenAPI documents (CRM objects and properties, v3 and 2026-09) and its usage guidelines, as
collected in docs/destinations/hubspot.md. Every value is a string on the wire; an empty one clears. Answers are read
by their body, never by their status: a 200 may hold errors, and records are found by `objectWriteTraceId`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from backhaul.destinations.kit import (
    Answer,
    Batch,
    Destination,
    DestinationConfig,
    Secret,
    Spec,
    Wire,
    classify_status,
    plain,
    retry_after,
    said_by,
)
from backhaul.errors import BackhaulError, Halt, NotApplied, Refused, Throttled
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    FieldType,
    ObjectSchema,
    Op,
    Outcome,
    Outcomes,
    Rate,
    Rejected,
    Retry,
)

_TYPES = {
    "string": FieldType.STRING, "phone_number": FieldType.STRING, "enumeration": FieldType.STRING, "number": FieldType.NUMBER,
    "bool": FieldType.STRING, "date": FieldType.DATE, "datetime": FieldType.DATETIME, "json": FieldType.JSON,
    "object_coordinates": FieldType.STRING,
}  # fmt: skip
_LONGEST = 65_536
"""Characters of a text property."""
_INTERVAL = 10.0
"""Seconds of the burst window, where the answer does not name it."""


class HubSpotConfig(DestinationConfig):
    """A HubSpot account, by the token of a private app (scopes: crm.objects.*.read, .write, crm.schemas.*.read)."""

    access_token: Secret
    """The private app's token."""
    base_url: str = "https://api.hubapi.com"
    """Another address, such as a simulation's."""
    api_version: str = "v3"
    """v3, or a dated version such as 2026-09."""


class HubSpot(Destination[HubSpotConfig]):
    """One HubSpot account."""

    spec = Spec(
        name="hubspot",
        config=HubSpotConfig,
        docs="CRM objects: contacts, companies, deals, tickets, products, and custom objects by their type id or full name.",
        batch=dict.fromkeys(
            (Op.UPSERT, Op.UPDATE, Op.INSERT, Op.DELETE), BatchLimits(records=100, bytes=3_000_000)
        ),
        limits=(Rate("burst", 100, 10), Rate("day", 250_000, 86_400)),
        concurrency=10,
        wire=Wire.TEXT,
        moves=True,
        nulls="A cleared property is sent as an empty string; a skipped one is left out.",
    )

    def __init__(self, config: HubSpotConfig, http: Any) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.config.access_token.get_secret_value()}"}

    def _path(self, object: str, action: str) -> str:
        version, name = self.config.api_version, quote(object, safe="")
        return (
            f"/crm/v3/objects/{name}/{action}"
            if version == "v3"
            else f"/crm/objects/{version}/{name}/{action}"
        )

    async def describe(self, object: str) -> ObjectSchema:
        version, name = self.config.api_version, quote(object, safe="")
        path = f"/crm/v3/properties/{name}" if version == "v3" else f"/crm/properties/{version}/{name}"
        try:
            answer = await self.http.request("GET", path)
        except Refused as error:
            raise Halt(
                f"HubSpot has no object {object}: {error}", hint="custom objects go by 2-… or their full name"
            ) from None
        found = [_field(item) for item in answer.json()["results"] if not item.get("archived")]
        record_id = Field("hs_object_id", FieldType.STRING, writable=False, unique=True)
        return ObjectSchema(object, {"hs_object_id": record_id} | {field.name: field for field in found})

    async def write(self, batch: Batch) -> Outcomes:
        if batch.op is Op.DELETE:
            return await self._archive(batch)
        action = {Op.UPSERT: "upsert", Op.UPDATE: "update", Op.INSERT: "create"}[batch.op]
        inputs = [self._input(batch, number, record) for number, record in enumerate(batch.records())]
        answer = await self.http.request(
            "POST", self._path(batch.object, f"batch/{action}"), json={"inputs": inputs}
        )
        return Outcomes(tuple(_outcomes(answer, batch)))

    def _input(self, batch: Batch, number: int, record: dict[str, str]) -> dict[str, Any]:
        """A record, traced by its place in the batch. A known record is updated by its own id, so that its identifier may change."""
        traced: dict[str, Any] = {"objectWriteTraceId": str(number), "properties": record}
        remote_id = batch.remote_ids[number] if batch.op is Op.UPDATE else None
        if remote_id is not None:
            return traced | {"id": remote_id}
        if batch.op is Op.INSERT:
            return traced
        record.pop("hs_object_id", None)
        return traced | {"idProperty": batch.identifiers[0], "id": batch.keys[number]}

    async def _archive(self, batch: Batch) -> Outcomes:
        """Archives by record id; a record that is not there is as it should be."""
        ids = dict(zip(batch.keys, batch.remote_ids, strict=True))
        unknown = [key for key, remote_id in ids.items() if remote_id is None]
        if unknown:
            held = await self._read(batch.object, batch.identifiers[0], unknown, ())
            ids |= {key: held[key]["id"] for key in unknown if key in held}
        inputs = [{"id": remote_id} for remote_id in ids.values() if remote_id is not None]
        if inputs:
            await self.http.request(
                "POST", self._path(batch.object, "batch/archive"), json={"inputs": inputs}
            )
        return Outcomes(everything=True)

    async def read(
        self,
        object: str,
        identifiers: tuple[str, ...],
        keys: Sequence[str],
        fields: Sequence[str],
    ) -> dict[str, dict[str, Any]]:
        held = await self._read(object, identifiers[0], keys, fields)
        return {key: item["properties"] for key, item in held.items()}

    async def _read(
        self, object: str, name: str, keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """batch/read by key as it was sent; HubSpot gives e-mails back in lower case."""
        body = {"idProperty": name, "inputs": [{"id": key} for key in keys], "properties": [name, *fields]}
        answer = await self.http.request("POST", self._path(object, "batch/read"), json=body)
        asked = {_folded(name, key): key for key in keys}
        found = {
            _folded(name, str(item["properties"].get(name) or item["id"])): item
            for item in answer.json().get("results", [])
        }
        return {asked[key]: item for key, item in found.items() if key in asked}

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        if field.type in (FieldType.DATE, FieldType.DATETIME):
            return bool(_moment(sent) == _moment(held))
        return bool(plain(field, sent) == plain(field, held))

    def classify(self, answer: Answer) -> BackhaulError | None:
        if 200 <= answer.status < 300:
            return None
        body = _body(answer)
        category = str(body.get("category") or body.get("errorType") or "")
        said = f"{category}: {said_by(answer)}" if category else said_by(answer)
        if answer.status == 429:
            return Throttled(said or "HTTP 429", code="RATE_LIMITS", after=_wait(answer, body))
        if answer.status == 401:
            return Halt(
                f"HubSpot does not accept the access token: {said}",
                hint="is it current, and of this account?",
            )
        if answer.status == 403:
            return Halt(
                f"HubSpot refuses this: {said}",
                hint="give the private app the scopes in docs/destinations/hubspot.md",
            )
        if answer.status in (423, 477):
            return NotApplied(said, code=str(answer.status))
        error = classify_status(answer, said)
        return (
            Refused(said or str(error), code=category or error.code) if isinstance(error, Refused) else error
        )


def _field(item: Mapping[str, Any]) -> Field:
    """A property, as GET /crm/v3/properties/{type} describes it."""
    kind, modification = str(item["type"]), item.get("modificationMetadata") or {}
    options = [str(option["value"]) for option in item.get("options") or ()]
    multiple = item.get("fieldType") == "checkbox"
    choices = (
        ("true", "false")
        if kind == "bool"
        else tuple(options)
        if kind == "enumeration" and not multiple and options
        else None
    )
    email = item["name"] == "email"
    return Field(
        str(item["name"]), _TYPES.get(kind, FieldType.STRING),
        writable=not (item.get("calculated") or modification.get("readOnlyValue")), unique=bool(item.get("hasUniqueValue")) or email,
        max_length=_LONGEST if kind == "string" else None, choices=choices, case_insensitive=email, native_type=kind,
    )  # fmt: skip


def _outcomes(answer: Answer, batch: Batch) -> Iterable[Outcome]:
    """One outcome for each record that the answer names; it promises no order."""
    body, keys = answer.json(), batch.keys
    for item in body.get("results") or ():
        place = _place(item.get("objectWriteTraceId"), len(keys))
        if place is not None:
            yield Delivered(keys[place], str(item["id"]))
    for error in body.get("errors") or ():
        context = error.get("context") or {}
        traces = context.get("objectWriteTraceId") or ()
        places = [_place(trace, len(keys)) for trace in traces] or [
            _index(keys, key) for key in context.get("ids") or ()
        ]
        category, message = (
            str(error.get("category") or "ERROR"),
            str(error.get("message") or "refused without a message"),
        )
        for place in places:
            if place is not None:
                yield (
                    Retry(keys[place], message)
                    if category == "RATE_LIMITS"
                    else Rejected(keys[place], category, message)
                )


def _place(trace: Any, count: int) -> int | None:
    return int(trace) if str(trace).isdigit() and int(trace) < count else None


def _index(keys: Sequence[str], key: Any) -> int | None:
    folded = [item.lower() for item in keys]
    return folded.index(str(key).lower()) if str(key).lower() in folded else None


def _body(answer: Answer) -> Mapping[str, Any]:
    if not answer.body.lstrip().startswith(b"{"):
        return {}
    body = answer.json()
    return body if isinstance(body, dict) else {}


def _wait(answer: Answer, body: Mapping[str, Any]) -> float:
    """Seconds: what the answer says, until midnight for the daily limit (UTC; the account's own zone is not in the
    answer), else the burst window."""
    after = retry_after(answer.headers)
    if after is not None:
        return after
    if body.get("policyName") == "DAILY" or "daily" in str(body.get("message", "")).lower():
        now = datetime.now(UTC)
        return (
            now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now
        ).total_seconds()
    return float(answer.headers.get("x-hubspot-ratelimit-interval-milliseconds", _INTERVAL * 1000)) / 1000


def _folded(name: str, key: str) -> str:
    return key.strip().lower() if name == "email" else key


def _moment(value: Any) -> Any:
    """A date or a point in time, whether HubSpot gives milliseconds or ISO 8601."""
    if value in (None, ""):
        return None
    text = str(value)
    if text.lstrip("-").isdigit():
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
