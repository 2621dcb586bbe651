"""Long lines on a terminal: broken between words, so that the terminal does not cut one in two."""

from __future__ import annotations

import os
import re
from typing import TextIO

from click import unstyle

_LABEL = re.compile(r" +\S+(?: \S+)* {2,}")
"""How a line begins whose text stands in a column: `  to do    shorten the value`."""
_PART = re.compile(r"`[^`]*`\S*|(?:\x1b\[\d+m)?backhaul [^`]*$|\S+")
"""What stays together: a command, also after other words, or a word."""


def terminal_width(stream: TextIO) -> int | None:
    """Columns of the terminal that a stream leads to; None where it leads to none."""
    if not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    try:
        return (
            int(given)
            if given.isdecimal() and int(given)
            else os.get_terminal_size(stream.fileno()).columns or None
        )
    except (OSError, ValueError):
        return None


def wrap(text: str, width: int | None) -> str:
    """The text with no line longer than `width`, except for words that are; None: as it is."""
    if width is None:
        return text
    return "\n".join(
        line if len(unstyle(line)) <= width else _wrap_line(line, width) for line in text.split("\n")
    )


def _wrap_line(line: str, width: int) -> str:
    bare = unstyle(line)
    indent = len(bare) - len(bare.lstrip(" "))
    label = _LABEL.match(bare)
    hanging = label.end() if label and label.end() <= width // 3 else min(indent + 2, width // 3)
    lines, now, used = [], "", 0
    for space, part in _parts(line, width - hanging):
        size = len(unstyle(part))
        if now.strip() and used + len(space) + size > width:
            lines.append(now)
            now, used, space = " " * hanging, hanging, ""
        now, used = f"{now}{space}{part}", used + len(space) + size
    return "\n".join([*lines, now])


def _parts(line: str, most: int) -> list[tuple[str, str]]:
    """(spaces before it, part) of each part; one that is longer than `most` is taken apart into its words."""
    found, end = [], 0
    for match in _PART.finditer(line):
        part, before = match[0], line[end : match.start()]
        words = [part] if len(unstyle(part)) <= most else part.split(" ")
        found += [(before if number == 0 else " ", word) for number, word in enumerate(words)]
        end = match.end()
    return found
