"""A plan: what would be sent, frozen in one Parquet file that any number of processes can read.

Columns: `_segment` and `_change` (see below), `k0…` the key, `_hash`, `f.NAME` new values, `o.NAME` the values
that the destination has acknowledged, `_remote_id`, `_error`. Rows are addressed by their number in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from backhaul.mapping.fingerprint import whole_fingerprint
from backhaul.sql import literal
from backhaul.types import Op

CHANGES = ("create", "update", "delete")
"""`_change` is an index into this."""

DELETE, MOVE, SEND, KEEP, LEAVE, FORGET, REFUSE = 0, 1, 2, 6, 7, 8, 9
"""`_segment`, in the order of sending: what left the model goes first, so that a unique value it held is free again. No request
is made for the rest. KEEP: another sync holds the record that left the model. LEAVE: the row waited to be sent and left a model
whose mode deletes nothing. FORGET: another key of the model claims the record. REFUSE: the mapping rejects the row."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows [low, high) of a plan, all sent as one operation; segments are sent one after the other."""

    op: Op
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan. `rows` are the model's; `refused` rows never leave because the mapping rejects them; `forgotten` ones are
    taken out of the ledger without a request. `digest` is equal for equal changes."""

    id: str
    sync: str
    path: Path
    rows: int
    changes: dict[str, int]
    segments: tuple[Segment, ...] = ()
    refused: int = 0
    forgotten: int = 0
    digest: str = ""
    first: bool = False
    """The ledger was empty."""
    incremental: bool = False
    reasons: dict[str, int] = field(default_factory=dict)
    """Why rows are sent again although their values are as acknowledged: `mapping`, `unknown`, `reset`; `absent`:
    a create of unknown end that a look-up did not find. `replaced` and `left_behind`: records whose identifier changes at a
    destination that cannot change it; those under the previous one are deleted, or stay."""
    shape: dict[str, Any] = field(default_factory=dict)
    mapping: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the mapping's fields."""
    remapped: dict[str, int] = field(default_factory=dict)
    """Fields that are mapped otherwise than what was delivered, and how many updates each causes."""
    unapproved: tuple[str, ...] = ()
    """Fields that are mapped otherwise than in any plan that was delivered."""
    compared: bool = False
    """The old values are those that the destination acknowledged."""
    after: str | None = None
    """The newest plan that the ledger had taken in."""
    watermark: str | None = None
    """The cursor's highest value in this read; stored once everything here is settled."""
    follows: str | None = None
    """The plan whose records this one sends again, because they waited for others of it."""
    scope: str = ""
    """The scope (state/scopes.py) whose ledger it changes."""
    undo: str | None = None
    """The run whose changes this takes back; its file has a column more: `_was`, the ledger's hash when it was made."""

    @property
    def fingerprint(self) -> str:
        """Stands for the mapping as a whole."""
        return whole_fingerprint(self.mapping)

    @property
    def total(self) -> int:
        """Changes that would be sent."""
        return sum(segment.high - segment.low for segment in self.segments)

    @property
    def rows_sql(self) -> str:
        """SQL of the file's rows with their numbers, `file_row_number`."""
        return rows_of(self.path)

    def header(self) -> bytes:
        """The plan without its rows, as JSON."""
        data = asdict(self)
        data["path"] = self.path.name
        return orjson.dumps(data)


def plan_from(header: bytes | str, path: Path) -> Plan:
    """The plan whose `header()` this is."""
    data = orjson.loads(header)
    data["segments"] = tuple(Segment(Op(item["op"]), item["low"], item["high"]) for item in data["segments"])
    data["path"] = path
    data["unapproved"] = tuple(data.get("unapproved", ()))
    return Plan(**data)


def rows_of(path: Path) -> str:
    """SQL of a plan file's rows with their numbers, `file_row_number`."""
    return f"read_parquet({literal(str(path))}, file_row_number = true)"


@contextmanager
def freezing(path: Path) -> Iterator[Path]:
    """Gives the path of a part to write, which at the end of the block becomes the file: whole, private and durable. Nothing
    is left of one that fails."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    try:
        yield part
        part.chmod(0o600)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    make_durable(path)


def make_durable(path: Path) -> None:
    """Forces a finished file and its folder's entry to the disk."""
    for name, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY)):
        handle = os.open(name, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
