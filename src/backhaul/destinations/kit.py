"""The connector kit: everything a destination is made of. A connector declares, translates and classifies;
the delivery engine loops, waits, retries, splits, limits, counts and settles what the connector does not name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic import Field as Setting

from backhaul.errors import BackhaulError, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.types import BatchLimits, Field, FieldType, ObjectSchema, Op, Outcomes, Rate
from backhaul.values import Duration, RateLimit

Secret = SecretStr


class DestinationConfig(BaseModel):
    """Keys that every destination takes in backhaul.yml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_limits: tuple[RateLimit, ...] | None = None
    """Windows such as `100/10s` or `250000/1d`; they replace the destination's own."""
    concurrency: int | None = Setting(default=None, ge=1, le=1000)
    """Requests in flight at most."""
    timeout: Duration = Duration(60.0)
    """Total for one request, from connecting to the last byte of the answer."""


class Wire(StrEnum):
    """How the mapping writes one record for a connector.

    JSON: an object with JSON types. TEXT: an object whose values are all strings, NULL is the empty string.
    CSV: RFC 4180 lines in the order of `Batch.fields`, NULL is an unquoted empty cell, text is always quoted.
    """

    JSON = "json"
    TEXT = "text"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Spec:
    """What a destination declares about itself."""

    name: str
    config: type[DestinationConfig]
    docs: str
    batch: Mapping[Op, BatchLimits]
    """The operations it has, and the largest batch of each."""
    limits: tuple[Rate, ...] = ()
    concurrency: int = 8
    wire: Wire = Wire.JSON
    repeatable: frozenset[Op] = frozenset({Op.UPSERT, Op.UPDATE, Op.DELETE})
    """Operations whose repetition has no further effect."""
    moves: bool = False
    """An UPDATE batch may change the identifiers of records, found by `Batch.remote_ids`."""
    describes_offline: bool = False
    """`describe` answers from the configuration and costs no request."""
    nulls: str = ""
    """One sentence: what clearing a field means here."""


class Batch(Protocol):
    """Some records of one plan, all of one operation on one object, no key twice."""

    @property
    def op(self) -> Op: ...
    @property
    def object(self) -> str: ...
    @property
    def identifiers(self) -> tuple[str, ...]:
        """The destination fields that identify a record."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a record in wire order, identifiers first; in a delete the identifiers alone."""

    @property
    def idempotency_key(self) -> str:
        """The same on every attempt at the same records and values."""

    @property
    def keys(self) -> Sequence[str]:
        """The identifier of each record as text; a JSON list of texts where there are several identifiers."""

    @property
    def remote_ids(self) -> Sequence[str | None]:
        """The destination's own id of each record, where an earlier answer gave one."""

    def text(self) -> bytes:
        """The encoded records: JSON objects joined by commas (no brackets), or CSV lines."""

    def records(self) -> list[dict[str, Any]]:
        """The records as dicts; JSON wires only."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Unsettled: the body is empty, HTML, cut short or otherwise not JSON.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            kind = self.headers.get("content-type", "no content type")
            raise Unsettled(
                f"HTTP {self.status} with a body that is not JSON ({kind}, {len(self.body)} bytes)"
            ) from None


class Http(Protocol):
    """The authorised door to one destination. It waits for the budget, keeps the total deadline, follows no
    redirect, caps the answer, and raises what the destination's `classify` makes of the answer."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer: ...


ConfigT = TypeVar("ConfigT", bound=DestinationConfig)


class Destination(ABC, Generic[ConfigT]):
    """One connection to one destination. Async, used by one run at a time; `open` and `close` bracket its life."""

    spec: ClassVar[Spec]

    def __init__(self, config: ConfigT, http: Http) -> None:
        self.config = config
        self.http = http

    base_url: str = ""
    """Where the door leads; empty for a destination that does not speak HTTP."""

    def headers(self) -> Mapping[str, str]:
        """Headers of every request: authorisation, versions."""
        return {}

    async def open(self) -> None:
        """Connects. Raises: Halt where the destination refuses us; NotApplied where it is not reachable."""

    async def close(self) -> None:
        """Lets go of connections."""

    @property
    def limits(self) -> tuple[Rate, ...]:
        given = self.config.rate_limits
        if given is None:
            return self.spec.limits
        return tuple(Rate(f"{limit.count}/{limit.per:g}s", limit.count, limit.per) for limit in given)

    @property
    def concurrency(self) -> int:
        return self.config.concurrency or self.spec.concurrency

    @property
    def repeatable(self) -> frozenset[Op]:
        """Operations that may be sent again when nobody knows whether they were applied."""
        return self.spec.repeatable

    def batch_limits(self, object: str, op: Op) -> BatchLimits | None:
        """The largest batch of this operation on this object; None where it does not exist."""
        return self.spec.batch.get(op)

    @abstractmethod
    async def describe(self, object: str) -> ObjectSchema:
        """The object's fields, from the destination's own metadata.

        Raises:
            Halt: there is no such object, or we may not see it.
        """

    @abstractmethod
    async def write(self, batch: Batch) -> Outcomes:
        """Sends one batch, in as few requests as the API allows (one, where it has a batch endpoint)."""

    async def read(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Reads records back by key (as in `Batch.keys`). A key that is not in the answer does not exist there.

        Raises:
            Unsupported: this destination cannot be read.
        """
        raise Unsupported(f"{self.spec.name} cannot be read back")

    def same(self, field: Field, sent: Any, held: Any) -> bool:
        """Whether the value read back is the one that was sent, after the destination's own normalisation."""
        return bool(plain(field, sent) == plain(field, held))

    def classify(self, answer: Answer) -> BackhaulError | None:
        """What an HTTP answer means for the request as a whole; None where its body has to be read."""
        return classify_status(answer)


class Unsupported(BackhaulError):
    """The destination does not offer this."""


def no_such_object(name: str, known: Iterable[str], where: str) -> Halt:
    """The error for an object that is not there, naming the nearest ones that are."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5) or sorted(names)[:10]
    return Halt(
        f"{where} has no object {name!r}", hint=f"it has {', '.join(map(repr, near))}" if near else None
    )


def plain(field: Field, value: Any) -> Any:
    """A value in the form in which two spellings of the same thing are equal (`1.0` and `"1"`, '' and None)."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.type in (FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL) or isinstance(
        value, int | float
    ):
        return plain_number(value)
    if isinstance(value, str):
        return value.strip().lower() if field.case_insensitive else value
    return value


def plain_number(value: Any) -> Any:
    from decimal import Decimal, InvalidOperation

    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value


def classify_status(answer: Answer, message: str = "") -> BackhaulError | None:
    """The reading of a status code that holds for most HTTP APIs (RFC 9110; RFC 6585 for 429)."""
    status = answer.status
    if 200 <= status < 300:
        return None
    said = message or said_by(answer)
    text = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    after = retry_after(answer.headers)
    if status == 429 or (status == 503 and after is not None):
        return Throttled(text, code=str(status), after=after)
    if status in (401, 403):
        return Halt(f"the destination refuses our credentials or permission: {text}")
    if 300 <= status < 400:
        place = answer.headers.get("location", "somewhere else")
        return Halt(
            f"the destination redirects to {place}, which is not followed: {text}",
            hint="set base_url to the final address",
        )
    if status in (408, 425) or status >= 500:
        return Unsettled(text, code=str(status))
    if status == 423:
        return NotApplied(text, code=str(status))
    return Refused(text, code=str(status))


def said_by(answer: Answer, limit: int = 300) -> str:
    """The answer's own words, one line, at most `limit` characters; '' where it has none."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return (
            ""
            if b"<" in answer.body[:200]
            else " ".join(answer.body[: limit * 4].decode("utf-8", "replace").split())[:limit]
        )
    while isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, dict):
        for name in ("message", "error_description", "detail", "error", "errors", "title"):
            if body.get(name):
                said = body[name]
                return (said if isinstance(said, str) else orjson.dumps(said).decode())[:limit]
    return orjson.dumps(body).decode()[:limit] if body else ""


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds of a Retry-After header: a number (also a fraction) or an HTTP date (RFC 9110, 10.2.3)."""
    import time
    from email.utils import parsedate_to_datetime

    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
