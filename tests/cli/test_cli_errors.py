"""What is wrong is said in clear lines with the right exit code: no traceback, no secret."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cli_program import START, Call, environment
from tests.waiting import HANGS

MAIN = """\
project: shop
warehouses:
  main: {type: duckdb, path: warehouse.duckdb}
destinations:
  api:
    type: http
    base_url: http://127.0.0.1:9
    headers: {Authorization: "Bearer ${TOKEN}"}
    objects:
      user: {key: id, upsert: {request: POST /u, batch_size: 10, body: {records: $records}}}
"""
SYNC = """\
name: users
model: {warehouse: main, sql: select 1 as id, primary_key: id}
destination: api
object: user
identify: {id: id}
"""


def write(folder: Path, main: str = MAIN, sync: str = SYNC) -> None:
    (folder / "syncs").mkdir(exist_ok=True)
    (folder / "backhaul.yml").write_text(main)
    (folder / "syncs" / "users.yml").write_text(sync)


def test_outside_a_project(process: Call) -> None:
    said = process("plan")
    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines()[0].startswith("error: no backhaul.yml in ")
    assert said.err.splitlines()[1] == "  `backhaul init` makes a project"


def test_every_problem_on_its_own_line_and_a_count(process: Call, tmp_path: Path) -> None:
    write(
        tmp_path,
        MAIN.replace("type: duckdb", "type: duckbd"),
        SYNC.replace("mode", "mode").replace("object", "objekt"),
    )
    said = process("run", TOKEN="abcdefgh")
    lines = said.err.splitlines()
    assert (said.code, said.out) == (2, "")
    assert any(line.startswith("backhaul.yml:3:") and "duckbd" in line for line in lines)
    assert any(line.startswith("syncs/users.yml:4:") and "objekt" in line for line in lines)
    assert lines[-1] == f"error: {len(lines) - 1} problems, nothing was run"


def test_problems_as_json(process: Call, tmp_path: Path) -> None:
    write(tmp_path)
    said = process("--json", "check")
    assert (said.code, said.err) == (2, "")
    (problem,) = said.json["error"]["problems"]
    assert "TOKEN" in problem["message"]
    assert (problem["file"], problem["line"]) == ("backhaul.yml", 8)


def test_an_unknown_sync_names_the_nearest(process: Call, tmp_path: Path) -> None:
    write(tmp_path)
    said = process("plan", "user", TOKEN="abcdefgh")
    assert said.code == 2
    assert said.err.splitlines() == ["error: there is no sync 'user' in shop", "  did you mean `users`?"]


@pytest.mark.parametrize("command", ["plan", "run", "check", "verify *", "baseline *", "reset * --yes"])
def test_a_project_without_syncs(process: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "backhaul.yml").write_text("project: shop\n")
    said = process(*command.split())
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--plan", "p-nope"], "there is no plan p-nope"),
        (["run", "--plan", "backhaul.yml"], "backhaul.yml is not a plan file"),
        (["dead-letters", "show", "9"], "there is no dead letter 9"),
        (["dead-letters", "replay", "9"], "there is no dead letter 9"),
        (
            ["dead-letters", "discard"],
            "name dead letters by their ids, or by --group, --code, --field, --sync, or take --all",
        ),
        (["dead-letters", "replay", "1", "--sync", "users"], "--sync cannot go with ids"),
        (["reset", "users"], "reset asks first, and there is no terminal to ask on"),
    ],
)
def test_refusals(process: Call, tmp_path: Path, words: list[str], message: str) -> None:
    write(tmp_path)
    said = process(*words, TOKEN="abcdefgh")
    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines()[0] == f"error: {message}"
    assert "Traceback" not in said.err


def test_the_state_can_be_damaged_without_a_traceback(process: Call, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / ".backhaul").mkdir()
    (tmp_path / ".backhaul" / "state.db").write_bytes(b"no database" * 500)
    said = process("runs", TOKEN="abcdefgh")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: the state state.db is damaged")


def test_a_secret_in_a_message_is_not_shown(process: Call, tmp_path: Path) -> None:
    write(tmp_path)
    secret = "s3cr3t-t0ken-9"
    for words in (["run", "--plan", secret], ["dead-letters", "list", "--sync", secret]):
        for extra in ([], ["--json"]):
            said = process(*words, *extra, TOKEN=secret)
            assert said.code == 2
            assert secret not in said.out + said.err
            assert "***" in said.out + said.err


def test_a_closed_pipe_is_quiet() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [*START, "schema"], stdout=writing, stderr=subprocess.PIPE, text=True, env=environment()
    ) as running:
        os.close(writing)
        _, err = running.communicate(timeout=HANGS)
    assert err == ""


def test_what_cannot_be_encoded_is_written_as_its_code(process: Call, tmp_path: Path) -> None:
    (tmp_path / "backhaul.yml").write_text("project: shop\n")
    said = process("plan", "a→b", PYTHONIOENCODING="latin-1")
    assert said.code == 2
    assert "a\\u2192b" in said.err
