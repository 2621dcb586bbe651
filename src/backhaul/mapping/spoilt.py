"""Values of the model that do not fit the type of their column (a numeric NaN): the relation has NULL for them, and their
text in a column beside it. Such a value rejects its record, in the name of the field whose expression reads the column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from backhaul.engine_errors import OURS
from backhaul.sql import ident, literal


class ColumnLike(Protocol):
    """A column of the model, as warehouses.protocol.Column."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def spoilt(self) -> str | None: ...


def told(columns: Sequence[ColumnLike]) -> str:
    """SQL of what is said of the first of these columns whose value does not fit; NULL where all do."""
    return f"coalesce({', '.join(map(_said, columns))})"


def or_error(column: ColumnLike) -> str:
    """SQL of a column under its own name, in which a value that does not fit ends the read."""
    name = ident(column.name)
    if column.spoilt is None:
        return name
    raised = literal(f"{OURS}a value in column {column.name} does not fit {column.type}")
    return f"CASE WHEN {ident(column.spoilt)} IS NULL THEN {name} ELSE error({raised}) END AS {name}"


def _said(column: ColumnLike) -> str:
    about = literal(f" in column {column.name} does not fit {column.type}")
    return f"(left({ident(column.spoilt or '')}, 60) || {about})"


def quoted(value: str) -> str:
    """SQL of the beginning of a value, as text. The quotation marks tell a summary what to leave out (advice.shape)."""
    return f"""concat('"', replace(left(CAST({value} AS VARCHAR), 60), '"', ''), '"')"""
