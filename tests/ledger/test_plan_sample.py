"""A plan as a person sees it: old and new values of the fields that change, and what the mapping refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World, sync

from backhaul.ledger.fold import forget_values
from backhaul.planning.explain import refusals, sample


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


FIELDS = {"a": "a", "b": "b"}


def test_only_fields_that_change_are_shown(world: World) -> None:
    world.put((1, "x", 1, "p"), (2, "y", 2, "p")).run(sync(fields=FIELDS))
    plan = world.put((1, "x", 9, "p"), (3, "z", 3, None)).plan(sync(fields=FIELDS))
    assert sample(world.engine, plan) == [
        {"op": "create", "key": 3, "fields": {"email": [None, "z"], "a": [None, 3], "b": [None, None]}},
        {"op": "update", "key": 1, "fields": {"a": [1, 9]}},
        {"op": "delete", "key": 2, "fields": {"email": ["y", None], "a": [2, None], "b": ["p", None]}},
    ]


def test_so_many_of_each_kind(world: World) -> None:
    world.put(*((n, f"e{n}", n, "p") for n in range(20))).run(sync())
    plan = world.put(*((n, f"e{n}", n + 1, "p") for n in range(10, 40))).plan(sync())
    for count in (0, 1, 3, 100):
        ops = [change["op"] for change in sample(world.engine, plan, count)]
        assert [ops.count(op) for op in ("create", "update", "delete")] == [
            min(count, n) for n in (20, 10, 10)
        ]


def test_a_skipped_null_is_no_change(world: World) -> None:
    world.put((1, "x", 1, "p")).run(sync(fields=FIELDS, nulls="skip"))
    plan = world.put((1, "x", None, "q"), (2, "y", None, "r")).plan(sync(fields=FIELDS, nulls="skip"))
    assert [change["fields"] for change in sample(world.engine, plan)] == [
        {"email": [None, "y"], "b": [None, "r"]},
        {"b": ["p", "q"]},
    ]


def test_what_is_sent_again_shows_every_field(world: World) -> None:
    world.put((1, "x", 1, "p")).run(sync())
    forget_values(world.engine, world.ledger)
    (change,) = sample(world.engine, world.plan(sync()))
    assert change["fields"] == {"email": ["x", "x"], "a": [1, 1]}


def test_digits_that_differ_are_seen(tmp_path: Path) -> None:
    world = World(tmp_path, columns="id BIGINT, email VARCHAR, d DECIMAL(38,10), seen TIMESTAMP")
    fields = {"d": "d", "seen": "seen"}
    world.put((1, "x", "1234567890123456.0123456789", "2026-01-01")).run(sync(fields=fields))
    plan = world.put((1, "x", "1234567890123456.0123456788", "2026-01-01 10:00:00.5")).plan(
        sync(fields=fields)
    )
    (change,) = sample(world.engine, plan)
    assert change["fields"] == {
        "d": ["1234567890123456.0123456789", "1234567890123456.0123456788"],
        "seen": ["2026-01-01T00:00:00", "2026-01-01T10:00:00.5"],
    }
    world.close()


def test_refusals_say_field_code_and_why(world: World) -> None:
    plan = world.put((1, None, 1, "p"), (2, "x", 2, "p"), (3, "x", 3, "p")).plan(
        sync(fields={"a": "a::varchar", "b": "b"})
    )
    found = sorted(refusals(world.engine, plan), key=lambda refusal: refusal["key"])
    assert [(one["key"], one["field"], one["code"], one["message"]) for one in found] == [
        ("1", "email", "null", "email: an identifier must not be null, empty or blank"),
        ("2", "email", "duplicate", "email: another record of the model has the same email"),
        ("3", "email", "duplicate", "email: another record of the model has the same email"),
    ]
    assert json.loads(found[1]["payload"]) == {"email": "x", "a": "2", "b": "p"}
    assert all(one["hash"].isdigit() for one in found)
    assert refusals(world.engine, world.put((1, "x", 1, "")).plan(sync())) == []
