"""Records as rows of values that SQLite holds exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any

from backhaul.destinations.kit import Batch
from backhaul.destinations.sqlite.statements import Row
from backhaul.errors import Refused

_LONG_NUMBER = re.compile(rb"[0-9][0-9.]{15,}")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_ROUND = re.compile(r"0|-?[1-9]\d{0,14}")
_LEAST, _MOST = -(2**63), 2**63 - 1


def grouped(batch: Batch, numeric: AbstractSet[str] = frozenset()) -> dict[tuple[str, ...], list[Row]]:
    """The rows of a batch by the fields they have: a field that a record leaves out keeps its value. `numeric`: columns that
    make numbers of texts.

    Raises:
        Refused: a number that SQLite would round, or a text that it would make another one of.
    """
    names = [field.name for field in batch.fields]
    nested = any("." in name for name in names)
    found: dict[tuple[str, ...], list[Row]] = {}
    for position, record in enumerate(records(batch)):
        row = flat(record, names) if nested else record
        values = tuple(text(value) if isinstance(value, dict | list) else value for value in row.values())
        for name in numeric & row.keys():
            if (
                isinstance(row[name], str)
                and _NUMBER.fullmatch(row[name])
                and not _ROUND.fullmatch(row[name])
            ):
                raise Refused(f"{name}: its type makes a number of this text", code="SQLITE_MISMATCH")
        found.setdefault(tuple(row), []).append((position, values))
    return found


def records(batch: Batch) -> list[dict[str, Any]]:
    """The records; read digit by digit where a number in them is long enough to be rounded."""
    if not _LONG_NUMBER.search(batch.text()):
        return batch.records()
    exact: list[dict[str, Any]] = json.loads(b"[" + batch.text() + b"]", parse_float=exact_float)
    for record in exact:
        for name, value in record.items():
            if isinstance(value, int) and not _LEAST <= value <= _MOST:
                raise Refused(f"{name}: the number has more than 64 bits", code="SQLITE_TOOBIG")
    return exact


def exact_float(digits: str) -> float:
    value = float(digits)
    if Decimal(digits) != Decimal(repr(value)):
        raise Refused("a number has more digits than SQLite keeps", code="SQLITE_TOOBIG")
    return value


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def flat(record: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A record by field name, where a dot in a name nests."""
    found: dict[str, Any] = {}
    for name in names:
        value: Any = record
        for part in [name] if name in record else name.split("."):
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        else:
            found[name] = value
    return found
