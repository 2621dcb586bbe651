"""A model that arrives as an Arrow stream: scanned once by the engine, counted batch by batch as it passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from backhaul.sql import ident

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_NUMBERS = itertools.count(1)


class Stream:
    """Implements protocol.Relation over record batches. `explain` puts a driver's error into words; `select` is what the
    engine selects from the stream, casts included."""

    repeatable = False

    def __init__(
        self, engine: duckdb.DuckDBPyConnection, schema: pa.Schema, batches: Iterable[pa.RecordBatch], select: str,
        explain: Callable[[Exception], str], again: Callable[[], Stream], release: Callable[[], None],
    ) -> None:  # fmt: skip
        import pyarrow as pa

        self._engine, self._explain, self._again, self._release = engine, explain, again, release
        self._name = f"backhaul_stream_{next(_NUMBERS)}"
        self._count = 0
        self.failure: str | None = None
        reader = pa.RecordBatchReader.from_batches(schema, self._counted(batches))
        engine.register(self._name, reader)
        self.sql = f"(SELECT {select} FROM {ident(self._name)})"

    @property
    def rows(self) -> int | None:
        return self._count

    def _counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        source = iter(batches)
        while True:
            try:
                batch = next(source, None)
            except Exception as error:
                self.failure = self._explain(error)
                raise
            if batch is None:
                return
            self._count += batch.num_rows
            yield batch

    def again(self) -> Any:
        return self._again()

    def close(self) -> None:
        self._engine.unregister(self._name)
        self._release()
