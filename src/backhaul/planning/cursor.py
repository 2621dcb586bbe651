"""The cursor of an incremental read: which column may be one, where a read may start, and what is remembered of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import orjson

from backhaul.errors import Problem
from backhaul.sql import ident, literal
from backhaul.warehouses.protocol import Column

_TIMES = ("DATE", "TIMESTAMP")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
            "DECIMAL", "FLOAT", "DOUBLE")  # fmt: skip
_LARGEST = "1.7976931348623157e308"
_SLACK = timedelta(days=1)
"""Times without a zone may be ahead of UTC."""
CHANGED = (
    "the whole model was read: its SQL or its cursor column is not the one that the stored cursor belongs to"
)


@dataclass(frozen=True, slots=True)
class Watermark:
    """Up to where the model was read: a value of the cursor column, which belongs to one text of the model. `notice` is what a
    person should know of it."""

    cursor: str
    value: str | None
    notice: str = ""

    @property
    def text(self) -> str | None:
        """What the ledger keeps; None where the model has no value."""
        return None if self.value is None else orjson.dumps([self.cursor, self.value]).decode()


def check_cursor(sync: Any, columns: Iterable[Column]) -> list[Problem]:
    """A cursor that does not grow with each change: text is ordered by its spelling, and a boolean has two values."""
    name = sync.model.cursor
    found = next((column for column in columns if name and column.name.lower() == name.lower()), None)
    if found is None or _family(found.type):
        return []
    return [sync.problem("model.cursor", f"the cursor column {found.name} is {found.type}, which does not grow with each change",
                         "use a number or a time, or cast it in the model, for example to timestamp")]  # fmt: skip


def _family(kind: str) -> str:
    base = kind.upper().split("(")[0]
    return "time" if base.startswith(_TIMES) else "number" if base in _NUMBERS else ""


def cursor_of(sync: Any, select: str, dialect: str) -> str:
    """Stands for a model's text and its cursor column; what changes no row (spaces, comments) does not count."""
    parts = [str(sync.model.warehouse), sync.model.cursor.lower(), _normal(select, dialect)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _normal(select: str, dialect: str) -> str:
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        return sqlglot.parse_one(select, read=dialect).sql(dialect=dialect, comments=False)
    except SqlglotError:
        return " ".join(select.split())


def start_of(stored: str | None, cursor: str) -> str | None:
    """Where a read may start: the stored value, if it is of this cursor."""
    if stored is None or not stored.startswith("["):
        return None
    known, value = orjson.loads(stored)
    return value if known == cursor else None


def find_watermark(
    engine: duckdb.DuckDBPyConnection, warehouse: Any, select: str, column: Column, cursor: str, now: datetime
) -> Watermark:
    """The cursor's highest value up to now, taken before the model is read, so that no row is older and missed."""
    highest = _highest(engine, warehouse, select, column.name)
    if highest is None:
        return Watermark(cursor, None)
    base, limit = column.type.upper(), now.astimezone(UTC).replace(tzinfo=None)
    if _family(base) == "time":
        cap = literal(_text(limit, base))
        later, far = _compare(engine, highest, [cap, literal(_text(limit + _SLACK, base))], "TIMESTAMP")
    elif base in ("FLOAT", "DOUBLE"):
        cap = _LARGEST
        later, far = _compare(engine, highest, [cap, cap], "DOUBLE")
    else:
        return Watermark(cursor, highest)
    if not later:
        return Watermark(cursor, highest)
    value = _highest(engine, warehouse, select, column.name, f"{ident(column.name)} <= {cap}")
    what = "in the future" if _family(base) == "time" else "infinite or not a number"
    notice = f"the cursor column {column.name} holds values that are {what}; rows that have them are read each time"
    return Watermark(cursor, value, notice if far else "")


def _text(moment: datetime, base: str) -> str:
    if base == "DATE":
        return moment.date().isoformat()
    return f"{moment:%Y-%m-%d %H:%M:%S}{'+00' if base.endswith(('ZONE', 'TZ')) else ''}"


def _compare(engine: duckdb.DuckDBPyConnection, value: str, limits: Sequence[str], kind: str) -> list[bool]:
    """Whether a value lies beyond each limit; one that the engine cannot read lies beyond all."""
    rules = [
        f"coalesce(TRY_CAST({literal(value)} AS {kind}) > CAST({limit} AS {kind}), true)" for limit in limits
    ]
    return list(engine.execute(f"SELECT {', '.join(rules)}").fetchall()[0])


def _highest(
    engine: duckdb.DuckDBPyConnection, warehouse: Any, select: str, name: str, where: str = "true"
) -> str | None:
    column = ident(name)
    relation = warehouse.relation(
        engine,  # no max(): a function of that name may be the source's own
        f"SELECT {column} AS watermark FROM ({select}\n) AS model WHERE {column} IS NOT NULL AND {where} ORDER BY 1 DESC LIMIT 1",
    )
    try:
        rows = engine.execute(f"SELECT CAST(watermark AS VARCHAR) FROM {relation.sql}").fetchall()
    finally:
        relation.close()
    return str(rows[0][0]) if rows and rows[0][0] is not None else None
