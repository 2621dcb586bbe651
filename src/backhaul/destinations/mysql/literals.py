"""Values as SQL literals, in a session with ANSI quotes and without backslash escapes. Everything goes as text, which the
server reads exactly; only BIT takes text for bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from backhaul.errors import Refused
from backhaul.types import Field, FieldType

_CELL = re.compile(r'("[^"]*(?:""[^"]*)*"|[^,\n]*)[,\n]')
_TRUTH = {"true": "1", "false": "0"}
_MOST = 500_000
"""Characters of one statement, about: longer ones are not faster."""


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def converter(field: Field) -> Callable[[str], str]:
    """How a value of this column is written, given as text."""
    if (field.native_type or "").startswith("bit"):
        return lambda text: _TRUTH.get(text, text if text.isdecimal() else quoted(text))
    if field.type is FieldType.BOOLEAN:
        return lambda text: quoted(_TRUTH.get(text, text))
    if field.type in (FieldType.DATETIME, FieldType.TIMESTAMP):
        # the session's zone is UTC, and MariaDB does not know Z
        return lambda text: quoted(text.removesuffix("Z"))
    return quoted


def rows(lines: bytes, fields: Sequence[Field]) -> Iterator[str]:
    """The rows of CSV lines as the mapping writes them, as `'a','b',position`."""
    write = [converter(field) for field in fields]
    plain = [field.type is FieldType.JSON for field in fields]
    cells = iter(_CELL.findall(lines.decode()))
    for number, row in enumerate(zip(*[cells] * len(fields), strict=True)):
        values = map(literal, row, write, plain)
        yield f"{','.join(values)},{number}"


def literal(cell: str, write: Callable[[str], str], plain: bool) -> str:
    """An empty cell is NULL, an empty text has quotes."""
    if not cell:
        return "NULL"
    if cell[0] == '"':
        return write(cell[1:-1].replace('""', '"'))
    return write(cell if plain else _TRUTH.get(cell, cell))


def statements(head: str, values: Iterable[str], packet: int) -> Iterator[str]:
    """INSERTs of many rows each, none longer than the server's packet.

    Raises:
        Refused: one row alone is longer.
    """
    most, size = min(_MOST, packet // 8), 0
    part: list[str] = []
    for row in values:
        if part and size + len(row) > most:
            yield f"{head} VALUES ({'),('.join(part)})"
            part, size = [], 0
        if len(row) > most and len(row.encode()) + len(head) + 100 > packet:
            raise Refused(f"the record is longer than max_allowed_packet ({packet} bytes)", code="1153")
        part.append(row)
        size += len(row) + 3
    if part:
        yield f"{head} VALUES ({'),('.join(part)})"
