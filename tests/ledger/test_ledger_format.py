"""The ledger file's own format number: an older one is read and made new by the next fold, a newer one refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from world import LOST, World, sync

from backhaul.errors import StateError
from backhaul.ledger.ledger import FORMAT

SYNC = sync(identify={"id": "id"}, fields={"a": "a"})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.destination.identifier = "id"
    yield made
    made.close()


def alter(world: World, *statements: str) -> None:
    with duckdb.connect(str(world.ledger.path)) as file:
        for statement in statements:
            file.execute(statement)


def test_a_ledger_of_the_first_format_is_read_and_made_new_by_a_fold(world: World) -> None:
    world.put((1, "x", 1, "p"), (2, "y", 2, "q")).run(SYNC)
    alter(
        world,
        "DELETE FROM meta WHERE name = 'format'",
        *(f"ALTER TABLE acked DROP COLUMN {name}" for name in ("_since", "_spelled")),
    )
    assert world.plan(SYNC).total == 0
    world.put((1, "x", 7, "p"), (2, "y", 2, "q")).run(SYNC, lambda row: LOST)
    with duckdb.connect(str(world.ledger.path), read_only=True) as file:
        assert file.execute("SELECT value FROM meta WHERE name = 'format'").fetchall() == [(str(FORMAT),)]
        assert file.execute("SELECT k0 FROM acked WHERE _since IS NOT NULL").fetchall() == [(1,)]


def test_a_newer_ledger_is_refused_by_name_and_left_as_it_is(world: World) -> None:
    world.put((1, "x", 1, "p")).run(SYNC)
    alter(world, f"UPDATE meta SET value = '{FORMAT + 1}' WHERE name = 'format'")
    before = world.ledger.path.read_bytes()
    with pytest.raises(StateError, match=r"s\.duckdb was written by a newer backhaul"):
        world.plan(SYNC)
    assert world.ledger.path.read_bytes() == before
