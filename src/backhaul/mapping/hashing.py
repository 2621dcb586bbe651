"""The 64-bit hash by which records are compared: over names and values, in the order of the names."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
import orjson

from backhaul.sql import ident, literal


def record_hash(names: Iterable[str], error: str = "NULL::VARCHAR") -> str:
    """SQL of the hash of a record that has these fields (columns `f.NAME`) and this error."""
    ordered = sorted(names)
    columns = ", ".join(ident(f"f.{name}") for name in ordered)
    # the names are hashed with the values: a value that moves to another field is another record
    return f"hash({literal(orjson.dumps(ordered).decode())}, {columns}, {error})"


def hash_function() -> str:
    """Name the function that makes the hashes. Hashes made by another one are not compared with its own."""
    return f"duckdb {duckdb.__version__} hash by name"
