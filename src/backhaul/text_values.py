"""SQL that reads text as a value of a type: NULL where the text does not fit; nothing is rounded and nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Callable

_INTEGER = r"\s*[+-]?[0-9]+\s*"
_NUMBER = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
_DATE = r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}\s*"
_ZONE = r"\s*([zZ]|UTC|[+-][0-9]{2}(:?[0-9]{2})?)\s*"
_TIME = r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6}0*)?)?)?\s*"
_DECIMAL_TYPE = re.compile(r"(?:decimal|numeric)\s*\(\s*(\d{1,2})\s*(?:,\s*(\d{1,2})\s*)?\)")


def integer(text: str, storage: str = "DECIMAL(38,0)") -> str:
    return f"CASE WHEN regexp_full_match({text}, '{_INTEGER}') THEN TRY_CAST({text} AS {storage}) END"


def decimal(text: str, precision: int, scale: int) -> str:
    """A number with at most `scale` decimals, not counting zeros at the end."""
    behind = rf"[0-9]{{0,{scale}}}0*"
    shape = rf"\s*[+-]?([0-9]+(\.{behind})?|\.[0-9]{behind})\s*"
    return (
        f"CASE WHEN regexp_full_match({text}, '{shape}') THEN TRY_CAST({text} AS DECIMAL({precision},{scale})) END"
        if scale
        else integer(text, f"DECIMAL({precision},0)")
    )


def double(text: str) -> str:
    """A double holds a number exactly as written where its shortest text has the same digits."""
    value = f"TRY_CAST({text} AS DOUBLE)"
    exact = f"isfinite({value}) AND {digits(text)} = {digits(f'CAST({value} AS VARCHAR)')}"
    return f"CASE WHEN regexp_full_match({text}, '{_NUMBER}') AND {exact} THEN {value} END"


def digits(text: str) -> str:
    """The digits of a number's text without zeros at either end."""
    mantissa = f"regexp_replace({text}, '[eE].*', '')"
    return f"trim(regexp_replace({mantissa}, '[^0-9]', '', 'g'), '0')"


def boolean(text: str) -> str:
    return f"TRY_CAST(trim({text}) AS BOOLEAN)"


def date(text: str) -> str:
    return f"CASE WHEN regexp_full_match({text}, '{_DATE}') THEN TRY_CAST({text} AS DATE) END"


def instant(text: str, storage: str) -> str:
    """A date with or without a time of day in ISO 8601; `storage` is TIMESTAMP or TIMESTAMPTZ."""
    # the engine drops an offset where it reads a time without a zone
    zoned = f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS {storage})"
    return (
        f"CASE WHEN regexp_full_match({text}, '{_TIME}') THEN TRY_CAST({text} AS {storage}) "
        f"WHEN regexp_full_match({text}, '{_TIME}{_ZONE}') THEN {zoned} END"
    )


_READ: dict[str, tuple[str, Callable[[str], str]]] = {
    "integer": ("INTEGER", lambda text: integer(text, "INTEGER")),
    "bigint": ("BIGINT", lambda text: integer(text, "BIGINT")),
    "double": ("DOUBLE", double),
    "boolean": ("BOOLEAN", boolean),
    "date": ("DATE", date),
    "timestamp": ("TIMESTAMP", lambda text: instant(text, "TIMESTAMP")),
    "timestamptz": ("TIMESTAMP WITH TIME ZONE", lambda text: instant(text, "TIMESTAMPTZ")),
    "json": ("JSON", lambda text: f"TRY_CAST({text} AS JSON)"),
}
DECLARED = ("text", *_READ, "decimal(12,2)")
"""The types that a column of text can be declared to have, the last one as an example."""


def declared(name: str) -> tuple[str, Callable[[str], str]]:
    """Return the engine's name of a declared type, and the SQL that reads text as one.

    Raises:
        ValueError: it is not one of DECLARED.
    """
    plain = name.strip().lower()
    if plain == "text":
        return "VARCHAR", lambda text: text
    if found := _DECIMAL_TYPE.fullmatch(plain):
        precision, scale = int(found[1]), int(found[2] or 0)
        if 1 <= precision <= 38 and scale <= precision:
            return f"DECIMAL({precision},{scale})", lambda text: decimal(text, precision, scale)
    if plain not in _READ:
        raise ValueError(f"{name[:40]!r} is not a column type; use one of {', '.join(DECLARED)}")
    return _READ[plain]
