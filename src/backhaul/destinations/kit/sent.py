"""What a batch sent, beside what the destination holds: for jobs whose end the destination does not know any more."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backhaul.types import Delivered, Field, Op

if TYPE_CHECKING:
    from backhaul.destinations.kit import Batch

_ABSENT = object()


def held_as_sent(
    batch: Batch, held: Mapping[str, Mapping[str, Any]], same: Callable[[Field, Any, Any], bool],
    *, csv_null: str = "", apart: Collection[str] = (), into: str = "",
) -> Iterator[Delivered]:  # fmt: skip
    """The records of a batch that a read shows as they were sent, or not any more where they were deleted. `held` is the
    answer of a read of all of the batch's keys and fields; fields `apart` are not compared. `into` is that of the batch's frame.
    Of another record nothing is known: it may be applied later.
    """
    if batch.op is Op.DELETE:
        yield from (Delivered(key) for key in batch.keys if key not in held)
        return
    fields = [field for field in batch.fields if field.name not in apart]
    for key, sent in zip(batch.keys, sent_values(batch, csv_null, into), strict=True):
        found = held.get(key)
        if found is not None and all(
            same(field, sent[field.name], found.get(field.name)) for field in fields if field.name in sent
        ):
            yield Delivered(key)


def sent_values(batch: Batch, csv_null: str = "", into: str = "") -> Iterator[dict[str, Any]]:
    """The values of each record by field, whatever the wire; without what was not sent."""
    names = [field.name for field in batch.fields]
    if batch.wire != "csv":
        for record in batch.records():
            fields = record[into] if into else record
            values = {name: _inner(fields, name) for name in names}
            yield {name: value for name, value in values.items() if value is not _ABSENT}
        return
    for cells in csv.reader(io.StringIO(batch.text().decode(), newline="")):
        cleared = {name: None if cell == csv_null else cell for name, cell in zip(names, cells, strict=True)}
        yield {name: value for name, value in cleared.items() if value != "" or not csv_null}


def _inner(record: Mapping[str, Any], name: str) -> Any:
    value: Any = record
    for part in name.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value
