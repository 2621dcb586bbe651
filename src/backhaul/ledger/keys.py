"""Primary keys as JSON text: one spelling in the ledger, in the state, on the screen and on the command line."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from decimal import Decimal
from typing import Any

import orjson

_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u([0-9a-f]{4})")


_LONGEST = 40
"""Digits; no key has more."""


def spell(key: Any) -> str:
    """A key as the engine's `to_json` writes it: control characters have capital digits, and numbers keep theirs."""
    if isinstance(key, list | tuple):
        return f"[{','.join(map(spell, key))}]"
    if isinstance(key, Decimal):
        return format(key, "f")
    return _ESCAPE.sub(lambda found: f"{found[1]}\\u{found[2].upper()}", orjson.dumps(key).decode())


def spellings(typed: str) -> list[str]:
    """The keys that someone who typed this may mean: the JSON that it is, and the text itself."""
    found = []
    with suppress(ValueError, RecursionError):
        meant = json.loads(typed, parse_int=_whole, parse_float=_fraction, parse_constant=_no_number)
        if isinstance(meant, Decimal) and not typed.strip().lstrip("-").isdigit():
            # the engine drops zeros at the end of short decimals alone
            found.append(format(meant.normalize(), "f"))
            found.append(found[0] if "." in found[0] else f"{found[0]}.0")
        if not isinstance(meant, dict):
            found.insert(0, spell(meant))
    return list(dict.fromkeys([*found, spell(typed)]))


def _whole(digits: str) -> int | Decimal:
    return int(digits) if -(2**63) <= int(digits) < 2**64 else Decimal(digits)


def _fraction(digits: str) -> Decimal:
    if abs(Decimal(digits).adjusted()) > _LONGEST:
        raise ValueError(digits)
    return Decimal(digits)


def _no_number(word: str) -> None:
    raise ValueError(word)
