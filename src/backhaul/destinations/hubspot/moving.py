"""What moves from one record to another within a run, and must not be taken away from the one that it came to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Moves(Generic[T]):
    """The associations or members that records have moved to in a run so far, by record ids. None of them is removed because
    another record had it before, whatever batch or attempt that one is in. Moves of a plan come before its creates."""

    def __init__(self) -> None:
        self._given: set[T] = set()
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def giving(self, wanted: Iterable[T], had: Iterable[T | None]) -> AsyncIterator[list[T]]:
        """What may go of what these records had. Of batches that take something away one goes at a time."""
        before = [one for one in dict.fromkeys(had) if one is not None]
        if not before:
            yield []
            return
        self._given.update(wanted)
        async with self._turn:
            yield [one for one in before if one not in self._given]
