"""Guards, field checks, estimates and samples of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backhaul.config.parts import Guards
from backhaul.config.sync import SyncConfig
from backhaul.ledger.plan import Plan, Segment
from backhaul.planning.estimate import estimate
from backhaul.planning.fields import check_fields
from backhaul.planning.guards import check_guards
from backhaul.types import BatchLimits, Field, FieldType, ObjectSchema, Op, PlannedBatch, Rate

DEFAULTS = {"min_rows", "max_drop", "max_deletes"}


def plan(rows: int = 100, create: int = 0, update: int = 0, delete: int = 0, **rest: Any) -> Plan:
    return Plan("p", "s", Path("p"), rows, {"create": create, "update": update, "delete": delete}, **rest)


def tripped(guards: dict[str, Any], made: Plan, held: int, before: int | None) -> set[str]:
    return {
        guard.name
        for guard in check_guards(Guards.model_validate(guards), made, held, before)
        if not guard.ok
    }


@pytest.mark.parametrize(
    ("guards", "made", "held", "before", "names"),
    [
        # nothing set: the defaults
        ({}, plan(0, first=True), 0, None, set()),
        ({}, plan(0, delete=5), 5, 5, {"min_rows", "max_drop"}),
        ({}, plan(50), 100, 100, set()),
        ({}, plan(49), 100, 100, {"max_drop"}),
        ({}, plan(49), 100, None, set()),
        ({}, plan(delete=10), 20, 100, set()),
        ({}, plan(delete=11), 20, 100, {"max_deletes"}),
        ({}, plan(delete=20), 200, 100, set()),
        ({}, plan(delete=21), 200, 100, {"max_deletes"}),
        ({}, plan(create=100, update=900, first=True), 0, None, set()),
        ({}, plan(update=1000), 1000, 100, set()),
        # an incremental read says nothing about what is missing
        ({}, plan(0, incremental=True), 100, 100, set()),
        ({"min_rows": 5}, plan(0, incremental=True), 100, 100, set()),
        # off
        ({"min_rows": "off", "max_drop": "off", "max_deletes": "off"}, plan(0, delete=100), 100, 100, set()),
        ({"max_deletes": False}, plan(delete=100), 100, 100, set()),
        ({"max_changes": "off"}, plan(update=100), 100, 100, set()),
        # set
        ({"min_rows": 101}, plan(100), 100, 100, {"min_rows"}),
        ({"min_rows": 100}, plan(100), 100, 100, set()),
        ({"min_rows": 0}, plan(0), 10, None, set()),
        ({"max_drop": "10%"}, plan(90), 100, 100, set()),
        ({"max_drop": "10%"}, plan(89), 100, 100, {"max_drop"}),
        ({"max_drop": 5}, plan(94), 100, 100, {"max_drop"}),
        ({"max_deletes": "5%"}, plan(delete=5), 100, 100, set()),
        ({"max_deletes": "5%"}, plan(delete=6), 100, 100, {"max_deletes"}),
        ({"max_deletes": 0}, plan(delete=1), 100, 100, {"max_deletes"}),
        ({"max_creates": 3}, plan(create=4, first=True), 0, None, {"max_creates"}),
        ({"max_creates": "50%"}, plan(100, create=100, first=True), 0, None, {"max_creates"}),
        ({"max_updates": "50%"}, plan(update=51), 100, 100, {"max_updates"}),
        ({"max_updates": "50%"}, plan(update=50, create=50), 100, 100, set()),
        ({"max_changes": "50%"}, plan(create=20, update=20, delete=11), 100, 100, {"max_changes", "max_deletes"}),
        ({"max_changes": "50%"}, plan(create=100, first=True), 0, None, set()),
    ],
)  # fmt: skip
def test_guards(guards: dict[str, Any], made: Plan, held: int, before: int | None, names: set[str]) -> None:
    assert tripped(guards, made, held, before) == names


def test_a_guard_says_what_is_and_what_is_allowed() -> None:
    guards = Guards.model_validate({"max_deletes": "5%", "max_drop": "20%", "min_rows": 1000})
    said = {guard.name: guard.message for guard in check_guards(guards, plan(500, delete=600), 10_000, 2000)}
    assert said == {
        "min_rows": "the model has 500 rows, at least 1,000 are asked for",
        "max_drop": "the model has 500 rows, 2,000 at the last run; it may lose 20%",
        "max_deletes": "600 deletes of 10,000 known records; 5% allowed",
    }
    assert {guard.name for guard in check_guards(Guards(), plan(), 100, 100)} == DEFAULTS


def sync(**keys: Any) -> SyncConfig:
    told: dict[str, Any] = {
        "name": "s", "model": {"warehouse": "main", "table": "t", "primary_key": "id"}, "destination": "crm", "object": "contact",
        "identify": {"email": "email"}, "fields": {"name": {"value": "name"}}, "file": "syncs/s.yml",
        "lines": {"identify.email": (4, 3), "fields": (5, 1), "fields.name": (6, 3), "fields.nmae": (7, 3)},
    }  # fmt: skip
    return SyncConfig.model_validate(told | keys)


def schema(*fields: Field, open: bool = False) -> ObjectSchema:
    return ObjectSchema("contact", {field.name: field for field in fields}, open)


EMAIL, NAME = Field("email", FieldType.STRING, unique=True), Field("name", FieldType.STRING)


@pytest.mark.parametrize(
    ("told", "described", "said"),
    [
        ({}, schema(EMAIL, NAME), []),
        ({}, schema(open=True), []),
        ({"fields": {"nmae": {"value": "name"}}}, schema(EMAIL, NAME),
         ["syncs/s.yml:7:3: contact has no field nmae at crm (did you mean name?)"]),
        ({}, schema(NAME), ["syncs/s.yml:4:3: contact has no field email at crm (it has name)"]),
        ({}, schema(EMAIL, Field("name", writable=False)),
         ["syncs/s.yml:6:3: name is read-only at crm (leave it out of fields)"]),
        ({}, schema(Field("email", unique=True, writable=False), NAME), []),
        ({}, schema(Field("email"), NAME, Field("id", unique=True)),
         ["syncs/s.yml:4:3: email is not unique at crm, so it cannot identify a record (unique fields: id)"]),
        ({"mode": "insert"}, schema(Field("email"), NAME, Field("id", unique=True)), []),
        ({}, schema(Field("email"), NAME), []),
        ({}, schema(EMAIL, NAME, Field("owner", required=True)),
         ["syncs/s.yml:5:1: contact requires owner, which is not mapped (add owner: … under fields)"]),
        ({"mode": "update"}, schema(EMAIL, NAME, Field("owner", required=True)), []),
        ({}, schema(Field("email", unique=True, required=True), Field("name", required=True)), []),
        ({}, schema(EMAIL, NAME, Field("created", required=True, writable=False)), []),
    ],
)  # fmt: skip
def test_fields_against_the_destination(
    told: dict[str, Any], described: ObjectSchema, said: list[str]
) -> None:
    assert [str(problem) for problem in check_fields(sync(**told), described)] == said


def test_every_problem_is_told_at_once() -> None:
    described = schema(Field("id", unique=True), Field("owner", required=True))
    assert len(check_fields(sync(), described)) == 3


@pytest.mark.parametrize(
    ("segments", "rates", "concurrency", "requests", "seconds"),
    [
        ((), (), 8, 0, 0.0),
        ((Segment(Op.UPSERT, 0, 1),), (), 1, 1, 0.2),
        ((Segment(Op.UPSERT, 0, 100),), (), 1, 1, 0.2),
        ((Segment(Op.UPSERT, 0, 101),), (), 1, 2, 0.5),
        ((Segment(Op.DELETE, 0, 11), Segment(Op.UPSERT, 11, 111)), (), 4, 3, 0.2),
        ((Segment(Op.UPSERT, 0, 100_000),), (Rate("burst", 100, 10),), 10, 1000, 90.0),
        ((Segment(Op.UPSERT, 0, 10_000),), (Rate("burst", 100, 10),), 10, 100, 2.5),
        (
            (Segment(Op.UPSERT, 0, 100_000),),
            (Rate("burst", 100, 1), Rate("day", 400, 86_400)),
            10,
            1000,
            172_800.0,
        ),
    ],
)
def test_an_estimate(segments: Any, rates: Any, concurrency: int, requests: int, seconds: float) -> None:
    limits = {Op.UPSERT: BatchLimits(100), Op.DELETE: BatchLimits(10)}
    batches = [PlannedBatch(one.op, one.high - one.low, one.high - one.low) for one in segments]
    found = estimate(batches, limits.get, rates, concurrency)
    assert (found.requests, found.seconds) == (requests, seconds)


def test_an_operation_without_limits_counts_each_record() -> None:
    assert estimate([PlannedBatch(Op.INSERT, 7, 7)], lambda op, rows: None, (), 8, remote=False).requests == 7
