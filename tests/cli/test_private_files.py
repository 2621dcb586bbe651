"""What others can read or write is repaired or refused; links are not followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_program import Call

from backhaul.testing.duckdb_file import opened


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "syncs").mkdir()
    (tmp_path / "backhaul.yml").write_text(json.dumps({
        "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
        "destinations": {"d": {"type": "sqlite", "path": "d.db"}},
    }))  # fmt: skip
    (tmp_path / "syncs" / "s.yml").write_text(json.dumps({
        "name": "s", "model": {"table": "t", "primary_key": "id"}, "destination": "d", "object": "t", "mode": "upsert",
        "identify": {"id": "id"}, "fields": {"name": "name"},
    }))  # fmt: skip
    with opened(tmp_path / "w.duckdb") as db:
        db.execute("create table t as select 1 as id, 'Ada' as name")
    import sqlite3

    with sqlite3.connect(tmp_path / "d.db") as db:
        db.execute("create table t (id integer primary key, name text)")
    return tmp_path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_state_is_taken_away_from_others(project: Path, call: Call) -> None:
    assert call("run").code == 0
    state = project / ".backhaul"
    for path in (state, state / "ledgers", state / "plans"):
        path.chmod(0o777)
    (state / "state.db").chmod(0o644)
    assert call("status").code == 0
    assert [mode(path) for path in (state, state / "ledgers", state / "plans", state / "state.db")] == [
        0o700,
        0o700,
        0o700,
        0o600,
    ]


@pytest.mark.parametrize("part", ["ledgers", "plans", "state.db"])
def test_a_link_inside_the_state_is_refused(project: Path, call: Call, part: str, tmp_path: Path) -> None:
    assert call("run").code == 0
    inside, outside = project / ".backhaul" / part, tmp_path / "elsewhere"
    inside.rename(outside)
    inside.symlink_to(outside)
    said = call("run")
    assert said.code == 1
    assert f"{part} is a symbolic link, which is not followed" in said.err


@pytest.mark.parametrize("there", ["file", "link"])
def test_a_plan_file_replaces_what_others_could_read(project: Path, call: Call, there: str) -> None:
    target, other = project / "plan.json", project / "other.txt"
    other.write_text("theirs")
    other.chmod(0o666)
    if there == "file":
        target.write_text("old")
        target.chmod(0o666)
    else:
        target.symlink_to(other)
    assert call("plan", "--out", "plan.json").code == 0
    assert mode(target) == 0o600
    assert not target.is_symlink()
    assert other.read_text() == "theirs"
    assert call("run", "--plan", "plan.json").code == 0


def test_an_env_file_is_taken_away_from_others(project: Path, call: Call) -> None:
    (project / ".env").write_text("A=b\n")
    (project / ".env").chmod(0o666)
    assert call("status").code == 0
    assert mode(project / ".env") == 0o600


@pytest.mark.parametrize("allowed", [0o604, 0o640, 0o666, 0o602])
def test_a_secret_file_of_others_is_refused(project: Path, call: Call, allowed: int) -> None:
    (project / "secret").write_text("x.db")
    (project / "secret").chmod(allowed)
    told = (project / "backhaul.yml").read_text().replace('"d.db"', '"${file:secret}"')
    (project / "backhaul.yml").write_text(told)
    said = call("check")
    assert said.code == 2
    assert "others can read or write the file secret (chmod 600 secret)" in said.err
