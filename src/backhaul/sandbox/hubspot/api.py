"""A simulated HubSpot over real HTTP: CRM object batches, single records, search, properties, limits and errors.

From HubSpot's OpenAPI documents and usage guidelines, and from recorded answers. What those do not say is an attribute
of the class with a default.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.hubspot.store import ObjectType, Property, Record, Refusal, stamp, standard_types
from backhaul.sandbox.kit import Sandbox, reset
from backhaul.sandbox.limits import RollingLimit

Handler = Callable[[web.Request, ObjectType], Awaitable[web.Response]]
Act = Callable[[ObjectType, Mapping[str, Any]], tuple[Record, bool | None]]


class HubSpotSandbox(Sandbox):
    """One account. `token` None takes any bearer token."""

    name = "HubSpot"
    batch_size = 100
    """Inputs a request."""
    token: str | None = None
    missing_scopes = False

    def __init__(
        self, seed: int = 1, *, burst: int = 100, interval: float = 10.0, daily: int = 250_000
    ) -> None:
        super().__init__(seed)
        self.types = standard_types()
        self.burst, self.daily = RollingLimit(burst, interval), daily
        self.search_limit = RollingLimit(5, 1.0)
        self.used_today = 0

    def routes(self, router: web.UrlDispatcher) -> None:
        for head in ("/crm/v3/objects/{type}", "/crm/objects/{version:\\d{4}-\\d{2}}/{type}"):
            router.add_post(head + "/batch/upsert", self._door(self._upsert, write=True))
            router.add_post(head + "/batch/update", self._door(self._update, write=True))
            router.add_post(head + "/batch/create", self._door(self._create, write=True))
            router.add_post(head + "/batch/archive", self._door(self._archive, write=True))
            router.add_post(head + "/batch/read", self._door(self._read))
            router.add_post(head + "/search", self._door(self._search))
            router.add_post(head, self._door(self._create_one, write=True))
            router.add_get(head + "/{id}", self._door(self._get_one))
            router.add_patch(head + "/{id}", self._door(self._update_one, write=True))
            router.add_delete(head + "/{id}", self._door(self._delete_one, write=True))
        for head in ("/crm/v3/properties/{type}", "/crm/properties/{version:\\d{4}-\\d{2}}/{type}"):
            router.add_get(head, self._door(self._properties))
            router.add_post(head, self._door(self._add_property))

    def state(self) -> Mapping[str, Any]:
        return {
            name: [record.json() for record in kind.records.values() if not record.archived]
            for name, kind in self.types.items()
        }

    def tables(self) -> Mapping[str, list[Mapping[str, Any]]]:
        shown: dict[str, list[Mapping[str, Any]]] = {}
        for name, kind in self.types.items():
            live = [record for record in kind.records.values() if not record.archived]
            if live:
                newest = sorted(live, key=lambda record: record.updated_at)[-25:][::-1]
                shown[f"{name}: {len(live):,} records"] = [
                    {"id": item.id, **item.properties} for item in newest
                ]
        shown["Limits"] = [
            {"limit": f"{self.burst.count} requests in {self.burst.per:g} s", "left": self.burst.remaining},
            {"limit": f"{self.daily:,} requests a day", "left": self.daily - self.used_today},
        ]
        return shown

    def _door(
        self, handler: Handler, *, write: bool = False
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """What stands before every endpoint: authorisation, limits, object type; and behind it: headers, faults."""

        async def enter(request: web.Request) -> web.Response:
            refused = (
                self._unauthorised(request)
                or self._over_limit(request)
                or (self._fault(request) if write else None)
            )
            if refused is not None:
                return self._with_limits(refused)
            kind = self.types.get(request.match_info["type"])
            if kind is None:
                return self._with_limits(
                    problem(
                        400,
                        "VALIDATION_ERROR",
                        f"Unable to infer object type from: {request.match_info['type']}",
                    )
                )
            try:
                answer = await handler(request, kind)
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                answer = problem(400, "VALIDATION_ERROR", "Invalid input JSON on line 1, column 1")
            except Refusal as refusal:
                answer = problem(
                    409 if refusal.category == "CONFLICT" else 400, refusal.category, str(refusal)
                )
            return self._spoil(request, self._with_limits(answer)) if write else self._with_limits(answer)

        return enter

    def _unauthorised(self, request: web.Request) -> web.Response | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token or (self.token is not None and token != self.token):
            return problem(
                401, "INVALID_AUTHENTICATION", "Authentication credentials not found or not valid."
            )
        if self.missing_scopes:
            return problem(
                403, "MISSING_SCOPES", "This app hasn't been granted all required scopes to make this call."
            )
        return None

    def _over_limit(self, request: web.Request) -> web.Response | None:
        """Search has a limit of its own, and its recorded 429s name no time to wait."""
        if request.path.endswith("/search"):
            return (
                None
                if self.search_limit.take()
                else problem(429, "RATE_LIMITS", "You have reached your secondly limit.")
            )
        if self.used_today >= self.daily:
            body = {"status": "error", "message": "You have reached your daily limit.", "errorType": "RATE_LIMIT", "policyName": "DAILY",
                    "correlationId": str(uuid.uuid4())}  # fmt: skip
            return answer_json(body, 429)
        if not self.burst.take():
            body = {"status": "error", "message": "You have reached your ten_secondly_rolling limit.", "errorType": "RATE_LIMIT",
                    "policyName": "TEN_SECONDLY_ROLLING", "correlationId": str(uuid.uuid4())}  # fmt: skip
            return answer_json(body, 429)
        self.used_today += 1
        return None

    def _with_limits(self, answer: web.Response) -> web.Response:
        if not answer.prepared:
            answer.headers.update({
                "X-HubSpot-RateLimit-Daily": str(self.daily), "X-HubSpot-RateLimit-Daily-Remaining": str(self.daily - self.used_today),
                "X-HubSpot-RateLimit-Max": str(self.burst.count), "X-HubSpot-RateLimit-Remaining": str(self.burst.remaining),
                "X-HubSpot-RateLimit-Interval-Milliseconds": str(int(self.burst.per * 1000)),
            })  # fmt: skip
        return answer

    def _fault(self, request: web.Request) -> web.Response | None:
        faults = self.faults
        if faults.refuse_all:
            return problem(400, faults.refuse_all, "Refused by a switch of the sandbox.")
        if self.strikes(faults.throttle):
            return problem(429, "RATE_LIMITS", "You have reached your secondly limit.", {"Retry-After": "1"})
        if self.strikes(faults.throttle_silently):
            return problem(429, "RATE_LIMITS", "You have reached your secondly limit.")
        if self.strikes(faults.error):
            return problem(500, "INTERNAL_ERROR", "internal error")
        if self.strikes(faults.reset_before):
            return reset(request)
        return (
            web.Response(text="<html>maintenance</html>", content_type="text/html")
            if self.strikes(faults.html)
            else None
        )

    def _spoil(self, request: web.Request, answer: web.Response) -> web.Response:
        """Faults that strike after the write was applied."""
        if self.strikes(self.faults.reset_after):
            return reset(request)
        if self.strikes(self.faults.truncate) and isinstance(answer.body, bytes):
            answer.body = answer.body[: len(answer.body) // 2]
        return answer

    async def _inputs(self, request: web.Request) -> list[dict[str, Any]]:
        """Raises: Refusal for the request as a whole."""
        inputs: list[dict[str, Any]] = orjson.loads(await request.read())["inputs"]
        request["records"] = len(inputs)
        if len(inputs) > self.batch_size:
            raise Refusal(
                "VALIDATION_ERROR", f"Batch size is {len(inputs)}, but the maximum is {self.batch_size}"
            )
        ids = [str(item["id"]).strip().lower() for item in inputs if "id" in item]
        twice = sorted({item for item in ids if ids.count(item) > 1})
        if twice:
            raise Refusal(
                "VALIDATION_ERROR",
                f"Duplicate IDs found in batch input: [{', '.join(twice)}]. IDs must be unique",
            )
        if self.faults.poison_key and self.faults.poison_key.lower() in ids:
            raise Refusal("VALIDATION_ERROR", "Property values were not valid")
        return inputs

    async def _write(
        self, request: web.Request, kind: ObjectType, act: Act, status: int = 200
    ) -> web.Response:
        """A batch of writes: results and errors side by side."""
        inputs = await self._inputs(request)
        for item in inputs:
            unknown = kind.unknown(item.get("properties") or {})
            if unknown and kind.unknown_properties == "refuse":
                said = ", ".join(f'Property "{name}" does not exist or is read only' for name in unknown)
                raise Refusal("VALIDATION_ERROR", f"Property values were not valid: [{said}]")
        results, errors = [], []
        for item in inputs:
            trace = {"objectWriteTraceId": item["objectWriteTraceId"]} if "objectWriteTraceId" in item else {}
            try:
                if self.refuses(str(item.get("id", ""))):
                    raise Refusal("VALIDATION_ERROR", "Refused by a switch of the sandbox.")
                properties = {
                    name: value
                    for name, value in (item.get("properties") or {}).items()
                    if not kind.unknown({name: value})
                }
                record, new = act(kind, {**item, "properties": properties})
                results.append(record.json() | trace | ({} if new is None else {"new": new}))
            except Refusal as refusal:
                errors.append(_error(refusal, item, trace))
        return self._batch(request, results, errors, status)

    def _batch(
        self, request: web.Request, results: list[Any], errors: list[Any], status: int
    ) -> web.Response:
        if self.faults.shuffle:
            self.rng.shuffle(results)
        results = [item for item in results if not self.strikes(self.faults.omit)]
        body: dict[str, Any] = {
            "status": "COMPLETE",
            "startedAt": stamp(),
            "completedAt": stamp(),
            "results": results,
        }
        if errors:
            body |= {"numErrors": len(errors), "errors": errors}
            status = 207 if "version" not in request.match_info else status
        return answer_json(body, status)

    async def _upsert(self, request: web.Request, kind: ObjectType) -> web.Response:
        def act(kind: ObjectType, item: Mapping[str, Any]) -> tuple[Record, bool | None]:
            name, value = item.get("idProperty"), str(item["id"])
            found = kind.find(name, value)
            if found is not None:
                return kind.update(found, item["properties"]), False
            if name is None:
                raise Refusal("OBJECT_NOT_FOUND", f"Could not get object {value}")
            return kind.create({name: value, **item["properties"]}), True

        await self._identifying(request, kind)
        return await self._write(request, kind, act)

    async def _update(self, request: web.Request, kind: ObjectType) -> web.Response:
        def act(kind: ObjectType, item: Mapping[str, Any]) -> tuple[Record, bool | None]:
            found = kind.find(item.get("idProperty"), str(item["id"]))
            if found is None:
                raise Refusal("OBJECT_NOT_FOUND", f"Could not get object {item['id']}")
            return kind.update(found, item["properties"]), None

        await self._identifying(request, kind)
        return await self._write(request, kind, act)

    async def _identifying(self, request: web.Request, kind: ObjectType) -> None:
        """Raises: Refusal where an idProperty is not unique."""
        for item in orjson.loads(await request.read())["inputs"]:
            name = item.get("idProperty")
            if name is not None and name != "hs_object_id" and name not in kind.unique_names():
                raise Refusal(
                    "VALIDATION_ERROR", f"Unable to perform upsert by non-unique {kind.name} property {name}"
                )

    async def _create(self, request: web.Request, kind: ObjectType) -> web.Response:
        """A conflict refuses the whole request and names the first existing record."""
        inputs = await self._inputs(request)
        for item in inputs:
            for name in kind.unique_names():
                found = kind.find(name, str(item["properties"].get(name) or ""))
                if found is not None:
                    raise Refusal(
                        "CONFLICT", f"{kind.name[:-1].title()} already exists. Existing ID: {found.id}"
                    )
        return await self._write(
            request, kind, lambda kind, item: (kind.create(item["properties"]), None), 201
        )

    async def _archive(self, request: web.Request, kind: ObjectType) -> web.Response:
        for item in await self._inputs(request):
            found = kind.find(None, str(item["id"]))
            if found is not None:
                kind.archive(found)
        return web.Response(status=204)

    async def _read(self, request: web.Request, kind: ObjectType) -> web.Response:
        body = orjson.loads(await request.read())
        names = [*(body.get("properties") or []), *([body["idProperty"]] if body.get("idProperty") else [])]
        results, missing = [], []
        for item in await self._inputs(request):
            found = kind.find(body.get("idProperty"), str(item["id"]))
            if found is None:
                missing.append(str(item["id"]))
            else:
                results.append(found.json(dict.fromkeys(names)))
        errors = (
            [
                _error(
                    Refusal(
                        "OBJECT_NOT_FOUND", "Could not get some objects, they may be deleted or not exist."
                    ),
                    {},
                    {"ids": missing},
                )
            ]
            if missing
            else []
        )
        return self._batch(request, results, errors, 200)

    async def _search(self, request: web.Request, kind: ObjectType) -> web.Response:
        body = orjson.loads(await request.read())
        wanted = [item for group in body.get("filterGroups") or () for item in group["filters"]]
        found = [
            record
            for record in kind.records.values()
            if not record.archived and all(_matches(record, item) for item in wanted)
        ]
        return answer_json(
            {
                "total": len(found),
                "results": [record.json(body.get("properties")) for record in found[: body.get("limit", 10)]],
            }
        )

    async def _create_one(self, request: web.Request, kind: ObjectType) -> web.Response:
        return answer_json(
            kind.create(self._known(kind, orjson.loads(await request.read())["properties"])).json(), 201
        )

    async def _get_one(self, request: web.Request, kind: ObjectType) -> web.Response:
        found = self._one(request, kind)
        names = request.query.get("properties")
        return answer_json(found.json(names.split(",") if names else None)) if found else _not_found()

    async def _update_one(self, request: web.Request, kind: ObjectType) -> web.Response:
        found = self._one(request, kind)
        if found is None:
            return _not_found()
        return answer_json(
            kind.update(found, self._known(kind, orjson.loads(await request.read())["properties"])).json()
        )

    async def _delete_one(self, request: web.Request, kind: ObjectType) -> web.Response:
        found = self._one(request, kind)
        if found is not None:
            kind.archive(found)
        return web.Response(status=204)

    def _one(self, request: web.Request, kind: ObjectType) -> Record | None:
        return kind.find(request.query.get("idProperty"), request.match_info["id"])

    def _known(self, kind: ObjectType, properties: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises: Refusal at a property that cannot be written."""
        unknown = kind.unknown(properties)
        if unknown and kind.unknown_properties == "refuse":
            raise Refusal("VALIDATION_ERROR", f'Property "{unknown[0]}" does not exist or is read only')
        return {name: value for name, value in properties.items() if name not in unknown}

    async def _properties(self, request: web.Request, kind: ObjectType) -> web.Response:
        return answer_json({"results": [item.json() for item in kind.properties.values()]})

    async def _add_property(self, request: web.Request, kind: ObjectType) -> web.Response:
        body = orjson.loads(await request.read())
        if body["name"] in kind.properties:
            raise Refusal("CONFLICT", f"A property named {body['name']} already exists")
        if body["type"] not in (
            "bool",
            "date",
            "datetime",
            "enumeration",
            "number",
            "phone_number",
            "string",
        ):
            raise Refusal("VALIDATION_ERROR", f"{body['type']} is not a property type")
        options = tuple(str(option["value"]) for option in body.get("options") or ())
        added = Property(
            body["name"],
            body["type"],
            body["fieldType"],
            body["label"],
            options,
            bool(body.get("hasUniqueValue")),
        )
        kind.properties[added.name] = added
        return answer_json(added.json(), 201)


def _matches(record: Record, item: Mapping[str, Any]) -> bool:
    value = record.properties.get(item["propertyName"])
    if item["operator"] == "EQ":
        return value == str(item["value"])
    if item["operator"] == "IN":
        return value in [str(one) for one in item["values"]]
    return value is not None


def _error(refusal: Refusal, item: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    """An error inside an answer; the values of its context are lists."""
    context: dict[str, Any] = {
        name: value if isinstance(value, list) else [value] for name, value in trace.items()
    }
    if "id" in item and not context:
        context["ids"] = [str(item["id"])]
    return {
        "status": "error",
        "category": refusal.category,
        "message": str(refusal),
        "context": context,
        "errors": [],
        "links": {},
    }


def problem(
    status: int, category: str, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A request refused as a whole."""
    body = {"status": "error", "message": message, "correlationId": str(uuid.uuid4()), "category": category}
    return answer_json(body, status, headers)


def answer_json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", headers=headers
    )


def _not_found() -> web.Response:
    return web.Response(
        status=404, body=b"", headers={"Date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")}
    )
