"""What a plan holds after which history: only what changed, and nothing that would harm another record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from world import APPLIED, LOST, OK, REFUSED, WAITING, World, sync

from backhaul.changes import Stage, code
from backhaul.errors import RunError, SourceError, StateError
from backhaul.ledger.plan import Plan, plan_from
from backhaul.mapping.hashing import hash_function
from backhaul.types import Field, FieldType, ObjectSchema


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def mover(tmp_path: Path) -> Iterator[World]:
    """Its destination can give a record another identifier."""
    made = World(tmp_path, moves=True)
    yield made
    made.close()


def fates(**by_key: str) -> Any:
    return lambda row: by_key.get(f"k{row['key']}", OK)


def held(world: World) -> dict[str, Any]:
    return {email: record["a"] for email, record in world.destination.by_identifier().items()}


def ops(world: World, plan: Plan) -> list[tuple[str, str]]:
    names = {0: "delete", 1: "move", 2: "send", 8: "forget", 9: "refuse"}
    return [(names[row["segment"]], row["key"]) for row in world.rows(plan)]


def test_only_changed_rows_are_planned(world: World) -> None:
    plan = world.put(*((n, f"e{n}", n, "b") for n in range(50))).run(sync(fields={"a": "a", "b": "b"}))
    assert (plan.first, plan.rows, plan.changes) == (True, 50, {"create": 50, "update": 0, "delete": 0})
    assert world.plan(sync(fields={"a": "a", "b": "b"})).total == 0
    world.put(*((n, f"e{n}", n + (n == 7), "b") for n in range(1, 51)))
    plan = world.run(sync(fields={"a": "a", "b": "b"}))
    assert plan.changes == {"create": 1, "update": 1, "delete": 1}
    assert sorted(ops(world, plan)) == [("delete", "0"), ("send", "50"), ("send", "7")]
    assert held(world) == {f"e{n}": n + (n == 7) for n in range(1, 51)}


@pytest.mark.parametrize("mode", ["upsert", "mirror"])
def test_records_of_one_parent_are_sent_together(tmp_path: Path, mode: str) -> None:
    world = World(tmp_path)
    world.schema = ObjectSchema("o", {"b": Field("b", parent=True)}, open=True)
    mapped = sync(mode, fields={"a": "a", "b": "b"})
    first = world.put(*((n, f"e{n}", n, f"parent {n % 7}") for n in range(700))).run(mapped)
    world.put(*((n, f"e{n}", n + 1, f"parent {n % 7}") for n in range(350)))
    second = world.run(mapped)
    deletes = 350 if mode == "mirror" else 0
    assert (first.total, second.total) == (700, 350 + deletes)
    order = [row["record"]["b"] for row in world.rows(first)]
    assert order == sorted(order)
    parents = [int(row["key"]) % 7 for row in world.rows(second)]
    assert parents == sorted(parents[:deletes]) + sorted(parents[deletes:])
    world.close()


def test_a_header_gives_the_same_plan(world: World) -> None:
    plan = world.put((1, "x", 1, "b")).plan(sync())
    assert plan_from(plan.header(), plan.path) == plan
    assert oct(plan.path.stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(None, "x", 1, "")], "1 row has NULL in the primary key (id)"),
        ([(None, "x", 1, ""), (None, "y", 1, "")], "2 rows have NULL in the primary key (id)"),
        ([(1, "x", 1, ""), (1, "y", 2, ""), (2, "z", 1, "")], "the primary key is not unique: 1 (2 rows)"),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_key_that_is_none_refuses(world: World, rows: list[Any], said: str, before: int) -> None:
    for _ in range(bool(before)):
        world.put(*((n, f"e{n}", n, "") for n in range(before))).run(sync())
    before_it = world.held()
    with pytest.raises(SourceError) as error:
        world.put(*rows).plan(sync())
    assert said in str(error.value)
    assert world.held() == before_it


def test_a_known_key_that_comes_twice_unchanged_refuses(world: World) -> None:
    world.put((1, "x", 1, ""), (2, "y", 1, "")).run(sync())
    with pytest.raises(SourceError, match="not unique: 1 "):
        world.put((1, "x", 1, ""), (1, "x", 1, ""), (2, "y", 1, "")).plan(sync())


@pytest.mark.parametrize("pair", [("A", "a"), ("a", " a"), ("caf\u00e9", "cafe\u0301"), ("Ä", "ä ")])
@pytest.mark.parametrize("known", [False, True])
def test_spellings_of_one_key_refuse(tmp_path: Path, pair: tuple[str, str], known: bool) -> None:
    world = World(tmp_path, columns="id VARCHAR, email VARCHAR, a INTEGER, b VARCHAR")
    if known:
        world.put((pair[0], "x", 1, "")).run(sync())
    with pytest.raises(SourceError, match="differ only in case, spaces or Unicode form"):
        world.put((pair[0], "x", 1, ""), (pair[1], "y", 1, "")).plan(sync())
    world.put((pair[1], "y", 1, ""))
    world.run(sync())
    assert [row["f.email"] for row in world.held().values()] == ["y"]
    world.close()


def test_composite_keys(tmp_path: Path) -> None:
    world = World(tmp_path, columns="id BIGINT, part VARCHAR, email VARCHAR, a INTEGER")
    keyed = sync(model={"warehouse": "main", "table": "t", "primary_key": ["id", "part"]})
    world.put((1, "p", "x", 1), (1, "q", "y", 2), (2, "p", "z", 3)).run(keyed)
    assert world.plan(keyed).total == 0
    plan = world.put((1, "p", "x", 1), (1, "q", "y", 9)).run(keyed)
    assert sorted(ops(world, plan)) == [("delete", '[2,"p"]'), ("send", '[1,"q"]')]
    assert held(world) == {"x": 1, "y": 9}
    for bad in ((1, None, "n", 1), (1, "P", "n", 1), (1, "p", "n", 1)):
        with pytest.raises(SourceError):
            world.put((1, "p", "x", 1), (1, "q", "y", 9), bad).plan(keyed)
    world.close()


@pytest.mark.parametrize("fate", [LOST, APPLIED])
def test_a_value_that_went_back_around_an_unknown_is_sent(world: World, fate: str) -> None:
    world.put((1, "x", 1, "")).run(sync())
    world.put((1, "x", 2, "")).run(sync(), fates(k1=fate))
    plan = world.put((1, "x", 1, "")).run(sync())
    assert (plan.total, plan.reasons, held(world)) == (1, {"unknown": 1}, {"x": 1})
    assert world.plan(sync()).total == 0


@pytest.mark.parametrize("fate", [LOST, APPLIED])
def test_a_row_that_came_and_went_around_an_unknown_is_deleted(world: World, fate: str) -> None:
    world.put((1, "x", 1, ""), (2, "y", 1, "")).run(sync(), fates(k2=fate))
    plan = world.put((1, "x", 1, "")).run(sync())
    assert ops(world, plan) == [("delete", "2")]
    assert (held(world), world.plan(sync()).total) == ({"x": 1}, 0)


def test_rejected_values_wait_for_another_value(world: World) -> None:
    world.put((1, "x", 1, "")).run(sync())
    world.put((1, "x", 2, "")).run(sync(), fates(k1=REFUSED))
    assert world.plan(sync()).total == 0
    assert world.put((1, "x", 3, "")).run(sync()).total == 1
    assert held(world) == {"x": 3}


def test_twins_are_refused_and_leave_when_they_differ(world: World) -> None:
    plan = world.put((1, "x", 1, ""), (2, "x", 2, ""), (3, "y", 3, "")).run(sync())
    assert sorted(ops(world, plan)) == [("refuse", "1"), ("refuse", "2"), ("send", "3")]
    assert all(
        "another record of the model has the same email" in row["error"] for row in world.rows(plan)[1:]
    )
    assert (world.plan(sync()).total, world.plan(sync()).refused) == (0, 0)
    world.put((1, "x", 1, ""), (2, "z", 2, ""), (3, "y", 3, "")).run(sync())
    assert held(world) == {"x": 1, "z": 2, "y": 3}


def test_a_key_may_not_take_what_another_holds(world: World) -> None:
    world.put((1, "x", 1, "")).run(sync())
    assert ops(world, world.put((1, "x", 1, ""), (2, "x", 2, "")).run(sync())) == [("refuse", "2")]
    assert held(world) == {"x": 1}


def test_case_insensitive_identifiers_are_twins(tmp_path: Path) -> None:
    world = World(tmp_path, case_insensitive=True)
    plan = world.put((1, "X@a", 1, ""), (2, "x@A ", 2, "")).run(sync())
    assert plan.refused == 2
    world.close()


@pytest.mark.parametrize("mode", ["mirror", "upsert"])
def test_an_identifier_is_handed_over(world: World, mode: str) -> None:
    world.put((1, "x", 1, "")).run(sync(mode))
    plan = world.put((2, "x", 2, "")).run(sync(mode))
    assert ops(world, plan) == [("send", "2"), ("forget", "1")]
    assert (held(world), list(world.held())) == ({"x": 2}, ["2"])
    assert world.plan(sync(mode)).total == 0
    world.put((1, "x", 1, "")).run(sync(mode))
    assert held(world) == {"x": 1}


@pytest.mark.parametrize("fate", [WAITING, REFUSED, LOST, APPLIED])
def test_what_is_not_handed_over_is_still_deleted(world: World, fate: str) -> None:
    world.put((1, "x", 1, "")).run(sync())
    world.put((2, "x", 2, "")).run(sync(), fates(k2=fate))
    world.put().run(sync())
    assert held(world) == {}
    assert world.held() == {}


@pytest.mark.parametrize("fate", [WAITING, LOST, APPLIED])
def test_who_lost_an_identifier_does_not_delete_it(world: World, fate: str) -> None:
    world.put((1, "x", 1, "")).run(sync())
    world.put((1, "y", 1, ""), (2, "x", 2, "")).run(sync(), fates(k1=fate))
    plan = world.put((2, "x", 2, "")).run(sync())
    assert held(world) == {"x": 2}
    assert ("delete", "2") not in ops(world, plan)
    assert world.plan(sync()).total == 0


@pytest.mark.parametrize("fate", [WAITING, LOST, APPLIED])
def test_who_lost_a_record_does_not_move_it(mover: World, fate: str) -> None:
    mover.put((1, "x", 1, "")).run(sync())
    mover.put((1, "y", 1, ""), (2, "x", 2, "")).run(sync(), fates(k1=fate))
    mover.put((1, "y", 1, ""), (2, "x", 2, "")).run(sync())
    assert held(mover) == {"x": 2, "y": 1}
    assert mover.plan(sync()).total == 0


def test_a_new_identifier_moves_the_record(mover: World) -> None:
    mover.put((1, "x", 1, "")).run(sync())
    (rid,) = mover.destination.records
    plan = mover.put((1, "y", 1, ""), (2, "x", 2, "")).run(sync())
    assert ops(mover, plan) == [("move", "1"), ("send", "2")]
    assert held(mover) == {"y": 1, "x": 2}
    assert mover.destination.records[rid]["email"] == "y"


def test_a_delete_without_an_identifier_never_leaves(world: World) -> None:
    world.put((1, "x", 1, ""), (2, "y", 1, "")).run(sync())
    with pytest.raises(RunError, match="1 known records that left the model cannot be deleted"):
        world.put((1, "x", 1, "")).plan(sync(identify={"id": "id"}))
    assert not list(world.folder.glob("p2.*"))


def test_a_skipped_null_changes_nothing(world: World) -> None:
    world.put((1, "x", 1, "b")).run(sync(nulls="skip"))
    assert world.put((1, "x", None, "b")).run(sync(nulls="skip")).total == 0
    assert world.put((1, "x", 2, "b")).run(sync(nulls="skip")).total == 1
    assert world.held()["1"]["f.a"] == 2


def test_nulls_that_were_skipped_and_are_cleared_now_are_sent(world: World) -> None:
    fields = {"a": "a", "b": "b"}
    rows = [(1, "x", 1, "p"), (2, "y", None, "p"), (3, "z", 3, "p")]
    world.put(*rows).run(sync(fields=fields, nulls="skip"))
    world.put((1, "x", None, "p"), *rows[1:])
    world.run(sync(fields=fields, nulls="skip"))
    plan = world.run(sync(fields=fields, nulls="clear"))
    assert sorted(row["key"] for row in world.rows(plan)) == ["1", "2"]
    assert (held(world)["x"], held(world)["y"]) == (None, None)
    assert world.plan(sync(fields=fields, nulls="clear")).total == 0


def test_a_mapping_change_sends_what_it_changes(world: World) -> None:
    rows = [(n, f"e{n}", n, "b") for n in range(5)]
    world.put(*rows).run(sync(fields={"a": "a", "b": "b"}))
    assert world.plan(sync(fields={"b": "b", "a": "a"})).total == 0
    assert world.plan(sync(fields={"a": "a"})).total == 0
    plan = world.plan(sync(fields={"a": "a", "b": "b", "c": "a * 2"}))
    assert (plan.total, plan.reasons) == (5, {"mapping": 5})
    assert world.plan(sync(fields={"a": "case when a = 3 then 9 else a end", "b": "b"})).total == 1
    for retyped in ("a::varchar", "a::decimal(10,2)", "a::double"):
        assert world.plan(sync(fields={"a": retyped, "b": "b"})).total == 5, retyped
    assert world.plan(sync(fields={"a": "a::hugeint", "b": "b"})).total == 0
    assert world.plan(sync(fields={"a": "a", "b": {"value": "'\"' || b || '\"'", "type": "json"}})).total == 5


@pytest.mark.parametrize(
    ("kind", "was", "now", "values"),
    [
        (FieldType.NUMBER, "INTEGER", "VARCHAR", ("42", "0", "-7", None)),
        (FieldType.NUMBER, "VARCHAR", "INTEGER", ("42", "0", "-7", None)),
        (FieldType.DECIMAL, "INTEGER", "VARCHAR", ("42", "0", "-7", None)),
        (FieldType.INTEGER, "INTEGER", "VARCHAR", ("42", "0", "-7", None)),
        (FieldType.STRING, "INTEGER", "VARCHAR", ("42", "0", "-7", None)),
        (FieldType.ANY, "TIMESTAMP", "VARCHAR", ("2026-01-02T03:04:05", None)),
        (FieldType.ANY, "DATE", "VARCHAR", ("2026-01-02", None)),
    ],
)
def test_a_column_of_another_type_sends_what_leaves_otherwise(
    tmp_path: Path, kind: FieldType, was: str, now: str, values: tuple[Any, ...]
) -> None:
    world = World(tmp_path, columns=f"id BIGINT, email VARCHAR, a {was}")
    world.schema = ObjectSchema("o", {"a": Field("a", kind)}, open=True)
    rows = [(n, f"e{n}", value) for n, value in enumerate(values)]
    world.put(*rows).run(sync())
    world.engine.execute(
        f"DROP TABLE memory.main.t; CREATE TABLE memory.main.t (id BIGINT, email VARCHAR, a {now})"
    )
    assert world.put(*rows).plan(sync()).total == 0
    plan = world.put((0, "e0", "8" if was == "INTEGER" else values[1]), *rows[1:]).run(sync())
    assert (plan.total, plan.changes["update"]) == (1, 1)
    assert world.plan(sync()).total == 0
    world.close()


def test_another_hash_function_is_recomputed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put((1, "x", 1, ""), (2, "y", 2, "")).run(sync())
    with world.ledger.writing(world.engine) as view:
        view.set("hash", "duckdb 0.1 hash")
        world.engine.execute("UPDATE _backhaul_ledger.acked SET _hash = _hash + 1")
    assert world.plan(sync()).total == 0
    plan = world.put((1, "x", 1, ""), (2, "y", 3, "")).run(sync())
    assert plan.total == 1
    with world.ledger.reading(world.engine) as view:
        assert view is not None
        assert view.meta["hash"] == hash_function()


def test_hashes_alone(tmp_path: Path) -> None:
    world = World(tmp_path, values=False)
    world.put((1, "x", 41, "secret"), (2, "y", 2, "secret")).run(sync(fields={"a": "a", "b": "b"}))
    assert world.held()["1"] | {"_hash": 0} == {
        "_hash": 0, "_state": 0, "_remote_id": "r1", "f.email": "x", "f.a": None, "f.b": None,
    }  # fmt: skip
    assert world.plan(sync(fields={"a": "a", "b": "b"})).total == 0
    plan = world.put((1, "x", 42, "secret")).run(sync(fields={"a": "a", "b": "b"}))
    assert sorted(ops(world, plan)) == [("delete", "2"), ("send", "1")]
    assert world.plan(sync(fields={"a": "a", "b": "b"}), incremental=True).total == 0
    world.close()


def test_values_that_may_not_be_kept_any_more_go(world: World) -> None:
    rows = [(n, f"e{n}", n, "secret") for n in range(3)]
    world.put(*rows).run(sync(fields={"a": "a", "b": "b"}))
    world.ledger.values = False
    world.put((0, "e0", 9, "secret"), *rows[1:]).run(sync(fields={"a": "a", "b": "b"}))
    assert {row["f.b"] for row in world.held().values()} == {None}
    assert world.plan(sync(fields={"a": "a", "b": "b"})).total == 0


def test_another_key_refuses(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put((1, "x", 1, "b")).run(sync())
    with pytest.raises(RunError, match=r"the primary key was \(id BIGINT\) and is now \(b VARCHAR\)"):
        world.plan(sync(model={"warehouse": "main", "table": "t", "primary_key": "b"}))
    world.close()


def test_a_digest_is_of_the_changes(tmp_path: Path) -> None:
    worlds = [World(tmp_path / name) for name in "ab"]
    for world in worlds:
        world.put((1, "x", 1, ""), (2, "y", 2, "")).run(sync())
        world.put((1, "x", 5, ""))
    first, second = (world.plan(sync()) for world in worlds)
    assert first.digest == second.digest == worlds[0].plan(sync()).digest
    others = [
        worlds[0].plan(sync("upsert")), worlds[0].plan(sync(fields={"renamed": "a"})),
        worlds[0].put((1, "x", 6, "")).plan(sync()), worlds[0].put((3, "z", 5, "")).plan(sync()),
    ]  # fmt: skip
    assert len({first.digest, *(plan.digest for plan in others)}) == 5
    for world in worlds:
        world.close()


def test_an_incremental_read_deletes_nothing(world: World) -> None:
    world.put((1, "x", 1, ""), (2, "y", 2, "")).run(sync("upsert"))
    world.put((2, "y", 3, ""), (3, "z", 3, ""))
    plan = world.plan(sync("upsert"), incremental=True, watermark="9")
    assert (plan.changes, plan.incremental) == ({"create": 1, "update": 1, "delete": 0}, True)
    world.settle(plan, world.carry_out(plan), complete=True)
    with world.ledger.reading(world.engine) as view:
        assert view is not None
        assert view.meta["watermark"] == "9"
    assert held(world) == {"x": 1, "y": 3, "z": 3}
    again = world.plan(sync("upsert"), incremental=True)
    assert again.total == 0
    world.settle(again, [], complete=False)
    with world.ledger.reading(world.engine) as view:
        assert view is not None
        assert "watermark" not in view.meta


@pytest.mark.parametrize(
    ("mode", "ops_sent"), [("insert", [("send", "2")]), ("update", [("send", "1"), ("send", "2")])]
)
def test_modes(world: World, mode: str, ops_sent: list[Any]) -> None:
    world.put((1, "x", 1, "")).run(sync(mode))
    plan = world.put((1, "x", 9, ""), (2, "y", 2, "")).run(sync(mode))
    assert sorted(ops(world, plan)) == ops_sent
    assert {str(segment.op) for segment in plan.segments} == {mode}
    assert plan.changes["create"] == (1 if mode == "insert" else 0)
    assert world.plan(sync(mode)).total == 0


def test_reset_keeps_the_keys(world: World) -> None:
    world.put((1, "x", 1, ""), (2, "y", 2, "")).run(sync())
    from backhaul.ledger.fold import forget_values

    assert forget_values(world.engine, world.ledger) == 2
    plan = world.put((1, "x", 1, "")).plan(sync())
    assert (sorted(ops(world, plan)), plan.reasons) == ([("delete", "2"), ("send", "1")], {"reset": 2})


def test_a_ledger_whose_first_fold_was_killed_is_empty(world: World) -> None:
    world.ledger.path.parent.mkdir()
    import duckdb

    duckdb.connect(str(world.ledger.path)).close()
    plan = world.put((1, "x", 1, "")).run(sync())
    assert plan.first
    assert list(world.held()) == ["1"]


def test_a_foreign_ledger_is_left_as_it_is(world: World) -> None:
    import duckdb

    world.ledger.path.parent.mkdir()
    with duckdb.connect(str(world.ledger.path)) as other:
        other.execute("CREATE TABLE mine AS SELECT 1 AS x")
    before = world.ledger.path.read_bytes()
    assert b"mine" in before
    with pytest.raises(StateError, match="not a backhaul ledger"):
        world.put((1, "x", 1, "")).plan(sync())
    with pytest.raises(StateError, match="not a backhaul ledger"), world.ledger.writing(world.engine):
        pass
    assert world.ledger.path.read_bytes() == before
    world.ledger.path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StateError, match="not a backhaul ledger, or it is damaged"):
        world.plan(sync())
    assert world.ledger.path.read_bytes() == b"garbage" * 1000


def test_a_ledger_is_nobody_elses(world: World) -> None:
    world.put((1, "x", 1, "")).run(sync())
    assert oct(world.ledger.path.stat().st_mode)[-3:] == "600"
    assert oct(world.ledger.path.parent.stat().st_mode)[-3:] == "700"


@pytest.mark.parametrize("name", ["a[b]c", "st*r", "it's", "{a,b}"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Its name is no pattern for the files in it."""
    (tmp_path / name).mkdir()
    world = World(tmp_path / name)
    world.put((1, "x", 1, "p"), (2, "y", 2, "q")).run(sync(), lambda row: OK if row["key"] == "1" else LOST)
    assert {key: held["_state"] for key, held in world.held().items()} == {
        "1": code(Stage.ACKNOWLEDGED),
        "2": code(Stage.UNKNOWN),
    }
    world.close()
