"""Dead letters on their way into the state, and what runs do with those that are there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from backhaul.advice import shape
from backhaul.state.protocol import State
from backhaul.types import RefusalClass
from backhaul.words import in_one_line

LONGEST_CODE = 100
"""Characters."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record refused for good. `key` and `payload` are JSON; `field` is what the refusal names."""

    key: str
    op: str
    code: str
    message: str
    attempts: int
    payload: str
    hash: str
    by_mapping: bool = False
    field: str | None = None
    kind: RefusalClass = RefusalClass.RECORD
    tries: int = 0
    """Runs that tried it while it waits for another record; 0: it is refused for good."""


@dataclass(frozen=True, slots=True)
class KnownLetter:
    """What the state has of a refused record: the hash of the value that was refused, its code, and how many runs tried it while
    it waits for another record."""

    hash: str
    code: str
    tries: int


def known_letters(state: State, scope: str, *, again: bool = False) -> dict[str, KnownLetter]:
    """A scope's letters by key. `again`: for records that the same run sends once more, which does not count as another run."""
    return {
        row["key"]: KnownLetter(row["hash"], row["code"], max(row["tries"] - again, 0))
        for row in state.do("letters", {"scope": scope})
    }


def burial(state: State, scope: str, plan: str, letter: DeadLetter, mapping: str) -> Sequence[Any]:
    """The row of `bury`; `mapping` is the fingerprint of the mapping that the plan was made with."""
    at, said = state.now(), in_one_line(state.mask(letter.message))
    message, payload, seal = state.keeping.close(scope, letter.key, said, letter.payload)
    code = in_one_line(state.mask(letter.code), LONGEST_CODE)
    status = "waiting" if letter.tries else "dead"
    return (
        scope, letter.key, letter.op, code, message, letter.attempts, at, at, payload, letter.hash, int(letter.by_mapping), plan,
        letter.field, seal, letter.kind, letter.tries, status, mapping,
        shape_id(said, letter.payload),
    )  # fmt: skip


def shape_id(message: str, payload: str) -> str:
    """Stands for the shape of a message in the state, which it can be counted by even where messages are encrypted."""
    try:
        record = orjson.loads(payload)
    except orjson.JSONDecodeError:  # nested deeper than it reads
        record = None
    values = record.values() if isinstance(record, dict) else ()
    return hashlib.blake2b(shape(message, values).encode("utf-8", "replace"), digest_size=6).hexdigest()


def check_keys(state: State, scope: str, name: str) -> None:
    """Called before anything of a scope is sent; `name` is the sync's.

    Raises:
        UsageError: letters could not be encrypted, or some that are there could not be read.
    """
    rows = state.do("seals", {"scope": scope})
    state.keeping.check(name, [(row["seal"], row["letters"]) for row in rows])


def expire(state: State, scope: str, before: str) -> int:
    """Of letters that failed last before this time nothing stays but that their values are refused. Returns how many."""
    return len(state.do("expire_letters", {"scope": scope, "before": before}))


def seal_anew(state: State, scope: str) -> None:
    """Encrypts with the newest key what was stored otherwise; payloads that are kept by reference stay so."""
    keeping = state.keeping
    while keeping.seal and (rows := state.do("letters_to_seal", {"scope": scope, "seal": keeping.seal})):
        fresh = []
        for row in rows:
            message, payload = keeping.open(row)
            fresh.append([row["id"], row["seal"], *keeping.close(scope, row["key"], message, payload or "")])
        state.do_all("seal_letters", fresh)
