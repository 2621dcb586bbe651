"""What a mapping is known by: one short text a field, equal as long as the field's expression and form are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as Dict
from functools import lru_cache

import orjson
import sqlglot
from sqlglot.errors import SqlglotError

from backhaul.mapping.mapping import MappedField, Mapping

_LENGTH = 16


def fingerprints(mapping: Mapping) -> dict[str, str]:
    """Field -> fingerprint of a compiled mapping. Of hashes, since an expression may hold a secret of the environment."""
    return {field.name: _fingerprint(field) for field in mapping.fields}


def whole_fingerprint(marks: Dict[str, str]) -> str:
    """The fingerprint of a mapping as a whole, from those of its fields; the order of the fields does not count."""
    return hashlib.sha256(orjson.dumps(sorted(marks.items()))).hexdigest()[:_LENGTH]


def _fingerprint(field: MappedField) -> str:
    parts = (
        _normal(field.expr), field.storage, str(field.field.type), str(field.nulls), str(field.identifier)
    )  # fmt: skip
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:_LENGTH]


@lru_cache(maxsize=4096)
def _normal(expr: str) -> str:
    """Without what changes no value: spaces, comments, the case of keywords."""
    try:
        return sqlglot.parse_one(expr, read="duckdb").sql(dialect="duckdb", comments=False)
    except SqlglotError:
        return " ".join(expr.split())
