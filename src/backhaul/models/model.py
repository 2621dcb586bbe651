"""A model's SELECT, its columns, and its rows as a relation in the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backhaul.errors import SourceError
from backhaul.models.columns import typed_columns, typed_select, with_unfit
from backhaul.sql import ident, literal
from backhaul.warehouses.protocol import Column, Relation, Warehouse

if TYPE_CHECKING:
    import duckdb

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class ModelLike(Protocol):
    """What is needed of a sync's `model`."""

    @property
    def sql(self) -> str | None: ...
    @property
    def table(self) -> str | None: ...
    @property
    def file(self) -> str | None: ...
    @property
    def columns(self) -> Mapping[str, str]: ...
    @property
    def primary_key(self) -> Sequence[str]: ...


def model_select(model: ModelLike, warehouse: Warehouse, root: Path) -> str:
    """The model as one SELECT that can stand in parentheses, its declared columns in their types. Raises as `_written`."""
    select = _written(model, warehouse, root)
    return typed_select(select, model.columns) if model.columns else select


def _written(model: ModelLike, warehouse: Warehouse, root: Path) -> str:
    """The model's SELECT as written, without what may follow it.

    Raises:
        SourceError: its file is gone, or it is of a kind that this release does not read.
    """
    if model.sql:
        return _bare(model.sql, warehouse.dialect)
    if model.table:
        return warehouse.table_select(model.table)
    if model.file:
        try:
            return _bare((root / model.file).read_text(encoding="utf-8-sig"), warehouse.dialect)
        except OSError as error:
            raise SourceError(
                f"the model file {model.file} cannot be read: {error.strerror}", hint="see `file` of the sync"
            ) from None
        except UnicodeDecodeError:
            raise SourceError(
                f"the model file {model.file} is not UTF-8 text", hint="save it as UTF-8"
            ) from None
    raise SourceError("this release reads models by sql, table or file")


def _bare(text: str, dialect: str) -> str:
    """Without semicolons and comments at the end. What cannot be read as SQL is left to the warehouse to refuse."""
    from sqlglot import tokenize
    from sqlglot.errors import TokenError

    try:
        tokens = list(tokenize(text, read=dialect))
    except TokenError:
        return text
    while tokens and tokens[-1].token_type.name == "SEMICOLON":
        tokens.pop()
    return text[: tokens[-1].end + 1] if tokens else text


def model_columns(
    model: ModelLike, warehouse: Warehouse, engine: duckdb.DuckDBPyConnection, root: Path
) -> tuple[Column, ...]:
    """The model's columns; plans no read.

    Raises:
        SourceError: the model does not run, has no columns, or has two of one name.
        UsageError: `columns` declares one that the model does not have, or that is not text.
    """
    columns = warehouse.columns(engine, _written(model, warehouse, root))
    if not columns:
        raise SourceError("the model has no columns", hint="name them after SELECT")
    seen: set[str] = set()
    for column in columns:
        if not column.name.strip():
            raise SourceError("the model has a column without a name", hint="give it one with AS")
        if column.name.casefold() in seen:
            raise SourceError(
                f"the model has two columns named {column.name}", hint="rename one of them with AS"
            )
        seen.add(column.name.casefold())
    return typed_columns(columns, model.columns) if model.columns else columns


def open_model(
    model: ModelLike, warehouse: Warehouse, engine: duckdb.DuckDBPyConnection, root: Path, *,
    columns: Sequence[str] | None = None, cursor: tuple[str, Any] | None = None, only: str = "",
) -> Relation:  # fmt: skip
    """The model's rows; `columns` and `cursor` as in Warehouse.relation; `only`: what follows in its SELECT, a WHERE or a
    LIMIT."""
    if columns is not None:
        columns = with_unfit(columns, model.columns)
    select = model_select(model, warehouse, root)
    if only:
        select = f"SELECT * FROM ({select}\n) AS model {only}"
    relation = warehouse.relation(engine, select, columns=columns, cursor=cursor)
    try:
        _require_keys(model, relation, engine)
    except SourceError:
        relation.close()
        raise
    return relation


def _require_keys(model: ModelLike, relation: Relation, engine: duckdb.DuckDBPyConnection) -> None:
    """Raises SourceError where a key does not fit its declared type: its record could not even be named."""
    for name in model.primary_key if model.columns else ():
        if name not in model.columns:
            continue
        (unfit,) = with_unfit([name], model.columns)[1:]
        query = f"SELECT count({ident(unfit)}), min({ident(unfit)}) FROM {relation.sql}"
        count, first = engine.execute(query).fetchall()[0]
        if count:
            raise SourceError(
                f"{count:,} value{'s' if count > 1 else ''} of the key {name} do not fit {model.columns[name]}: {first}",
                hint=f"correct the file, or leave {name} out of `columns`: then it is text",
            )


def only_keys(dialect: str, keys: Sequence[Sequence[tuple[str, str, str | None]]]) -> str:
    """A WHERE, for the warehouse to do, that leaves rows of these keys and perhaps some more: each key has for each column
    its name, its storage type, and its value as text. '' where the warehouse could not say it exactly."""
    rules = [[_is(dialect, *part) for part in key] for key in keys]
    if not rules or not all(all(parts) for parts in rules):
        return ""
    return f"WHERE {' OR '.join('(' + ' AND '.join(parts) + ')' for parts in rules)}"


def _is(dialect: str, name: str, storage: str, text: str | None) -> str:
    column = ident(name)
    if text is None:
        return f"{column} IS NULL"
    if dialect == "duckdb":
        return f"CAST({column} AS {storage}) = TRY_CAST({literal(text)} AS {storage})"
    if dialect != "postgres":
        return ""
    if storage == "VARCHAR":
        return f"{column}::text = {literal(text)}"
    if storage == "BIGINT" or storage.startswith("DECIMAL"):
        return f"{column} = {text}" if _NUMBER.fullmatch(text) else "false"
    return ""
