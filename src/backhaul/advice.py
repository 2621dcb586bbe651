"""What a refusal is about: the shape of its message, the field it names, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

_SHAPES = (
    (re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"), "<email>"),
    (re.compile(r"https?://\S+"), "<url>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|“[^”]*”"), "<value>"),
    (re.compile(r"\b(?=\w*\d)(?=\w*[a-z])\w{12,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"(?<!HTTP )(?<!\d)[-+]?\d+([.,:]\d+)*"), "<n>"),
)
"""What differs between messages that say the same, in the order in which it is replaced."""

_WORD = re.compile(r"\W*\w*\W*")
_CODE = re.compile(r"(?<![\w.])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w.])")
"""A code within a message, such as INVALID_EMAIL."""
_FIXES = (
    (r"^same record$",
     "leave one of the two rows out of the model, or part the record in the destination; then replay"),
    (r"duplicate|already (exist|in use)|\btaken\b|unique|conflict",
     "two records claim one value: make the model's rows unique by it, or merge the records in the destination"),
    (r"permission|forbidden|not allowed|unauthori[sz]ed|scope|read.?only",
     "grant the credential what it lacks, or drop the field from the mapping; then replay"),
    (r"required|missing|must not be (null|empty|blank)|cannot be (null|empty|blank)|not.?null",
     "give the field a value in the model (coalesce) or `default:` in the mapping, or leave such rows out"),
    (r"too long|length|longer than|maximum.*characters|exceeds",
     "shorten the value in the model (left(x, n)), or widen the field in the destination"),
    (r"option|choice|enum|one of|allowed values",
     "translate the value in the model (case when …), or add the option in the destination"),
    (r"not found|does not exist|foreign key|no such",
     "send what this record refers to first, or mend the identifier in the model"),
    (r"out of range|too (large|small|big)|overflow|minimum|maximum",
     "bring the value into the field's range in the model, or widen the field in the destination"),
    (r"type|cast|convert|number|integer|boolean|not a ",
     "cast the value in the model to the field's type, or map it to a field of its own type"),
    (r"format|invalid|malformed|pattern|parse|valid ",
     "mend the value in the model, or leave rows out whose value has not this form"),
)  # fmt: skip
"""How a code or message sounds (any case), and what to do. The first that fits is taken."""
_OTHER = "see one in full (`backhaul dead-letters show ID`); mend the model, the mapping or the destination"


def shape(message: str, record: Iterable[Any] = ()) -> str:
    """The message without what differs from record to record. `record`: the values that it may repeat; single words are
    left, because they may be the destination's own."""
    for value in sorted((one for one in record if isinstance(one, str)), key=len, reverse=True):
        if not _WORD.fullmatch(value) and not any(pattern.fullmatch(value) for pattern, _ in _SHAPES):
            message = message.replace(value, "<value>")
    for pattern, name in _SHAPES:
        message = pattern.sub(partial(_without, name), message)
    return " ".join(message.split())


def _without(name: str, found: re.Match[str]) -> str:
    return found[0] if _CODE.fullmatch(found[0].strip("\"'`")) else name


def advice(code: str, message: str, declared: Mapping[str, str]) -> str:
    """What to do about a refusal: what the connector declares for its code, or for one that its message names, else what the
    words sound like."""
    sounding = (
        todo
        for said in (code.replace("_", " "), message)
        for sounds, todo in _FIXES
        if re.search(sounds, said, re.IGNORECASE)
    )
    return _declared(code, message, declared) or next(sounding, _OTHER)


def _declared(code: str, message: str, declared: Mapping[str, str]) -> str | None:
    if code in declared:
        return declared[code]
    named = (one for one in _CODE.findall(message) if one in declared)
    return declared[found] if (found := next(named, None)) else None


def field_of(message: str, names: Iterable[str]) -> str | None:
    """The field that a message names, the longest of them; None where it names none."""
    return max(_pattern(tuple(names)).findall(message), key=len, default=None)


@lru_cache(maxsize=64)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first)) or '(?!)'})(?!\w)")
