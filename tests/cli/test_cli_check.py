"""`backhaul check` names every fault of a project in one go: none hides another."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import pytest
from cli_program import Call

_MODEL = "{table: people, primary_key: id}"
_GOOD = {
    "name": "NAME",
    "model": _MODEL,
    "destination": "app",
    "object": "people",
    "mode": "upsert",
    "identify": "{id: id}",
    "fields": "{name: name}",
}
BROKEN_FILES = {
    "no_destination": ({"destination": "crm"}, "no_destination.yml:3:1: there is no destination `crm`"),
    "unknown_key": ({"modes": "upsert"}, "unknown_key.yml:8:1: unknown key `modes` (did you mean `mode`?)"),
    "two_statements": ({"model": "{sql: select 1; select 2, primary_key: id}"}, "two_statements.yml:2:24: "),
    "no_such_file": ({"model": "{file: models/x.sql, primary_key: id}"}, "there is no file models/x.sql"),
    "bad_expression": ({"fields": "{name: 'upper(name'}"}, "bad_expression.yml:7:"),
    "not_available": ({"schedule": "hourly"}, "not_available.yml:8:"),
    "cycle": ({"depends_on": "[cycle]"}, "cycle.yml:8:"),
}
"""Keys of a sync's file -> what is said of it."""
BROKEN_SYNCS = {
    "no_table": ({"object": "nowhere"}, "has no object 'nowhere'", "✗"),
    "no_field": ({"fields": "{nam: name}"}, "people has no field nam at app", "✗"),
    "no_key": ({"identify": "{name: name}"}, "people has no unique index on exactly (name)", "✗"),
    "no_column": ({"fields": "{name: surname}"}, "surname", "✗"),
    "not_mapped": ({"object": "strict"}, "strict requires code, which is not mapped", "✗"),
    "null_key": ({"model": "{table: holes, primary_key: id}"}, "NULL", "✗"),
    "duplicate_key": ({"model": "{table: twice, primary_key: id}"}, "the primary key is not unique", "✗"),
    "no_model": ({"model": "{table: gone, primary_key: id}"}, "gone", "✗"),
    "unreachable": ({"destination": "away", "object": "user"}, "PostgreSQL is not reachable", "✗"),
    "rejected_rows": (
        {"object": "strict", "fields": "{code: name}"},
        "1 row will be rejected: code: is null",
        "!",
    ),
    "second_writer": ({}, "name of people: ", "!"),
}
"""Keys of a sync's file -> what is said of it, and whether it is an error or a warning."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "syncs").mkdir()
    (tmp_path / "backhaul.yml").write_text(
        "project: p\nwarehouses: {main: {type: duckdb, path: w.duckdb}}\ndestinations:\n  app: {type: sqlite, path: app.db}\n"
        "  away: {type: postgres, dsn: 'postgresql://127.0.0.1:9/x'}\n"
    )
    with duckdb.connect(str(tmp_path / "w.duckdb")) as warehouse:
        warehouse.execute(
            "CREATE TABLE people AS SELECT i AS id, if(i = 2, NULL, concat('n', i)) AS name FROM range(5) t(i)"
        )
        warehouse.execute(
            "CREATE TABLE holes AS SELECT if(i = 2, NULL, i) AS id, 'n' AS name FROM range(5) t(i)"
        )
        warehouse.execute("CREATE TABLE twice AS SELECT i // 2 AS id, 'n' AS name FROM range(5) t(i)")
    with sqlite3.connect(tmp_path / "app.db") as app:
        app.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)")
        app.execute("CREATE TABLE strict (id INTEGER PRIMARY KEY, name TEXT, code TEXT NOT NULL)")
    return tmp_path


def write(folder: Path, name: str, keys: dict[str, str]) -> None:
    lines = {**_GOOD, "name": name, **keys}
    (folder / "syncs" / f"{name}.yml").write_text(
        "".join(f"{key}: {value}\n" for key, value in lines.items())
    )


def test_every_broken_file_is_named(project: Path, process: Call) -> None:
    for name, (keys, _) in BROKEN_FILES.items():
        write(project, name, keys)
    said = process("check", cwd=project)
    assert said.code == 2
    assert {name: text for name, (_, text) in BROKEN_FILES.items() if text not in said.err} == {}, said.err
    assert said.err.splitlines()[-1].startswith("error: ")


def test_every_sync_that_cannot_run_is_named(project: Path, process: Call) -> None:
    for name, (keys, _, _) in BROKEN_SYNCS.items():
        write(project, name, keys)
    said = process("check", cwd=project)
    parts = sections(said.out)
    unsaid = {
        name: parts.get(name)
        for name, (_, text, mark) in BROKEN_SYNCS.items()
        if not any(line.startswith(f"  {mark}") and text in line for line in parts.get(name, []))
    }
    assert unsaid == {}, said.out + said.err
    assert said.code == 2


def sections(shown: str) -> dict[str, list[str]]:
    """The lines of each sync, by its name."""
    found: dict[str, list[str]] = {}
    for line in shown.splitlines():
        if line and not line.startswith((" ", "!")):
            found[line] = now = []
        elif line:
            now.append(line)
    return found
