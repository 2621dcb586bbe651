"""Files in the table, in parts of less than an item's 400 KB: a file is there when the item that names its parts is.

What is begun is noted with its token, its parts are written, and only then the name points at that token; so what a process
that died has left is nobody's file, and is cleared away when a file of that name is kept or dropped.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from backhaul.state.dynamo.table import Item, Key, Table, Write, delete, put

_PART = 350_000
"""Bytes of a part."""
_AT_ONCE = 30
"""Parts in one answer, which has at most 16 MB."""


def upload(table: Table, name: str, file: Path) -> tuple[Write, str]:
    """Stores a file's parts. Gives the write that names them, and their token."""
    token = secrets.token_hex(8)
    parts = -(-file.stat().st_size // _PART)
    table.do(put(f"file/{name}", f"begun/{token}", {"parts": parts}))
    with file.open("rb") as handle:
        for number in range(parts):
            table.do(put(*_part(token, number), {"body": handle.read(_PART)}))
    return put(f"file/{name}", "name", {"token": token, "parts": parts}), token


def download(table: Table, name: str, file: Path) -> bool:
    """Brings a file to its place. False: there is none, or it has gone meanwhile."""
    found = table.get(f"file/{name}", "name")
    if found is None:
        return False
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = file.with_suffix(f".{os.getpid()}.part")
    try:
        with partial.open("wb") as handle:
            partial.chmod(0o600)
            for body in _bodies(table, found["token"], found["parts"]):
                if body is None:
                    return False
                handle.write(body)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _bodies(table: Table, token: str, parts: int) -> Iterator[bytes | None]:
    for start in range(0, parts, _AT_ONCE):
        keys = [_part(token, number) for number in range(start, min(start + _AT_ONCE, parts))]
        found = table.all_of(keys, at_once=_AT_ONCE)
        yield from (found[key]["body"] if key in found else None for key in keys)


def clear(table: Table, name: str, keep: str = "") -> None:
    """Removes every part of a file and its name, but for those of the token to be kept."""
    if not keep:
        table.do(delete(f"file/{name}", "name"))
    for begun in table.query(f"file/{name}", "begun/"):
        token = begun["sk"].removeprefix("begun/")
        if token != keep:
            _drop(table, begun)


def sweep(table: Table, is_kept: Callable[[str, str], bool]) -> None:
    """Removes what was begun, of any file, and is not to be kept by its name and token."""
    for begun in table.scan("file/", "begun/"):
        name, token = begun["pk"].removeprefix("file/"), begun["sk"].removeprefix("begun/")
        if not is_kept(name, token):
            _drop(table, begun)


def token_of(table: Table, name: str) -> str | None:
    """Under which the parts of a file are; None where there is no such file."""
    found = table.get(f"file/{name}", "name")
    return None if found is None else str(found["token"])


def _drop(table: Table, begun: Item) -> None:
    token = begun["sk"].removeprefix("begun/")
    for number in range(begun["parts"]):
        table.do(delete(*_part(token, number)))
    table.do(delete(begun["pk"], begun["sk"]))


def _part(token: str, number: int) -> Key:
    # each part is a partition of its own: one partition takes 1 MB a second
    return f"part/{token}/{number:05d}", "part"
