"""What a project needs before it runs: optional packages, paths, and a table that a key names rows of."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import yaml
from flows import Pipe

from backhaul.testing.duckdb_file import opened

BLOCKED = "import sys; [sys.modules.__setitem__(name, None) for name in sys.argv.pop(1).split()]; from backhaul.cli import main; main()"
NOWHERE = "postgresql://u@127.0.0.1:1/d"


def run_without(
    packages: str, root: Path, command: str = "run", *, after: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", BLOCKED, packages, command, *after, "--project", str(root)]
    return subprocess.run(line, capture_output=True, text=True)


@pytest.mark.parametrize(("packages", "extra", "settings"), [
    ("psycopg", "postgres", {"warehouse": {"type": "postgres", "dsn": NOWHERE}}),
    ("adbc_driver_postgresql adbc_driver_manager", "postgres", {"warehouse": {"type": "postgres", "dsn": NOWHERE}}),
    ("psycopg", "postgres", {"destination": {"type": "postgres", "dsn": NOWHERE}}),
    ("psycopg", "postgres", {"settings": {"state": NOWHERE}}),
    ("aiomysql", "mysql", {"destination": {"type": "mysql", "dsn": "mysql://u@127.0.0.1:1/d"}}),
    ("boto3", "dynamodb", {"settings": {"state": "dynamodb://backhaul?region=eu-central-1"}}),
])  # fmt: skip
def test_a_package_that_is_not_installed_is_named_with_its_command(
    tmp_path: Path, packages: str, extra: str, settings: dict[str, Any]
) -> None:
    with opened(tmp_path / "w.duckdb") as warehouse:
        warehouse.execute("CREATE TABLE c AS SELECT 1 AS id, 'x' AS v")
    with sqlite3.connect(tmp_path / "app.db") as app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    there = {
        "warehouse": {"type": "duckdb", "path": "w.duckdb"},
        "destination": {"type": "sqlite", "path": "app.db"},
    } | settings
    there["destination"] |= (
        {"path": str(tmp_path / "app.db")} if there["destination"]["type"] == "sqlite" else {}
    )
    Pipe(tmp_path, there["warehouse"], there["destination"], settings=there.get("settings", {})).write(
        fields={"v": "v"}
    )
    said = run_without(packages, tmp_path)
    assert said.returncode in (1, 2)
    assert f"pip install 'backhaul[{extra}]'" in said.stderr, said.stderr
    assert "unexpected" not in said.stderr
    assert len(said.stderr.strip().splitlines()) <= 2


def test_init_writes_a_path_that_is_right_in_the_project(tmp_path: Path) -> None:
    with opened(tmp_path / "w.duckdb"):
        pass
    for folder, path in {"shop": "../w.duckdb", ".": "w.duckdb", "a/b": "../../w.duckdb"}.items():
        line = [
            sys.executable,
            "-m",
            "backhaul",
            "init",
            folder,
            "--warehouse",
            "w.duckdb",
            "--yes",
            "--sync",
            "s",
        ]
        made = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        written = yaml.safe_load((tmp_path / folder / "backhaul.yml").read_text())
        assert written["warehouses"]["main"]["path"] == path
        assert (tmp_path / folder / path).samefile(tmp_path / "w.duckdb")


def problems(root: Path, destination: dict[str, Any], object: str, identify: dict[str, str]) -> str:
    with opened(root / "w.duckdb") as warehouse:
        warehouse.execute("CREATE OR REPLACE TABLE c AS SELECT 1 AS id, 2 AS a, 3 AS b, 'x' AS v")
    pipe = Pipe(root, {"type": "duckdb", "path": "w.duckdb"}, destination).write(
        object=object, identify=identify, fields={"v": "v"}
    )
    found = pipe.project(lambda project: asyncio.run(project.check(project.sync("s"))))
    return "\n".join(one.message for one in found if not one.ok)


TABLES = [
    "CREATE TABLE plain (id int NOT NULL, a int, b int, v text)",
    "CREATE TABLE pair (id int, a int, b int, v text, UNIQUE (a, b))",
]
ASKED = [("plain", {"id": "id"}, False), ("pair", {"a": "a"}, False), ("pair", {"a": "a", "b": "b"}, True),
         ("pair", {"b": "b", "a": "a"}, True), ("seen", {"id": "id"}, False)]  # fmt: skip


@pytest.mark.parametrize(("object", "identify", "fits"), ASKED)
def test_check_says_that_a_key_could_mean_many_rows(
    postgres_db: str, tmp_path: Path, object: str, identify: dict[str, str], fits: bool
) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as db:
        for statement in [
            *TABLES,
            "CREATE VIEW seen AS SELECT * FROM pair",
            "CREATE UNIQUE INDEX ON plain (id) WHERE a > 0",
        ]:
            db.execute(statement.encode())
    said = problems(tmp_path, {"type": "postgres", "dsn": postgres_db}, object, identify)
    assert (said == "") is fits, said
    assert fits or "has no unique index on exactly" in said


@pytest.mark.parametrize(("object", "identify", "fits"), ASKED)
def test_check_says_so_of_sqlite_and_mysql(
    mysql_db: str, tmp_path: Path, object: str, identify: dict[str, str], fits: bool
) -> None:
    port, name = mysql_db.rsplit(":", 1)[1].split("/")
    statements = [*TABLES, "CREATE VIEW seen AS SELECT * FROM pair"]
    with pymysql.connect(host="127.0.0.1", port=int(port), user="root", database=name, autocommit=True) as db:
        for statement in statements:
            db.cursor().execute(statement)
    with sqlite3.connect(tmp_path / "app.db") as app:
        for statement in statements:
            app.execute(statement)
    for place in ({"type": "mysql", "dsn": mysql_db}, {"type": "sqlite", "path": str(tmp_path / "app.db")}):
        (tmp_path / place["type"]).mkdir()
        said = problems(tmp_path / place["type"], place, object, identify)
        assert (said == "") is fits, (place["type"], said)
