"""Declared types of columns that arrive as text: the model's SELECT with these columns in their types. A value that does not fit
is NULL, and a second column says so, as warehouses.protocol.Column has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backhaul.errors import UsageError
from backhaul.sql import ident, literal
from backhaul.text_values import declared
from backhaul.warehouses.protocol import SPOILT, Column


def typed_select(select: str, types: Mapping[str, str]) -> str:
    """The SELECT with the columns of `types` (name -> declared type) in these types."""
    typed = {name: declared(kind)[1](f"model.{ident(name)}") for name, kind in types.items()}
    replaced = ", ".join(f"{value} AS {ident(name)}" for name, value in typed.items())
    unfit = "".join(
        f", CASE WHEN model.{ident(name)} IS NOT NULL AND {value} IS NULL THEN {literal('a value')} END AS {ident(name + SPOILT)}"
        for name, value in typed.items()
    )
    return f"SELECT model.* REPLACE ({replaced}){unfit} FROM ({select}\n) AS model"


def typed_columns(columns: Sequence[Column], types: Mapping[str, str]) -> tuple[Column, ...]:
    """The columns of `typed_select`, from those of the SELECT.

    Raises:
        UsageError: a declared column does not exist, or is not text.
    """
    known = {column.name: column for column in columns}
    for name in types:
        if name not in known:
            raise UsageError(f"`model.columns` declares {name}, which the model does not have",
                             hint=f"its columns are {', '.join(list(known)[:20])}")  # fmt: skip
        if known[name].type != "VARCHAR":
            raise UsageError(f"`model.columns` declares {name}, which has a type already: {known[name].type}",
                             hint="it is for the columns of CSV files; cast this one in the model")  # fmt: skip
    return tuple(
        Column(column.name, declared(types[column.name])[0], column.name + SPOILT)
        if column.name in types
        else column
        for column in columns
    )


def with_unfit(names: Iterable[str], types: Mapping[str, str]) -> list[str]:
    """Names of columns, and of the columns beside them that say what does not fit."""
    return [part for name in names for part in ((name, name + SPOILT) if name in types else (name,))]
