"""Every record a sync knows has one status, whatever is going on (records and counts)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from world import LOST, World, sync

from backhaul.ledger.fold import forget_values
from backhaul.ledger.plan import Plan
from backhaul.records.listing import STATUSES, counts, records
from backhaul.state.scopes import Scope
from backhaul.state.sqlite import SqliteState
from backhaul.surroundings import REAL

SCOPE = Scope("s", "s", "s", "o")


class Known:
    """A world and the state beside it."""

    def __init__(self, world: World, state: SqliteState) -> None:
        self.world, self.state = world, state

    def under_way(self, plan: Plan, status: str = "delivering") -> None:
        row = {
            "id": plan.id,
            "scope": "s",
            "file": plan.path.name,
            "header": plan.header().decode(),
            "status": status,
        }
        self.state.do("add_plan", row | {"created_at": REAL.now()})

    def settled(self, plan: Plan, low: int, high: int, **lists: list[int]) -> None:
        texts = [
            orjson.dumps(lists[name]).decode() if name in lists else None
            for name in ("rejected", "unknown", "pending")
        ]
        self.state.do_all("settle", [(plan.id, low, high, None, *texts, None, None, None)])

    def bury(self, *keys: str) -> None:
        rows = [
            (
                "s",
                key,
                "upsert",
                "bad",
                "no",
                1,
                REAL.now(),
                REAL.now(),
                "",
                "1",
                0,
                "p",
                None,
                "",
                "record",
                0,
                "dead",
                "m",
                "",
            )
            for key in keys
        ]
        self.state.do_all("bury", rows)

    def path(self, name: str) -> Path:
        return self.world.folder / f"{name}.parquet"

    def all(self, status: str | None = None) -> dict[Any, dict[str, Any]]:
        found = list(
            records(
                self.world.engine,
                self.state,
                self.world.ledger,
                SCOPE,
                self.path,
                status,
            )
        )
        assert len({str(record["key"]) for record in found}) == len(found), "a key came twice"
        return {record["key"]: record for record in found}

    def statuses(self) -> dict[Any, str]:
        return {key: record["status"] for key, record in self.all().items()}

    def agree(self) -> None:
        told = Counter(self.statuses().values())
        assert counts(self.world.engine, self.state, self.world.ledger, SCOPE, self.path) == {
            name: told[name] for name in STATUSES
        }
        for status in STATUSES:
            assert len(self.all(status)) == told[status]


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    world, state = World(tmp_path), SqliteState(tmp_path / "state")
    yield Known(world, state)
    world.close()
    state.close()


def rows(count: int, more: int = 0) -> list[Any]:
    return [(n, f"e{n}", n + more, "b") for n in range(count)]


def test_before_the_first_run_there_is_none(known: Known) -> None:
    assert known.all() == {}
    known.agree()


def test_acknowledged_records_show_what_was_acknowledged(known: Known) -> None:
    known.world.put((1, "x", 7, "b"), (2, "y", None, "b")).run(sync())
    assert known.all() == {
        1: {"key": 1, "status": "acknowledged", "fields": {"email": "x", "a": 7}, "remote_id": "r1"},
        2: {"key": 2, "status": "acknowledged", "fields": {"email": "y", "a": None}, "remote_id": "r2"},
    }
    known.agree()


def test_values_are_shown_as_they_are(tmp_path: Path) -> None:
    columns = (
        "id DECIMAL(38,0), email VARCHAR, d DECIMAL(38,10), seen TIMESTAMPTZ, j JSON, big HUGEINT, day DATE"
    )
    world = World(tmp_path, columns=columns)
    state = SqliteState(tmp_path / "state")
    known = Known(world, state)
    fields = {"d": "d", "seen": "seen", "j": "j", "big": "big", "day": "day", "pi": "3.14::double"}
    key = "12345678901234567890123456789"
    world.put(
        (
            key,
            "x",
            "1234567890123.0123456789",
            "2026-01-01 10:00:00+02",
            '{"a": [1]}',
            "18446744073709551616",
            "2026-01-02",
        )
    )
    world.run(sync(fields=fields))
    (record,) = known.all().values()
    assert record["key"] == key
    assert record["fields"] == {
        "email": "x", "d": "1234567890123.0123456789", "seen": "2026-01-01T08:00:00Z", "j": {"a": [1]},
        "big": "18446744073709551616", "day": "2026-01-02", "pi": 3.14,
    }  # fmt: skip
    world.close()
    state.close()


def test_a_plan_that_is_half_settled(known: Known) -> None:
    world = known.world
    world.put(*rows(8)).run(sync(nulls="skip"))
    world.put(
        *rows(2, 10),
        (2, "e2", None, "b"),
        (3, "e3", 13, "b"),
        *((n, f"e{n}", n, "b") for n in (8, 9, 10, 11, 12)),
    )
    plan = world.plan(sync(nulls="skip"))
    known.under_way(plan)
    before = {row["key"]: row["number"] for row in world.rows(plan)}
    assert sorted(map(int, before)) == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert set(known.statuses().values()) == {"acknowledged", "pending"}
    assert sorted(known.statuses()) == list(range(13))
    for key in ("0", "4", "8"):
        known.settled(plan, before[key], before[key] + 1)
    known.settled(plan, before["1"], before["1"] + 1, rejected=[before["1"]])
    known.settled(plan, before["9"], before["9"] + 1, rejected=[before["9"]])
    known.bury("1", "9")
    known.settled(plan, before["5"], before["5"] + 1, unknown=[before["5"]])
    known.settled(plan, before["6"], before["6"] + 1, pending=[before["6"]])
    known.state.do_all(
        "intend", [(plan.id, before["10"], before["10"] + 1, "upsert", "k", REAL.now(), None, "{}", 1.0)]
    )
    found = known.all()
    assert {key: record["status"] for key, record in found.items()} == {
        0: "acknowledged", 1: "rejected", 2: "acknowledged", 3: "pending", 5: "unknown", 6: "pending", 7: "pending",
        8: "acknowledged", 9: "rejected", 10: "unknown", 11: "pending", 12: "pending",
    }  # fmt: skip
    assert (found[0]["fields"]["a"], found[1]["fields"]["a"], found[3]["fields"]["a"]) == (10, 1, 3)
    assert found[8]["fields"] == {"email": "e8", "a": 8}
    assert found[11]["fields"] is None


def test_a_skipped_null_is_shown_as_what_is_still_there(known: Known) -> None:
    fields = {"a": "a", "b": "b"}
    known.world.put((1, "x", 1, "b")).run(sync(fields=fields, nulls="skip"))
    plan = known.world.put((1, "x", None, "new")).plan(sync(fields=fields, nulls="skip"))
    known.under_way(plan)
    known.settled(plan, 0, 1)
    assert known.all()[1]["fields"] == {"email": "x", "a": 1, "b": "new"}


def test_a_held_plan(known: Known) -> None:
    known.world.put(*rows(3)).run(sync())
    plan = known.world.put(*rows(1), (1, "e1", 9, "b"), (7, "e7", 7, "b"), (8, "", 8, "b")).plan(sync())
    known.under_way(plan, "held")
    assert known.statuses() == {0: "acknowledged", 1: "held", 2: "held", 7: "held", 8: "rejected"}
    assert known.all("held")[1]["fields"]["a"] == 1


def test_dead_letters_unknowns_and_resets(known: Known) -> None:
    known.world.put(*rows(3)).run(sync())
    known.world.put(*rows(3, 1)).run(sync(), lambda row: LOST if row["key"] == "1" else "ok")
    known.bury("2", "77")
    assert known.statuses() == {0: "acknowledged", 1: "unknown", 2: "rejected", 77: "rejected"}
    known.agree()
    forget_values(known.world.engine, known.world.ledger)
    assert known.statuses() == {0: "pending", 1: "pending", 2: "rejected", 77: "rejected"}
    known.agree()


def test_hashes_alone_show_no_values(tmp_path: Path) -> None:
    world, state = World(tmp_path, values=False), SqliteState(tmp_path / "state")
    world.put(*rows(1)).run(sync())
    assert Known(world, state).all()[0]["fields"] is None
    world.close()
    state.close()


def listed(known: Known, status: str | None = None, at_once: int = 7) -> Iterator[dict[str, Any]]:
    world = known.world
    return records(world.engine, known.state, world.ledger, SCOPE, known.path, status, at_once=at_once)


@pytest.mark.parametrize("kind", ["BIGINT", "VARCHAR", "DECIMAL(20,2)"])
def test_records_come_by_key_in_pages_whatever_order_they_lie_in(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path, columns=f"id {kind}, email VARCHAR, a BIGINT, b VARCHAR")
    known = Known(world, SqliteState(tmp_path / "state"))
    world.put(*((n, f"e{n}", n, "b") for n in range(100))).run(sync())
    world.put(*((n, f"e{n}", n + n % 3, "b") for n in range(100))).run(
        sync()
    )  # what changed lies at the end now
    known.bury('"66"' if kind == "VARCHAR" else "66", "null", '"x"')
    found = list(listed(known))
    keys = [record["key"] for record in found]
    texts = sorted(map(str, range(100)))
    numbers = list(range(100))
    expected = [*texts, "x", None] if kind == "VARCHAR" else [*numbers, "x", None]
    assert keys == expected
    assert [record["key"] for record in found if record["status"] == "rejected"] == [
        key for key in expected if key in ("66", 66, "x", None)
    ]
    assert found == list(listed(known, at_once=1000))
    known.agree()


def test_a_reader_that_stops_or_is_slow_keeps_no_run_waiting(known: Known) -> None:
    """The first page is there before the last is read, and the ledger is free between the two."""
    known.world.put(*rows(100)).run(sync())
    reading = listed(known)
    first = next(reading)
    known.world.put(*rows(100, more=1)).run(sync())  # another run folds meanwhile
    assert first["key"] == 0
    assert [record["key"] for record in reading] == list(range(1, 100))


def test_of_one_status_in_pages(known: Known) -> None:
    known.world.put(*rows(100)).run(sync())
    known.bury(*map(str, range(40, 60)))
    assert [record["key"] for record in listed(known, "rejected", 6)] == list(range(40, 60))
    assert len(list(listed(known, "acknowledged", 6))) == 80
    assert list(listed(known, "unknown", 6)) == []
