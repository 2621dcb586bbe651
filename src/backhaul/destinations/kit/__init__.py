"""The connector kit: everything a destination is made of. A connector declares, translates and classifies;
the delivery engine loops, waits, retries, splits, limits, counts and settles what the connector does not name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from backhaul.destinations.kit.answers import (
    Answer,
    classify_status,
    inner,
    listed,
    listing,
    said_by,
)
from backhaul.destinations.kit.comparing import moment, plain, plain_number, same_moment
from backhaul.destinations.kit.paging import paged
from backhaul.destinations.kit.refusals import HTTP_REFUSALS, class_of, refusal_table
from backhaul.destinations.kit.sent import held_as_sent
from backhaul.destinations.kit.settings import DestinationConfig, JobsConfig, Secret
from backhaul.errors import BackhaulError, Halt
from backhaul.types import (
    Account,
    BatchLimits,
    Field,
    Frame,
    Left,
    ObjectSchema,
    Op,
    Outcomes,
    PlannedBatch,
    Rate,
    RefusalClass,
)
from backhaul.values import RateLimit

__all__ = [
    "HTTP_REFUSALS", "Account", "Answer", "Batch", "Destination", "DestinationConfig", "Http", "Job", "JobsConfig",
    "PlannedBatch", "Secret", "Spec", "Token", "Unsupported", "Wire", "class_of", "classify_status", "held_as_sent", "inner",
    "listed", "listing", "moment", "no_such_object", "paged", "plain", "plain_number", "refusal_table", "said_by", "same_moment",
]  # fmt: skip
_DAY = 86_400.0
"""Seconds. Windows as long as this, or longer, are quotas that a customer's other tools draw on too."""


class Wire(StrEnum):
    """How the mapping writes one record for a connector.

    JSON: an object with JSON types. TEXT: an object whose values are all strings, NULL is the empty string.
    CSV: RFC 4180 lines in the order of `Batch.fields`, NULL is an unquoted empty cell (or `Spec.csv_null`), text is always
    quoted.
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
    repeatable: frozenset[Op] = frozenset({Op.UPSERT, Op.UPDATE, Op.DELETE, Op.MOVE})
    """Operations whose repetition has no further effect."""
    moves: bool = False
    """An UPDATE batch may change the identifiers of records, found by `Batch.remote_ids`."""
    deltas: bool = False
    """An update may hold the identifiers and the changed fields alone; an answer says which records it `created`, or an
    update of a record that is not there is refused. In CSV where there is a `csv_null`."""
    csv_null: str = ""
    """What clears a field in a CSV cell, where an empty cell leaves the field alone; '': NULL is an empty cell."""
    states_account: bool = False
    """`account` asks the destination; otherwise it answers from the configuration, before the destination is opened."""
    describes_offline: bool = False
    """`describe` answers from the configuration and costs no request."""
    late: float = 0.25
    """Seconds for which a request that got no answer may still be applied; what repeats it is sent later than that."""
    read_lag: float = 0.0
    """Seconds, at most, until a read, or a write that asks who is there, shows what was written; what differs or is not there
    before that is asked about again."""
    index_lag: float | None = None
    """Seconds until a record that was created is found by its identifier; None: it cannot be looked up."""
    lag_source: str = ""
    """Where `read_lag` and `index_lag` come from, for the destination's page."""
    nulls: str = ""
    """One sentence: what clearing a field means here."""
    refusals: Mapping[str, RefusalClass] = field(default_factory=dict)
    """The class of each of the destination's codes; `23*` stands for all codes that begin so."""
    sources: str = ""
    """Where the codes come from."""
    unlisted: RefusalClass = RefusalClass.UNKNOWN
    """The class of a code that `refusals` does not list."""
    fixes: Mapping[str, str] = field(default_factory=dict)
    """What a person does about a record refused with this code, where that is not plain from the words."""


class Batch(Protocol):
    """Some records of one plan, all of one operation on one object, no key twice."""

    @property
    def op(self) -> Op: ...
    @property
    def object(self) -> str: ...
    @property
    def wire(self) -> Wire:
        """How its records are written."""

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The destination fields that identify a record."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a record in wire order, identifiers first; in a delete the identifiers alone."""

    @property
    def idempotency_key(self) -> str:
        """The same on every attempt at the same records and values, also by a later run."""

    @property
    def keys(self) -> Sequence[str]:
        """The identifier of each record as text; a JSON list of texts where there are several identifiers."""

    @property
    def remote_ids(self) -> Sequence[str | None]:
        """The destination's own id of each record, where an earlier answer gave one."""

    @property
    def previous_keys(self) -> Sequence[str]:
        """In a MOVE: the key, as in `keys`, under which the destination holds each record until now."""

    @property
    def parts(self) -> Sequence[str]:
        """The keys of those records that hold their changed fields alone (`Spec.deltas`)."""

    @property
    def set_aside(self) -> bool:
        """These records were refused because of values that others hold: a destination with transactions gives up the unique
        values that they hold before it writes, so that two records can swap theirs."""

    def text(self) -> bytes:
        """The encoded records: JSON objects joined by commas (no brackets), or CSV lines."""

    def records(self) -> list[dict[str, Any]]:
        """The records as dicts; JSON wires only."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Job:
    """Work on a batch that the destination goes on with by itself. `id` is all that `collect` needs to ask about it, also in
    a later run; `wait` is in seconds until that is worth while."""

    id: str
    wait: float = 1.0


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; `life` in seconds, None: it is good until it is refused."""

    value: str
    life: float | None = None


class Http(Protocol):
    """The authorised door to one destination. It waits for the budget, keeps the total deadline, follows no
    redirect, caps the answer, and raises what the destination's `classify` makes of the answer. Where that is `Expired`,
    it has the destination `authorise` anew, once for all requests, and sends again."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        allow: Collection[int] = (),
    ) -> Answer:
        """`path` may be a whole URL, where a vendor reads and writes at different hosts; what goes into it has to be escaped.
        `allow`: answers with these statuses, such as a 404 to who asks for one record, are read and not classified."""

    async def sign_in(self) -> None:
        """Fetches the access token now, unless there is one: for what the answer says beside it."""

    async def login(
        self,
        path: str,
        form: Mapping[str, str],
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Asks an OAuth 2 server for a token (RFC 6749, 5.1): its answer, which has an `access_token`. `path` may be a whole
        URL; the form is the query of a GET. None of the destination's own headers are sent.

        Raises:
            Halt: the credentials are refused.
            NotApplied: the server is busy, away, or not understood.
        """

    async def refresh(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        """As `login`, with the form's `refresh_token`, or the one that took its place: where an answer brings a new one, it
        is kept for the next time, and processes that share it ask one after another."""


ConfigT = TypeVar("ConfigT", bound=DestinationConfig)


class Destination(ABC, Generic[ConfigT]):
    """One connection to one destination. Async, used by one run at a time; `open` and `close` bracket its life."""

    spec: ClassVar[Spec]

    def __init__(self, config: ConfigT, http: Http) -> None:
        self.config = config
        self.http = http

    base_url: str = ""
    """Where the door leads; empty for a destination that does not speak HTTP."""
    token: str = ""
    """The access token in use, where there is an `authorise`."""

    def headers(self) -> Mapping[str, str]:
        """Headers of every request: authorisation, versions."""
        return {}

    async def authorise(self) -> Token | None:
        """Fetches an access token with `http.login`. The door asks before the first request, when the last token is about to
        end, and when it was refused (`Expired`); None: the credential needs none."""
        return None

    async def open(self) -> None:
        """Connects. Raises: Halt where the destination refuses us; NotApplied where it is not reachable."""

    async def close(self) -> None:
        """Lets go of connections."""

    @property
    def own_limits(self) -> tuple[Rate, ...]:
        """What may be sent where `rate_limits` does not say: an account's plan may have limits of its own."""
        return self.spec.limits

    @property
    def limits(self) -> tuple[Rate, ...]:
        """What may be sent: the configured limits or the connector's own, of the longer ones the configured share."""
        config, share = self.config, self.config.share
        given: dict[str, tuple[RateLimit, ...]] = dict(config.endpoint_limits)
        if config.rate_limits is not None:
            given[""] = config.rate_limits
        rates = [rate for rate in self.own_limits if rate.endpoint not in given]
        rates += [
            Rate(str(limit), limit.count, limit.per, endpoint)
            for endpoint, limits in given.items()
            for limit in limits
        ]
        return tuple(
            rate if rate.per < _DAY else replace(rate, count=max(int(share.of(rate.count)), 1))
            for rate in rates
        )

    def endpoints(self, method: str, path: str) -> tuple[str, ...]:
        """What a request counts against, by the names in `limits`: '' is the connection. An endpoint with a limit of its own
        may count against that alone or against both."""
        return ("",)

    @property
    def concurrency(self) -> int:
        return self.config.concurrency or self.spec.concurrency

    @property
    def job_timeout(self) -> float:
        """Seconds for which a run waits for a job."""
        return float(self.config.job_timeout) if isinstance(self.config, JobsConfig) else 0.0

    @property
    def read_lag(self) -> float:
        """Seconds, at most, until the destination shows what was written."""
        return self.spec.read_lag if self.config.read_lag is None else float(self.config.read_lag)

    def read_lag_of(self, object: str, identifiers: tuple[str, ...]) -> float:
        """`read_lag`, where one object or identifier is shown later than others."""
        return self.read_lag

    @property
    def repeatable(self) -> frozenset[Op]:
        """Operations that may be sent again when nobody knows whether they were applied."""
        return self.spec.repeatable

    @property
    def idempotency_life(self) -> float | None:
        """Seconds for which the destination knows an INSERT by `Batch.idempotency_key` and does not apply it twice; None:
        it does not look at keys."""
        return None

    def index_lag(self, object: str) -> float | None:
        """Seconds until `lookup` finds a record of this object that was created; None: it cannot be looked up."""
        return self.spec.index_lag

    async def lookup(
        self, object: str, identifiers: tuple[str, ...], keys: Sequence[str]
    ) -> Mapping[str, Sequence[str | None]]:
        """Every record that the destination holds under each key (as in `Batch.keys`), by its own id, None where it has
        none. A key that is not in the answer has no record. Asked only where there is an `index_lag`.

        Raises:
            SendError, Halt: nobody knows.
        """
        found = await self.read(object, identifiers, keys, ())
        return dict.fromkeys(found, (None,))

    def moves(self, object: str, identifiers: tuple[str, ...]) -> Op | None:
        """The operation that changes the identifier of a record: UPDATE finds it by the destination's own id, MOVE by the
        previous identifier. None: it cannot be changed."""
        return Op.UPDATE if self.spec.moves else None

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        """The largest batch of this operation on this object where there are `rows` of it to send; None where it does not
        exist."""
        return self.spec.batch.get(op)

    def opening_requests(self, object: str) -> int:
        """Requests of a run before its first batch: an access token, the account, the object's description."""
        return self.spec.states_account + (not self.spec.describes_offline)

    def extra_requests(
        self, object: str, identifiers: tuple[str, ...], planned: PlannedBatch
    ) -> Mapping[str, int]:
        """Requests that `write` and `collect` make for one batch beside its first, by the endpoint they count against: look-ups,
        uploads, questions about a job. The estimate of a plan adds them. It assumes that a job is over when it is first asked
        about, and that updates leave out what did not change."""
        return {}

    def read_requests(self, object: str, identifiers: tuple[str, ...], records: int) -> int:
        """Requests that `read` makes for so many records; 0 where the destination cannot be read."""
        return 0 if type(self).read is Destination.read else 1

    def wire(self, object: str, op: Op, rows: int) -> Wire:
        """How records are written where there are so many to send: a bulk endpoint may want another form."""
        return self.spec.wire

    def frame(self, object: str, op: Op, identifiers: tuple[str, ...]) -> Frame | None:
        """How a record of the JSON wire is written, where it is more than its fields: `Batch.text` and `Batch.records` have it
        so."""
        return None

    def takes_parts(self, object: str, wire: Wire) -> bool:
        """Whether updates of this object, written so, may leave out what did not change."""
        return self.spec.deltas and (wire is not Wire.CSV or self.spec.csv_null != "")

    @property
    def address(self) -> str:
        """Where the connection leads, known without asking and without a secret: what tells accounts apart where the destination
        states none. Of an URL the host alone, because a path may hold a token."""
        found = urlsplit(self.base_url)
        return f"{found.hostname}:{found.port}" if found.port else found.hostname or ""

    async def account(self) -> Account | None:
        """Return the account that the credential opens, as the destination itself states it; None where it states none. A rotated
        credential is the same account. A run asks once, first of all: what one account acknowledged never counts for another.

        Raises:
            SendError, Halt: it could not be asked.
        """
        return None

    @abstractmethod
    async def describe(self, object: str) -> ObjectSchema:
        """The object's fields, from the destination's own metadata.

        Raises:
            Halt: there is no such object, or we may not see it.
        """

    @abstractmethod
    async def write(self, batch: Batch) -> Outcomes | Job:
        """Sends one batch, in as few requests as the API allows (one, where it has a batch endpoint). A Job where the
        destination only takes it in: nothing may be applied before its id is returned, if the API allows (create and upload
        here, start in `collect`)."""

    async def erase(self, batch: Batch) -> Outcomes | Job:
        """Deletes the records of a batch for `forget`: by the API's privacy delete where it has one."""
        return await self.write(batch)

    def describe_delete(self, object: str, *, erase: bool = False) -> str:
        """What a delete does to a record, or `erase`, in the words of the vendor: `deleted`, `archived`."""
        return "removed from the list" if object.startswith("lists/") else "deleted"

    async def collect(self, batch: Batch, job: str) -> Outcomes | Job:
        """What became of a batch that was handed over as this job; a Job where it is not over. It may hold fewer records
        than the batch. Where the destination does not know the job any more, the records are read (`held_as_sent`).

        Raises:
            Refused: the job failed as a whole because of what is in it, and nothing of it was applied.
            NotApplied, Unsettled: it could not be asked; it is asked again.
        """
        raise Unsupported(f"{self.spec.name} has no jobs")

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

    async def as_stored(self, object: str, values: Sequence[tuple[str, Any]]) -> Sequence[Any]:
        """Values that `same` finds unlike what is held, each given with its field, in the form in which a record would hold them
        and `read` would show them. A destination that cannot say gives them back as they are.

        Raises:
            Refused: a record cannot hold one of them.
        """
        return [value for _, value in values]

    def left(self, answer: Answer) -> Mapping[float, Left]:
        """What an answer's headers say is left of the daily quota and its like, by the length of the window in seconds;
        {} where they say nothing. The core sends no more than that."""
        return {}

    def ours(self, left: int, quota: int) -> int:
        """Of what everybody together has left of a quota of a day or longer, what we may take: the rest of `share` stays."""
        return max(left - (quota - int(self.config.share.of(quota))), 0)

    def refusal_class(self, code: str) -> RefusalClass:
        """What a refusal with this code is about, where neither the record nor the request says it."""
        return class_of(self.spec.refusals, code) or HTTP_REFUSALS.get(code) or self.spec.unlisted

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
