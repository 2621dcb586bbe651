"""The hash of a record is over names and values: what moves to another field is sent, and an order alone sends nothing (I42)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as some
from world import World, sync

from backhaul.mapping.hashing import record_hash
from backhaul.sql import ident

TEXTS = ("first", "last", "middle")
COLUMNS = "id BIGINT, email VARCHAR, first VARCHAR, last VARCHAR"
CROSSED = {"first_name": "last", "last_name": "first"}
RIGHT = {"last_name": "last", "first_name": "first"}


@pytest.fixture(params=[True, False], ids=["values", "hashes"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(tmp_path, columns=COLUMNS, values=request.param)
    yield made
    made.close()


def record(world: World) -> dict[str, Any]:
    return world.destination.by_identifier()["e"]


def test_values_that_change_fields_are_sent(world: World) -> None:
    world.put((1, "e", "Ada", "Lovelace")).run(sync(fields=CROSSED))
    plan = world.run(sync(fields=RIGHT))
    assert plan.changes == {"create": 0, "update": 1, "delete": 0}
    assert record(world) == {"email": "e", "first_name": "Ada", "last_name": "Lovelace"}
    assert world.plan(sync(fields=RIGHT)).total == 0


def test_another_order_of_fields_sends_nothing(world: World) -> None:
    world.put((1, "e", "Ada", "Lovelace"), (2, "f", None, "Hopper"), (3, "g", "Mary", None)).run(
        sync(fields=RIGHT)
    )
    plan = world.plan(sync(fields=dict(reversed(RIGHT.items()))))
    assert (plan.total, plan.reasons, plan.remapped) == (0, {}, {})


def test_another_order_of_fields_is_the_same_plan(world: World) -> None:
    world.put((1, "e", "Ada", "Lovelace")).run(sync(fields=RIGHT))
    world.put((1, "e", "Ada", "Byron"), (2, "f", None, "Hopper"))
    there, back = world.plan(sync(fields=RIGHT)), world.plan(sync(fields=dict(reversed(RIGHT.items()))))
    assert (there.total, there.digest) == (2, back.digest)


Records = some.dictionaries(
    some.sampled_from(TEXTS), some.one_of(some.none(), some.sampled_from(["", "a", "b", "ab"])), min_size=1
)


def hashed(engine: duckdb.DuckDBPyConnection, names: list[str], values: dict[str, str | None]) -> int:
    columns = ", ".join(f"?::VARCHAR AS {ident('f.' + name)}" for name in names)
    sql = f"SELECT {record_hash(names)} FROM (SELECT {columns})"
    return int(engine.execute(sql, [values[name] for name in names]).fetchall()[0][0])


@given(one=Records, other=Records, order=some.permutations(TEXTS))
def test_equal_hashes_are_of_equal_records(
    one: dict[str, str | None], other: dict[str, str | None], order: list[str]
) -> None:
    with duckdb.connect() as engine:
        ours = hashed(engine, list(one), one)
        theirs = hashed(engine, [name for name in order if name in other], other)
    assert (ours == theirs) == (one == other)
