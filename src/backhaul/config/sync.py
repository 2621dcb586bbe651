"""What one file under syncs/ says, frozen."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from backhaul.errors import Problem
from backhaul.types import FieldType, Mode, Nulls
from backhaul.values import Duration, Share

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class Section(BaseModel):
    """A mapping in a file: frozen, its keys are closed, and its values never show in an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        hide_input_in_errors=True,
    )


def _name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        shown = repr(value) if len(value) <= 64 else f"{value[:20]!r}… ({len(value)} characters)"
        raise ValueError(
            f"{shown} is not a name: 1 to 64 letters, digits, `_`, `.` or `-`, the first a letter or digit"
        )
    return value


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"})]
Line = Annotated[str, Field(min_length=1, max_length=1000)]
"""A short text that says something."""


def _text(value: Any) -> Any:
    """A number or a boolean is an expression as well; YAML has read it before us."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        raise ValueError('there is no expression here; to send NULL always, write "NULL" in quotes')
    if isinstance(value, str) and not value.strip():
        raise ValueError("there is no expression here; an empty text is written as \"''\"")
    return value


Expression = Annotated[
    str,
    BeforeValidator(_text),
    Field(max_length=20_000),
    WithJsonSchema({"type": ["string", "number", "boolean"], "description": "A SQL expression (DuckDB)."}),
]


def _share(value: Any) -> Share | Literal[False] | None:
    if value is None or _off(value):
        return None if value is None else False
    share: Share = Share.parse(value)
    if share.number > 1e15:
        raise ValueError(f"{value!r} is too large")
    return share


def _off(value: Any) -> bool:
    return value is False or (isinstance(value, str) and value.strip().lower() == "off")


def _rows(value: Any) -> int | Literal[False] | None:
    if value is None or _off(value):
        return None if value is None else False
    if isinstance(value, str) and re.fullmatch(r"\d{1,15}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**15:
        raise ValueError("expected a number of rows, or off")
    return value


def _shown(value: Any) -> Any:
    return str(value) if isinstance(value, Share) else value


_OFF = {"type": ["string", "number", "boolean", "null"], "description": "Records, a share (5%), or off."}
ShareGuard = Annotated[
    Share | Literal[False] | None, PlainValidator(_share), PlainSerializer(_shown), WithJsonSchema(_OFF)
]
RowGuard = Annotated[
    int | Literal[False] | None,
    PlainValidator(_rows),
    WithJsonSchema(
        {"type": ["integer", "string", "boolean", "null"], "description": "A number of rows, or off."}
    ),
]


class Guards(Section):
    """What stops a run before anything is sent: a number of records, a share of them, or `off`.

    None is what nobody set, where the rule of the engine applies; False is `off`.
    """

    max_deletes: ShareGuard = None
    """Deletes at most, of the records the destination holds. Unset: the larger of 10 records and 10%."""
    max_changes: ShareGuard = None
    """Creates, updates and deletes at most, together. Unset: no limit."""
    max_updates: ShareGuard = None
    """Updates at most. Unset: no limit."""
    max_creates: ShareGuard = None
    """Creates at most. Unset: no limit."""
    min_rows: RowGuard = None
    """Rows the model must have. Unset: at least one, once the destination holds records."""
    max_drop: ShareGuard = None
    """How much smaller than at the last run the model may be. Unset: 50%."""


class Freshness(Section):
    """How old the destination may be, and how much is read back to prove it."""

    sla: Duration | None = None
    """The age at which the sync counts as late."""
    sample: int = Field(default=10, ge=0, le=100_000)
    """Records read back and compared after each run; 0 reads none."""


class LedgerOptions(Section):
    """What the ledger keeps of each acknowledged record."""

    values: bool = True
    """Keep the acknowledged values; false keeps hashes alone, without old values in plans."""


class FieldMapping(Section):
    """One destination field: a SQL expression, or a mapping such as `{value: plan, null: skip}`."""

    value: Expression
    """A SQL expression (DuckDB) over the model's columns."""
    null: Nulls | None = None
    """What a NULL does to this field; unset: the sync's `nulls`."""
    default: str | int | float | bool | None = None
    """Sent in place of a NULL."""
    type: FieldType | None = None
    """The type to cast to; unset: what the destination's own metadata says."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return data if isinstance(data, dict | FieldMapping) else {"value": data}


class ModelConfig(Section):
    """Where the rows of a sync come from: exactly one of sql, table, file, dbt and audience."""

    warehouse: Name | None = None
    """The connection to read from; unset: the project's only warehouse."""
    sql: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = None
    """One SELECT."""
    table: Line | None = None
    """A table or view, such as `marts.customers`."""
    file: Line | None = None
    """A file with one SELECT, relative to the project."""
    dbt: Line | None = None
    """A dbt model. This release does not read it yet."""
    audience: Name | None = None
    """An audience of audiences/. This release does not read it yet."""
    primary_key: Annotated[tuple[Line, ...], Field(min_length=1, max_length=32)]
    """The column, or the list of columns, that names a record: unique and never NULL."""
    cursor: Line | None = None
    """A column that grows with each change, for incremental reads."""

    @field_validator("primary_key", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("primary_key")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({column.casefold() for column in value}) < len(value):
            raise ValueError("a column is named twice")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            has = f"has {' and '.join(given)}" if given else "has none of them"
            raise ValueError(f"takes exactly one of {', '.join(SOURCES)}; this one {has}")
        if self.table and re.search(r"[;\n\x00]|--|/\*", self.table):
            raise ValueError("`table` is the name of one table or view; write a query under `sql`")
        return self


SOURCES = ("sql", "table", "file", "dbt", "audience")
_EVERY = re.compile(r"every\s+(?:(\d{1,6})\s+)?(minute|hour|day)s?", re.IGNORECASE)
_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}


class SyncDefaults(Section):
    """What every sync of the project takes unless its own file says otherwise."""

    nulls: Nulls = Nulls.CLEAR
    """What a NULL in the model does to the destination's field: clear it, skip it, or reject the record."""
    schedule: str | None = None
    """`every 15 minutes`, `every 2 hours`, `every day`."""
    cron: str | None = None
    """Five cron fields, in place of `schedule`."""
    after: Literal["dbt"] | None = None
    """Runs after each successful dbt build, in place of `schedule`."""
    timezone: str | None = None
    """The IANA time zone of `cron`; unset: UTC."""
    guards: Guards = Guards()
    """What stops a run before anything is sent."""
    freshness: Freshness = Freshness()
    """How old the destination may be, and how much is read back."""
    on_schema_change: Literal["fail", "apply", "ignore"] = "fail"
    """What happens when the model's columns change."""
    approve: Literal["first", "always", "never"] = "never"
    """Which runs wait for `backhaul run --plan`: the first and those after a mapping change, all, or none."""
    ledger: LedgerOptions = LedgerOptions()
    """What the ledger keeps of each acknowledged record."""

    @field_validator("schedule")
    @classmethod
    def _every(cls, value: str | None) -> str | None:
        found = _EVERY.fullmatch(value.strip()) if value is not None else None
        if value is not None and not found:
            raise ValueError("expected `every 15 minutes`, `every day`; cron goes under `cron`")
        if found and not 60 <= int(found[1] or 1) * _SECONDS[found[2].lower()] <= 366 * 86400:
            raise ValueError("expected something between every minute and every 366 days")
        return value

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            check_cron(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str | None) -> str | None:
        from zoneinfo import ZoneInfo

        try:
            return value if value is None else ZoneInfo(value).key
        except (OSError, ValueError, KeyError):
            raise ValueError(f"{value!r} is not a time zone, such as Europe/Berlin") from None

    @model_validator(mode="after")
    def _one_trigger(self) -> Self:
        given = [name for name in TRIGGERS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"takes one of {', '.join(TRIGGERS)}; this one has {' and '.join(given)}")
        return self


TRIGGERS = ("schedule", "cron", "after")


def check_cron(value: str) -> None:
    """Raises ValueError unless the five fields name a time that comes."""
    from cronsim import CronSim, CronSimError

    if len(value.split()) != 5:
        raise ValueError(f"{value!r} is not a cron expression: it takes five fields, such as */15 * * * *")
    try:
        next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"{value!r} is not a cron expression: {str(error).lower()}") from None
    except StopIteration:
        raise ValueError(f"{value!r} names a day that never comes") from None


class SyncFile(SyncDefaults):
    """The keys of a file under syncs/."""

    name: Name
    """The name of the sync, which commands take and the state is filed under."""
    model: ModelConfig
    """Where the rows come from."""
    destination: Name
    """A connection of backhaul.yml."""
    object: Line
    """What the destination calls the thing: contacts, Account, a table."""
    mode: Mode = Mode.UPSERT
    """insert, update, upsert, or mirror (upsert, and delete what left the model)."""
    identify: dict[Line, Expression] = Field(min_length=1, max_length=32)
    """Destination identifier <- SQL expression."""
    fields: dict[Line, FieldMapping] = Field(default={}, max_length=2000)
    """Destination field <- SQL expression; a dot in a field's name nests."""

    @model_validator(mode="after")
    def _identifiers_once(self) -> Self:
        for name in self.fields.keys() & self.identify.keys():
            if self.fields[name] != FieldMapping(value=self.identify[name]):
                raise ValueError(f"`{name}` is under identify and, with another value, under fields")
        return self


class SyncConfig(SyncFile):
    """One sync, as its file and the project's defaults describe it. `model.warehouse` is filled in."""

    file: str = Field(exclude=True)
    """The file it was read from, relative to the project."""
    lines: dict[str, tuple[int, int]] = Field(default={}, repr=False, exclude=True)
    """Line and column, from 1, of each key by its dotted path (`fields.tier.value`)."""

    def problem(self, path: str, message: str, hint: str | None = None) -> Problem:
        """A problem at the place of a dotted path, or at the nearest parent that stands in the file."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        line, column = self.lines.get(path, (1, 1))
        return Problem(message, self.file, line, column, hint)
