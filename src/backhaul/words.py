"""Texts of others, made safe to store and to print."""

from __future__ import annotations

LONGEST = 1000
"""Characters that are kept of what a destination says."""


def printable(text: str) -> str:
    """The text with control characters, ANSI sequences among them, written out; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else f"\\x{ord(one):02x}" for one in text)


def in_one_line(text: str, longest: int = LONGEST) -> str:
    """The text in one line, printable, cut where it is too long."""
    line = printable(" ".join(text[: longest * 8].split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
