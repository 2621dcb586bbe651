"""A plan's rows as batches. The engine writes every record's bytes into one Arrow string column, so a batch's body is a
slice of that column's buffer; no Python object is made for a record that nobody has to talk about."""

from __future__ import annotations

import asyncio
import csv
import io
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from backhaul.changes import Stage, code
from backhaul.delivery.encoding import CHANGED, RECREATED, WHOLE, Encoding
from backhaul.destinations.kit import Wire
from backhaul.engine import in_order
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.plan import CHANGES, Plan, Segment
from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.mapping.wire import delete_fields, key_text, record_text
from backhaul.sql import ident
from backhaul.state.protocol import Row
from backhaul.types import BatchLimits, Field, Frame, Op

CHUNK_ROWS = 65_536
CHUNK_BYTES = 32 << 20


class Texts:
    """An Arrow column of encoded records: one buffer, and where each record begins."""

    def __init__(self, column: pa.Array) -> None:
        _, offsets, data = column.buffers()
        numbers = memoryview(offsets)
        numbers = numbers.cast("q") if pa.types.is_large_string(column.type) else numbers.cast("i")
        self.offsets: memoryview[int] = numbers[column.offset : column.offset + len(column) + 1]
        self.data = memoryview(data) if data is not None else memoryview(b"")

    def size(self, row: int) -> int:
        return self.offsets[row + 1] - self.offsets[row]

    @cached_property
    def largest(self) -> int:
        """No record has more bytes."""
        return max((self.size(row) for row in range(len(self.offsets) - 1)), default=0)

    def joined(self, rows: Sequence[int], *, less: int = 0) -> bytes:
        """The records one after the other, without the last `less` bytes."""
        offsets, data = self.offsets, self.data
        if isinstance(rows, range):
            return bytes(data[offsets[rows.start] : offsets[rows.stop] - less])
        *most, last = rows
        pieces = [data[offsets[row] : offsets[row + 1]] for row in most]
        return b"".join([*pieces, data[offsets[last] : offsets[last + 1] - less]])


class Chunk:
    """Some consecutive plan rows, encoded: Arrow columns `key, pk, hash, remote_id, again, wire`, of updates `held` too, and
    `changed` where records need not be sent as a whole. `first` is the number of the first row."""

    def __init__(self, table: pa.RecordBatch, first: int, plan: Plan, segment: Segment, object: str,
                 fields: Sequence[MappedField], identifiers: tuple[str, ...], encoding: Encoding) -> None:  # fmt: skip
        self.first = first
        self.plan = plan
        self.op = segment.op
        self.object = object
        self.fields: tuple[Field, ...] = tuple(field.field for field in fields)
        self.identifiers = identifiers
        self.encoding = encoding
        self.wire, self.csv_null, self.frame = encoding.wire, encoding.csv_null, encoding.frame
        self.table = table
        self._encodings: dict[str, str] = {}
        self.whole = Texts(table.column("wire"))
        self.changed = Texts(table.column("changed")) if "changed" in table.schema.names else None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def encoding_text(self, records: str) -> str:
        """The encoding of a batch of it that holds so much of its records, as it is stored."""
        if records not in self._encodings:
            self._encodings[records] = replace(self.encoding, records=records).text()
        return self._encodings[records]

    def batch_from(self, low: int, end: int, limits: BatchLimits) -> PlanBatch:
        """The largest batch from row `low` that ends before `end`; it holds at least one record, even one that is over the byte
        limit."""
        high, offsets = min(low + limits.records, end), self.whole.offsets
        if offsets[high] - offsets[low] > limits.bytes:
            high = max(bisect_right(offsets, offsets[low] + limits.bytes, low, high) - 1, low + 1)
        return PlanBatch(self, range(low, high))

    def batch_to(self, end: int, low: int, limits: BatchLimits) -> PlanBatch:
        """A batch from row `low` or later that ends at `end`, cut as `batch_from`."""
        offsets = self.whole.offsets
        low = max(low, end - limits.records)
        if offsets[end] - offsets[low] > limits.bytes:
            low = min(bisect_left(offsets, offsets[end] - limits.bytes, low, end), end - 1)
        return PlanBatch(self, range(low, end))


class PlanBatch:
    """Implements kit.Batch over rows of a chunk. `rows` are positions within the chunk; `key` is the idempotency key under
    which they left before. `anew`: its records are gone at the destination, so that they leave as upserts without an id. `full`:
    with all their fields, also where the destination takes changed ones alone."""

    def __init__(
        self,
        chunk: Chunk,
        rows: Sequence[int],
        key: str | None = None,
        *,
        anew: bool = False,
        full: bool = False,
    ) -> None:
        self.chunk = chunk
        self.rows = rows
        self.anew = anew
        self._texts = chunk.whole if anew or full else chunk.changed or chunk.whole
        if key is not None:
            self.__dict__["idempotency_key"] = key

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def op(self) -> Op:
        return Op.UPSERT if self.anew else self.chunk.op

    @property
    def object(self) -> str:
        return self.chunk.object

    @property
    def wire(self) -> Wire:
        return self.chunk.wire

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
        """The same for the same rows of the same plan, however they were cut out of it."""
        first, plan = self.chunk.first, self.chunk.plan
        plain = isinstance(self.rows, range)
        rows = f"{self.low}-{self.high}" if plain else ",".join(str(first + row) for row in self.rows)
        anew = "/anew" if self.anew else ""
        return blake2b(f"{plan.id}/{plan.digest}/{rows}{anew}".encode(), digest_size=16).hexdigest()

    @cached_property
    def keys(self) -> Sequence[str]:
        return self._strings("key")

    @cached_property
    def remote_ids(self) -> Sequence[str | None]:
        return [None] * len(self) if self.anew else self._strings("remote_id")

    @property
    def encoding(self) -> str:
        """How its records are written, as it is stored with its intent."""
        return self.chunk.encoding_text(RECREATED if self.anew else WHOLE if self._is_full else CHANGED)

    @cached_property
    def previous_keys(self) -> Sequence[str]:
        return self._strings("previous") if self.op is Op.MOVE else ()

    @property
    def parts(self) -> Sequence[str]:
        if self._is_full:
            return ()
        return [key for key, row in zip(self.keys, self.rows, strict=True) if self.is_part(row)]

    def _strings(self, name: str) -> list[Any]:
        column = self.chunk.table.column(name)
        if isinstance(self.rows, range):
            return list(column.slice(self.rows.start, len(self.rows)).to_pylist())
        return [column[row].as_py() for row in self.rows]

    @property
    def size(self) -> int:
        """Bytes of its records, as far as they lie together."""
        offsets = self._texts.offsets
        return offsets[self.rows[-1] + 1] - offsets[self.rows[0]]

    @property
    def set_aside(self) -> bool:
        return self.chunk.plan.follows is not None

    def text(self) -> bytes:
        return self._texts.joined(self.rows, less=self._ending)

    def larger(self, most: int) -> list[tuple[int, int]]:
        """Records of more bytes than that, each with how many."""
        if self._texts.largest <= most:
            return []
        ending = self._ending
        sizes = ((row, self._texts.size(row) - ending) for row in self.rows)
        return [(row, size) for row, size in sizes if size > most]

    @property
    def _ending(self) -> int:
        return 0 if self.chunk.wire is Wire.CSV else 1  # the comma behind the last object

    def records(self) -> list[dict[str, Any]]:
        parsed: list[dict[str, Any]] = orjson.loads(b"[" + self.text() + b"]")
        return parsed

    def only(self, rows: Sequence[int]) -> PlanBatch:
        """The same batch with some of its rows; the same rows give the same idempotency key."""
        if not isinstance(rows, range) and rows[-1] - rows[0] == len(rows) - 1:
            rows = range(rows[0], rows[-1] + 1)
        return PlanBatch(self.chunk, rows, anew=self.anew, full=self._is_full)

    @property
    def _is_full(self) -> bool:
        return self._texts is self.chunk.whole

    def in_full(self) -> PlanBatch:
        """The same records with all their fields: nobody knows what the destination holds of them."""
        return self if self._is_full else PlanBatch(self.chunk, self.rows, full=True)

    def is_part(self, row: int) -> bool:
        """Whether this record leaves with some of its fields only."""
        return not self._is_full and self._texts.size(row) < self.chunk.whole.size(row)

    def made_anew(self, rows: Sequence[int], limits: BatchLimits) -> Iterator[PlanBatch]:
        """Some of its records as upserts that name no id of the destination's, in batches of their own."""
        part, size = list[int](), 0
        for row in rows:
            length = self.chunk.whole.size(row)
            if part and (len(part) == limits.records or size + length > limits.bytes):
                yield PlanBatch(self.chunk, part, anew=True)
                part, size = [], 0
            part.append(row)
            size += length
        if part:
            yield PlanBatch(self.chunk, part, anew=True)

    def split(self, at: int) -> tuple[PlanBatch, PlanBatch]:
        """Its first `at` records, and the others."""
        return self.only(self.rows[:at]), self.only(self.rows[at:])

    def primary_key(self, row: int) -> str:
        """The primary key of one row, as JSON."""
        return str(self.chunk.table.column("pk")[row].as_py())

    def is_repeat(self, row: int) -> bool:
        """Whether an earlier run sent a change of this record and nobody knows what became of it."""
        return bool(self.chunk.table.column("again")[row].as_py() == code(Stage.UNKNOWN))

    def is_held(self, row: int) -> bool:
        """Whether the destination has acknowledged this record before, and it is found by more than what is sent, or sent in
        part."""
        if self.anew or self.op not in (Op.UPDATE, Op.UPSERT, Op.MOVE):
            return False
        if self.chunk.table.column("remote_id")[row].is_valid or self.is_part(row):
            return True
        return self.op is not Op.UPSERT and bool(self.chunk.table.column("held")[row].as_py())

    def hash(self, row: int) -> str:
        return str(self.chunk.table.column("hash")[row].as_py())

    def payload(self, row: int) -> str:
        """One record's fields as a JSON object, whatever the wire."""
        text = self.chunk.whole.joined([row], less=self._ending)
        if self.chunk.frame is not None:
            return orjson.dumps(unframed(orjson.loads(text), self.fields, self.chunk.frame)).decode()
        if self.chunk.wire is not Wire.CSV:
            return text.decode()
        cells = next(csv.reader(io.StringIO(text.decode(), newline="")), [])
        null = self.chunk.csv_null
        values = [None if null and cell == null else cell for cell in cells]
        names = [field.name for field in self.chunk.fields]
        return orjson.dumps(dict(zip(names, values, strict=False))).decode()


def unframed(record: dict[str, Any], fields: Sequence[Field], frame: Frame) -> dict[str, Any]:
    """A record without its frame: its fields, nested by their names."""
    found: dict[str, Any] = {}
    for field in fields:
        held, *path = record, *frame.place(field.name).split(".")
        for name in path[:-1]:
            held = held.get(name, {})
        if path[-1] in held:
            inner, *names = found, *field.name.split(".")
            for name in names[:-1]:
                inner = inner.setdefault(name, {})
            inner[names[-1]] = held[path[-1]]
    return found


class Cutter:
    """Cuts chunks, one after the other, into batches of at most `most` rows together: from the front, or from the end of the
    chunk that is being cut."""

    def __init__(self, limits: BatchLimits, most: int) -> None:
        self._limits, self.left = limits, most
        self._chunk: Chunk | None = None
        self._low = self._end = 0

    def begin(self, chunk: Chunk) -> None:
        self._chunk, self._low, self._end = chunk, 0, min(len(chunk), self.left)
        self.left -= self._end

    def first(self) -> PlanBatch | None:
        if self._chunk is None or self._low >= self._end:
            return None
        batch = self._chunk.batch_from(self._low, self._end, self._limits)
        self._low += len(batch)
        return batch

    def last(self) -> PlanBatch | None:
        if self._chunk is None or self._low >= self._end:
            return None
        batch = self._chunk.batch_to(self._end, self._low, self._limits)
        self._end -= len(batch)
        return batch


async def in_groups(
    chunks: Generator[Chunk, None, None], cutter: Cutter, size: int, is_over: Callable[[], bool]
) -> AsyncGenerator[list[PlanBatch], None]:
    """The batches of chunks, up to `size` of them at a time, until that is over; the next chunk is made in a thread while
    this one is sent."""
    upcoming = asyncio.create_task(asyncio.to_thread(next, chunks, None))
    try:
        while (chunk := await upcoming) is not None and cutter.left > 0 and not is_over():
            upcoming = asyncio.create_task(asyncio.to_thread(next, chunks, None))
            cutter.begin(chunk)
            while group := list(islice(iter(cutter.first, None), size)):
                yield group
    finally:
        # the engine that makes the chunks serves one thread at a time
        await asyncio.gather(upcoming, return_exceptions=True)
        chunks.close()


def read_chunks(
    engine: duckdb.DuckDBPyConnection, plan: Plan, segment: Segment, mapping: Mapping, object: str, encoding: Encoding,
    limits: BatchLimits,
) -> Generator[Chunk, None, None]:  # fmt: skip
    """The rows of one segment in plan order, encoded for the wire, a bounded number of bytes at a time. Where only changed
    fields are wanted, updates hold the identifiers and what differs from what was acknowledged, as far as that is known.

    `engine` must keep the order of insertion and serve nothing else until the generator ends or is closed.
    """
    fields = delete_fields(mapping) if segment.op is Op.DELETE else mapping.fields
    count = segment.high - segment.low
    each = plan.path.stat().st_size // max(plan.total + plan.refused, 1)
    rows = max(min(CHUNK_ROWS, CHUNK_BYTES // max(each * 4, 1)), 1)
    rows = max(rows // limits.records, 1) * limits.records if limits.records <= rows else limits.records
    part = encoding.records == CHANGED and plan.compared and segment.op is not Op.DELETE
    wire, null, frame = encoding.wire.value, encoding.csv_null, encoding.frame
    changed = f", {record_text(wire, fields, _is_part(mapping), null, frame)} AS changed" if part else ""
    whole = record_text(wire, fields, null=null, frame=frame)
    query = (
        f"SELECT {key_text(mapping.identifiers)} AS key, {key_json(mapping)} AS pk, _hash AS hash, "
        f"_remote_id AS remote_id, _again AS again{_held(segment, mapping)}, {whole} AS wire{changed} "
        f"FROM {plan.rows_sql} "
        f"WHERE file_row_number >= {segment.low} AND file_row_number < {segment.high}"
    )
    first, names = segment.low, tuple(field.name for field in mapping.identifiers)
    with engine.sql(query).to_arrow_reader(rows) as tables:
        for table in _whole_batches(tables, limits.records):
            yield Chunk(table, first, plan, segment, object, fields, names, encoding)
            first += table.num_rows
    if first - segment.low != count:
        raise RuntimeError(f"plan {plan.id} gave {first - segment.low} of {count} rows")


def rebuild_batches(
    engine: duckdb.DuckDBPyConnection, plan: Plan, mapping: Mapping, object: str, intents: Sequence[Row]
) -> list[PlanBatch]:
    """The requests that these intents are for: the same rows, the same bytes, the same keys. The rows of the first hold those
    of the others."""
    first = intents[0]["low"]
    segment = Segment(Op(intents[0]["op"]), first, intents[0]["high"])
    encodings = [Encoding.parse(intent["encoding"]) for intent in intents]
    wanted = next((one for one in encodings if one.records == CHANGED), encodings[0])
    limits = BatchLimits(segment.high - segment.low, 1 << 62)
    with in_order(engine):
        (chunk,) = read_chunks(engine, plan, segment, mapping, object, wanted, limits)
    return [
        PlanBatch(
            chunk,
            range(intent["low"] - first, intent["high"] - first),
            intent["idempotency_key"],
            anew=encoding.records == RECREATED,
            full=encoding.records == WHOLE,
        )
        for intent, encoding in zip(intents, encodings, strict=True)
    ]


def _is_part(mapping: Mapping) -> str:
    """SQL of whether the destination is known to hold the old values: acknowledged, and nothing in doubt since."""
    old = ident("o." + mapping.identifiers[0].name)
    return f"(_change = {CHANGES.index('update')} AND _again IS NULL AND {old} IS NOT NULL)"


def _held(segment: Segment, mapping: Mapping) -> str:
    """SQL of whether a record to update was acknowledged, and of the identifier of one to move. Of one in doubt the ledger has
    no values but the identifiers, if it never was."""
    if segment.op not in (Op.UPDATE, Op.MOVE):
        return ""
    sure = [f"{ident('o.' + field.name)} IS NOT NULL" for field in mapping.fields if not field.identifier]
    rules = " OR ".join([f"_again IS DISTINCT FROM {code(Stage.UNKNOWN)}", *sure])
    held = f", {ident('o.' + mapping.identifiers[0].name)} IS NOT NULL AND ({rules}) AS held"
    return f"{held}, {key_text(mapping.identifiers, 'o.')} AS previous"


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
