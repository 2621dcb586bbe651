"""Quoting for SQL text that is composed: the only two ways a name or a value gets into a statement."""

from __future__ import annotations


def ident(name: str) -> str:
    """A quoted identifier (standard SQL; also DuckDB, PostgreSQL, SQLite)."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted string literal (standard SQL; also DuckDB, PostgreSQL, SQLite)."""
    return "'" + text.replace("'", "''") + "'"
