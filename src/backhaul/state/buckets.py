"""Buckets of one process, and what those of any database have in common."""

from __future__ import annotations

import asyncio
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from backhaul.state.protocol import Act, T


class OwnBuckets:
    """Buckets of one process, which end with it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._documents: dict[str, dict[str, Any]] = {}
        self._salt = secrets.token_bytes(32)

    async def salt(self) -> bytes:
        return self._salt

    async def exchange(self, bucket: str, act: Act[T]) -> T:
        return act(self._documents.setdefault(bucket, {}), self._clock())

    async def peek(self, bucket: str) -> tuple[dict[str, Any], float]:
        return self._documents.get(bucket, {}), self._clock()

    async def close(self) -> None:
        """Nothing to let go of."""


class BlockingBuckets(ABC):
    """Buckets over a driver that blocks: one call at a time, on a thread beside the event loop. See protocol.Buckets."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    async def salt(self) -> bytes:
        return await asyncio.to_thread(self._alone, self._salt)

    async def exchange(self, bucket: str, act: Act[T]) -> T:
        return await asyncio.to_thread(self._alone, self._exchange, bucket, act)

    async def peek(self, bucket: str) -> tuple[dict[str, Any], float]:
        return await asyncio.to_thread(self._alone, self._peek, bucket)

    async def close(self) -> None:
        with self._turn:
            self._close()

    def _alone(self, call: Callable[..., T], *arguments: Any) -> T:
        with self._turn:
            return call(*arguments)

    @abstractmethod
    def _salt(self) -> bytes: ...

    @abstractmethod
    def _exchange(self, bucket: str, act: Act[T]) -> T: ...

    @abstractmethod
    def _peek(self, bucket: str) -> tuple[dict[str, Any], float]: ...

    @abstractmethod
    def _close(self) -> None: ...
