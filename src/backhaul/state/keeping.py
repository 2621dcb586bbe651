"""How dead letters are kept: the payload by reference to its plan, or message and payload encrypted (AES-256-GCM)."""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from backhaul.errors import StateError, UsageError
from backhaul.extras import require_extra

BY_REFERENCE, PLAIN = "", "plain"
"""`seal` of a letter whose payload stands in its plan, and of one that an earlier release stored as it was."""
_NONCE = 12
"""Bytes (NIST SP 800-38D, 8.2.2: 96 random bits are safe for 2^32 letters under one key)."""
_LOST = (
    "put that key back behind the newest; if it is lost, have the newest values sent: "
    "`backhaul dead-letters replay {which}`"
)


class Keeping:
    """What a state does with letters: `keys` are 32 bytes each, the newest first; without any, payloads are kept by
    reference."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._keys = {_name(key): key for key in keys}
        self.seal = _name(keys[0]) if keys else BY_REFERENCE

    def check(self, sync: str, seals: Iterable[tuple[str, int]]) -> None:
        """`seals`: the keys that a sync's letters are encrypted with, and how many with each.

        Raises:
            UsageError: letters could not be encrypted, or some that are there could not be read.
        """
        if self._keys:
            self._cipher(self.seal)
        for seal, count in seals:
            if seal not in self._keys:
                raise _no_key(f"{count:,} of {sync} are", seal, f"--sync {sync}")

    def close(self, scope: str, key: str, message: str, payload: str) -> tuple[str, str, str]:
        """(message, payload, seal) as they are stored."""
        if not self._keys:
            return message, "", BY_REFERENCE
        nonce = os.urandom(_NONCE)
        text = orjson.dumps([message, payload])
        sealed = nonce + self._cipher(self.seal).encrypt(nonce, text, _about(scope, key))
        return "", b64encode(sealed).decode(), self.seal

    def open(self, row: Any) -> tuple[str, str | None]:
        """(message, payload as JSON) of a row of the state; the payload None where it is kept by reference.

        Raises:
            UsageError: its key is not among ours.
            StateError: it is not what was stored.
        """
        if row["seal"] in (BY_REFERENCE, PLAIN):
            return row["message"], row["payload"] or None
        if row["seal"] not in self._keys:
            raise _no_key(f"{row['id']} is", row["seal"], str(row["id"]))
        require_extra("encryption", "`dead_letters: keys`")
        from cryptography.exceptions import InvalidTag

        try:
            sealed = b64decode(row["payload"])
            text = self._cipher(row["seal"]).decrypt(
                sealed[:_NONCE], sealed[_NONCE:], _about(row["scope"], row["key"])
            )
        except (InvalidTag, ValueError):
            raise StateError(
                f"dead letter {row['id']} is not what was encrypted: the state was altered",
                hint=f"restore a backup of the state, or `backhaul dead-letters discard {row['id']}`",
            ) from None
        message, payload = orjson.loads(text)
        return str(message), str(payload)

    def _cipher(self, seal: str) -> Any:
        require_extra("encryption", "`dead_letters: keys`")
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._keys[seal])


def _about(scope: str, key: str) -> bytes:
    """What a letter is bound to: it cannot be passed off as another record's."""
    return orjson.dumps([scope, key])


def _name(key: bytes) -> str:
    return hashlib.sha256(b"backhaul dead letters" + key).hexdigest()[:12]


def _no_key(which: str, seal: str, asked: str) -> UsageError:
    return UsageError(
        f"dead letters: {which} encrypted with key {seal}, which is not among `dead_letters: keys`",
        hint=_LOST.format(which=asked),
    )
