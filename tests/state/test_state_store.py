"""The state file: made once, migrated in one step, left alone where it is not ours."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tests.waiting import HANGS

from backhaul.errors import StateError
from backhaul.state.sqlite import APPLICATION_ID, DIALECT, SqliteState
from backhaul.state.sqlite_connection import ROWS
from backhaul.state.statements import migrations, queries
from backhaul.surroundings import REAL

WRITER = Path(__file__).parent / "writer.py"


def version(path: Path) -> tuple[int, int]:
    with sqlite3.connect(path) as database:
        found = [
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")
        ]
    database.close()
    return found[0], found[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_new_state_is_of_the_newest_schema_and_nobody_elses(tmp_path: Path) -> None:
    SqliteState(tmp_path / "deep" / "state").close()
    path = tmp_path / "deep" / "state" / "state.db"
    assert version(path) == (len(migrations(DIALECT)), APPLICATION_ID)
    assert oct(path.stat().st_mode)[-3:] == "600"
    assert oct(path.parent.stat().st_mode)[-3:] == "700"
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_what_is_beside_the_state_is_nobody_elses(tmp_path: Path) -> None:
    state = SqliteState(tmp_path / "s")
    state.do("start_run", {"id": "r", "sync": "s", "started_at": REAL.now()})
    modes = {path.name: oct(path.stat().st_mode)[-3:] for path in (tmp_path / "s").glob("state.db*")}
    assert modes == {"state.db": "600", "state.db-wal": "600", "state.db-shm": "600"}
    state.close()


def test_a_state_keeps_what_it_holds_when_opened_again(tmp_path: Path) -> None:
    state = SqliteState(tmp_path)
    state.do("start_run", {"id": "r", "sync": "s", "started_at": REAL.now()})
    state.close()
    state = SqliteState(tmp_path)
    assert [row["id"] for row in state.do("runs", {"sync": "s", "limit": 9})] == ["r"]
    state.close()


def test_many_may_make_it_at_the_same_moment(tmp_path: Path) -> None:
    for attempt in range(8):
        folder, gate = tmp_path / f"t{attempt}", Barrier(8)

        def make(folder: Path = folder, gate: Barrier = gate) -> None:
            gate.wait(HANGS)
            SqliteState(folder).close()

        with ThreadPoolExecutor(8) as pool:
            for made in [pool.submit(make) for _ in range(8)]:
                made.result(HANGS)
        assert version(folder / "state.db")[0] == len(migrations(DIALECT))


def test_many_processes_may_make_it_at_once(tmp_path: Path) -> None:
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        many = [
            subprocess.Popen(
                [sys.executable, WRITER, folder, "open"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        said = [process.communicate(timeout=HANGS) for process in many]
        assert [(out, err) for out, err in said] == [("opened\n", "")] * 6
        assert version(folder / "state.db")[0] == len(migrations(DIALECT))


def test_a_schema_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """What a process that was killed in the middle of it leaves is an empty database."""
    (tmp_path / "state.db").touch(mode=0o600)
    SqliteState(tmp_path).close()
    assert version(tmp_path / "state.db")[0] == len(migrations(DIALECT))


@pytest.mark.parametrize("journal_mode", ["DELETE", "WAL"])
@pytest.mark.parametrize(
    ("pragmas", "said"),
    [
        ("", "not a backhaul state"),
        ("PRAGMA user_version = 1; PRAGMA application_id = 7;", "not a backhaul state"),
        (f"PRAGMA user_version = 99; PRAGMA application_id = {APPLICATION_ID};", "newer backhaul (schema 99"),
    ],
)
def test_what_is_not_ours_is_left_as_it_is(
    tmp_path: Path, pragmas: str, said: str, journal_mode: str
) -> None:
    database = sqlite3.connect(tmp_path / "state.db")
    database.executescript(f"PRAGMA journal_mode = {journal_mode}; CREATE TABLE mine (x); {pragmas}")
    database.close()
    before = (tmp_path / "state.db").read_bytes()
    with pytest.raises(StateError) as error:
        SqliteState(tmp_path)
    assert said in str(error.value)
    assert (tmp_path / "state.db").read_bytes() == before


def test_a_damaged_state_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database at all " * 500)
    with pytest.raises(StateError, match=r"the state state\.db is damaged, or not a backhaul state"):
        SqliteState(tmp_path)
    assert (tmp_path / "state.db").read_bytes() == b"no database at all " * 500


def test_a_folder_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StateError, match="symbolic link"):
        SqliteState(tmp_path / "link")
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StateError, match="cannot be"):
        SqliteState(tmp_path / "s")


def test_an_open_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    state = SqliteState(tmp_path)
    with pytest.raises(RuntimeError), state.together():
        state.do("start_run", {"id": "r", "sync": "s", "started_at": REAL.now()})
        raise RuntimeError
    assert state.do("runs", {"sync": "s", "limit": 9}) == []
    state.close()


def test_every_statement_is_sql(tmp_path: Path) -> None:
    """Compiled against the schema; a misspelt column fails here and not in a run."""
    import re

    state = SqliteState(tmp_path)
    for name, sql in queries(ROWS).items():
        values = dict.fromkeys(re.findall(r":(\w+)", sql)) if ":" in sql else [None] * sql.count("?")
        state.db.execute(f"EXPLAIN {sql}", values).fetchall()
        assert name
    state.close()
