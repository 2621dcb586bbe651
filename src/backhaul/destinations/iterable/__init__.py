"""Iterable: users, memberships of static lists, events, and items of catalogs.

What is known of its API: the clients Iterable/api-client and block/iterable-go, Iterable's Swagger documents (older), and
recorded answers. What none of those says for certain is a setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import orjson
from pydantic import Field as Setting

from backhaul.destinations.iterable import catalogs
from backhaul.destinations.iterable.answers import WHO, code, member, outcomes
from backhaul.destinations.kit import (
    Answer,
    Batch,
    Destination,
    DestinationConfig,
    Http,
    Secret,
    Spec,
    Unsupported,
    classify_status,
    inner,
    no_such_object,
    refusal_table,
    said_by,
    same_moment,
)
from backhaul.errors import BackhaulError, Halt, Refused, Unsettled
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    FieldType,
    Gone,
    ObjectSchema,
    Op,
    Outcomes,
    PlannedBatch,
    Rate,
)

_HOSTS = {"us": "https://api.iterable.com", "eu": "https://api.eu.iterable.com"}
_OWN = ("itblInternal", "profileUpdatedAt")
"""What Iterable keeps of a profile itself."""
_BULK = BatchLimits(records=1000, bytes=3_800_000)
"""1,000 records and 4 MB a body for every bulk call, less what is put around the records."""
_NOBODY = frozenset({"UnknownEmailError", "UnknownUserIdError", "NotFound", "error.users.noUserWithIdExists",
                     "error.users.noUserWithEmailExists"})  # fmt: skip
_MOMENTS = (FieldType.DATE, FieldType.DATETIME, FieldType.TIMESTAMP)
_SECOND = timedelta(seconds=1)
_BUSY = frozenset({"DatabaseError", "GenericError", "QueueEmailError"})


_REFUSALS = refusal_table(
    record=("BadParams", "InvalidEmailAddressError", "InvalidUserIdError", "InvalidItemId",
            "RequestFieldsTypesMismatched", "NotFound",
            "ForgottenUserError", "invalid", "notFound", "forgotten", "invalidData", "BatchTooLarge"),
    configuration=("BadJsonBody", "ForbiddenParamsError", "filteredOutFields"),
    capacity=("UniqueFieldsLimitExceeded",),
    conflict=("EmailAlreadyExists", "ExternalKeyConflict", "conflict"),
    transient=("RateLimitExceeded", "DatabaseError", "GenericError", "QueueEmailError"),
    credential=("BadApiKey", "BadAuthorizationHeader", "Forbidden", "InvalidJwtPayload", "JwtUserIdentifiersMismatched"),
)  # fmt: skip


class IterableConfig(DestinationConfig):
    """The keys of `type: iterable`."""

    api_key: Secret
    """A standard server-side key; those for mobile and web, which need a JWT, do not do."""
    region: Literal["us", "eu"] = "us"
    """The data centre that the project is in."""
    base_url: str | None = None
    """Instead of the region's address."""
    create_fields: bool = False
    """Whether fields that the project does not have yet are made; their types are those of the first value, for ever."""
    merge_nested: bool = True
    """Whether members of a nested object that are not sent stay; else the object is replaced."""
    created_at: str = Setting(default="createdAt", min_length=1)
    """The field of an event that says when it was, in seconds since 1970."""

    known_endpoints: ClassVar = ("events", "lists", "delete")


class Iterable(Destination[IterableConfig]):
    """One Iterable project."""

    spec: ClassVar[Spec] = Spec(
        name="iterable",
        config=IterableConfig,
        docs="`users`, `lists/ID` (memberships of a static list), `events/NAME`, and `catalogs/NAME` (items).",
        batch={Op.UPSERT: _BULK, Op.DELETE: _BULK, Op.MOVE: BatchLimits(records=1)},
        limits=(
            Rate("bulk", 10, 1),
            Rate("events", 10, 1, "events"),
            Rate("lists", 5, 1, "lists"),
            Rate("delete", 3, 1, "delete"),
        ),
        concurrency=4,
        read_lag=60.0,
        lag_source="so long Iterable's own client waits in its tests (Iterable/api-client, waitForUserUpdate)",
        nulls="null clears the field; an empty text is stored as one.",
        refusals=_REFUSALS,
        sources="Iterable's Swagger document and client sources (code); recorded answers",
        fixes={
            "RequestFieldsTypesMismatched": "a field's type never changes in Iterable: cast the expression, or use another field",
            "UniqueFieldsLimitExceeded": "the project has its most fields: remove some there, or map fewer",
            "forgotten": "only Iterable's support lifts this; `backhaul forget` the record here too",
            "EmailAlreadyExists": "another profile has the new address: merge or delete one of the two in Iterable, then replay",
            "InvalidItemId": "identify by another column, or write it so: regexp_replace(id, '[^A-Za-z0-9-]', '-', 'g')",
            "filteredOutFields": "add the field in Iterable, or set `create_fields: true`",
        },
    )

    def __init__(self, config: IterableConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url or _HOSTS[config.region]

    def headers(self) -> Mapping[str, str]:
        return {"Api-Key": self.config.api_key.get_secret_value()}

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        """Users are deleted and moved one by one, and events stay."""
        if op is Op.MOVE:
            return self.spec.batch[op] if object == "users" else None
        if op is Op.DELETE and object == "users":
            return BatchLimits(records=1, endpoint="delete")
        limits, kind = self.spec.batch.get(op), object.partition("/")[0]
        if limits is None or (op is Op.DELETE and kind == "events"):
            return None
        return replace(limits, endpoint=kind) if kind in ("events", "lists") else limits

    def moves(self, object: str, identifiers: tuple[str, ...]) -> Op | None:
        """An e-mail address can be changed, a userId cannot (Iterable/api-client, updateEmail)."""
        return Op.MOVE if object == "users" and identifiers == ("email",) else None

    def endpoints(self, method: str, path: str) -> tuple[str, ...]:
        """Limits are an endpoint's: of deletions the Swagger documents say so, those of lists and events are from memory."""
        if method == "DELETE" and path.startswith("/api/users/"):
            return ("delete",)
        kind = path.split("/")[2]
        return (kind if method == "POST" and kind in ("events", "lists") else "",)

    async def describe(self, object: str) -> ObjectSchema:
        kind, _, name = object.partition("/")
        if kind == "events" and name:
            when = Field(self.config.created_at, FieldType.INTEGER)
            fields = {
                field.name: field for field in (Field("id", FieldType.STRING, unique=True), *_people(), when)
            }
            return ObjectSchema(object, fields, open=True)
        if kind == "lists" and name:
            await self._static(name)
            return ObjectSchema(object, {field.name: field for field in _people()})
        if kind == "catalogs" and name:
            return await catalogs.described(self.http, name, open=self.config.create_fields)
        if object != "users":
            raise no_such_object(object, ["users", "lists/ID", "events/NAME", "catalogs/NAME"], "Iterable")
        known = member(await self.http.request("GET", "/api/users/getFields"), "fields", dict)
        fields = {
            name: Field(
                name,
                catalogs.TYPES.get(str(kind), FieldType.ANY),
                writable=name.partition(".")[0] not in _OWN,
            )
            for name, kind in known.items()
        }
        fields |= {field.name: field for field in _people()}
        return ObjectSchema(object, fields, open=self.config.create_fields)

    async def _static(self, name: str) -> None:
        """Raises: Halt: there is no such list, or its members cannot be set."""
        lists = member(await self.http.request("GET", "/api/lists"), "lists", list)
        kinds = {str(item.get("id")): item.get("listType") for item in lists}
        if name not in kinds:
            raise no_such_object(f"lists/{name}", [f"lists/{known}" for known in kinds], "Iterable")
        if kinds[name] != "Standard":
            raise Halt(f"list {name} is {kinds[name]}: Iterable fills it itself", hint="name a static list")

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """A user whose address changes is written after that."""
        return {"": 1} if planned.op is Op.MOVE else {}

    def read_requests(self, object: str, identifiers: tuple[str, ...], records: int) -> int:
        return records if object == "users" else 0

    async def write(self, batch: Batch) -> Outcomes:
        kind, _, name = batch.object.partition("/")
        if kind == "users" and batch.op is Op.DELETE:
            return await self._delete(batch)
        if batch.op is Op.MOVE:
            return await self._move(batch)
        if kind == "catalogs":
            return await catalogs.written(self.http, batch, name)
        path, body = self._request(batch, kind, name)
        answer = await self.http.request("POST", path, body=body)
        return Outcomes(tuple(outcomes(batch, answer)))

    def _request(self, batch: Batch, kind: str, name: str) -> tuple[str, bytes]:
        records = batch.records()
        _with_milliseconds(records, batch.fields)
        if kind == "events":
            events = [
                {**_split(record, ("id", self.config.created_at)), "eventName": name} for record in records
            ]
            return "/api/events/trackBulk", orjson.dumps({"events": events})
        if kind == "lists":
            people = [{who: record[who] for who in WHO if record.get(who)} for record in records]
            action = "unsubscribe" if batch.op is Op.DELETE else "subscribe"
            return f"/api/lists/{action}", orjson.dumps({"listId": int(name), "subscribers": people})
        own = {"mergeNestedObjects": self.config.merge_nested}
        if batch.identifiers[0] == "userId":
            own["preferUserId"] = True
        users = [{**_split(record), **own} for record in records]
        return "/api/users/bulkUpdate", orjson.dumps(
            {"users": users, "createNewFields": self.config.create_fields}
        )

    async def _move(self, batch: Batch) -> Outcomes:
        """Changes the address of a user, then writes the other fields. A user whose address was changed before, by an attempt
        whose answer was lost, is not found, and is made again by the upsert that follows."""
        (key,), (previous,) = batch.keys, batch.previous_keys
        addresses = {"currentEmail": previous, "newEmail": key}
        answer = await self.http.request("POST", "/api/users/updateEmail", json=addresses)
        if answer.status >= 400:
            return Outcomes((Gone(key, code(answer), said_by(answer)),))
        if code(answer) != "Success":
            raise Unsettled("Iterable's answer to a change of an address is not Success")
        return Outcomes(tuple(outcomes(batch, await self._write_users(batch))))

    async def _write_users(self, batch: Batch) -> Answer:
        path, body = self._request(batch, "users", "")
        return await self.http.request("POST", path, body=body)

    async def _delete(self, batch: Batch) -> Outcomes:
        (key,) = batch.keys
        answer = await self.http.request("DELETE", _user_path(batch.identifiers[0], key))
        if answer.status >= 400:
            return Outcomes((Gone(key, code(answer), said_by(answer)),))
        if code(answer) != "Success":
            raise Unsettled("Iterable's answer to a delete is not Success")
        return Outcomes((Delivered(key),))

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Profiles, one by one: there is no bulk read. One that is not there is an empty answer or an error of its own."""
        if object.startswith("catalogs/"):
            raise Unsupported("Iterable applies items of catalogs later than it takes them in")
        if object != "users":
            raise Unsupported(f"Iterable cannot be asked for {object} record by record")
        found = {}
        for key in keys:
            answer = await self.http.request("GET", _user_path(identifiers[0], key))
            user = inner(answer.json(), "user") if answer.status < 400 else None
            if user:
                held = {
                    **(inner(user, "dataFields") or {}),
                    **{who: user[who] for who in WHO if user.get(who)},
                }
                found[key] = {name: inner(held, *name.split(".")) for name in fields}
        return found

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        """Iterable gives moments back in a spelling of its own, `2021-07-01 18:01:15 +00:00` (recorded answers)."""
        if field.type in _MOMENTS and sent and isinstance(held, str):
            return same_moment(sent, held.replace(" +", "+").replace(" -", "-"), _SECOND)
        return super().same(field, sent, held)

    def classify(self, answer: Answer) -> BackhaulError | None:
        """By the code in the body where the status leaves it open; a body's `Success` says nothing of the status."""
        error, said = classify_status(answer), code(answer)
        if not isinstance(error, Refused):
            return error
        if said in _NOBODY:
            return None
        text = f"{said or answer.status}: {said_by(answer)}"
        if said in _BUSY:
            return Unsettled(text, code=said)
        return Refused(text, code=said or str(answer.status), kind=error.kind)


def _people() -> tuple[Field, ...]:
    return (
        Field("email", FieldType.STRING, unique=True, case_insensitive=True, trims=True),
        Field("userId", FieldType.STRING, unique=True),
    )


def _split(record: dict[str, Any], own: Sequence[str] = ()) -> dict[str, Any]:
    """A record as Iterable wants it: who it is of (and `own`) beside the fields."""
    top = {name: record[name] for name in (*WHO, *own) if record.get(name) is not None}
    return {**top, "dataFields": {name: value for name, value in record.items() if name not in (*WHO, *own)}}


def _with_milliseconds(records: list[dict[str, Any]], fields: Sequence[Field]) -> None:
    """Writes moments with three digits of a second: without them Iterable takes one for a text."""
    for field in fields:
        *path, last = field.name.split(".")
        for record in records if field.type in _MOMENTS[1:] else ():
            held = inner(record, *path)
            if isinstance(held, dict) and isinstance(held.get(last), str):
                whole, _, fraction = held[last].removesuffix("Z").partition(".")
                held[last] = f"{whole}.{fraction[:3]:0<3}Z"


def _user_path(identifier: str, key: str) -> str:
    room = "users/byUserId" if identifier == "userId" else "users"
    return f"/api/{room}/{quote(key, safe='')}"
