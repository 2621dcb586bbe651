"""Events: what happened to a profile, by the name of a metric.

Klaviyo's OpenAPI document says of `unique_id` that of several events with one, of one profile and metric, only the first that is
processed is recorded: an event whose answer was lost is sent again.
"""

from __future__ import annotations

from typing import Any

import orjson

from backhaul.destinations.kit import Batch, Http
from backhaul.destinations.klaviyo.answers import refused_by_place
from backhaul.errors import Halt, Unsettled
from backhaul.types import BatchLimits, Field, FieldType, Outcomes, Rejected

PREFIX = "events/"
PATH = "/api/event-bulk-create-jobs"
LIMITS = BatchLimits(1_000, 4_000_000, each=100_000, endpoint="events")
"""1,000 events and 5 MB a request, less what is put around each; a text has 100 KB."""
_WHO = ("id", "external_id", "email", "phone_number")
_OWN = ("time", "value", "value_currency", "properties")


def fields() -> dict[str, Field]:
    """An event's own members, and who it happened to: `profile.email` and the like."""
    text = FieldType.STRING
    who = [
        Field(f"profile.{name}", FieldType.PHONE if name == "phone_number" else text, case_insensitive=name == "email")
        for name in _WHO
    ]  # fmt: skip
    own = (
        Field("unique_id", text, unique=True), Field("time", FieldType.DATETIME), Field("value", FieldType.NUMBER),
        Field("value_currency", FieldType.CURRENCY), Field("properties", FieldType.JSON),
    )  # fmt: skip
    return {field.name: field for field in (*own, *who)}


async def written(http: Http, batch: Batch) -> Outcomes:
    """Raises: Halt: an event has no such member, or nothing says whose it is."""
    strange = {field.name.partition(".")[0] for field in batch.fields} - {"unique_id", "profile", *_OWN}
    if strange:
        raise Halt(f"Klaviyo's events have no {min(strange)!r}", hint="map it as properties.NAME")
    if not any(field.name.startswith("profile.") for field in batch.fields):
        raise Halt(
            "an event is of a profile", hint=f"map one of {', '.join(f'profile.{name}' for name in _WHO)}"
        )
    metric, events, refused = batch.object.removeprefix(PREFIX), {}, []
    for key, record in zip(batch.keys, batch.records(), strict=True):
        who = {name: value for name, value in (record.get("profile") or {}).items() if value is not None}
        if who:
            events[key] = _event(metric, who, record)
        else:
            refused.append(Rejected(key, "required", "the event has nobody it happened to"))
    if not events:
        return Outcomes(tuple(refused))
    attributes = {"events-bulk-create": {"data": list(events.values())}}
    body = orjson.dumps({"data": {"type": "event-bulk-create-job", "attributes": attributes}})
    answer = await http.request("POST", PATH, body=body)
    if answer.status == 400:
        return Outcomes((*refused, *refused_by_place(list(events), answer)))
    if answer.status != 202:
        raise Unsettled(f"HTTP {answer.status}, where Klaviyo takes events in with 202")
    return (
        Outcomes((*refused, *Outcomes(everything=True).of(events))) if refused else Outcomes(everything=True)
    )


def _event(metric: str, who: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    about = {name: record[name] for name in ("unique_id", *_OWN) if record.get(name) is not None}
    event = {
        "type": "event",
        "attributes": {
            "properties": {}, **about, "metric": {"data": {"type": "metric", "attributes": {"name": metric}}},
        },
    }  # fmt: skip
    own = {"id": who.pop("id")} if "id" in who else {}
    profile = {"data": {"type": "profile", **own, "attributes": who}}
    return {
        "type": "event-bulk-create",
        "attributes": {"profile": profile, "events": {"data": [event]}},
    }
