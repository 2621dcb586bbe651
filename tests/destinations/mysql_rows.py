"""Rows for the MySQL destination, as the mapping writes them, and a plain client beside it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pymysql

from backhaul.destinations.mysql import Mysql, MysqlConfig
from backhaul.types import Field, Op


@dataclass
class Lines:
    """CSV: text quoted, NULL an empty cell, arrays and objects as JSON text."""

    object: str
    fields: tuple[Field, ...]
    rows: list[tuple[Any, ...]]
    op: Op = Op.UPSERT
    identifiers: tuple[str, ...] = ("id",)
    idempotency_key: str = "k"
    set_aside: bool = False
    remote_ids: tuple[None, ...] = ()

    @property
    def keys(self) -> list[str]:
        count = len(self.identifiers)
        return [str(row[0]) if count == 1 else json.dumps([str(v) for v in row[:count]]) for row in self.rows]

    def text(self) -> bytes:
        return "".join(",".join(map(cell, row)) + "\n" for row in self.rows).encode()

    def __len__(self) -> int:
        return len(self.rows)


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    out = io.StringIO()
    text = value if isinstance(value, str) else json.dumps(value)
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="").writerow([text])
    return out.getvalue()


def batch(table: str, columns: str, *rows: tuple[Any, ...], **more: Any) -> Lines:
    return Lines(table, tuple(Field(name) for name in columns.split()), list(rows), **more)


def to(dsn: str, **more: Any) -> Mysql:
    return Mysql(MysqlConfig(dsn=dsn, **more), None)  # type: ignore[arg-type]


def connect(dsn: str) -> Any:
    parts = urlsplit(dsn)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        database=parts.path[1:],
        autocommit=True,
    )


def execute(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    """Runs statements one after another; the rows of the last."""
    with connect(dsn) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())
