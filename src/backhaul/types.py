"""Frozen data that every room speaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """What a sync may do at its destination. MIRROR is UPSERT that also deletes what left the model."""

    INSERT = "insert"
    UPDATE = "update"
    UPSERT = "upsert"
    MIRROR = "mirror"


class Op(StrEnum):
    """What a connector is asked to do with one batch."""

    INSERT = "insert"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"
    MOVE = "move"
    """An update that changes identifiers of records, which are found by the previous ones."""


COMMON_OPS = (Op.INSERT, Op.UPDATE, Op.UPSERT, Op.DELETE)
"""What a destination without ways of its own can be asked for."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of a destination, as the destination states it: its id there, and what people call it."""

    id: str
    label: str
    copies: bool = False
    """A copy of the server (a restored snapshot) states the same id: another address may be another account."""


class Change(StrEnum):
    """What a plan row means: the key is new to the destination, differs from it, or left the model."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Nulls(StrEnum):
    """What a NULL in the model does to the destination's field."""

    CLEAR = "clear"
    SKIP = "skip"
    ERROR = "error"


class RefusalClass(StrEnum):
    """What a refusal is about. A connector says the class, the engine acts on it (docs/refusals.md)."""

    RECORD = "record"
    """This record's value: a dead letter."""
    CONFIGURATION = "configuration"
    """The mapping, the object or the account's settings: concluded only after other records were tried."""
    CAPACITY = "capacity"
    """A quota, the storage or a payment: deferred, and sent by a later run."""
    REFERENCE = "reference_missing"
    """The record refers to one that is not there (yet): tried again after the rest, and by later runs."""
    CONFLICT = "conflict"
    """Another record holds a value that must be unique: tried again after the rest, and by later runs."""
    TRANSIENT = "transient"
    """Not applied now; tried again."""
    CREDENTIAL = "credential"
    """The credential is refused: the run stops. A 403 for a single record is that record's."""
    UNKNOWN = "unknown"
    """A code that the connector does not list."""


class FieldType(StrEnum):
    """The closed set of types a destination field can have; the mapping casts to one of them.

    INTEGER is exact at any size, DECIMAL keeps its digits, DATETIME is an instant (UTC on the wire),
    TIMESTAMP has no zone. PHONE is a number in the form of E.164 (+15005550006), CURRENCY a
    code of ISO 4217 (EUR), COUNTRY one of ISO 3166-1 (DE). ANY takes the model column's own type.
    """

    ANY = "any"
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"
    TIMESTAMP = "timestamp"
    JSON = "json"
    ARRAY = "array"
    PHONE = "phone"
    CURRENCY = "currency"
    COUNTRY = "country"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a destination object, as the destination's own metadata describes it."""

    name: str
    type: FieldType = FieldType.ANY
    writable: bool = True
    required: bool = False
    """A new record needs a value, and NULL is refused."""
    nullable: bool = True
    """False: the destination refuses NULL, although a record may be made without the field."""
    unique: bool = False
    max_length: int | None = None
    """In characters."""
    choices: tuple[str, ...] | None = None
    case_insensitive: bool | None = None
    """Whether the destination compares values of this field without regard to case (HubSpot e-mail); None where it does not
    say."""
    accent_insensitive: bool = False
    """It compares them without regard to accents as well (most collations of MySQL)."""
    compared_length: int | None = None
    """Identifiers of this field are compared by so many of their first characters (a Salesforce id has 15, and 3 that repeat
    their case)."""
    escapes: bool = False
    """Signs of the destination's markup in a text are escaped; a mapping with `markup: true` sends them as they are."""
    trims: bool = False
    """The destination stores a text of this field without blanks around it; an identifier is sent so."""
    native_type: str | None = None
    """The destination's own name of the type, for messages and casts."""
    parent: bool = False
    """It names a record that the destination locks while it writes this one: records of one parent are sent together."""
    skip_null: bool = False
    """Set by the mapping: a NULL leaves the destination's value alone. Wires that cannot leave a field out need it."""


def field_from(item: Mapping[str, Any]) -> Field:
    """The field whose properties these are, as JSON has them."""
    choices = item.get("choices")
    typed = {"type": FieldType(item["type"]), "choices": None if choices is None else tuple(choices)}
    return Field(**{**item, **typed})


@dataclass(frozen=True, slots=True)
class ObjectSchema:
    """The fields of one destination object. An `open` one accepts fields that it does not list."""

    name: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    open: bool = False
    keys: frozenset[frozenset[str]] | None = None
    """The sets of fields that name at most one record; None where the destination does not say."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` requests in any `per` seconds; `name` is the bucket's name in state and messages."""

    name: str
    count: int
    per: float
    endpoint: str = ""
    """Counts the requests to this endpoint alone (`Destination.endpoints`); '': those to the connection."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a destination says is left of one of its quotas; `seconds` is how long that holds."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The largest batch one request may carry; `bytes` counts the encoded records only, and the commas between them."""

    records: int = 1
    bytes: int = 1_000_000
    each: int | None = None
    """Bytes of one record; a larger one is a dead letter, unsent."""
    endpoint: str = ""
    """What holds its requests up, where that is a limit of an endpoint's own: what a plan's estimate goes by."""


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch as a plan knows it before anything is encoded: what a connector goes by to say how many requests it costs."""

    op: Op
    records: int
    total: int
    """Records of the operation in the whole plan: where there are many, they may go another way."""
    without_id: int = 0
    """Records of which no earlier answer gave the destination's own id."""
    updates: int = 0
    """Records that the destination has acknowledged before, with other values."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How a record of the JSON wire is written where it is more than its fields. Paths nest by dots."""

    into: str = ""
    """The member that holds the fields."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """What every record has besides, by path; JSON values."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Fields that stand elsewhere, and their paths."""

    def place(self, name: str) -> str:
        """The path of a field."""
        return self.beside.get(name) or (f"{self.into}.{name}" if self.into else name)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination answered that it holds this record's value."""

    key: str
    remote_id: str | None = None
    created: bool = False
    """The answer says that the record was not there before."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The destination refused this record, and said why. `kind` is the class of the refusal where the connector's table of codes
    (`Spec.refusals`) does not say it."""

    key: str
    code: str
    message: str
    kind: RefusalClass | None = None


@dataclass(frozen=True, slots=True)
class Gone(Rejected):
    """The destination holds no such record. A delete of it is done; what it had acknowledged before may be made again,
    as the sync's `gone` says; anything else is refused."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The destination did not apply this record and may take it later; `after` is in seconds."""

    key: str
    reason: str
    after: float | None = None


Outcome = Delivered | Rejected | Retry


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What an answer said, record by record. A key it does not name is unknown, never delivered.

    `everything` is for an API that answers for the batch as a whole: a success is every record's success.
    """

    items: tuple[Outcome, ...] = ()
    everything: bool = False

    def of(self, keys: Iterable[str]) -> tuple[Outcome, ...]:
        """The outcomes of records with these keys, which the request held."""
        return tuple(map(Delivered, keys)) if self.everything else self.items
