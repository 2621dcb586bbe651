"""State that is damaged, newer, locked, read-only or on a full disk; commands that cannot be meant (bad input 38)."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pytest
from bad_project import BadProject
from tests.waiting import HANGS

from backhaul.errors import StateError
from backhaul.state.journal import Journal
from backhaul.state.sqlite import SqliteState


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A mount that ends with the block; skips where this process may not."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def spoilt(path: Path, at: int = 0, count: int = 4096) -> bytes:
    """Overwrites bytes in the middle of a file; gives what it now holds."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(count))
    return path.read_bytes()


@pytest.fixture
def used(bad: BadProject) -> BadProject:
    """The project after a first run, with a change to deliver."""
    bad.runs()
    bad.sql("update t set name = 'new' where id = 1")
    return bad


def untouched(bad: BadProject, path: Path, *parts: str) -> None:
    before = path.read_bytes()
    bad.refuses(1, *parts)
    assert path.read_bytes() == before


def test_a_damaged_state(used: BadProject) -> None:
    for rest in used.state.glob("state.db-*"):
        rest.unlink()
    spoilt(used.state / "state.db")
    untouched(used, used.state / "state.db", "state.db is damaged")


def test_a_state_damaged_inside(used: BadProject) -> None:
    size = (used.state / "state.db").stat().st_size
    spoilt(used.state / "state.db", 4096, size - 4096)
    untouched(used, used.state / "state.db", "state.db")


def test_a_state_that_is_another_program_s(bad: BadProject) -> None:
    bad.state.mkdir()
    with sqlite3.connect(bad.state / "state.db") as other:
        other.execute("create table mine (a)")
    other.close()
    untouched(bad, bad.state / "state.db", "not a backhaul state")


def test_a_newer_state(used: BadProject) -> None:
    with sqlite3.connect(used.state / "state.db") as state:
        state.execute("pragma user_version = 99")
    state.close()
    untouched(used, used.state / "state.db", "written by a newer backhaul (schema 99", "upgrade backhaul")


@pytest.mark.parametrize("at", [0, 4096, 8192])
def test_a_damaged_ledger(used: BadProject, at: int) -> None:
    spoilt(used.ledger, at)
    untouched(used, used.ledger, f"{used.ledger.name} is not a backhaul ledger, or it is damaged")


@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_ledger_damaged_in_its_rows(bad: BadProject, part: float) -> None:
    """Found when the rows are read, so after the file was opened."""
    bad.sql(
        "create or replace table t as select i as id, md5(i::varchar) as name, random() as v from range(60000) x(i)"
    )
    bad.sync = {"guards": {"max_drop": "off"}}
    bad.write().runs()
    bad.sql("update t set v = v + 1")
    size = bad.ledger.stat().st_size
    spoilt(bad.ledger, int(size * part), 40_000)
    untouched(bad, bad.ledger, bad.ledger.name, "damaged")
    for words in (("plan",), ("status",), ("records", "users"), ("reset", "users", "--yes")):
        said = bad.call(*words)
        assert said.code in (0, 1), said
        assert said.code == 0 or bad.ledger.name in said.err, said


def test_a_cut_ledger(used: BadProject) -> None:
    used.ledger.write_bytes(used.ledger.read_bytes()[:5000])
    untouched(used, used.ledger, used.ledger.name)


def test_an_empty_ledger_file(used: BadProject) -> None:
    used.ledger.write_bytes(b"")
    untouched(used, used.ledger, used.ledger.name)


def test_a_ledger_that_is_another_database(used: BadProject) -> None:
    used.ledger.unlink()
    with duckdb.connect(str(used.ledger)) as other:
        other.execute("create table mine (a int)")
    untouched(used, used.ledger, used.ledger.name, "not a backhaul ledger")


def test_a_ledger_of_a_newer_format(used: BadProject) -> None:
    content = bytearray(used.ledger.read_bytes())
    content[12:20] = (900).to_bytes(8, "little")
    used.ledger.write_bytes(content)
    untouched(used, used.ledger, used.ledger.name)


def test_a_ledger_that_is_gone_is_not_taken_for_a_first_run(used: BadProject) -> None:
    """I35: a first run would create everything a second time. It is refused, again and again, until a person decides."""
    kept = used.ledger.read_bytes()
    used.ledger.unlink()
    for words in (("run",), ("run", "--full"), ("plan",)):
        used.refuses(1, f"ledgers/{used.ledger.name} is gone", "baseline users", "reset users", words=words)
    used.ledger.write_bytes(kept)
    used.runs()
    assert used.sink.records["1"]["name"] == "new"


def test_a_lost_ledger_is_begun_anew_by_baseline(used: BadProject) -> None:
    used.ledger.unlink()
    seen = len(used.sink.seen)
    assert used.call("baseline", "users").code == 0
    used.runs()
    assert len(used.sink.seen) == seen


def test_a_lost_ledger_is_begun_anew_by_reset(used: BadProject) -> None:
    used.ledger.unlink()
    assert used.call("reset", "users", "--yes").code == 0
    used.runs()
    assert used.sink.records["1"]["name"] == "new"


def test_a_baseline_that_fails_leaves_a_lost_ledger_lost(used: BadProject) -> None:
    used.ledger.unlink()
    used.sql("alter table t rename to elsewhere")
    assert used.call("baseline", "users").code == 1
    used.sql("alter table elsewhere rename to t")
    used.refuses(1, f"ledgers/{used.ledger.name} is gone")


def test_a_plan_file_that_is_gone(used: BadProject) -> None:
    plan = used.call("plan", "--json").json["plans"][0]["id"]
    (used.state / "plans" / f"{plan}.parquet").unlink()
    said = used.call("run", "--plan", plan)
    assert said.code in (0, 1, 2), said
    if said.code:
        assert plan in said.err


def test_a_damaged_plan_on_its_way(used: BadProject) -> None:
    """A run was killed while it delivered; its plan is no longer readable."""
    used.sink.faults.latency = 2.0
    with used.start("run") as running:
        for _ in range(1200):
            if len(used.sink.seen) > 1:
                break
            try:
                running.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        running.kill()
        running.communicate()
    used.sink.faults.latency = 0.0
    plan = max((used.state / "plans").glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    spoilt(plan, 0, plan.stat().st_size)
    seen = len(used.sink.seen)
    said = used.call("run")
    assert said.code == 1, said
    assert f"the file of plan {plan.stem} is damaged" in said.err
    assert "backhaul reset users" in said.err
    assert len(used.sink.seen) == seen
    assert used.call("reset", "users", "--yes").code == 0
    used.runs()
    assert used.sink.records["1"]["name"] == "new"


def test_a_locked_state(used: BadProject) -> None:
    """A writer that lets go in time is waited for; the state is busy for a moment only."""
    with sqlite3.connect(used.state / "state.db", isolation_level=None) as other:
        other.execute("begin immediate")
        with used.start("run") as running:
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(1.5)
            other.execute("rollback")
            out, err = running.communicate(timeout=HANGS)
    other.close()
    assert running.returncode == 0, err + out


def test_a_ledger_that_another_process_writes(used: BadProject) -> None:
    with duckdb.connect(str(used.ledger)), used.start("run") as running:
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(1.5)
        running.kill()
        running.communicate(timeout=HANGS)
    assert len(used.sink.seen) == 1


def test_a_state_folder_that_is_a_link(bad: BadProject, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    bad.state.symlink_to(tmp_path / "elsewhere")
    bad.refuses(1, "symbolic link")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_state_folder_that_is_a_file(bad: BadProject) -> None:
    bad.state.write_text("a file")
    bad.refuses(1, ".backhaul")
    assert bad.state.read_text() == "a file"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    with mounted(folder, "--bind", str(folder)):
        line = ["mount", "-o", "remount,ro,bind", str(folder)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no read-only mounts here: {done.stderr.strip()}")
        yield


def test_a_read_only_state(used: BadProject) -> None:
    with read_only(used.state):
        used.refuses(1, "the state folder .backhaul cannot be used: Read-only")
    used.runs()


@pytest.mark.parametrize("begun", [False, True])
def test_every_command_in_a_read_only_project(bad: BadProject, begun: bool) -> None:
    if begun:
        bad.runs()
    reading = (
        "check",
        "plan",
        "status",
        "runs",
        "records users",
        "verify users",
        "why users 1",
        "dead-letters list",
    )
    with read_only(bad.root):
        for command in (*reading, "run", "forget users 1 --yes", "reset users --yes"):
            said = bad.call(*command.split())
            assert (said.code, said.out) == (1, ""), command
            assert "the state folder .backhaul cannot be used: Read-only file system" in said.err, command
            assert "a state folder that it may write to" in said.err, command


def test_a_full_disk(bad: BadProject) -> None:
    """Too little room for a plan: nothing is sent; with room again the next run delivers all."""
    bad.sql(
        "create or replace table t as select i as id, md5(i::varchar) as name, i * 1.5::double as v from range(100000) x(i)"
    )
    with mounted(bad.state, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        bad.refuses(1, "full")
        subprocess.run(["mount", "-o", "remount,size=200m", str(bad.state)], check=True)
        bad.runs()
    assert len(bad.sink.records) == 100_000


def test_two_commands_at_once(used: BadProject) -> None:
    used.sink.faults.latency = 1.5
    with used.start("run") as first:
        for _ in range(200):
            if len(used.sink.seen) > 1:
                break
            try:
                first.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        said = used.call("run")
        first.communicate(timeout=HANGS)
    assert (first.returncode, said.code) == (0, 1)
    assert f"users is being run by another process (pid {first.pid})" in said.err
    assert len(used.sink.seen) == 2


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("run", "--limit", "0"), ("--limit",)),
        (("run", "--limit", "-1"), ("--limit",)),
        (("run", "--limit", "abc"), ("--limit",)),
        (("run", "--plan", "p-0"), ("there is no plan p-0", "backhaul plan")),
        (("run", "--plan", ""), ("plan",)),
        (("run", "--plan", "../state.db"), ("there is no plan",)),
        (("run", "--plan", "w.duckdb"), ("plan",)),
        (("run", "usrs"), ("usrs", "users")),
        (("plan", "u?ers2"), ("u?ers2",)),
        (("records", "users", "--status", "lost"), ("lost",)),
        (("dead-letters", "show", "99"), ("99",)),
        (("dead-letters", "show", "x"), ("x",)),
        (("dead-letters", "replay", "99"), ("99",)),
        (("rnu",), ("run",)),
        (("run", "--fulll"), ("--full",)),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_commands_that_cannot_be_meant(
    used: BadProject, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    used.refuses(2, *parts, words=words)


def test_another_sync_s_plan(used: BadProject) -> None:
    second = (used.root / "syncs" / "users.yml").read_text().replace('"name": "users"', '"name": "others"')
    (used.root / "syncs" / "others.yml").write_text(second)
    plan = used.call("plan", "others", "--json").json["plans"][0]["id"]
    used.refuses(2, f"plan {plan} is of others, not of users", words=("run", "users", "--plan", plan))


def test_a_plan_file_of_another_shape(used: BadProject) -> None:
    for content in (
        b"",
        b"{}",
        b"[]",
        b'{"plans": 5}',
        b"\xff\xfe",
        b'{"plans": [{"sync": "users", "digest": 5, "id": 7}]}',
    ):
        file = used.root / "plan.json"
        file.write_bytes(content)
        said = used.call("run", "--plan", str(file))
        assert said.code in (1, 2), (content, said)
        assert len(used.sink.seen) == 1


def test_outside_a_project(used: BadProject, tmp_path: Path) -> None:
    (tmp_path / "backhaul.yml").unlink()
    used.refuses(2, "backhaul.yml")


def test_a_project_folder_that_is_gone(used: BadProject) -> None:
    shutil.rmtree(used.root)
    used.refuses(2, "does not exist")


def test_a_project_folder_that_cannot_be_written(bad: BadProject) -> None:
    with mounted(bad.root, "--bind", str(bad.root)):
        done = subprocess.run(
            ["mount", "-o", "remount,ro,bind", str(bad.root)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no read-only mounts here: {done.stderr.strip()}")
        bad.refuses(1, ".backhaul", "ead-only")


async def test_a_state_that_goes_away_before_the_first_request_ends_the_run(tmp_path: Path) -> None:
    """Instead of waiting for a journal that nobody writes."""
    with closing(SqliteState(tmp_path)) as state:
        for file in tmp_path.glob("state.db*"):
            file.unlink()
        state.path.mkdir()
        with pytest.raises(StateError, match=r"state\.db cannot be opened"):
            async with Journal(state, "users", "p-1") as journal:
                await asyncio.wait_for(journal.intend(0, 1, "upsert", "k", "{}"), HANGS)
