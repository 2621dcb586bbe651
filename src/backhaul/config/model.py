"""Where the rows of a sync come from, as its file says."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from backhaul.config.parts import Line, Name, Section
from backhaul.text_values import declared

SOURCES = ("sql", "table", "file", "dbt", "audience")
_KEY = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}


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
    primary_key: Annotated[tuple[Line, ...], Field(min_length=1, max_length=32), WithJsonSchema(_KEY)]
    """The column, or the list of columns, that names a record: unique and never NULL."""
    case_sensitive: bool = False
    """Keys that differ in case only, such as Salesforce ids of 15 characters, are different records. Not needed where the key
    identifies the record and the destination says that its field is case-sensitive, as SQL destinations do."""
    cursor: Line | None = None
    """A column that grows with each change, for incremental reads."""

    columns: dict[Line, str] = Field(default={}, max_length=2000)
    """The types of columns of CSV files, which are text otherwise: `mrr: decimal(12,2)`. A value that does not fit rejects its
    record."""

    @field_validator("columns")
    @classmethod
    def _types(cls, value: dict[str, str]) -> dict[str, str]:
        for type_ in value.values():
            declared(type_)
        return value

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
