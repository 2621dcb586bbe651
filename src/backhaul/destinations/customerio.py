"""Customer.io: people, what they did, and objects they are related to, through the batches of Track API v2.

What is known of its API: Customer.io's OpenAPI document of the Track API, its page of invalid requests
(docs.customer.io/journeys/invalid-api-requests), those on objects and relationships, and recorded answers, which show that null
clears an attribute.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import orjson

from backhaul.destinations.kit import (
    Account,
    Answer,
    Batch,
    Destination,
    DestinationConfig,
    Http,
    Secret,
    Spec,
    Unsupported,
    inner,
    no_such_object,
    plain,
    refusal_table,
)
from backhaul.errors import Halt, Unsettled
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    FieldType,
    Frame,
    ObjectSchema,
    Op,
    Outcomes,
    Rate,
    Rejected,
)

_TRACK = {"us": "https://track.customer.io", "eu": "https://track-eu.customer.io"}
_APP = {"us": "https://api.customer.io", "eu": "https://api-eu.customer.io"}
_BATCH = BatchLimits(records=1_000, bytes=490_000, each=32_000)
"""A batch has 500 KB, less what is put around its operations; no number of them is said, so that it is ours."""
_EVENTS = BatchLimits(records=1_000, bytes=340_000, each=32_000)
"""What is put around an event comes on top of it: 150 bytes and more."""
_WHO = ("id", "email", "cio_id")
_THINGS = ("objects", "relationships")
_OWN = ("id", "timestamp")
"""Members of an event that are no attributes of it: what backhaul knows it by, and when it was."""


_REFUSALS = refusal_table(
    record=("invalid", "required", "too_large", "refused"),
    capacity=("402",),
    credential=("unauthorized",),
)


class CustomerIoConfig(DestinationConfig):
    """The keys of `type: customerio`."""

    site_id: Secret
    """With `api_key`: a Track API credential of the workspace."""
    api_key: Secret
    app_key: Secret | None = None
    """An App API key: with it records are read back. Unset: they are not."""
    region: Literal["us", "eu"] = "us"
    """The data centre that the account is in."""
    base_url: str | None = None
    """Instead of the Track API's address."""
    app_url: str | None = None
    """Instead of the App API's address."""

    known_endpoints: ClassVar = ("app",)


class CustomerIo(Destination[CustomerIoConfig]):
    """One workspace."""

    spec: ClassVar[Spec] = Spec(
        name="customerio",
        config=CustomerIoConfig,
        docs="`people`, `events/NAME` (mode `insert`), `objects/TYPE` and their `relationships/TYPE` to people.",
        batch={Op.UPSERT: _BATCH, Op.UPDATE: _BATCH, Op.INSERT: _BATCH, Op.DELETE: _BATCH},
        limits=(Rate("second", 100, 1), Rate("app", 10, 1, "app")),
        concurrency=8,
        read_lag=30.0,
        lag_source="what is sent is queued before it is applied; Customer.io names no bound (from memory)",
        states_account=True,
        nulls="null clears the attribute.",
        refusals=_REFUSALS,
        sources="Customer.io's OpenAPI document of the Track API and its page on invalid requests",
        fixes={
            "too_large": "Customer.io takes 32 KB a record: shorten its longest attributes, or map fewer",
            "invalid": "mend what the message names: names have 150 bytes, values 1,000, and a person 300 attributes",
            "required": "give every record an identifier",
        },
    )

    def __init__(self, config: CustomerIoConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url or _TRACK[config.region]
        self._app = config.app_url or config.base_url or _APP[config.region]

    def headers(self) -> Mapping[str, str]:
        pair = f"{self.config.site_id.get_secret_value()}:{self.config.api_key.get_secret_value()}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}

    async def account(self) -> Account | None:
        """Return the workspace of the credential, `environment_id` (https://docs.customer.io/integrations/api/track)."""
        said = (await self.http.request("GET", "/api/v1/accounts/region")).members()
        workspace = said.get("environment_id")
        return Account(str(workspace), f"Customer.io workspace {workspace}") if workspace else None

    def endpoints(self, method: str, path: str) -> tuple[str, ...]:
        """The App API, which is asked by its whole address, has a limit of its own."""
        return ("app" if "://" in path else "",)

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        """Events happen once; people are whoever has the identifier. Of objects nothing only updates."""
        kind = object.partition("/")[0]
        if op is Op.UPDATE and kind in _THINGS:
            return None
        if (op is Op.INSERT) != (kind == "events"):
            return None
        return _EVENTS if kind == "events" else _BATCH

    async def describe(self, object: str) -> ObjectSchema:
        kind, _, name = object.partition("/")
        if object != "people" and not (kind in ("events", *_THINGS) and name):
            known = ["people", "events/NAME", "objects/TYPE", "relationships/TYPE"]
            raise no_such_object(object, known, "Customer.io")
        await self.http.request("GET", "/api/v1/accounts/region")  # whose answer wants credentials
        text = FieldType.STRING
        if kind in _THINGS:
            one = Field("object_id", text, unique=True, max_length=150)
            related = (
                [Field(f"person.{who}", text, unique=True) for who in _WHO] if kind == "relationships" else []
            )
            fields = {field.name: field for field in (one, *related)}
            return ObjectSchema(object, fields, open=kind == "objects")
        who = {
            "email": Field("email", text, unique=True, case_insensitive=True, trims=True),
            "cio_id": Field("cio_id", text, unique=True),
        }
        own = {"timestamp": Field("timestamp", FieldType.INTEGER), "person": Field("person", text)} if name else {
            "created_at": Field("created_at", FieldType.INTEGER), "unsubscribed": Field("unsubscribed", FieldType.BOOLEAN),
        }  # fmt: skip
        return ObjectSchema(object, {"id": Field("id", text, unique=True)} | who | own, open=True)

    def frame(self, object: str, op: Op, identifiers: tuple[str, ...]) -> Frame | None:
        """A person's or an object's record as an operation of a batch; the others' have to be looked at."""
        kind, _, name = object.partition("/")
        if kind not in ("people", "objects"):
            return None
        who = identifiers[0]
        does = {
            "type": "person" if kind == "people" else "object",
            "action": "delete" if op is Op.DELETE else "identify",
        }
        of_type = {"identifiers.object_type_id": name} if kind == "objects" else {}
        only = {"attributes._update": True} if op is Op.UPDATE else {}
        return Frame("attributes", does | of_type | only, {who: f"identifiers.{who}"})

    async def write(self, batch: Batch) -> Outcomes:
        kind, _, name = batch.object.partition("/")
        text = batch.text()
        if kind == "events":
            return await self._events(batch, name)
        if kind == "relationships":
            does = "delete_relationships" if batch.op is Op.DELETE else "add_relationships"
            text = b",".join(orjson.dumps(_related(name, does, record)) for record in batch.records())
        answer = await self.http.request("POST", "/api/v2/batch", body=b'{"batch":[' + text + b"]}")
        return _outcomes(batch.keys, answer)

    async def _events(self, batch: Batch, name: str) -> Outcomes:
        """Raises: Halt: nothing says whose they are."""
        if not {field.name for field in batch.fields} & {"person", "email", "cio_id"}:
            raise Halt(
                "an event is of one person", hint="map one of `person` (their id), `email` and `cio_id`"
            )
        events = {key: _event(name, record) for key, record in zip(batch.keys, batch.records(), strict=True)}
        said = "an event is of one person: one of `person`, `email` and `cio_id` has a value"
        refused = [Rejected(key, "required", said) for key, event in events.items() if event is None]
        sent = {key: orjson.dumps(event) for key, event in events.items() if event is not None}
        if not sent:
            return Outcomes(tuple(refused))
        answer = await self.http.request(
            "POST", "/api/v2/batch", body=b'{"batch":[' + b",".join(sent.values()) + b"]}"
        )
        found = _outcomes(list(sent), answer)
        return Outcomes((*refused, *found.of(sent))) if refused else found

    def read_requests(self, object: str, identifiers: tuple[str, ...], records: int) -> int:
        return records if self.config.app_key is not None and object == "people" else 0

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """People, one by one, through the App API."""
        if self.config.app_key is None or object != "people":
            raise Unsupported("Customer.io is read back for people, where the destination has an `app_key`")
        headers = {"Authorization": f"Bearer {self.config.app_key.get_secret_value()}"}
        found = {}
        for key in keys:
            url = f"{self._app.rstrip('/')}/v1/customers/{quote(key, safe='')}/attributes?id_type={identifiers[0]}"
            answer = await self.http.request("GET", url, headers=headers, allow=(404,))
            if (held := _held(answer)) is not None:
                found[key] = {name: _value(held, name) for name in fields}
        return found

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        """The App API gives every value as text (recorded answers)."""
        folded = field.type is FieldType.BOOLEAN and str(sent).lower() == str(held).lower()
        return folded or plain(field, sent) == plain(field, held)


def _event(name: str, record: dict[str, Any]) -> dict[str, Any] | None:
    """None: it is not of one person."""
    who = {"id": record.pop("person")} if record.get("person") else {
        kind: record.pop(kind) for kind in ("email", "cio_id") if record.get(kind)
    }  # fmt: skip
    if len(who) != 1:
        return None
    when = {"timestamp": record["timestamp"]} if record.get("timestamp") is not None else {}
    attributes = {key: value for key, value in record.items() if key not in _OWN and value is not None}
    return {
        "type": "person",
        "identifiers": who,
        "action": "event",
        "name": name,
        **when,
        "attributes": attributes,
    }


def _related(kind: str, action: str, record: dict[str, Any]) -> dict[str, Any]:
    """Raises: Halt: a relationship is between an object and a person."""
    person = record.get("person")
    if record.get("object_id") is None or not isinstance(person, dict) or len(person) != 1:
        raise Halt(
            "a relationship is identified by its two ends",
            hint="identify: {object_id: account_id, person.id: customer_id}",
        )
    return {
        "type": "object",
        "identifiers": {"object_type_id": kind, "object_id": record["object_id"]},
        "action": action,
        "cio_relationships": [{"identifiers": person}],
    }


def _outcomes(keys: Sequence[str], answer: Answer) -> Outcomes:
    """Those that are named by their place in the batch are refused, and the others taken (207); an error without a place names
    nobody.

    Raises:
        Unsettled: the answer is of another form.
    """
    body = answer.json()
    errors = body.get("errors", []) if isinstance(body, dict) else None
    if not isinstance(errors, list) or (answer.status == 207 and not errors):
        raise Unsettled(f"HTTP {answer.status} with an answer that is not Customer.io's")
    if not errors:
        return Outcomes(everything=True)
    refused: dict[str, Rejected] = {}
    for error in errors:
        place = error.get("batch_index") if isinstance(error, dict) else None
        if not isinstance(place, int) or not 0 <= place < len(keys):
            return Outcomes()
        said = ": ".join(str(error[name]) for name in ("field", "message") if error.get(name))
        refused[keys[place]] = Rejected(keys[place], str(error.get("reason") or "refused"), said)
    return Outcomes(tuple(refused.get(key) or Delivered(key) for key in keys))


def _value(held: dict[str, Any], name: str) -> Any:
    """An attribute, or a member of one: what nests is given as text as well."""
    head, *path = name.split(".")
    value = held.get(head)
    if path and isinstance(value, str):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    return inner(value, *path)


def _held(answer: Answer) -> dict[str, Any] | None:
    """A person's attributes; None: there is nobody. Raises: Unsettled."""
    body = answer.json()
    if answer.status == 404 and isinstance(body, dict) and "errors" in body:
        return None
    customer = body.get("customer") if isinstance(body, dict) else None
    attributes = customer.get("attributes") if isinstance(customer, dict) else None
    if not isinstance(attributes, dict):
        raise Unsettled("Customer.io's answer has no attributes")
    return attributes
