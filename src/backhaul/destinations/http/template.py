"""Request bodies: a YAML value with `$records`, `$record` or `$keys` in it, encoded once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from backhaul.destinations.kit import Batch
from backhaul.values import Parsed

_MARK = re.compile(rb'"\$(records|record|keys)"(?!:)')
_LIKE_A_MARK = re.compile(r"\$(records?|keys?)\b|^\$[a-z_]+$")
_MARKS = ("$records", "$record", "$keys")


class Template(Parsed):
    """A request body. `$records` is the list of records, `$record` the only one, `$keys` the list of keys."""

    def __init__(self, body: Any) -> None:
        for text in strings(body):
            if text not in _MARKS and _LIKE_A_MARK.search(text):
                raise ValueError(
                    f"{text!r} is not a placeholder: write $records, $record or $keys on its own"
                )
        self.body = body
        parts = _MARK.split(orjson.dumps(body))
        self.literals, self.marks = parts[::2], parts[1::2]

    @classmethod
    def parse(cls, value: Any) -> Template:
        if isinstance(value, cls):
            return value
        try:
            return cls(value)
        except TypeError as error:
            raise ValueError(f"the body cannot be written as JSON: {error}") from None

    def has(self, mark: str) -> bool:
        return mark[1:].encode() in self.marks

    def fill(self, batch: Batch) -> bytes:
        """The request body of one batch; the records are not parsed unless the body asks for `$keys`."""
        values = {mark: filling(mark, batch) for mark in set(self.marks)}
        parts = [self.literals[0]]
        for mark, literal in zip(self.marks, self.literals[1:], strict=True):
            parts += (*values[mark], literal)
        return b"".join(parts)

    def fill_keys(self, keys: list[bytes]) -> bytes:
        """The body of a read; `keys` are encoded JSON values."""
        return (b"[" + b",".join(keys) + b"]").join(self.literals)

    def __str__(self) -> str:
        return orjson.dumps(self.body).decode()


def filling(mark: bytes, batch: Batch) -> tuple[bytes, ...]:
    """What stands in a mark's place, in pieces."""
    if mark == b"keys":
        return b"[", b",".join(encoded_keys(batch)), b"]"
    return (b"[", batch.text(), b"]") if mark == b"records" else (batch.text(),)


def encoded_keys(batch: Batch) -> Iterator[bytes]:
    """Each key in its own JSON type. A number's digits come from its text, which is exact at any size."""
    name = batch.identifiers[0].split(".")
    for record, text in zip(batch.records(), batch.keys, strict=True):
        value: Any = record
        for part in name:
            value = value[part]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        yield text.encode() if number else orjson.dumps(value)


def strings(body: Any) -> Iterator[str]:
    """Every text in the body, keys of objects included."""
    if isinstance(body, str):
        yield body
    elif isinstance(body, list):
        for item in body:
            yield from strings(item)
    elif isinstance(body, dict):
        for name, item in body.items():
            if str(name) in _MARKS:
                raise ValueError(f"{name!r} cannot be the name of a field in a body")
            yield from strings(item)
