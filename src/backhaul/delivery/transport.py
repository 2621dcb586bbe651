"""How a request leaves: over HTTP, or into whatever a simulation puts in its place."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import zlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from backhaul.destinations.kit import Answer
from backhaul.errors import BackhaulError, Halt, NotApplied, Unsettled
from backhaul.failpoints import failpoint

if TYPE_CHECKING:
    import aiohttp

ANSWER_LIMIT = 64 << 20
"""Bytes of one answer, decompressed."""
RATIO_LIMIT = 500
"""Bytes that one compressed byte may unpack to, in answers of more than a MiB: gzip itself goes up to about 1,000."""

_departed: ContextVar[Callable[[], None]] = ContextVar("departed")


class Transport(Protocol):
    """Carries one request and brings its answer back whole, within a total deadline."""

    async def exchange(
        self, method: str, url: str, body: bytes | None, params: Mapping[str, str] | None, headers: Mapping[str, str],
        departed: Callable[[], None],
    ) -> Answer:  # fmt: skip
        """Calls `departed` each time that the request is about to leave; what that raises keeps it here.

        Raises:
            NotApplied: it never reached the destination.
            Unsettled: nobody knows whether it was applied.
            Halt: the address or its certificate is wrong.
        """

    async def close(self) -> None: ...


class Internet:
    """Implements Transport with aiohttp; `timeout` is the total of one request, in seconds."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def exchange(
        self, method: str, url: str, body: bytes | None, params: Mapping[str, str] | None, headers: Mapping[str, str],
        departed: Callable[[], None],
    ) -> Answer:  # fmt: skip
        import aiohttp

        # a large body as one bytes object would be written in one piece and block the loop
        data: Any = BytesIO(body) if body is not None and len(body) > 1 << 20 else body
        _departed.set(departed)
        try:
            async with self._opened().request(
                method, url, data=data, params=params, headers=headers, allow_redirects=False
            ) as response:
                failpoint("sent")
                read = await _read(response)
                lower = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, lower, read)
        except aiohttp.ClientConnectorCertificateError as error:
            raise Halt(
                f"{_place(url)}: its TLS certificate is not trusted ({error.certificate_error})"
            ) from None
        except (aiohttp.ClientConnectorSSLError, ssl.SSLError) as error:
            raise Halt(
                f"{_place(url)}: no TLS connection ({error})", hint="is base_url's scheme right?"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise NotApplied(
                f"cannot connect to {_place(url)}: {_reason(error.os_error)}", code="connect"
            ) from None
        except aiohttp.ConnectionTimeoutError:
            raise NotApplied(
                f"cannot connect to {_place(url)}: no answer to the connection attempt", code="connect"
            ) from None
        except TimeoutError:
            raise Unsettled(
                f"{_place(url)} gave no complete answer within {self.timeout:g} s", code="timeout"
            ) from None
        except aiohttp.InvalidURL:
            raise Halt(
                f"{_place(url)} is not a URL that can be called", hint="check base_url and the request's path"
            ) from None
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError) as error:
            raise Unsettled(
                f"{_place(url)}: the connection broke ({type(error).__name__})", code="reset"
            ) from None

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.timeout, connect=min(self.timeout, 10.0)),
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "backhaul", "Accept-Encoding": "gzip, deflate"},
                auto_decompress=False,  # aiohttp would unpack a whole chunk of a bomb at once
                request_class=_request_class(),
            )
        return self._session


@functools.cache
def _request_class() -> type[aiohttp.ClientRequest]:
    """A request that asks at the last moment whether it may leave: it may have waited for a connection, for its turn among
    tasks, or for this process to be woken; and the client itself sends some again when a kept connection was closed."""
    import aiohttp

    class Departing(aiohttp.ClientRequest):
        async def send(self, conn: Any) -> aiohttp.ClientResponse:
            if not self.body:
                _departed.get()()
            return await super().send(conn)

        async def write_bytes(self, writer: Any, conn: Any, content_length: int | None = None) -> None:
            try:
                _departed.get()()
            except BackhaulError as error:
                conn.protocol.set_exception(error)  # whoever waits for the answer gets it
                conn.close()
            else:
                await super().write_bytes(writer, conn, content_length)

    return Departing


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks, size, unpack = list[bytes](), 0, _unpacking(response.headers.get("Content-Encoding", ""))
    received = 0
    while packed := await response.content.readany():
        received += len(packed)
        try:
            chunk = unpack(packed, ANSWER_LIMIT + 1 - size)
        except (zlib.error, EOFError):
            response.close()
            raise Unsettled(f"HTTP {response.status} with an answer that cannot be unpacked") from None
        size += len(chunk)
        if size > ANSWER_LIMIT:
            response.close()
            raise Unsettled(f"HTTP {response.status} with an answer of more than {ANSWER_LIMIT >> 20} MiB")
        if size > 1 << 20 and size > RATIO_LIMIT * received:
            response.close()
            raise Unsettled(
                f"HTTP {response.status} with an answer that unpacks to more than {RATIO_LIMIT} times its size"
            )
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _unpacking(encoding: str) -> Callable[[bytes, int], bytes]:
    """What unpacks the parts of an answer, each to no more than so many bytes (RFC 9110, 8.4.1)."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return lambda packed, most: packed
    unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, as its first bytes say

    def unpack(packed: bytes, most: int) -> bytes:
        nonlocal unpacker
        try:
            return unpacker.decompress(packed, most)
        except zlib.error:
            if encoding != "deflate" or unpacker.eof:
                raise
            unpacker = zlib.decompressobj(wbits=-15)  # some servers leave zlib's header out
            return unpacker.decompress(packed, most)

    return unpack


def _reason(error: OSError) -> str:
    """The system's words: asyncio puts the address into its own."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def _place(url: str) -> str:
    """Host and port, without path, query or credentials."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
