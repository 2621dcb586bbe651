"""A batch made by hand, for tests that call a connector's `write` without an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson

from backhaul.destinations.kit import Wire
from backhaul.types import Field, Frame, Op

Row = Mapping[str, Any]


class RecordBatch:
    """Implements kit.Batch over rows of plain JSON values by field name; `fields` are in wire order, identifiers first.

    A field that a row leaves out is left out of a JSON or TEXT record, as a skipped NULL is. A dot in a name nests.
    Raises: ValueError where a key comes twice, or the remote ids are not one for each row.
    """

    def __init__(
        self, op: Op, object: str, identifiers: tuple[str, ...], fields: tuple[Field, ...], rows: Sequence[Row],
        wire: Wire = Wire.JSON, remote_ids: Sequence[str | None] | None = None, csv_null: str = "",
        parts: Sequence[str] = (), frame: Frame | None = None, previous_keys: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.op = op
        self.object = object
        self.identifiers = identifiers
        self.fields = fields
        self.rows = rows
        self.wire = wire
        self.csv_null = csv_null
        self.keys: Sequence[str] = [self._key(row) for row in rows]
        self.remote_ids: Sequence[str | None] = [None] * len(rows) if remote_ids is None else remote_ids
        self.parts = parts
        self.previous_keys = previous_keys
        self.frame = frame or Frame()
        if len(set(self.keys)) != len(rows) or len(self.remote_ids) != len(rows):
            raise ValueError("a batch holds no key twice, and one remote id (or None) for each row")

    def __len__(self) -> int:
        return len(self.rows)

    set_aside = False

    @property
    def idempotency_key(self) -> str:
        return blake2b(f"{self.op}/{self.object}/".encode() + self.text(), digest_size=16).hexdigest()

    def text(self) -> bytes:
        if self.wire is Wire.CSV:
            return b"".join(self._line(row) for row in self.rows)
        return b",".join(orjson.dumps(record) for record in self.records())

    def records(self) -> list[dict[str, Any]]:
        return [self._record(row) for row in self.rows]

    def _key(self, row: Row) -> str:
        texts = [as_text(row[name]) for name in self.identifiers]
        return texts[0] if len(texts) == 1 else orjson.dumps(texts).decode()

    def _record(self, row: Row) -> dict[str, Any]:
        record: dict[str, Any] = {}
        placed = {
            self.frame.place(name): row[name] for name in (field.name for field in self.fields) if name in row
        }
        for place, value in {**self.frame.constants, **placed}.items():
            inner, *path = record, *place.split(".")
            for part in path[:-1]:
                inner = inner.setdefault(part, {})
            inner[path[-1]] = as_text(value) if self.wire is Wire.TEXT else value
        return record

    def _line(self, row: Row) -> bytes:
        null = self.csv_null
        cells = (_cell(row[field.name], null) if field.name in row else "" for field in self.fields)
        return (",".join(cells) + "\n").encode()


def as_text(value: Any) -> str:
    """A value as the TEXT wire has it: NULL is empty, true and false in lower case, anything nested as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _cell(value: Any, null: str = "") -> str:
    """RFC 4180: text is always quoted, NULL is an unquoted empty cell or the destination's text for it."""
    if value is None or (null and value == ""):
        return null
    return '"' + value.replace('"', '""') + '"' if isinstance(value, str) else as_text(value)
