"""What a warehouse offers: a model's rows inside the engine, in one consistent read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from backhaul.errors import SourceError
from backhaul.sql import ident, literal

if TYPE_CHECKING:
    import duckdb


SPOILT = "\x1f"
"""The end of the name of a column that says which values of another one do not fit; no column of a model ends so."""


class WarehouseConfig(BaseModel):
    """Keys that every warehouse takes in backhaul.yml: none but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a model, with its type in the engine (DuckDB's name of it)."""

    name: str
    type: str
    spoilt: str | None = None
    """The name of one more column of the relation: the text of a value that does not fit `type`, which stands as NULL. None:
    every value fits."""


class Relation(Protocol):
    """A model's rows. `sql` stands in FROM; it may be scanned twice only where `repeatable`."""

    @property
    def sql(self) -> str: ...
    @property
    def repeatable(self) -> bool: ...
    @property
    def rows(self) -> int | None:
        """Of a stream: the rows that went through so far; None where repeatable."""

    @property
    def failure(self) -> str | None:
        """Of a stream that broke: why, in words."""

    def again(self) -> Relation:
        """A new read of the same model, to name samples in an error message."""

    def close(self) -> None:
        """Lets go of the source, so that others may write to it."""


class Warehouse(ABC):
    """One connection to one warehouse."""

    config: ClassVar[type[WarehouseConfig]]
    dialect: ClassVar[str]
    """sqlglot's name of its SQL."""

    def __init__(self, config: Any, root: Path) -> None:
        self.settings = config
        self.root = root

    @abstractmethod
    def columns(self, engine: duckdb.DuckDBPyConnection, select: str) -> tuple[Column, ...]:
        """The columns of a SELECT; reads no row.

        Raises:
            SourceError: the warehouse is not reachable, or the SELECT is wrong.
        """

    @abstractmethod
    def relation(
        self, engine: duckdb.DuckDBPyConnection, select: str, *, columns: Sequence[str] | None = None,
        cursor: tuple[str, Any] | None = None,
    ) -> Relation:  # fmt: skip
        """The rows of a SELECT of the warehouse's own dialect. `columns`: only these are read. `cursor`: (column, value),
        only rows at or after the value.

        Raises:
            SourceError: as `columns`.
        """

    def table_select(self, table: str) -> str:
        """The SELECT of all columns of a table named as `schema.table`; names may be quoted."""
        from sqlglot import exp, parse_one
        from sqlglot.errors import SqlglotError

        try:
            named = parse_one(f"SELECT * FROM {table}", read=self.dialect).find(exp.Table)
        except SqlglotError:
            raise SourceError(
                f"{table!r} is not the name of a table", hint="schema.table; names may be quoted"
            ) from None
        parts = [part.name for part in named.parts] if named is not None else [table]
        return f"SELECT * FROM {'.'.join(ident(part) for part in parts)}"

    def close(self) -> None:  # noqa: B027 - optional
        """Lets go of connections."""


def narrowed(select: str, columns: Sequence[str] | None, cursor: tuple[str, Any] | None) -> str:
    """A SELECT with its columns and rows narrowed down, for the warehouse to do."""
    names = ", ".join(ident(name) for name in columns) if columns else "*"
    # a row without a cursor is read each time: nothing tells whether it is new
    where = (
        f" WHERE ({ident(cursor[0])} >= {literal(str(cursor[1]))} OR {ident(cursor[0])} IS NULL)"
        if cursor
        else ""
    )
    return f"SELECT {names} FROM ({select}\n) AS model{where}"
