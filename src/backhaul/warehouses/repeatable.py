"""Whether a query that the engine runs gives the same rows when it is run again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_PLAIN = frozenset(
    [
        "SEQ_SCAN",
        "TABLE_SCAN",
        "PROJECTION",
        "FILTER",
        "READ_PARQUET",
        "EMPTY_RESULT",
        "COLUMN_DATA_SCAN",
        "DUMMY_SCAN",
    ]
)
_VALUES = frozenset((
    "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "current_user", "session_user",
    "user", "current_catalog", "current_schema", "current_database", "current_role",
))  # fmt: skip
"""SQL's functions without parentheses."""
_OURS = ("candidates", "model_rows")
"""What the names begin with that the engine resolves to our own temporary tables once they are there."""
_BUILT_IN = ("duckdb_", "sqlite_", "pragma_", "pg_")
"""What the names of the engine's own views begin with: around a plain scan they hide a table of the same name."""


def is_plain_scan(
    engine: duckdb.DuckDBPyConnection, select: str, files: frozenset[str] = frozenset()
) -> bool:
    """Whether a query only scans, filters and projects tables, with functions that give the same again, all of them the
    engine's own: names resolve in `system.main` first.

    `files`: the table functions whose files do not change unnoticed.
    """
    import duckdb

    try:
        rows = engine.execute(f"EXPLAIN (FORMAT json) {select}").fetchall()
    except duckdb.BinderException:
        return False  # it may need the source's own function of a built-in name
    return _only_scans(json.loads(rows[0][1])) and _is_stable(engine, select, files, set())


def _only_scans(nodes: list[dict[str, Any]]) -> bool:
    return all(node["name"].strip() in _PLAIN and _only_scans(node["children"]) for node in nodes)


def _is_stable(engine: duckdb.DuckDBPyConnection, select: str, files: frozenset[str], seen: set[str]) -> bool:
    """Of a query and the views in it, as written: a plan does not show what became a column or a constant."""
    tree = parsed(engine, select)
    if tree is None:
        return False
    functions: set[str] = set()
    for node in nodes_of(tree):
        if node.get("sample") or node.get("class") == "WINDOW":
            return False
        if node.get("class") == "COLUMN_REF" and node["column_names"][0].lower() in _VALUES:
            return False
        if node.get("class") == "FUNCTION" and not node.get("is_operator"):
            functions.add(node["function_name"].lower())
        if node.get("type") == "TABLE_FUNCTION" and node["function"].get("function_name") not in files:
            return False
    named = tables_of(tree)
    if any(name.startswith((*_OURS, *_BUILT_IN)) for name in named):
        return False
    if _may_change(engine, functions - files):
        return False
    views = _views(engine, named - seen)
    seen |= named
    return all(body is not None and _is_stable(engine, body, files, seen) for body in views)


def _may_change(engine: duckdb.DuckDBPyConnection, functions: set[str]) -> bool:
    """Also true of a macro of the warehouse's own. Listing the engine's functions costs 30 ms."""
    if not functions:
        return False
    query = (
        "SELECT 1 FROM duckdb_functions() WHERE list_contains($names, lower(function_name)) "
        "AND (stability <> 'CONSISTENT' OR (NOT internal AND function_type ILIKE '%macro%')) LIMIT 1"
    )
    return bool(engine.execute(query, {"names": sorted(functions)}).fetchall())


def _views(engine: duckdb.DuckDBPyConnection, names: set[str]) -> list[str | None]:
    """The SELECTs of all views of these names; None for one whose SELECT is not found."""
    if not names:
        return []
    query = "SELECT sql FROM duckdb_views() WHERE NOT internal AND list_contains($names, lower(view_name))"
    rows = engine.execute(query, {"names": sorted(names)}).fetchall()
    return [_body(engine, text.strip().rstrip(";")) for (text,) in rows]


def _body(engine: duckdb.DuckDBPyConnection, text: str) -> str | None:
    """What follows the AS of a CREATE VIEW; a quoted name may hold an AS too."""
    parts = text.split(" AS ")
    bodies = (" AS ".join(parts[at:]) for at in range(1, len(parts)))
    return next((body for body in bodies if parsed(engine, body) is not None), None)


def parsed(engine: duckdb.DuckDBPyConnection, select: str) -> Any:
    """The engine's own syntax tree of one SELECT; None where it has none."""
    tree = json.loads(engine.execute("SELECT json_serialize_sql(?::VARCHAR)", [select]).fetchall()[0][0])
    return None if tree.get("error") or len(tree["statements"]) != 1 else tree["statements"]


def tables_of(tree: Any) -> set[str]:
    """The bare names, in lower case, of all tables, views and common table expressions that a query reads."""
    return {node["table_name"].lower() for node in nodes_of(tree) if node.get("type") == "BASE_TABLE"}


def nodes_of(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for below in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes_of(below)
