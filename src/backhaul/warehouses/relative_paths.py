"""Paths of files in a model's SQL are relative to the project, whatever the current folder is. The engine's own setting
`file_search_path` does not hold that: it takes a file of the current folder first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul.warehouses.csv_files import exactly
from backhaul.warehouses.repeatable import nodes_of, parsed

if TYPE_CHECKING:
    import duckdb

_READERS = ("read_", "parquet_", "glob", "sniff_csv")
"""What the names of the table functions begin with whose first argument is a path, or a list of them."""
_ENDINGS = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".ndjson")
_PACKED = (".gz", ".zst")


def from_project(engine: duckdb.DuckDBPyConnection, select: str, root: Path) -> str:
    """The SELECT with every relative path written in it made absolute. Call it when the model's tables are known to the
    engine: a table may have the name of a file."""
    tree = parsed(engine, select)
    places = sorted({*_arguments(tree), *_tables(engine, tree)})
    text, folder = select.encode(), exactly(root.absolute())
    for place in reversed(places):
        quote = text[place : place + 1]
        if quote in (b"'", b'"'):
            written = folder.replace(quote.decode(), quote.decode() * 2)
            text = text[: place + 1] + f"{written}/".encode() + text[place + 1 :]
    return text.decode()


def reads_files(engine: duckdb.DuckDBPyConnection, tree: Any) -> bool:
    """Whether a SELECT names files itself, relative or not."""
    nodes = list(nodes_of(tree))
    return any(
        node["function"]["function_name"].lower().startswith(_READERS)
        for node in nodes
        if node.get("type") == "TABLE_FUNCTION"
    ) or any(
        _is_file(node["table_name"]) and not _is_table(engine, node["table_name"])
        for node in nodes
        if node.get("type") == "BASE_TABLE"
    )


def _arguments(tree: Any) -> Iterator[int]:
    """Where relative paths begin that are given to table functions, in bytes."""
    for node in nodes_of(tree):
        if node.get("type") != "TABLE_FUNCTION":
            continue
        function = node["function"]
        given = function.get("arguments") or function.get("children") or []
        if not function["function_name"].lower().startswith(_READERS):
            continue
        for below in nodes_of(given[:1]):
            if below.get("class") == "CONSTANT" and _is_relative(_text(below)):
                yield below["query_location"]


def _text(constant: dict[str, Any]) -> Any:
    """The value of a constant as DuckDB 2 writes it, and as DuckDB 1 does."""
    literal, value = constant.get("literal"), constant.get("value")
    return literal.get("text") if literal else value.get("value") if value else None


def _tables(engine: duckdb.DuckDBPyConnection, tree: Any) -> Iterator[int]:
    """Where relative paths begin that stand for tables, in bytes."""
    for node in nodes_of(tree):
        if node.get("type") != "BASE_TABLE" or node.get("schema_name"):
            continue
        name = node["table_name"]
        if _is_file(name) and _is_relative(name) and not _is_table(engine, name):
            yield node["query_location"]


def _is_file(name: str) -> bool:
    bare = name.lower()
    for ending in _PACKED:
        bare = bare.removesuffix(ending)
    return bare.endswith(_ENDINGS)


def _is_relative(path: Any) -> bool:
    return isinstance(path, str) and bool(path) and not path.startswith(("/", "~")) and ":/" not in path


def _is_table(engine: duckdb.DuckDBPyConnection, name: str) -> bool:
    query = (
        "SELECT 1 FROM (SELECT table_name AS name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views()) "
        "WHERE lower(name) = lower(?) LIMIT 1"
    )
    return bool(engine.execute(query, [name]).fetchall())
