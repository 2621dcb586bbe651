"""Refresh tokens that a vendor replaces when they are used (RFC 6749, 6): the newest one is kept in the state.

It is encrypted with a key made of the configured one, which the state does not know. One process at a time asks for an
access token: a second one would use a refresh token that is no longer valid, which some vendors take for a theft.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any

import orjson

from backhaul.errors import BackhaulError, Halt, NotApplied
from backhaul.redaction import remember
from backhaul.state.protocol import Buckets

Document = dict[str, Any]
Ask = Callable[[str], Awaitable[dict[str, Any]]]
_NONCE = 12
_GRACE = 15.0
"""Seconds beyond the request's own deadline after which the turn of a process that died is over."""
_POLL = 0.1
_AGAIN = "authorise the app again, and set its new refresh token where backhaul.yml takes it from"


class RefreshTokens:
    """The refresh tokens that followed a configured one. `parts` say whose it is; `timeout` is that of a request."""

    def __init__(self, buckets: Buckets, parts: Sequence[str], configured: str, timeout: float) -> None:
        self._buckets, self._parts, self._configured, self._timeout = buckets, parts, configured, timeout

    async def spend(self, ask: Ask) -> dict[str, Any]:
        """Asks for an access token with the newest refresh token, and keeps the one that the answer brings.

        Raises:
            Halt: the refresh token is refused; says so where its successor was lost.
        """
        salt = await self._buckets.salt()
        named = orjson.dumps(["refresh token", *self._parts, self._configured])
        bucket = f"token {blake2b(named, key=salt, digest_size=16).hexdigest()}"
        cipher, holder = self._cipher(bucket), secrets.token_hex(8)
        found = await self._take(bucket, holder)
        token = cipher.open(found["kept"]) if "kept" in found else self._configured
        try:
            said = await ask(token)
        except BackhaulError as error:
            lost = bool(found.get("asked"))
            await self._give(bucket, holder, asked=lost or not isinstance(error, Halt | NotApplied))
            if lost and isinstance(error, Halt):
                raise Halt("the destination replaced the refresh token, and the new one was lost with the process that asked",
                           hint=_AGAIN) from None  # fmt: skip
            raise
        fresh = said.get("refresh_token")
        kept = cipher.close(fresh) if isinstance(fresh, str) and fresh and fresh != token else None
        await self._give(bucket, holder, kept)
        return said

    async def _take(self, bucket: str, holder: str) -> Document:
        """Waits for its turn; the document as it was."""

        def act(document: Document, now: float) -> Document | None:
            if document.get("holder") and now < document["until"]:
                return None
            before = dict(document)
            document.update(holder=holder, until=now + self._timeout + _GRACE, asked=True)
            return before

        while (found := await self._buckets.exchange(bucket, act)) is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)  # whoever is before us may be another process
        return found

    async def _give(self, bucket: str, holder: str, kept: str | None = None, *, asked: bool = False) -> None:
        """Stores a new token and ends the turn, in one step. `asked`: there may be a new one that nobody has read."""

        def act(document: Document, now: float) -> None:
            if kept is not None:
                document["kept"] = kept
            if document.get("holder") == holder:
                document.pop("holder")
                document["asked"] = asked

        await self._buckets.exchange(bucket, act)

    def _cipher(self, bucket: str) -> _Cipher:
        return _Cipher(
            blake2b(self._configured.encode(), person=b"backhaul refresh", digest_size=32).digest(), bucket
        )


class _Cipher:
    """AES-256-GCM, bound to the bucket: what is kept cannot be passed off as another credential's."""

    def __init__(self, key: bytes, bucket: str) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise Halt("signing in with a refresh token needs the library cryptography, to keep the next one encrypted",
                       hint="pip install 'backhaul[encryption]'") from None  # fmt: skip
        self._key, self._about = AESGCM(key), bucket.encode()

    def close(self, token: str) -> str:
        nonce = secrets.token_bytes(_NONCE)
        return b64encode(nonce + self._key.encrypt(nonce, token.encode(), self._about)).decode()

    def open(self, kept: str) -> str:
        """Raises: Halt: it is not what was kept."""
        from cryptography.exceptions import InvalidTag

        try:
            sealed = b64decode(kept)
            token = self._key.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._about).decode()
        except (InvalidTag, ValueError):
            raise Halt("the refresh token in the state is not what was kept there: the state was altered",
                       hint=_AGAIN) from None  # fmt: skip
        remember(token)
        return token
