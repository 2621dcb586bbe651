"""What the engine says went wrong, without a row's values: its texts of single values quote them."""

from __future__ import annotations

import re

_OF_VALUES = {
    "ConversionException": "a value cannot be converted to the type it is cast to",
    "InvalidInputException": "a function does not accept a value",
    "OutOfRangeException": "a value is out of range",
}
_OF_SQL = frozenset((
    "Error", "BinderException", "CatalogException", "ParserException", "SyntaxException", "PermissionException", "IOException",
    "HTTPException", "OutOfMemoryException", "InterruptException", "TransactionException", "DependencyException",
))  # fmt: skip
"""Errors whose texts quote the query, a file or the machine, and never a row."""
OURS = "backhaul: "
"""What begins an error that our own SQL raises: it names a column and never quotes a value."""
_CSV = "CSV Error on Line: "
_CSV_COLUMNS = re.compile(r"Expected Number of Columns: (\d+) Found: (\d+)")
_CSV_COLUMN = re.compile(r'Error when converting column "([^"]*)"')


def in_one_line(error: Exception) -> str:
    """An engine's error with the line of SQL that it points at, in one line."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    if OURS in str(error):
        return str(error).split(OURS, 1)[1].split("\n")[0]
    said = lines[0].split("Error: ", 1)[-1] if lines else ""
    if said.startswith(_CSV):
        return _of_csv(said.removeprefix(_CSV), lines[1:])
    if is_of_values(error):
        said = kind_of(error)
    where = next((line for line in reversed(lines[1:]) if line.startswith("LINE ")), "")
    return f"{said} [{where.replace('DESCRIBE ', '')}]" if where else said


def is_of_values(error: Exception) -> bool:
    """Whether it may be about a row's value, which its text quotes then."""
    return type(error).__name__ not in _OF_SQL


def is_of_csv(error: Exception) -> bool:
    """Whether a CSV file has a line that cannot be read."""
    return _CSV in str(error)


def kind_of(error: Exception) -> str:
    """What kind of error it is, in words of ours."""
    return _OF_VALUES.get(type(error).__name__, f"a value cannot be computed ({type(error).__name__})")


def _of_csv(number: str, rest: list[str]) -> str:
    """A reader's error by file and line; the line itself is quoted in `rest` and stays out."""
    told = (part for part in rest if not part.startswith(("Original Line", "Possible", "LINE ")))
    cause = next(told, "it does not fit the others")
    if counts := _CSV_COLUMNS.fullmatch(cause):
        # the reader stops at the first value too many
        found = counts[2] if int(counts[2]) < int(counts[1]) else "more"
        cause = f"the header has {counts[1]} columns, and this line has {found}"
    elif column := _CSV_COLUMN.match(cause):
        cause = f"the value of {column[1]} does not fit the column's type"
    else:
        cause = re.split("['\"]", cause)[0].strip()
    file = next((part.removeprefix("file = ") for part in rest if part.startswith("file = ")), "")
    return f"{file.rpartition('/')[2]}, line {number}: {cause}"
