"""What an HTTP API looks like in backhaul.yml."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic import Field as Key
from pydantic.functional_validators import AfterValidator, BeforeValidator

from backhaul.destinations.http.expressions import Expression
from backhaul.destinations.http.template import Template
from backhaul.destinations.kit import DestinationConfig, Secret
from backhaul.types import COMMON_OPS, Field, FieldType, Op, RefusalClass
from backhaul.values import Duration, Parsed, Size

_REQUEST = re.compile(r"(GET|POST|PUT|PATCH|DELETE) +(/(?!/)[^\s#]*|/)")
KEY = "$key"
"""In the path of a request: the key of its record, percent-encoded."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Declared(BaseModel):
    """A block of the configuration: frozen, and every key in it is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class RequestLine(Parsed):
    """A method and a path below `base_url`, such as `POST /upsert`."""

    method: str
    path: str

    @classmethod
    def parse(cls, value: Any) -> RequestLine:
        if isinstance(value, cls):
            return value
        found = _REQUEST.fullmatch(str(value).strip())
        if not found:
            raise ValueError(f"{value!r} is not a request: write a method and a path, such as POST /upsert")
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def valid_base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.port == 0:  # a port above 65535 raises a ValueError of its own
        raise ValueError("base_url names port 0")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url needs a scheme and a host, such as https://api.example.com")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url has credentials in it; write them under headers, as ${NAME}")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError("base_url takes no query and no fragment; write them in the request's path")
    return value.rstrip("/")


def valid_headers(headers: dict[str, Secret]) -> dict[str, Secret]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if re.search(r"[\r\n\0]", value.get_secret_value()):
            raise ValueError(f"the value of header {name!r} has a line break in it")
    return headers


Headers = Annotated[dict[str, Secret], AfterValidator(valid_headers)]


class Results(Declared):
    """How to read per-record outcomes from an answer."""

    each: Expression
    """The list of results in the answer; with `map`, the object of results by key."""
    key: Expression | None = None
    """The record's key in one result."""
    index: bool = False
    """Results come back in the order of the records, one for each."""
    map: bool = False
    """`each` is an object: its names are the records' keys, its values are what the other expressions read."""
    delivered: Expression | None = None
    """True where the record was taken; a value that is neither true nor false leaves the record unknown. May be left out where
    the answer lists failures alone (`unnamed: delivered`)."""
    unnamed: Literal["unknown", "delivered"] = "unknown"
    """What a record is that the results do not name: `delivered` for an API that lists failures alone."""
    success: Expression | None = None
    """With `unnamed: delivered`: true in an answer without `each` that took the whole batch."""
    retryable: Expression | None = None
    """True where the record was not taken now, and may be later."""
    gone: Expression | None = None
    """True where the API has no such record (any more); an error with code 404 or 410 says the same."""
    error: Expression | None = None
    """The error of one result: a text, or an object with a code and a message."""

    @model_validator(mode="after")
    def one_way_to_match(self) -> Self:
        if (self.key is not None) + self.index + self.map != 1:
            raise ValueError(
                "results need one of `key`, `index: true` and `map: true`: which record is a result about?"
            )
        if self.delivered is None and self.unnamed != "delivered":
            raise ValueError(
                "results need `delivered`, or `unnamed: delivered` where failures alone are listed"
            )
        if self.index and self.unnamed == "delivered":
            raise ValueError("results by index name every record: leave out `unnamed`")
        return self


class Operation(Declared):
    """One kind of write: the request, how many records it carries, and how its answer is read."""

    request: RequestLine
    batch_size: int = Key(1, ge=1, le=100_000)
    """Records in one request at most."""
    max_bytes: Size = Size(10_000_000)
    """Bytes of encoded records in one request at most."""
    body: Template
    results: Results | None = None
    """Without it, a 2xx answer delivers the batch."""
    headers: Headers = Key(default_factory=dict)

    @model_validator(mode="after")
    def path_names_one_record(self) -> Self:
        if any(mark != KEY for mark in re.findall(r"\$\w*", self.request.path)):
            raise ValueError(f"{self.request}: only $key can stand in a path, for the key of one record")
        if KEY in self.request.path and self.batch_size != 1:
            raise ValueError("$key in the path stands for one record: use batch_size: 1")
        return self

    @model_validator(mode="after")
    def body_carries_the_records(self) -> Self:
        if self.request.method == "GET":
            raise ValueError("a GET cannot write: use POST, PUT, PATCH or DELETE")
        if self.body.has("$record") and self.batch_size != 1:
            raise ValueError("$record stands for one record: use $records, or batch_size: 1")
        if self.max_bytes < 1:
            raise ValueError("max_bytes has to be at least 1")
        return self


class Read(Declared):
    """How records are read back by key."""

    request: RequestLine
    body: Template | None = None
    """With `$keys` in it; without a body the request lists every record."""
    each: Expression
    """The list of records in the answer."""
    key: str | None = None
    """The field of a record that is its key; the object's `key` if not given."""
    id: str | None = None
    """The field of a record that is the API's own id."""
    index_lag: Duration | None = None
    """How long after a create the record may still be missing here; with it, creates of unknown end are looked up."""

    @model_validator(mode="after")
    def keys_travel_in_the_body(self) -> Self:
        if "$" in self.request.path:
            raise ValueError(f"{self.request}: the path of a read names no record; put $keys into its body")
        if self.body is None:
            return self
        if self.request.method == "GET":
            raise ValueError("a GET has no body: use POST, or leave the body out to read a whole list")
        if not self.body.has("$keys") or self.body.has("$records") or self.body.has("$record"):
            raise ValueError("the body of a read carries $keys, and no records")
        return self


class DeclaredField(Declared):
    """A field that the API is known to take."""

    type: FieldType = FieldType.ANY
    required: bool = False
    max_length: int | None = Key(None, ge=1)
    choices: tuple[str, ...] | None = None

    def field(self, name: str) -> Field:
        return Field(
            name, self.type, required=self.required, max_length=self.max_length, choices=self.choices
        )


def declared_fields(value: Any) -> Any:
    """Takes a list of names, names with a type, and names with a whole description."""
    if isinstance(value, list):
        return {name: {} for name in value}
    if isinstance(value, dict):
        return {name: {"type": item} if isinstance(item, str) else item or {} for name, item in value.items()}
    return value


class ApiObject(Declared):
    """One kind of record, and the requests that write and read it."""

    key: str = Key(min_length=1)
    """The payload field that identifies a record."""
    fields: Annotated[dict[str, DeclaredField] | None, BeforeValidator(declared_fields)] = None
    """The fields it takes; without it any field is accepted."""
    upsert: Operation | None = None
    insert: Operation | None = None
    update: Operation | None = None
    delete: Operation | None = None
    read: Read | None = None

    @model_validator(mode="after")
    def writes_something(self) -> Self:
        if not any(self.operation(op) for op in COMMON_OPS):
            raise ValueError("an object needs at least one of upsert, insert, update, delete")
        for op in COMMON_OPS:
            operation = self.operation(op)
            if operation and not carries(operation, op):
                wanted = "$records or $keys" if op is Op.DELETE else "$records, or $record with batch_size: 1"
                raise ValueError(f"the body of {op} carries no records: put {wanted} in it")
        return self

    def operation(self, op: Op) -> Operation | None:
        found: Operation | None = getattr(self, op.value)
        return found

    def known_fields(self) -> dict[str, Field]:
        given = {self.key: DeclaredField()} | (self.fields or {})
        known = {name: item.field(name) for name, item in given.items()}
        return known | {self.key: replace(known[self.key], required=True, unique=True)}


def carries(operation: Operation, op: Op) -> bool:
    marks = ("$records", "$record", "$keys") if op is Op.DELETE else ("$records", "$record")
    return any(operation.body.has(mark) for mark in marks) or (
        op is Op.DELETE and KEY in operation.request.path
    )


class HttpConfig(DestinationConfig):
    """Any batch HTTP API, declared."""

    base_url: Annotated[str, AfterValidator(valid_base_url)]
    headers: Headers = Key(default_factory=dict)
    """Headers of every request."""
    idempotency_header: str | None = Key(None, pattern=_HEADER_NAME.pattern.join(("^", "$")))
    """A header that carries the same value on every attempt at the same records."""
    idempotency_life: Duration = Duration(86_400.0)
    """How long the API knows a value of that header, and so does not apply a create twice."""
    refusals: dict[str, RefusalClass] = Key(default_factory=dict)
    """What the API's error codes are about, by code: `record`, `configuration`, `capacity`, `reference_missing`, `conflict`,
    `transient` or `credential`. A code that is not here is a record's fault."""
    objects: dict[str, ApiObject] = Key(min_length=1)
