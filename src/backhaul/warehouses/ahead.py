"""Reads an Arrow stream in a thread of its own, a little ahead of who takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_BATCHES = 16
"""The driver decodes while the engine is busy with what came before; so many batches are the most that wait."""


class Ahead(Iterator["pa.RecordBatch"]):
    """The batches of `source`, in order; what it raises is raised where it would have been. `cancel` ends a read from another
    thread."""

    def __init__(self, source: Iterable[pa.RecordBatch], cancel: Callable[[], None]) -> None:
        self._source, self._cancel = iter(source), cancel
        self._thread = ThreadPoolExecutor(1, "read ahead")
        self._due = deque(self._read() for _ in range(_BATCHES))

    def _read(self) -> Future[pa.RecordBatch | None]:
        return self._thread.submit(next, self._source, None)

    def __next__(self) -> pa.RecordBatch:
        batch = self._due.popleft().result()
        self._due.append(self._read())
        if batch is None:
            raise StopIteration
        return batch

    def close(self) -> None:
        """Returns when nothing reads any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if any(due.running() for due in self._due):
            self._cancel()
        self._thread.shutdown()
