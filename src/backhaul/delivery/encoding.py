"""How the records of a request are written. It stands in the request's intent, so that a later run, whose plan may be of
another size, builds the same request."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import orjson

from backhaul.destinations.kit import Destination, Wire
from backhaul.ledger.plan import Segment
from backhaul.types import Frame

WHOLE, CHANGED, RECREATED = "whole", "changed", "recreated"
"""What a request holds of its records: all fields, of updates the changed ones, or all fields of records that are gone at
the destination and are made again."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """`records` is one of the above; `csv_null` as in the kit's Spec, `frame` as in its Destination."""

    wire: Wire = Wire.JSON
    records: str = WHOLE
    csv_null: str = ""
    frame: Frame | None = None

    def text(self) -> str:
        """As JSON, to be stored."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The encoding whose `text()` this is."""
        found = orjson.loads(text)
        frame = found["frame"] and Frame(**found["frame"])
        return cls(Wire(found["wire"]), found["records"], found["csv_null"], frame)

    @classmethod
    def choose(
        cls, destination: Destination[Any], object: str, segment: Segment, identifiers: tuple[str, ...], rows: int
    ) -> Self:  # fmt: skip
        """How the destination wants `rows` records of a segment."""
        wire = destination.wire(object, segment.op, rows)
        records = CHANGED if destination.takes_parts(object, wire) else WHOLE
        frame = destination.frame(object, segment.op, identifiers) if wire is Wire.JSON else None
        return cls(wire, records, destination.spec.csv_null, frame)
