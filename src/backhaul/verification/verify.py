"""Reads records back from the destination and compares them with what it acknowledged."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import duckdb
import orjson

from backhaul.changes import Stage, code
from backhaul.destinations.kit import Destination
from backhaul.engine import number
from backhaul.errors import Refused
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.fold import Settlement
from backhaul.ledger.ledger import ALIAS, LedgerView
from backhaul.ledger.plan import SEND, Plan
from backhaul.mapping.mapping import Mapping
from backhaul.mapping.wire import key_text, plain_text
from backhaul.sql import literal

_AT_ONCE = 100
_SETTLED = f"_hash IS NOT NULL AND _state = {code(Stage.ACKNOWLEDGED)}"


@dataclass(frozen=True, slots=True)
class Expected:
    """One acknowledged record: its primary key (JSON), its identifier, and its values as text by field, as well as those that it
    had before it was delivered, where they are known."""

    pk: str
    key: str
    values: dict[str, str | None]
    before: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """`fields` maps a name to [acknowledged, held]; empty where the destination has no such record. `pk` is the primary key as
    the ledger spells it (JSON)."""

    pk: str
    fields: dict[str, list[Any]]
    missing: bool = False

    @property
    def key(self) -> Any:
        return orjson.loads(self.pk)


@dataclass(frozen=True, slots=True)
class Verified:
    """How many records were read back, and which differ. `respelled` are those of which it became known now that the destination
    stores their values in another spelling. `open` records are in doubt or were never acknowledged."""

    checked: int
    mismatches: tuple[Mismatch, ...] = ()
    respelled: tuple[Mismatch, ...] = ()
    open: int = 0


def _select(mapping: Mapping, source: str, before: bool = False) -> str:
    texts = ", ".join(plain_text(field) for field in mapping.fields)
    old = ", ".join(plain_text(field, "o.") for field in mapping.fields) if before else ""
    return f"SELECT {key_json(mapping)}, {key_text(mapping.identifiers)}, [{texts}], [{old}] FROM {source}"


def sample_ledger(view: LedgerView, mapping: Mapping, count: int | None, seed: int) -> list[Expected]:
    """A seeded random sample of the ledger's acknowledged records; where `count` is None, every record that was ever
    acknowledged, also one that is to be sent again. A ledger without values gives identifiers alone."""
    engine = view.engine
    if count is None:
        source = f"(SELECT * FROM {ALIAS}.acked WHERE _at IS NOT NULL)"
    else:
        source = f"(SELECT * FROM {ALIAS}.acked WHERE {_SETTLED})"
        source = f"(SELECT * FROM {source} ORDER BY hash({', '.join(k.column for k in mapping.keys)}, {seed}) LIMIT {count})"
    found = _expected(engine, mapping, _select(mapping, source))
    if view.meta.get("values") != "no":
        return found
    names = [field.name for field in mapping.identifiers]
    return [replace(one, values={name: one.values[name] for name in names}) for one in found]


def count_open(engine: duckdb.DuckDBPyConnection) -> int:
    """Records of the attached ledger that are not acknowledged as they are."""
    return number(engine, f"SELECT count(*) FROM {ALIAS}.acked WHERE NOT ({_SETTLED})")


def seconds_since_last(view: LedgerView) -> float:
    """Since the destination acknowledged the last record of a ledger, by the state's clock."""
    rows = view.engine.execute(f"SELECT epoch({view.now_sql} - max(_at)) FROM {ALIAS}.acked").fetchall()
    return max(float(rows[0][0] or 0.0), 0.0)


def sample_plan(
    engine: duckdb.DuckDBPyConnection,
    plan: Plan,
    settled: list[Settlement],
    count: int,
    besides: Sequence[str] = (),
) -> list[Expected]:
    """A random sample of the records that a plan has just delivered, drawn by the plan's id; all where there are no more
    than `count`. Records of it with the keys `besides` (JSON) are always there."""
    mapping = Mapping.from_shape(plan.shape)
    rows = _drawn(
        [item for item in settled if item.status is Stage.ACKNOWLEDGED], count, random.Random(plan.id)
    )
    if not rows:
        return []
    chosen = f"file_row_number IN ({', '.join(map(str, rows))})"
    if besides:
        chosen += f" OR (_segment <= {SEND} AND {key_json(mapping)} IN ({', '.join(map(literal, besides))}))"
    source = f"(SELECT * FROM {plan.rows_sql} WHERE _change <> 2 AND ({chosen}))"
    return _expected(engine, mapping, _select(mapping, source, plan.compared))


def _drawn(ranges: Sequence[Settlement], count: int, rng: random.Random) -> list[int]:
    """`count` rows of the ranges, each as likely as any other."""
    ends = list(accumulate(item.high - item.low for item in ranges))
    excepted = {row for item in ranges for row in item.except_rows}
    places = rng.sample(range(ends[-1]), min(ends[-1], count + len(excepted))) if ends and count else []
    drawn = (ranges[at].high - (ends[at] - place) for place in places for at in [bisect_right(ends, place)])
    return [row for row in drawn if row not in excepted][:count]


def planned_records(engine: duckdb.DuckDBPyConnection, plan: Plan, low: int, high: int) -> list[Expected]:
    """What rows [low, high) of a plan would make the destination hold, in row order."""
    mapping = Mapping.from_shape(plan.shape)
    rows = f"(SELECT * FROM {plan.rows_sql} WHERE file_row_number >= {low} AND file_row_number < {high}) ORDER BY file_row_number"
    return _expected(engine, mapping, _select(mapping, rows))


def _expected(engine: duckdb.DuckDBPyConnection, mapping: Mapping, select: str) -> list[Expected]:
    names = [field.name for field in mapping.fields]
    return [
        Expected(pk, key, dict(zip(names, values, strict=True)), dict(zip(names, before, strict=False)))
        for pk, key, values, before in engine.execute(select).fetchall()
    ]


async def compare(
    destination: Destination[Any],
    object: str,
    mapping: Mapping,
    expected: list[Expected],
) -> Verified:
    """Reads the records back and compares them field by field, as the destination compares.

    Raises:
        Unsupported: the destination cannot be read.
        BackhaulError: it could not be read now.
    """
    identifiers = tuple(field.name for field in mapping.identifiers)
    names = [field.name for field in mapping.fields]
    mismatches: list[Mismatch] = []
    for start in range(0, len(expected), _AT_ONCE):
        some = expected[start : start + _AT_ONCE]
        held = await destination.read(object, identifiers, [record.key for record in some], names)
        differing: list[Mismatch] = []
        for record in some:
            found = held.get(record.key)
            if found is None:
                differing.append(Mismatch(record.pk, {}, missing=True))
            elif wrong := _differences(destination, mapping, record, found):
                differing.append(Mismatch(record.pk, wrong))
        mismatches += await _as_held(destination, object, mapping, differing)
    return Verified(len(expected), tuple(mismatches))


def _differences(
    destination: Destination[Any], mapping: Mapping, record: Expected, found: dict[str, Any]
) -> dict[str, list[Any]]:
    return {
        field.name: [record.values[field.name], found.get(field.name)]
        for field in mapping.fields
        if field.name in record.values
        and not (record.values[field.name] is None and field.nulls == "skip")
        and not destination.same(field.field, record.values[field.name], found.get(field.name))
    }


async def _as_held(
    destination: Destination[Any], object: str, mapping: Mapping, differing: list[Mismatch]
) -> list[Mismatch]:
    """The mismatches without fields in which what was sent, as the destination stores it, is what it holds."""
    texts = {
        (one.pk, name): pair for one in differing for name, pair in one.fields.items() if None not in pair
    }
    if not texts:
        return differing
    try:
        stored = await destination.as_stored(object, [(name, pair[0]) for (_, name), pair in texts.items()])
    except Refused:
        return differing
    fields = {field.name: field.field for field in mapping.fields}
    alike = {
        place
        for (place, (_, held)), value in zip(texts.items(), stored, strict=True)
        if destination.same(fields[place[1]], value, held)
    }
    kept = [
        replace(one, fields={name: pair for name, pair in one.fields.items() if (one.pk, name) not in alike})
        for one in differing
    ]
    return [one for one in kept if one.missing or one.fields]


def mark_doubtful(view: LedgerView, mapping: Mapping, keys: list[str]) -> None:
    """Makes the next run send these records again, or look them up where they were inserted; `view` is one to write. `keys` are
    JSON."""
    chosen = ", ".join(literal(key) for key in keys)
    where = f"WHERE {key_json(mapping)} IN ({chosen})"
    view.touch(f"SELECT {', '.join(key.column for key in mapping.keys)} FROM {ALIAS}.acked {where}")
    view.engine.execute(
        f"UPDATE {ALIAS}.acked SET _hash = NULL, _state = {code(Stage.UNKNOWN)}, _since = {view.now_sql} {where}"
    )


__all__ = [
    "Expected",
    "Mismatch",
    "Verified",
    "compare",
    "count_open",
    "mark_doubtful",
    "planned_records",
    "sample_ledger",
    "sample_plan",
    "seconds_since_last",
]
