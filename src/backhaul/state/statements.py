"""The named statements, in SQL that SQLite and PostgreSQL both read (sql/queries.sql), and each one's migrations
(sql/DIALECT/NNNN_*.sql)."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import orjson

from backhaul.errors import StateError


@functools.cache
def queries(rows: str, name: str = r":\1") -> Mapping[str, str]:
    """Every statement by its name, in a dialect: `rows` is its table of the elements of a JSON list, `name` how it writes
    a value's name."""
    text = (resources.files("backhaul.state") / "sql" / "queries.sql").read_text()
    text = re.sub(r"(?<!:):(\w+)", name, text.replace("{rows}", rows))
    blocks = [block.split("\n", 1) for block in text.split("-- ")[1:]]
    return {name.strip(): sql.strip().rstrip(";") for name, sql in blocks}


@functools.cache
def migrations(dialect: str) -> Sequence[str]:
    """The scripts in order; the schema's version is how many have run."""
    folder = resources.files("backhaul.state") / "sql" / dialect
    names = sorted(item.name for item in folder.iterdir() if item.name[:4].isdigit())
    return [(folder / name).read_text() for name in names]


def as_json(rows: Sequence[Sequence[Any]]) -> str:
    """The rows of a list statement.

    Raises:
        StateError: a value that JSON or UTF-8 has not, such as half of a surrogate pair.
    """
    try:
        return orjson.dumps(rows).decode()
    except TypeError as error:
        raise StateError(f"cannot be stored: {error}") from None
