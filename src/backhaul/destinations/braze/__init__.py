"""Braze: users with their attributes, custom events and purchases, items of catalogs.

Facts are from Braze's pages on /users/track, /users/delete, /users/export/ids, /custom_attributes, its objects and errors, and
recorded answers. Attributes are billed by data point, so an update holds what changed and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import orjson
from pydantic import Field as Setting

from backhaul.destinations.braze import catalogs
from backhaul.destinations.braze.answers import body_of, classify, left, outcomes
from backhaul.destinations.braze.fields import (
    ALIAS,
    custom_field,
    is_custom,
    is_plain,
    longest_arrays,
    pruned,
    same,
    standard_fields,
    timed,
    unfit,
    value_of,
)
from backhaul.destinations.braze.happenings import happening, happening_fields
from backhaul.destinations.braze.profiles import held_by, lookups, primary_ids
from backhaul.destinations.kit import (
    Answer,
    Batch,
    Destination,
    DestinationConfig,
    Http,
    Secret,
    Spec,
    Unsupported,
    Wire,
    listing,
    no_such_object,
    paged,
    refusal_table,
    said_by,
)
from backhaul.errors import BackhaulError, Halt, NotApplied, Unsettled
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
    RefusalClass,
    Rejected,
    Retry,
)

_OBJECTS = {"users": "attributes", "events": "events", "purchases": "purchases"}
"""Our objects, and the arrays of /users/track that they go into."""
_MOST_BYTES = 3_900_000
"""4 MB a body, less what is put around the records."""
_AT_ONCE = 50
"""Users of one deletion or one export."""
_LONGEST_ARRAY = 25
"""Elements of an array attribute, unless Braze says another number of it."""
_RENAME = "/users/external_ids/rename"
_ENDPOINTS = {
    "/users/export/ids": "export", "/users/delete": "delete", _RENAME: "rename",
    "/catalogs": "metadata", "/custom_attributes": "metadata",
}  # fmt: skip
_NOT_THERE = "no-such-user"
_REFUSALS = refusal_table(
    record=(
        "400",
        "array-too-long",
        "object-too-large",
        "text-too-long",
        "null-in-object",
        "operator",
        "rename",
        _NOT_THERE,
        "invalid-ids",
        "invalid-fields",
        "item-not-found",
    ),
    configuration=("catalog-not-found", "fields-do-not-match"),
    capacity=("402", "reached-company-item-limit", "company-size-limit-already-reached"),
    transient=("429",),
)
_FIXES = {
    "array-too-long": "send fewer elements (list[1:25]), or have Braze raise the attribute's limit (up to 100)",
    "object-too-large": "map fewer members: Braze would drop the update and keep the old object",
    "text-too-long": "shorten it in the model: left(x, 255)",
    "null-in-object": "set `nulls: skip` for this member, or `merge_nested: false` to have it left out",
    "operator": "send the value itself: backhaul may send a record twice",
    "rename": "another user has the new external_id, or had it: merge the two in Braze (/users/merge), then replay",
    _NOT_THERE: "it was deleted or merged in Braze: use mode upsert to have it made again, or leave the row out",
}  # fmt: skip


class BrazeConfig(DestinationConfig):
    """A Braze workspace, by a REST API key (permissions: users.track, users.delete, users.export.ids, custom_attributes.get; for
    catalogs catalogs.get, catalogs.replace_items, catalogs.delete_items; where external_ids of users change,
    users.external_ids.rename)."""

    api_key: Secret
    base_url: str = Setting(pattern=r"^https?://[^/]+")
    """Your instance's REST endpoint, such as https://rest.iad-01.braze.com; the dashboard names it."""
    batch_size: int = Setting(default=75, ge=1, le=75)
    """Objects of one request to /users/track. Plans by monthly active users (CY 24-25) have 50."""
    create_attributes: bool = False
    """Whether custom attributes that the workspace does not know yet are made, with the type of their first value."""
    merge_nested: bool = False
    """Whether members of a nested attribute that are not mapped stay; else the object is replaced."""
    check_existing: bool = True
    """Whether a user that is updated is asked for first: one that somebody deleted is then made whole, not of what changed."""

    known_endpoints: ClassVar = ("export", "delete", "rename", "items", "metadata")


class Braze(Destination[BrazeConfig]):
    """One Braze workspace."""

    spec: ClassVar[Spec] = Spec(
        name="braze",
        config=BrazeConfig,
        docs="`users`, by external_id, alias or braze_id; `events` and `purchases`, which can only be added; `catalogs/NAME`.",
        batch={
            Op.UPSERT: BatchLimits(75, _MOST_BYTES),
            Op.UPDATE: BatchLimits(75, _MOST_BYTES),
            Op.INSERT: BatchLimits(75, _MOST_BYTES),
            Op.DELETE: BatchLimits(_AT_ONCE, _MOST_BYTES, endpoint="delete"),
            Op.MOVE: BatchLimits(_AT_ONCE, _MOST_BYTES, endpoint="rename"),
        },
        limits=(
            Rate("track", 3_000, 3),
            Rate("export", 250, 60, "export"),
            Rate("delete", 20_000, 60, "delete"),
            Rate("rename", 1_000, 60, "rename"),
            Rate("items", 16_000, 60, "items"),
            Rate("metadata", 50, 60, "metadata"),
            Rate("hour", 1_000, 3_600, "metadata"),
        ),
        concurrency=100,
        deltas=True,
        read_lag=30.0,
        lag_source="recorded: the first read after a write was stale in 66 of 84 values, the second right; Braze names no bound",
        refusals=_REFUSALS,
        sources="Braze's pages on API errors and catalogs; it has no codes for users, whose refusals go by their words",
        fixes=_FIXES,
        nulls="A cleared attribute is sent as null, which removes it; an empty text is stored as one.",
    )

    def __init__(self, config: BrazeConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.config.api_key.get_secret_value()}"}

    def endpoints(self, method: str, path: str) -> tuple[str, ...]:
        """Each has a limit of its own (page: API rate limits); that of the connection is /users/track's."""
        if path.startswith("/catalogs/"):
            return ("items",)
        return (_ENDPOINTS.get(path, ""),)

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        """Nothing only creates a user; events and purchases are only added; an item of a catalog is made or replaced."""
        if object.startswith(catalogs.PREFIX):
            return catalogs.LIMITS if op in (Op.UPSERT, Op.DELETE) else None
        if (op is Op.INSERT) == (object == "users"):
            return None
        if op is Op.MOVE and object != "users":
            return None
        if op in (Op.DELETE, Op.MOVE):
            return self.spec.batch[op]
        return BatchLimits(self.config.batch_size, _MOST_BYTES)

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """Users that are updated are asked for first, fifty at a time; those with a new external_id are renamed first."""
        if object != "users":
            return {}
        if planned.op is Op.MOVE:
            return {"": 1}
        update = planned.op is Op.UPDATE
        asked = planned.records if update else planned.updates if self.config.check_existing else 0
        return {"export": lookups(identifiers, asked)} if planned.op in (Op.UPDATE, Op.UPSERT) else {}

    def read_requests(self, object: str, identifiers: tuple[str, ...], records: int) -> int:
        return lookups(identifiers, records) if object == "users" else 0

    def moves(self, object: str, identifiers: tuple[str, ...]) -> Op | None:
        """An external_id can be changed (page: /users/external_ids/rename)."""
        return Op.MOVE if object == "users" and identifiers == ("external_id",) else None

    def takes_parts(self, object: str, wire: Wire) -> bool:
        return not object.startswith(catalogs.PREFIX)

    async def describe(self, object: str) -> ObjectSchema:
        if object.startswith(catalogs.PREFIX):
            return await catalogs.described(self.http, object.removeprefix(catalogs.PREFIX))
        if object in ("events", "purchases"):
            return ObjectSchema(object, happening_fields(object), open=True)
        if object != "users":
            raise no_such_object(object, [*_OBJECTS, "catalogs/NAME"], "Braze")
        known = standard_fields()
        if self.config.create_attributes:
            return ObjectSchema(object, known, open=True)
        custom = [custom_field(item) async for item in paged(self._attributes) if item.get("name")]
        return ObjectSchema(object, known | {field.name: field for field in custom}, open=False)

    async def _attributes(self, cursor: str) -> tuple[list[dict[str, Any]], str | None]:
        """A page of 50 custom attributes; the Link header has the way to the next."""
        params = {"cursor": cursor} if cursor else {}
        answer = await self.http.request("GET", "/custom_attributes", params=params)
        return listing(body_of(answer), "attributes"), _next_cursor(answer)

    async def write(self, batch: Batch) -> Outcomes:
        if batch.object.startswith(catalogs.PREFIX):
            return await catalogs.written(self.http, batch, batch.object.removeprefix(catalogs.PREFIX))
        if batch.object != "users":
            return await self._happened(batch)
        if set(batch.identifiers) not in ({"external_id"}, {"braze_id"}, set(ALIAS)):
            raise Halt(
                f"Braze finds no user by {', '.join(batch.identifiers)}",
                hint="identify by external_id, by user_alias.alias_name and user_alias.alias_label, or by braze_id",
            )
        if batch.op is Op.DELETE:
            return await self._delete(batch)
        if batch.op is Op.MOVE:
            return await self._move(batch)
        if batch.op is Op.UPSERT and batch.identifiers == ("braze_id",):
            raise Halt("Braze gives braze_ids itself", hint="upsert by external_id, or use mode: update")
        return await self._users(batch)

    async def _happened(self, batch: Batch) -> Outcomes:
        """Events and purchases. Those of an alias that nobody has Braze counts, and drops (pages: event and purchase object)."""
        events = {
            key: happening(record, batch.object)
            for key, record in zip(batch.keys, batch.records(), strict=True)
        }
        aliases = {
            key: orjson.dumps([str(alias.get(part)) for part in ("alias_name", "alias_label")]).decode()
            for key, event in events.items()
            if isinstance(alias := event.get("user_alias"), dict)
        }
        try:
            held = (
                await held_by(self.http, ALIAS, list(dict.fromkeys(aliases.values())), ()) if aliases else {}
            )
        except Unsettled as error:  # nothing has happened yet
            raise NotApplied(str(error), code=error.code) from None
        refused = [
            Rejected(key, _NOT_THERE, "Braze has no user of this alias", RefusalClass.REFERENCE)
            for key, alias in aliases.items()
            if alias not in held
        ]
        for outcome in refused:
            del events[outcome.key]
        sent = await self._track(_OBJECTS[batch.object], list(events), orjson.dumps(list(events.values())))
        return Outcomes((*refused, *sent.of(events))) if refused else sent

    async def _users(self, batch: Batch) -> Outcomes:
        """Refuse attributes that Braze would cut or drop, and find out first which users an update is of are there. Where nothing
        of a record has to be looked at or added, it leaves as it was written."""
        lost = await self._lost(batch)
        if batch.op is Op.UPSERT and not lost and all(map(is_plain, batch.fields)):
            return await self._track("attributes", batch.keys, b"[" + batch.text() + b"]")
        lengths, objects = longest_arrays(batch.fields), {}
        refused: list[Rejected] = [Gone(key, _NOT_THERE, "Braze has no such user") for key in lost]
        for key, record in zip(batch.keys, batch.records(), strict=True):
            if key in lost:
                continue
            timed(record, batch.fields)
            settled = {name: self._settled(name, value) for name, value in record.items()}
            wrong = (
                unfit(name, value, lengths.get(name, _LONGEST_ARRAY))
                for name, value in settled.items()
                if is_custom(name)
            )
            if (found := next(filter(None, wrong), None)) is not None:
                refused.append(Rejected(key, *found))
            else:
                objects[key] = settled | self._orders(batch, settled)
        sent = await self._track("attributes", list(objects), orjson.dumps(list(objects.values())))
        return Outcomes((*refused, *sent.of(objects))) if refused else sent

    def _settled(self, name: str, value: Any) -> Any:
        """Without the nulls of objects that are replaced; a null of one that is merged cannot be left out."""
        if not is_custom(name) or not value or (isinstance(value, dict) and self.config.merge_nested):
            return value
        return pruned(value) or None

    def _orders(self, batch: Batch, record: Mapping[str, Any]) -> dict[str, bool]:
        """What Braze is to do with an object; without a word it makes no user of an alias (page: /users/track)."""
        orders = {"_merge_objects": True} if self.config.merge_nested and _nests(record) else {}
        if batch.op is Op.UPDATE or "user_alias" in record:
            orders["_update_existing_only"] = batch.op is Op.UPDATE
        return orders

    async def _lost(self, batch: Batch) -> frozenset[str]:
        """Keys that Braze has no user of, among those that are to be updated: of these /users/track drops the attributes
        silently, or makes a user of those that changed."""
        update = batch.op is Op.UPDATE
        asked = list(batch.keys if update else batch.parts)
        if not asked or not (update or self.config.check_existing):
            return frozenset()
        held = await held_by(self.http, batch.identifiers, asked, ())
        return frozenset(asked) - held.keys()

    async def _move(self, batch: Batch) -> Outcomes:
        """Rename users, then write their attributes. The previous external_id stays, deprecated, on the same user."""
        previous = dict(zip(batch.keys, batch.previous_keys, strict=True))
        renames = [{"current_external_id": old, "new_external_id": new} for new, old in previous.items()]
        answer = await self.http.request("POST", _RENAME, json={"external_id_renames": renames})
        renamed = {str(one) for one in listing(body_of(answer), "external_ids")}
        rest = [key for key in batch.keys if key not in renamed]
        refused = await self._unmoved(rest, previous, said_by(answer)) if rest else {}
        keys = [key for key in batch.keys if key not in refused]
        records = dict(zip(batch.keys, batch.records(), strict=True))
        for record in records.values():
            timed(record, batch.fields)
        objects = [{name: self._settled(name, value) for name, value in records[key].items()} for key in keys]
        sent = await self._track("attributes", keys, orjson.dumps(objects))
        return Outcomes((*refused.values(), *sent.of(keys)))

    async def _unmoved(
        self, keys: Sequence[str], previous: Mapping[str, str], said: str
    ) -> dict[str, Outcome]:
        """Outcomes of the users that this request did not rename; none of one that an earlier attempt renamed, which Braze
        gives back under its new id when it is asked for the previous one."""
        found = await primary_ids(self.http, [previous[key] for key in keys])
        freed, refused = set(previous.values()), dict[str, Outcome]()
        for key in keys:
            if previous[key] in found and key in freed:
                refused[key] = Retry(key, "another user of this batch had the new external_id")
            elif previous[key] in found:
                refused[key] = Rejected(key, "rename", f"Braze did not change the external_id: {said}")
            elif key not in found:
                refused[key] = Gone(key, _NOT_THERE, "Braze has no such user")
        return refused

    async def _track(self, array: str, keys: Sequence[str], objects: bytes) -> Outcomes:
        """One request with a JSON list of one object for each key."""
        if not keys:
            return Outcomes()
        body = b'{"' + array.encode() + b'":' + objects + b"}"
        answer = await self.http.request("POST", "/users/track", body=body)
        return outcomes(answer, array, keys)

    async def _delete(self, batch: Batch) -> Outcomes:
        """The answer has the number of deletions that are queued, also of users that are not there (recorded); where it is
        another one, whoever is not there any more is deleted."""
        name = batch.identifiers[0] if len(batch.identifiers) == 1 else "user_alias"
        who = [record[name] for record in batch.records()]
        kind = "user_aliases" if name == "user_alias" else f"{name}s"
        answer = await self.http.request("POST", "/users/delete", json={kind: who})
        body, keys = body_of(answer), list(batch.keys)
        if body["message"] == "success" and body.get("deleted") != len(keys):
            held = await held_by(self.http, batch.identifiers, keys, ())
            keys = [key for key in keys if key not in held]
        return Outcomes(tuple(Delivered(key) for key in keys))

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        if object != "users":
            raise Unsupported(f"Braze does not give back {object} one by one")
        held = await held_by(self.http, identifiers, keys, fields)
        return {key: {name: value_of(user, name) for name in fields} for key, user in held.items()}

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        return same(field, sent, held)

    def left(self, answer: Answer) -> Mapping[float, Left]:
        return left(answer, self.limits)

    def classify(self, answer: Answer) -> BackhaulError | None:
        return classify(answer)


def _nests(record: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) for name, value in record.items() if is_custom(name))


def _next_cursor(answer: Answer) -> str | None:
    """The cursor of the page that the Link header calls the next one (RFC 8288)."""
    for link in answer.headers.get("link", "").split(","):
        target, _, rest = link.partition(";")
        if 'rel="next"' in rest or "rel=next" in rest:
            return parse_qs(urlsplit(target.strip(" <>")).query).get("cursor", [None])[0]
    return None
