"""CSV files in one declared format (RFC 4180 unless declared otherwise): a header, and text in every column. Nothing about a file
is guessed, so that no value depends on what else the file holds that day."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from backhaul.errors import SourceError
from backhaul.sql import ident, literal

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Between the values, unless declared otherwise; also which files are taken for CSV."""
_OTHER_DELIMITERS = (";", "\t", "|")


@dataclass(frozen=True, slots=True)
class Format:
    """How the values of a file are separated and quoted."""

    delimiter: str
    quote: str
    escape: str


def read_header(path: Path, form: Format) -> list[str]:
    """The names of the columns.

    Raises:
        SourceError: there is no header, or it does not give each column a name of its own.
    """
    doubled = form.escape == form.quote
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=form.delimiter, quotechar=form.quote, doublequote=doubled,
                                escapechar=None if doubled else form.escape, strict=True)  # fmt: skip
            names = next(reader, [])
    except (csv.Error, OSError) as error:
        raise _unreadable(path, f"the header: {error}") from None
    if not names:
        raise _unreadable(path, "it has no header", "write the names of the columns in its first line")
    if any("\udc80" <= mark <= "\udcff" for name in names for mark in name):
        raise _unreadable(path, "the header is not UTF-8", "save the file as UTF-8")
    for place, name in enumerate(names, 1):
        if not name.strip():
            raise _unreadable(path, f"column {place} has no name in the header", "give every column a name")
        if name.casefold() in {other.casefold() for other in names[: place - 1]}:
            raise _unreadable(path, f"the header has two columns named {name}", "rename one of them")
    other = next((mark for mark in _OTHER_DELIMITERS if mark in names[0] and len(names) == 1), None)
    if other is not None:
        hint = f"add `delimiter: {other!r}` to the warehouse in backhaul.yml"
        raise _unreadable(path, f"its header has one column, and {other!r} in its name", hint)
    return names


def _unreadable(path: Path, why: str, hint: str | None = None) -> SourceError:
    return SourceError(f"{path.name} cannot be read: {why}", hint=hint)


def scan(path: Path, form: Format) -> str:
    """The SQL that reads a file, for FROM."""
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in read_header(path, form))
    return (
        f"read_csv({literal(exactly(path))}, auto_detect = false, header = true, columns = {{{columns}}}, "
        f"delim = {literal(form.delimiter)}, quote = {literal(form.quote)}, escape = {literal(form.escape)}, "
        "comment = '', strict_mode = true, null_padding = false)"
    )


def numbered(path: Path, form: Format, name: str) -> str:
    """The SELECT of a file with the number of each row, from 1, in a column of this name. Needs the engine to keep the order."""
    return f"SELECT *, row_number() OVER () AS {ident(name)} FROM {scan(path, form)}"


def exactly(path: Path) -> str:
    """A path as the engine's pattern for this file alone."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def line_numbers(path: Path, form: Format, rows: Iterable[int]) -> dict[int, int]:
    """The line on which each of these rows begins. The engine leaves out empty lines, but not in a file of one column."""
    wanted, found = set(rows), {}
    row, inside = -1, False
    keeps_empty = len(read_header(path, form)) == 1
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not inside and (line != "\n" or keeps_empty):
                row += 1
                if row in wanted:
                    found[row] = number
                    if len(found) == len(wanted):
                        break
            quotes = line if form.escape == form.quote else line.replace(form.escape + form.quote, "")
            inside ^= quotes.count(form.quote) % 2 == 1
    return found
