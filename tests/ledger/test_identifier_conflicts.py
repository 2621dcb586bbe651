"""Which keys are one record of the destination: by what leaves, as its column compares it (I20, I44)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as some
from world import World, sync

from backhaul.errors import SourceError
from backhaul.ledger.keys import spell, spellings
from backhaul.types import Field, FieldType, ObjectSchema

COLUMNS = "id VARCHAR, email VARCHAR, a INTEGER, b VARCHAR"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, columns=COLUMNS)
    yield made
    made.close()


def by_key(**keys: Any) -> Any:
    return sync(identify={"code": "id"}, **keys)


def errors(world: World, plan: Any) -> dict[str, str]:
    return {row["key"]: row["error"].split("\x1f")[1] for row in world.rows(plan) if row["error"]}


def typed(world: World, kind: FieldType, **said: Any) -> None:
    world.schema = ObjectSchema("o", {"code": Field("code", kind, **said)}, open=True)
    world.destination.identifier = "code"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (FieldType.INTEGER, "1", "01"),
        (FieldType.NUMBER, "1.50", "1.5"),
        (FieldType.DATETIME, "2024-01-02T00:00:00Z", "2024-01-02 01:00:00+01"),
        (FieldType.BOOLEAN, "t", "true"),
        (FieldType.PHONE, "+1 500 555 0006", "+15005550006"),
    ],
)
def test_i44_keys_that_leave_as_one_identifier_are_not_both_sent(
    world: World, kind: FieldType, one: str, other: str, known: bool
) -> None:
    typed(world, kind)
    if known:
        world.put((one, "x", 1, "")).run(by_key())
    plan = world.put((one, "x", 1, ""), (other, "y", 2, "")).run(by_key())
    refused = errors(world, plan)
    assert set(refused.values()) == {"duplicate"}
    assert (len(refused), plan.total) == ((1, 0) if known else (2, 0))
    world.put((one, "x", 1, ""))
    world.run(by_key())
    assert list(world.held()) == [one]


def test_a_key_column_that_is_case_sensitive_at_the_destination_is_not_folded(world: World) -> None:
    typed(world, FieldType.STRING, case_insensitive=False)
    plan = world.put(("001A", "x", 1, ""), ("001a", "y", 2, "")).run(by_key())
    assert (plan.total, plan.refused) == (2, 0)
    assert sorted(world.held()) == ["001A", "001a"]
    plan = world.put(("001A", "x", 1, ""), ("001a", "y", 3, ""), ("001B", "z", 1, "")).run(by_key())
    assert plan.changes == {"create": 1, "update": 1, "delete": 0}


def test_the_model_may_say_that_case_counts(world: World) -> None:
    world.destination.identifier = "code"
    with pytest.raises(SourceError, match="differ only in case"):
        world.put(("001A", "x", 1, ""), ("001a", "y", 2, "")).plan(by_key())
    model = {"warehouse": "main", "table": "t", "primary_key": "id", "case_sensitive": True}
    assert world.run(by_key(model=model)).total == 2
    assert world.plan(by_key(model=model)).total == 0


def test_a_column_that_folds_refuses_two_keys_even_where_the_model_says_that_case_counts(
    world: World,
) -> None:
    typed(world, FieldType.STRING, case_insensitive=True)
    model = {"warehouse": "main", "table": "t", "primary_key": "id", "case_sensitive": True}
    plan = world.put(("001A", "x", 1, ""), ("001a", "y", 2, "")).plan(by_key(model=model))
    assert errors(world, plan) == {'"001A"': "duplicate", '"001a"': "duplicate"}


def test_accents_do_not_tell_keys_apart_where_the_column_drops_them(world: World) -> None:
    typed(world, FieldType.STRING, case_insensitive=True, accent_insensitive=True)
    plan = world.put(("jose", "x", 1, ""), ("Jos\u00e9", "y", 2, "")).plan(by_key())
    assert len(errors(world, plan)) == 2


def test_i44_an_id_in_its_short_and_its_long_spelling_is_one_record(world: World) -> None:
    """A Salesforce id has 15 characters, in which case counts, and 3 more that repeat it."""
    typed(world, FieldType.STRING, case_insensitive=False, compared_length=15)
    short, long, other = "001Sb00000AbCdE", "001Sb00000AbCdEIAW", "001Sb00000aBcDe"
    plan = world.put((short, "x", 1, ""), (long, "y", 2, ""), (other, "z", 3, "")).plan(by_key())
    assert errors(world, plan) == {f'"{short}"': "duplicate", f'"{long}"': "duplicate"}
    assert plan.total == 1


Spelled = some.tuples(some.integers(0, 3), some.sampled_from(["", "0", "+", "00", "+0"]))


@given(keys=some.lists(Spelled, unique=True, max_size=8))
def test_i44_of_keys_that_become_one_number_none_is_sent(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[int, str]]
) -> None:
    world = World(tmp_path_factory.mktemp("w"), columns=COLUMNS)
    typed(world, FieldType.INTEGER)
    plan = world.put(*((f"{before}{number}", "x", 1, "") for number, before in keys)).plan(by_key())
    numbers = [number for number, _ in keys]
    alone = sum(numbers.count(number) == 1 for number in numbers)
    assert (plan.total, plan.refused) == (alone, len(keys) - alone)
    world.close()


@given(text=some.text(some.characters(exclude_categories=("Cs",))), number=some.integers(-(10**30), 10**30))
def test_a_key_has_one_spelling(text: str, number: int) -> None:
    with duckdb.connect() as engine:
        one = engine.execute("SELECT CAST(to_json(?::VARCHAR) AS VARCHAR)", [text]).fetchall()[0][0]
        other = engine.execute(f"SELECT CAST(to_json({number}::DECIMAL(38,0)) AS VARCHAR)").fetchall()[0][0]
        cents = engine.execute(
            f"SELECT CAST(to_json({number % 10**6}.50::DECIMAL(12,2)) AS VARCHAR)"
        ).fetchall()[0][0]
    assert spell(text) == one
    assert one in spellings(text)
    assert one in spellings(one)
    assert other in spellings(str(number))
    assert cents in spellings(f"{number % 10**6}.50")
