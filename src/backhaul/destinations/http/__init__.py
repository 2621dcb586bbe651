"""Any batch HTTP API, declared in backhaul.yml without code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import orjson

from backhaul.destinations.http.config import KEY, ApiObject, HttpConfig, Operation
from backhaul.destinations.http.results import believe, html, outcomes_of
from backhaul.destinations.kit import (
    HTTP_REFUSALS,
    Answer,
    Batch,
    Destination,
    Http,
    Spec,
    Unsupported,
    classify_status,
    no_such_object,
)
from backhaul.errors import BackhaulError, Halt, Unsettled
from backhaul.types import (
    COMMON_OPS,
    BatchLimits,
    Field,
    FieldType,
    ObjectSchema,
    Op,
    Outcomes,
    RefusalClass,
    Rejected,
)

__all__ = ["HttpApi", "HttpConfig"]


_GONE = "the API has no such record: use mode upsert to have it made, or leave the row out"
_FIXES = {
    "404": _GONE,
    "410": _GONE,
    "409": "another record claims the same value: make it unique in the model, or merge the records at the destination",
    "413": "this record alone is larger than the API takes: shorten its longest field in the model, or take it out",
    "415": "the API wants another body: see `body` and `headers` of the destination",
}
"""By status; whatever else an API refuses with, its words are a better guide."""


class HttpApi(Destination[HttpConfig]):
    """A destination whose requests and answers are declared in its configuration."""

    spec: ClassVar[Spec] = Spec(
        name="http",
        config=HttpConfig,
        docs="Any batch HTTP API, declared in backhaul.yml: requests, bodies, how to read results.",
        batch={op: BatchLimits(records=100_000, bytes=10_000_000) for op in COMMON_OPS},
        unlisted=RefusalClass.RECORD,
        refusals=HTTP_REFUSALS,
        sources="RFC 9110; your `refusals`",
        fixes=_FIXES,
        nulls="null is sent as JSON null; what that does is the API's own rule",
    )

    def __init__(self, config: HttpConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url
        self._headers = shown(config.headers)

    def headers(self) -> Mapping[str, str]:
        return self._headers

    def refusal_class(self, code: str) -> RefusalClass:
        return self.config.refusals.get(code) or super().refusal_class(code)

    @property
    def repeatable(self) -> frozenset[Op]:
        """With an idempotency header the API sees a repeated insert for what it is."""
        return frozenset(Op) if self.config.idempotency_header else self.spec.repeatable

    @property
    def idempotency_life(self) -> float | None:
        return float(self.config.idempotency_life) if self.config.idempotency_header else None

    def index_lag(self, object: str) -> float | None:
        read = self._declared(object).read
        return None if read is None or read.index_lag is None else float(read.index_lag)

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        found = self.config.objects.get(object)
        operation = found.operation(op) if found else None
        return BatchLimits(operation.batch_size, operation.max_bytes) if operation else None

    async def describe(self, object: str) -> ObjectSchema:
        declared = self._declared(object)
        return ObjectSchema(object, declared.known_fields(), open=declared.fields is None)

    async def write(self, batch: Batch) -> Outcomes:
        operation = self._operation(batch)
        path = operation.request.path
        if KEY in path:
            if batch.keys[0] in ("", ".", ".."):
                return Outcomes(
                    (Rejected(batch.keys[0], "key", "no address can name a record with this key"),)
                )
            path = path.replace(KEY, quote(batch.keys[0], safe=""))
        headers = shown(operation.headers)
        if self.config.idempotency_header:
            headers[self.config.idempotency_header] = batch.idempotency_key
        answer = await self.http.request(
            operation.request.method, path, body=operation.body.fill(batch), headers=headers
        )
        return outcomes_of(operation.results, answer, batch.keys) if operation.results else believe(answer)

    async def read(
        self,
        object: str,
        identifiers: tuple[str, ...],
        keys: Sequence[str],
        fields: Sequence[str],
    ) -> dict[str, dict[str, Any]]:
        records = await self._found(object, keys)
        return {key: {name: dig(records[key][-1], name) for name in fields} for key in keys if key in records}

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        """An API may hold both null and an empty text, so one does not stand for the other."""
        return (sent is None) == (held is None) and super().same(field, sent, held)

    async def lookup(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str]
    ) -> Mapping[str, Sequence[str | None]]:
        records, read = await self._found(object, keys), self._declared(object).read
        name = read.id if read else None
        return {
            key: [
                str(dig(record, name)) if name and dig(record, name) is not None else None
                for record in records[key]
            ]
            for key in keys
            if key in records
        }

    async def _found(self, object: str, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Every record in the answer to a declared read, by the text of its key.

        Raises:
            Unsettled: the answer has no list of records.
        """
        declared = self._declared(object)
        if declared.read is None:
            raise Unsupported(f"object {object!r} declares no `read`, so it cannot be read back")
        key_type = declared.known_fields()[declared.key].type
        template = declared.read.body
        body = template.fill_keys([encoded(key, key_type) for key in keys]) if template else None
        answer = await self.http.request(declared.read.request.method, declared.read.request.path, body=body)
        found = declared.read.each.of(answer.json())
        if not isinstance(found, list):
            raise Unsettled(f"the answer to {declared.read.request} has no list at `{declared.read.each}`")
        return by_key(found, declared.read.key or declared.key)

    def classify(self, answer: Answer) -> BackhaulError | None:
        return classify_status(answer) or html(answer)

    def _declared(self, name: str) -> ApiObject:
        found = self.config.objects.get(name)
        if found is None:
            raise no_such_object(name, self.config.objects, "the http destination")
        return found

    def _operation(self, batch: Batch) -> Operation:
        declared = self._declared(batch.object)
        if batch.identifiers != (declared.key,):
            raise Halt(
                f"{batch.object!r} is identified by {declared.key!r}, not by {', '.join(batch.identifiers)}",
                hint=f"write `identify: {{{declared.key}: …}}` in the sync",
            )
        operation = declared.operation(batch.op)
        if operation is None:
            hint = f"add `{batch.op}:` to it in backhaul.yml"
            raise Halt(f"object {batch.object!r} declares no {batch.op}", hint=hint)
        return operation


def shown(headers: Mapping[str, Any]) -> dict[str, str]:
    names = {name: "Content-Type" if name.lower() == "content-type" else name for name in headers}
    return {names[name]: value.get_secret_value() for name, value in headers.items()}


def encoded(key: str, kind: FieldType) -> bytes:
    """A key as a JSON value: a number where the field is declared as one, else a text."""
    numbers = (FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL)
    return key.encode() if kind in numbers else orjson.dumps(key)


def by_key(found: list[Any], name: str) -> dict[str, list[dict[str, Any]]]:
    """The records of an answer by the text of their key."""
    records: dict[str, list[dict[str, Any]]] = {}
    for record in found:
        if isinstance(record, dict):
            records.setdefault(str(dig(record, name)), []).append(record)
    return records


def dig(record: dict[str, Any], name: str) -> Any:
    """The value of a field; a dot in its name nests."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
