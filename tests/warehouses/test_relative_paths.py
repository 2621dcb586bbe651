"""Paths in a model's SQL are relative to the project; a file of the same name in the current folder is not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from backhaul.engine import open_engine
from backhaul.errors import SourceError
from backhaul.testing.duckdb_file import opened
from backhaul.warehouses.duckdb import DuckDB, DuckDBConfig
from backhaul.warehouses.files import Files, FilesConfig
from backhaul.warehouses.protocol import Warehouse

QUERIES = [
    "select * from read_csv('data/c.csv')", "from 'data/c.csv'", 'select * from "data/c.csv" as t', "from 'x.csv'",
    "select 'é data/c.csv' as e, a from read_csv('data/c.csv')", "from read_csv(['data/c.csv'], delim = ',')",
    "from read_csv('data/*.csv')", "from read_parquet('data/p.parquet')", "from 'data/p.parquet'",
    "with w as (from 'data/c.csv') select * from w where a in (select a from read_csv('x.csv'))",
    "from read_csv('data/../x.csv')", "from read_csv('../it''s [[]1], here/x.csv')", "from read_csv('ROOT/x.csv')",
    "from mine",
]  # fmt: skip


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    engine = open_engine(1 << 30, tmp_path / "spill")
    yield engine
    engine.close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose files hold a 1; the current folder has the same files with a 2."""
    for name, number in (("it's [1], here", 1), ("elsewhere", 2)):
        (tmp_path / name / "data").mkdir(parents=True)
        for file in ("x.csv", "data/c.csv", "mine.csv"):
            (tmp_path / name / file).write_text(f"a\n{number}\n")
        monkeypatch.chdir(tmp_path / name)
        duckdb.sql(f"copy (select {number} as a) to 'data/p.parquet'")
    return tmp_path / "it's [1], here"


def warehouse(kind: str, project: Path) -> Warehouse:
    if kind == "files":
        return Files(FilesConfig(path=Path()), project)
    with opened(project / "w.duckdb") as db:
        db.execute("create table mine as select 1 as a")
        db.execute('create table "table.csv" as select 3 as a')
    return DuckDB(DuckDBConfig(path=Path("w.duckdb")), project)


@pytest.mark.parametrize("kind", ["files", "duckdb"])
@pytest.mark.parametrize("query", QUERIES)
def test_a_path_is_relative_to_the_project(
    kind: str, query: str, project: Path, engine: duckdb.DuckDBPyConnection
) -> None:
    source = warehouse(kind, project)
    query = query.replace("ROOT", str(project).replace("'", "''").replace("[", "[[]"))
    names = [column.name for column in source.columns(engine, query)]
    relation = source.relation(engine, query)
    assert {int(row[names.index("a")]) for row in engine.execute(f"from {relation.sql}").fetchall()} == {1}
    relation.close()


@pytest.mark.parametrize("kind", ["files", "duckdb"])
@pytest.mark.parametrize("query", ["from 'only.csv'", "from read_csv('only.csv')"])
def test_a_file_that_only_the_current_folder_has_is_not_read(
    kind: str, query: str, project: Path, engine: duckdb.DuckDBPyConnection
) -> None:
    Path("only.csv").write_text("a\n2\n")
    source = warehouse(kind, project)
    with pytest.raises(SourceError, match=r"only\.csv"):
        source.columns(engine, query)
    with pytest.raises(SourceError, match=r"only\.csv"):
        source.relation(engine, query)


def test_a_table_may_have_the_name_of_a_file(project: Path, engine: duckdb.DuckDBPyConnection) -> None:
    (project / "table.csv").write_text("a\n1\n")
    relation = warehouse("duckdb", project).relation(engine, 'from "table.csv"')
    assert engine.execute(f"from {relation.sql}").fetchall() == [(3,)]
    relation.close()
