"""init: three questions at most, a project that runs, nothing overwritten."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cli_program import Call

from backhaul.cli.templates import DESTINATIONS, WAREHOUSES, variables
from backhaul.config import load


def test_the_defaults_make_a_project_that_runs(process: Call, tmp_path: Path) -> None:
    made = process("init", "shop", "--yes")
    assert (made.code, made.err) == (0, "")
    project = tmp_path / "shop"
    for command in ("check", "plan", "run"):
        said = process(command, cwd=project)
        assert (said.code, said.err) == (0, ""), command
    rows = (
        sqlite3.connect(project / "app.db").execute("SELECT count(*), min(email) FROM customers").fetchall()
    )
    assert rows[0][0] == 1000
    assert "nothing changed" in process("run", cwd=project).out


def test_asks_three_questions_on_stderr(call: Call) -> None:
    said = call("init", "shop", "--json", stdin="sqlite\nsqlite\nusers\n")
    assert said.code == 0
    assert said.json["files"] == [
        "backhaul.yml", "syncs/users.yml", ".env.example", ".gitignore", "warehouse.db", "app.db",
    ]  # fmt: skip
    assert said.err.count("?") == 3


def test_nobody_to_ask_is_an_error_that_names_the_way_out(process: Call, tmp_path: Path) -> None:
    said = process("init", "shop")
    assert (said.code, said.out) == (2, "")
    assert "add --yes" in said.err
    assert not (tmp_path / "shop").exists()


def test_overwrites_nothing_and_names_what_is_there(call: Call, tmp_path: Path) -> None:
    (tmp_path / "syncs").mkdir()
    (tmp_path / "backhaul.yml").write_text("mine")
    (tmp_path / "app.db").write_text("mine too")
    said = call("init", "--yes")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: backhaul.yml, app.db are there already, and nothing is overwritten")
    assert (tmp_path / "backhaul.yml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.db", "backhaul.yml", "syncs"]


def test_adds_to_gitignore(call: Call, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\n.env")
    assert call("init", "--yes").code == 0
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n.env\n.backhaul/\n"


def test_takes_a_warehouse_file_of_the_user(call: Call, tmp_path: Path) -> None:
    said = call("init", "--yes", "--warehouse", "my data.duckdb")
    assert said.code == 0
    assert not (tmp_path / "warehouse.duckdb").exists()
    assert load(tmp_path).warehouses["main"].path.name == "my data.duckdb"


def test_the_types_of_a_csv_file_are_inferred_once(call: Call, tmp_path: Path) -> None:
    lines = ["Customer id,zip,version,mrr,on,ok,day,seen,at,note,empty"]
    lines += [
        f"{n},0122{n},1.1{'0' * (n % 2)},{n}.50,{n},true,2026-01-0{n},2026-01-01 09:30,2026-01-01T09:30:00Z,a {n},"
        for n in range(1, 5)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "my people.csv").write_text("\n".join(lines))
    said = call("init", "--yes", "--warehouse", "data/my people.csv", "--sync", "people")
    assert (said.code, said.err) == (0, "")
    (sync,) = load(tmp_path).syncs.values()
    assert (sync.model.table, sync.model.primary_key) == ('"my people"', ("Customer id",))
    assert sync.model.columns == {
        "Customer id": "bigint", "mrr": "decimal(18,2)", "on": "bigint", "ok": "boolean", "day": "date", "seen": "timestamp",
        "at": "timestamptz",
    }  # fmt: skip
    with sqlite3.connect(tmp_path / "app.db") as app:
        columns = ", ".join(f'"{name}"' for name in lines[0].split(","))
        app.execute("drop table people")
        app.execute(f'create table people ({columns}, unique ("Customer id"))')
    run = call("run")
    assert (run.code, run.err) == (0, ""), run
    with sqlite3.connect(tmp_path / "app.db") as app:
        assert app.execute('select zip, version, mrr, "on" from people').fetchall()[0] == (
            "01221",
            "1.10",
            1.5,
            1,
        )


def test_the_sample_csv_has_its_types(process: Call, tmp_path: Path) -> None:
    assert process("init", "shop", "--yes", "--warehouse", "files").code == 0
    assert load(tmp_path / "shop").syncs["customers"].model.columns["mrr"] == "decimal(18,2)"
    said = process("run", cwd=tmp_path / "shop")
    assert (said.code, said.err) == (0, "")


def test_a_csv_file_that_is_not_there_or_has_no_header(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    for name in ("a.csv", "b.csv"):
        said = call("init", "--yes", "--warehouse", name)
        assert (said.code, name in said.err) == (1, True)
        assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    "words", [["--warehouse", "oracle"], ["--sync", "../x"], ["--sync", "a b"], ["--destination", "fax"]]
)
def test_wrong_answers(call: Call, tmp_path: Path, words: list[str]) -> None:
    said = call("init", "--yes", *words)
    assert (said.code, said.out) == (2, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("warehouse", list(WAREHOUSES))
@pytest.mark.parametrize("destination", list(DESTINATIONS))
def test_every_choice_is_a_valid_project(
    call: Call, tmp_path: Path, warehouse: str, destination: str
) -> None:
    said = call("init", "--yes", "--warehouse", warehouse, "--destination", destination, "--sync", "people")
    assert said.code == 0, said.err
    project = load(tmp_path, environ=variables(warehouse, destination))
    assert list(project.syncs) == ["people"]
    assert ("cp .env.example" in said.out) is bool(variables(warehouse, destination))
