"""`state check` names what is wrong, changes no byte, and says 1 (I35)."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import duckdb
import pytest
from bad_project import BadProject


@pytest.fixture
def used(bad: BadProject) -> BadProject:
    """The project after a run, with a plan under review."""
    bad.runs()
    bad.sql("update t set name = 'new' where id = 1")
    assert bad.call("plan").code == 0
    return bad


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def finds(bad: BadProject, file: str, *parts: str) -> None:
    """It names exactly this file, as it names it for people, and leaves every file as it is."""
    before = contents(bad.state)
    said = bad.call("state", "check", "--json")
    wrong = [one for one in said.json["findings"] if not one["ok"]]
    assert (said.code, said.json["ok"], [one["file"] for one in wrong]) == (1, False, [file]), said
    for part in parts:
        assert part in f"{wrong[0]['message']} {wrong[0]['hint']}"
    assert f"WRONG  {file}: " in bad.call("state", "check").out
    assert contents(bad.state) == before


def spoil(path: Path, at: int, count: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(count))


def the_plan(bad: BadProject) -> Path:
    """The file of the plan under review."""
    return max((bad.state / "plans").glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)


def test_a_whole_state(used: BadProject) -> None:
    before = contents(used.state)
    said = used.call("state", "check")
    assert said.code == 0, said
    assert "ok     state.db: whole, schema " in said.out
    assert f"ok     ledgers/{used.ledger.name}: whole, 3 records" in said.out
    assert contents(used.state) == before


def test_no_state_yet_makes_none(bad: BadProject) -> None:
    said = bad.call("state", "check")
    assert said.code == 0, said
    assert not bad.state.exists()


def test_a_damaged_state(used: BadProject) -> None:
    path = used.state / "state.db"
    spoil(path, 4096, path.stat().st_size - 4096)
    finds(used, "state.db", "damaged")


def test_a_state_that_is_another_program_s(bad: BadProject) -> None:
    bad.state.mkdir()
    with sqlite3.connect(bad.state / "state.db") as other:
        other.execute("create table mine (a)")
    other.close()
    finds(bad, "state.db", "not a backhaul state")


def test_a_newer_state(used: BadProject) -> None:
    with sqlite3.connect(used.state / "state.db") as state:
        state.execute("pragma user_version = 99")
    state.close()
    finds(used, "state.db", "newer backhaul", "upgrade backhaul")


def test_an_older_state_is_not_migrated(used: BadProject) -> None:
    """A check by a new release leaves the state to the old one."""
    with sqlite3.connect(used.state / "state.db") as state:
        state.execute("drop table forgotten")
        state.execute("pragma user_version = 5")
    state.close()
    before = contents(used.state)
    assert "schema 5" in used.call("state", "check").out
    assert contents(used.state) == before


def test_a_state_that_is_gone_beside_its_ledgers(used: BadProject) -> None:
    for file in used.state.glob("state.db*"):
        file.unlink()
    finds(used, "state.db", "is gone")


def test_a_damaged_ledger(used: BadProject) -> None:
    spoil(used.ledger, 0, 12_288)
    finds(used, f"ledgers/{used.ledger.name}", "damaged", "backup")


def test_a_lost_ledger(used: BadProject) -> None:
    used.ledger.unlink()
    finds(used, f"ledgers/{used.ledger.name}", "is gone", "backhaul reset users")


def test_a_ledger_of_another_program(used: BadProject) -> None:
    used.ledger.unlink()
    with duckdb.connect(str(used.ledger)) as other:
        other.execute("create table mine (a int)")
    finds(used, f"ledgers/{used.ledger.name}", "not a backhaul ledger")


def test_a_damaged_plan(used: BadProject) -> None:
    plan = the_plan(used)
    spoil(plan, plan.stat().st_size - 8, 8)
    finds(used, f"plans/{plan.name}", "is damaged", "backhaul plan users")


def test_a_lost_plan(used: BadProject) -> None:
    plan = the_plan(used)
    plan.unlink()
    finds(used, f"plans/{plan.name}", "is gone", "backhaul plan users")


def test_files_that_no_run_knows_are_no_fault(used: BadProject) -> None:
    (used.state / "plans" / "p-stray.parquet").write_bytes(b"")
    said = used.call("state", "check")
    assert said.code == 0, said
    assert "1 files that no run knows" in said.out
