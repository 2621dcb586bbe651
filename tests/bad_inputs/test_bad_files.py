"""Files that are wrong, through the command (bad inputs 1 to 11, 13, 14, 32); each place and message is tested in tests/config."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_project import CANARY, BadProject

Spoil = Callable[[Path], object]
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MAIN: dict[str, Spoil] = {
    "empty": lambda file: file.write_text(""),
    "binary": lambda file: file.write_bytes(bytes(range(256)) * 4),
    "UTF-16": lambda file: file.write_text(file.read_text(), encoding="utf-16"),
    "tab": lambda file: file.write_text("project: x\nwarehouses:\n\tmain: {type: duckdb}\n"),
    "open bracket": lambda file: file.write_text(file.read_text()[:-1]),
    "bomb": lambda file: file.write_text(BOMB),
    "50 MB": lambda file: file.write_text("project: x\n" + "# padding\n" * 5_000_000),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a list": lambda file: file.write_text("- project: x\n"),
    "deep": lambda file: file.write_text("a: " + "[" * 5000 + "]" * 5000),
}


@pytest.mark.parametrize("spoil", MAIN.values(), ids=MAIN.keys())
def test_a_main_file_that_is_none(bad: BadProject, spoil: Spoil) -> None:
    spoil(bad.root / "backhaul.yml")
    bad.refuses(2, "backhaul.yml")


WRONG = {
    "unknown key": ({"feilds": {}}, "fields"),
    "wrong type": ({"guards": {"min_rows": "ten"}}, "min_rows"),
    "nan": ({"guards": {"max_deletes": float("nan")}}, "max_deletes"),
    "negative": ({"guards": {"min_rows": -1}}, "min_rows"),
    "name with a slash": ({"name": "../../etc/users"}, "name"),
    "emoji": ({"name": "users🚚"}, "name"),
    "300 characters": ({"name": "u" * 300}, "name"),
    "unknown destination": ({"destination": "apx"}, "api"),
    "unknown mode": ({"mode": "upsrt"}, "upsert"),
    "schedule": ({"schedule": "every now and then"}, "schedule"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_sync_that_is_wrong(bad: BadProject, change: dict[str, object], said: str) -> None:
    bad.sync = change
    bad.write().refuses(2, "syncs/users.yml:1", said)


def test_two_syncs_of_one_name(bad: BadProject) -> None:
    (bad.root / "syncs" / "again.yml").write_text((bad.root / "syncs" / "users.yml").read_text())
    bad.refuses(2, "users", "syncs/")


def test_a_variable_that_is_missing(bad: BadProject) -> None:
    bad.environment = {}
    bad.refuses(2, "TOKEN", "backhaul.yml:1")


def test_a_variable_that_is_empty(bad: BadProject) -> None:
    bad.environment = {"TOKEN": ""}
    bad.refuses(2, "TOKEN", "backhaul.yml:1")


def test_a_variable_with_a_line_break_in_the_middle(bad: BadProject) -> None:
    bad.environment = {"TOKEN": f"{CANARY}\n{CANARY}"}
    bad.refuses(2, "Authorization", "line break")


def test_a_secret_written_inline(bad: BadProject) -> None:
    bad.destination = {"headers": {"Authorization": f"Bearer {CANARY}"}}
    bad.write().refuses(2, "backhaul.yml:1", "${")


def test_a_password_written_inline_in_a_dsn(bad: BadProject) -> None:
    bad.warehouse = {"type": "postgres", "dsn": "postgresql://me:c4n4ryKxwVq7z@h/db"}
    said = bad.write().refuses(2, "backhaul.yml:1", "${")
    assert "c4n4ryKxwVq7z" not in said.err


def test_a_value_too_long_or_not_among_the_choices_is_rejected_alone(bad: BadProject) -> None:
    bad.object = {
        "fields": {"name": {"type": "string", "max_length": 5, "choices": ["n0", "n1", "much too long"]}}
    }
    bad.sync = {"fields": {"name": "name"}}
    bad.sql("update t set name = 'much too long' where id = 1")
    said = bad.write().call("run")
    assert said.code == 3, said
    assert {letter["key"]: letter["error"]["code"] for letter in bad.letters()} == {1: "length", 2: "choice"}
    assert list(bad.sink.records) == ["0"]


def test_the_json_of_a_refusal_has_a_place_for_each_problem(bad: BadProject) -> None:
    bad.sync = {"feilds": {}, "mode": "upsrt"}
    said = bad.write().call("run", "--json")
    problems = said.json["error"]["problems"]
    assert said.code == 2
    assert {problem["file"] for problem in problems} == {"syncs/users.yml"}
    assert all(problem["line"] for problem in problems)
    assert json.loads(said.out)
