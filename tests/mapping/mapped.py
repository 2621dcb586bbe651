"""Values through a compiled mapping: a plan-like table on a real engine, and each wire's bytes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from backhaul.config.sync import SyncConfig
from backhaul.engine import open_engine
from backhaul.mapping.mapping import SEPARATOR, compile_mapping
from backhaul.mapping.mapping import Mapping as Compiled
from backhaul.mapping.wire import key_text, record_text
from backhaul.sql import ident
from backhaul.types import Field, FieldType, ObjectSchema
from backhaul.warehouses.protocol import Column


def sync(**keys: Any) -> SyncConfig:
    """A sync as its file would say it, whose fields stand on lines 10 and on."""
    told: dict[str, Any] = {
        "name": "s", "model": {"warehouse": "main", "table": "t", "primary_key": "id"}, "destination": "d", "object": "o",
        "identify": {"id": "id"}, "file": "syncs/s.yml",
    } | keys  # fmt: skip
    told["fields"] = {
        name: value if isinstance(value, Mapping) else {"value": value}
        for name, value in told.get("fields", {}).items()
    }
    lines = {f"fields.{name}": (10 + number, 3) for number, name in enumerate(told["fields"])}
    return SyncConfig.model_validate(told | {"lines": {"identify": (5, 1)} | lines})


def schema(**fields: Field) -> ObjectSchema:
    return ObjectSchema("o", fields, open=True)


@contextmanager
def engine(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    made = open_engine(1 << 30, folder / "spill")
    try:
        yield made
    finally:
        made.close()


def table(
    connection: duckdb.DuckDBPyConnection, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]
) -> None:
    """The model's table: an `id` and the given columns; values are texts that the engine casts."""
    typed = ", ".join(f"{ident(name)} {kind}" for name, kind in columns.items())
    connection.execute(f"CREATE OR REPLACE TABLE t (id BIGINT, {typed})")
    casts = ", ".join(f"CAST(? AS {kind})" for kind in columns.values())
    for number, row in enumerate(rows):
        connection.execute(f"INSERT INTO t VALUES ({number}, {casts})", list(row))


def columns_of(connection: duckdb.DuckDBPyConnection) -> list[Column]:
    return [Column(row[0], row[1]) for row in connection.execute("DESCRIBE t").fetchall()]


def compiled(
    connection: duckdb.DuckDBPyConnection,
    fields: Mapping[str, Any],
    types: Mapping[str, Field] | None = None,
    **keys: Any,
) -> Compiled:
    """The mapping over table t, its desired rows in table d."""
    mapping = compile_mapping(
        sync(fields=fields, **keys),
        columns_of(connection),
        ObjectSchema("o", types or {}, open=True),
        connection,
    )
    connection.execute(f"CREATE OR REPLACE TABLE d AS {mapping.desired('t')}")
    return mapping


def errors(connection: duckdb.DuckDBPyConnection) -> dict[int, tuple[str, str, str]]:
    """`_error` of each row: (field, code, message)."""
    rows = connection.execute("SELECT k0, _error FROM d WHERE _error IS NOT NULL").fetchall()
    return {key: tuple(error.split(SEPARATOR, 2)) for key, error in rows}


def written(
    connection: duckdb.DuckDBPyConnection, mapping: Compiled, wire: str, null: str = ""
) -> dict[int, str]:
    """The wire's text of each row that the mapping does not refuse."""
    rows = connection.execute(
        f"SELECT k0, {record_text(wire, mapping.fields, null=null)} FROM d WHERE _error IS NULL ORDER BY k0"
    ).fetchall()
    return dict(rows)


def keys(connection: duckdb.DuckDBPyConnection, mapping: Compiled) -> list[str]:
    rows = connection.execute(f"SELECT {key_text(mapping.identifiers)} FROM d ORDER BY k0").fetchall()
    return [key for (key,) in rows]


def field(name: str, kind: FieldType, **rest: Any) -> dict[str, Field]:
    return {name: Field(name, kind, **rest)}
