"""The HTTP door of one destination: budget, authorisation, total deadline, capped answers, no redirects."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from backhaul.delivery.budget import Budget
from backhaul.destinations.kit import Answer, Destination
from backhaul.errors import Halt, NotApplied, Unsettled

if TYPE_CHECKING:
    import aiohttp

ANSWER_LIMIT = 64 << 20
"""Bytes of one answer, decompressed."""


class Door:
    """Implements kit.Http. `owner` is set once the destination exists; they need each other."""

    owner: Destination[Any]

    def __init__(self, budget: Budget, timeout: float) -> None:
        self.budget = budget
        self.timeout = timeout
        self.requests = 0
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, json: Any = None,
        params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """One request and its answer, read whole.

        Raises:
            NotApplied: it never reached the destination, or the budget has no room (Exhausted).
            Unsettled: nobody knows whether it was applied.
            BackhaulError: what the destination's `classify` makes of the answer.
        """
        await self.budget.acquire()
        self.requests += 1
        sent = dict(self.owner.headers())
        sent.update(headers or {})
        data: Any = orjson.dumps(json) if json is not None else body
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
            # a large body as one bytes object would be written in one piece and block the loop
            data = BytesIO(data) if len(data) > 1 << 20 else data
        answer = await self._exchange(method, self._url(path), data, params, sent)
        error = self.owner.classify(answer)
        if error is not None:
            raise error
        return answer

    def _url(self, path: str) -> str:
        return self.owner.base_url.rstrip("/") + "/" + path.lstrip("/")

    async def _exchange(
        self, method: str, url: str, data: Any, params: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Answer:
        import aiohttp

        place = _place(url)
        try:
            async with self._opened().request(
                method, url, data=data, params=params, headers=headers, allow_redirects=False
            ) as response:
                body = await _read(response)
                lower = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, lower, body)
        except aiohttp.ClientConnectorCertificateError as error:
            raise Halt(f"{place}: its TLS certificate is not trusted ({error.certificate_error})") from None
        except (aiohttp.ClientConnectorSSLError, ssl.SSLError) as error:
            raise Halt(f"{place}: no TLS connection ({error})", hint="is base_url's scheme right?") from None
        except aiohttp.ClientConnectorError as error:
            raise NotApplied(
                f"cannot connect to {place}: {_reason(error.os_error)}", code="connect"
            ) from None
        except aiohttp.ConnectionTimeoutError:
            raise NotApplied(
                f"cannot connect to {place}: no answer to the connection attempt", code="connect"
            ) from None
        except TimeoutError:
            raise Unsettled(
                f"{place} gave no complete answer within {self.timeout:g} s", code="timeout"
            ) from None
        except aiohttp.InvalidURL:
            raise Halt(
                f"{place} is not a URL that can be called", hint="check base_url and the request's path"
            ) from None
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError) as error:
            raise Unsettled(f"{place}: the connection broke ({type(error).__name__})", code="reset") from None

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.timeout, connect=min(self.timeout, 10.0)),
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "backhaul"},
            )
        return self._session


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > ANSWER_LIMIT:
            response.close()
            raise Unsettled(f"HTTP {response.status} with an answer of more than {ANSWER_LIMIT >> 20} MiB")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _reason(error: OSError) -> str:
    """The system's words: asyncio puts the address into its own."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def _place(url: str) -> str:
    """Host and port, without path, query or credentials."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
