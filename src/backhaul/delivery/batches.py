"""A plan's rows as batches. The engine writes every record's bytes into one Arrow string column, so a batch's body is a
slice of that column's buffer; no Python object is made for a record that nobody has to talk about."""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from backhaul.destinations.kit import Wire
from backhaul.ledger.diff import key_json
from backhaul.ledger.plan import Plan, Segment
from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.mapping.wire import delete_fields, key_text, record_text
from backhaul.sql import literal
from backhaul.types import BatchLimits, Field, Op

CHUNK_ROWS = 65_536
CHUNK_BYTES = 32 << 20


class Chunk:
    """Some consecutive plan rows, encoded: Arrow columns `key, pk, hash, remote_id, wire`. `first` is the first row's number."""

    def __init__(self, table: pa.RecordBatch, first: int, plan: Plan, segment: Segment, object: str,
                 fields: Sequence[MappedField], identifiers: tuple[str, ...], wire: Wire) -> None:  # fmt: skip
        self.first = first
        self.plan = plan
        self.op = segment.op
        self.object = object
        self.fields: tuple[Field, ...] = tuple(field.field for field in fields)
        self.identifiers = identifiers
        self.wire = wire
        self.table = table
        column = table.column("wire")
        _, offsets, data = column.buffers()
        numbers = memoryview(offsets)
        numbers = numbers.cast("q") if pa.types.is_large_string(column.type) else numbers.cast("i")
        self.offsets: memoryview[int] = numbers[column.offset : column.offset + len(column) + 1]
        self.data = memoryview(data) if data is not None else memoryview(b"")

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def batches(self, limits: BatchLimits) -> Iterator[PlanBatch]:
        """Cuts the chunk; a batch holds at least one record, even one that is over the byte limit."""
        low, count = 0, len(self)
        while low < count:
            high = min(low + limits.records, count)
            if self.offsets[high] - self.offsets[low] > limits.bytes:
                high = max(
                    bisect_right(self.offsets, self.offsets[low] + limits.bytes, low, high) - 1, low + 1
                )
            yield PlanBatch(self, range(low, high))
            low = high


class PlanBatch:
    """Implements kit.Batch over rows of a chunk. `rows` are positions within the chunk."""

    def __init__(self, chunk: Chunk, rows: Sequence[int]) -> None:
        self.chunk = chunk
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def op(self) -> Op:
        return self.chunk.op

    @property
    def object(self) -> str:
        return self.chunk.object

    @property
    def identifiers(self) -> tuple[str, ...]:
        return self.chunk.identifiers

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.chunk.fields

    @property
    def low(self) -> int:
        """The plan row number of the first record."""
        return self.chunk.first + self.rows[0]

    @property
    def high(self) -> int:
        return self.chunk.first + self.rows[-1] + 1

    @cached_property
    def idempotency_key(self) -> str:
        rows = f"{self.low}-{self.high}" if isinstance(self.rows, range) else ",".join(map(str, self.rows))
        return blake2b(
            f"{self.chunk.plan.id}/{self.chunk.plan.digest}/{self.chunk.first}/{rows}".encode(),
            digest_size=16,
        ).hexdigest()

    @cached_property
    def keys(self) -> Sequence[str]:
        return self._strings("key")

    @cached_property
    def remote_ids(self) -> Sequence[str | None]:
        return self._strings("remote_id")

    def _strings(self, name: str) -> list[Any]:
        column = self.chunk.table.column(name)
        if isinstance(self.rows, range):
            return list(column.slice(self.rows.start, len(self.rows)).to_pylist())
        return [column[row].as_py() for row in self.rows]

    def text(self) -> bytes:
        offsets, data = self.chunk.offsets, self.chunk.data
        tail = 0 if self.chunk.wire is Wire.CSV else 1  # the comma behind the last object
        if isinstance(self.rows, range):
            return bytes(data[offsets[self.rows.start] : offsets[self.rows.stop] - tail])
        text = b"".join(data[offsets[row] : offsets[row + 1]] for row in self.rows)
        return text[: len(text) - tail]

    def records(self) -> list[dict[str, Any]]:
        parsed: list[dict[str, Any]] = orjson.loads(b"[" + self.text() + b"]")
        return parsed

    def only(self, rows: Sequence[int]) -> PlanBatch:
        """The same batch with some of its rows; the same rows give the same idempotency key."""
        if not isinstance(rows, range) and rows[-1] - rows[0] == len(rows) - 1:
            rows = range(rows[0], rows[-1] + 1)
        return PlanBatch(self.chunk, rows)

    def halves(self) -> tuple[PlanBatch, PlanBatch]:
        middle = len(self.rows) // 2
        return self.only(self.rows[:middle]), self.only(self.rows[middle:])

    def primary_key(self, row: int) -> str:
        """The primary key of one row, as JSON."""
        return str(self.chunk.table.column("pk")[row].as_py())

    def hash(self, row: int) -> str:
        return str(self.chunk.table.column("hash")[row].as_py())

    def payload(self, row: int) -> str:
        """One record as a JSON object, whatever the wire."""
        text = self.only([row]).text()
        if self.chunk.wire is not Wire.CSV:
            return text.decode()
        cells = next(csv.reader(io.StringIO(text.decode(), newline="")), [])
        return orjson.dumps(
            {field.name: cell for field, cell in zip(self.chunk.fields, cells, strict=False)}
        ).decode()


def read_chunks(
    engine: duckdb.DuckDBPyConnection, plan: Plan, segment: Segment, mapping: Mapping, object: str, wire: Wire,
    limits: BatchLimits,
) -> Generator[Chunk, None, None]:  # fmt: skip
    """The rows of one segment in plan order, encoded for the wire, a bounded number of bytes at a time.

    `engine` must keep the order of insertion and serve nothing else until the generator ends or is closed.
    """
    fields = delete_fields(mapping) if segment.op is Op.DELETE else mapping.fields
    count = segment.high - segment.low
    each = plan.path.stat().st_size // max(plan.total + plan.refused, 1)
    rows = max(min(CHUNK_ROWS, CHUNK_BYTES // max(each * 4, 1)), 1)
    rows = max(rows // limits.records, 1) * limits.records if limits.records <= rows else limits.records
    query = (
        f"SELECT {key_text(mapping.identifiers)} AS key, {key_json(mapping)} AS pk, _hash AS hash, "
        f"_remote_id AS remote_id, {record_text(wire.value, fields)} AS wire "
        f"FROM read_parquet({literal(str(plan.path))}, file_row_number = true) "
        f"WHERE file_row_number >= {segment.low} AND file_row_number < {segment.high}"
    )
    first, names = segment.low, tuple(field.name for field in mapping.identifiers)
    with engine.sql(query).to_arrow_reader(rows) as tables:
        for table in _whole_batches(tables, limits.records):
            yield Chunk(table, first, plan, segment, object, fields, names, wire)
            first += table.num_rows
    if first - segment.low != count:
        raise RuntimeError(f"plan {plan.id} gave {first - segment.low} of {count} rows")


def _whole_batches(tables: Iterable[pa.RecordBatch], records: int) -> Iterator[pa.RecordBatch]:
    """The same rows, cut where a batch ends: the engine cuts at row groups, which would leave a small batch at each."""
    rest: pa.RecordBatch | None = None
    for table in tables:
        joined = (
            table if rest is None else pa.Table.from_batches([rest, table]).combine_chunks().to_batches()[0]
        )
        whole = joined.num_rows - joined.num_rows % records
        if whole:
            yield joined.slice(0, whole)
        rest = joined.slice(whole) if whole < joined.num_rows else None
    if rest is not None:
        yield rest
