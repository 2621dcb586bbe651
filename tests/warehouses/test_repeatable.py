"""Only what gives the same rows again is read in place; the engine's own tables never stand in for the warehouse's."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from backhaul.engine import open_engine
from backhaul.errors import SourceError
from backhaul.warehouses.duckdb import DuckDB, DuckDBConfig
from backhaul.warehouses.files import Files, FilesConfig


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    engine = open_engine(1 << 30, tmp_path / "spill")
    yield engine
    engine.close()


def warehouse(folder: Path, name: str = "shop.duckdb") -> DuckDB:
    with duckdb.connect() as db:
        db.execute(f"ATTACH '{folder / name}' AS other")
        db.execute("USE other")
        db.execute("CREATE SCHEMA marts")
        db.execute('CREATE SCHEMA "a,b "".c"')
        db.execute('CREATE TABLE "a,b "".c".t AS SELECT 1 AS id')
        db.execute("CREATE TABLE marts.c AS SELECT i AS id, 'n' || i AS name, i AS now FROM range(100) t(i)")
        db.execute("CREATE TABLE candidates AS SELECT 1 AS id, 'theirs' AS whose")
        db.execute("CREATE VIEW marts.plain AS SELECT id, upper(name) AS name FROM marts.c")
        db.execute('CREATE VIEW marts." AS odd" (key) AS SELECT id FROM marts.plain')
        db.execute("CREATE VIEW marts.drawn AS SELECT id, random() AS r FROM marts.c")
        db.execute("CREATE VIEW marts.deeper AS SELECT * FROM marts.drawn")
        db.execute("CREATE VIEW marts.ours AS SELECT * FROM candidates")
        db.execute("CREATE MACRO marts.draw() AS random()")
    return DuckDB(DuckDBConfig(path=Path(name)), folder)


@pytest.mark.parametrize("sql", [
    "select * from marts.c", "select id, now from marts.c where id > 3", "from marts.c", "select * from marts.plain",
    "select id % 7 as m, lower(name) as l from marts.c", 'select * from marts." AS odd"', "select * from shop.marts.c",
    "with x as (select * from marts.c) select * from x", 'select * from "a,b "".c".t', "select 'random()' as t, id /* now() */ from marts.c",
])  # fmt: skip
def test_a_scan_is_read_where_it_lies(tmp_path: Path, engine: duckdb.DuckDBPyConnection, sql: str) -> None:
    relation = warehouse(tmp_path).relation(engine, sql)
    assert relation.sql != "temp.main.model_rows"
    relation.close()


@pytest.mark.parametrize("sql", [
    'select id, "random"() as r from marts.c', "select id, random /* x */ () as r from marts.c",
    "select * from marts.drawn", "select * from marts.deeper", "select id, marts.draw() as r from marts.c",
    "select id, current_timestamp as t from marts.c", "select id, now() as t from marts.c",
    "select * from marts.c where id < second(now())", "select row_number() over () as n, id from marts.c",
    "select * from marts.c tablesample 10%", "select * from marts.c limit 5", "select distinct name from marts.c",
    "select * from candidates", "select * from marts.ours",
])  # fmt: skip
def test_what_could_change_is_read_once(tmp_path: Path, engine: duckdb.DuckDBPyConnection, sql: str) -> None:
    relation = warehouse(tmp_path).relation(engine, sql)
    assert relation.sql == "temp.main.model_rows"
    first = engine.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM {relation.sql} ORDER BY ALL").fetchall()
    again = engine.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM {relation.sql} ORDER BY ALL").fetchall()
    assert first == again
    relation.close()


def test_our_own_table_does_not_stand_in_for_theirs(
    tmp_path: Path, engine: duckdb.DuckDBPyConnection
) -> None:
    relation = warehouse(tmp_path).relation(engine, "select * from candidates")
    engine.execute("CREATE TEMP TABLE candidates AS SELECT 99 AS id, 'ours' AS whose")
    assert engine.execute(f"SELECT * FROM {relation.sql}").fetchall() == [(1, "theirs")]
    engine.execute("DROP TABLE temp.main.candidates")
    relation.close()


@pytest.mark.parametrize(
    "name", ["marts.duckdb", "memory.duckdb", "temp.duckdb", "ledger.duckdb", 'a "b".duckdb']
)
def test_a_file_whose_name_is_taken_is_read_too(
    tmp_path: Path, engine: duckdb.DuckDBPyConnection, name: str
) -> None:
    engine.execute("ATTACH ':memory:' AS ledger")
    relation = warehouse(tmp_path, name).relation(engine, "select * from marts.c")
    assert engine.execute(f"SELECT count(*) FROM {relation.sql}").fetchall() == [(100,)]
    relation.close()
    assert engine.execute("SELECT current_database()").fetchall() == [("memory",)]


WRITER = """
import duckdb, sys
db = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
db.close()
"""


def writer(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_a_writer_is_waited_for(tmp_path: Path, engine: duckdb.DuckDBPyConnection) -> None:
    import threading

    source = warehouse(tmp_path)
    process = writer(tmp_path / "shop.duckdb")
    timer = threading.Timer(1.0, lambda: process.communicate("\n"))
    timer.start()
    assert len(source.columns(engine, "select * from marts.c")) == 3
    timer.join()
    assert process.wait() == 0


def test_a_writer_that_stays_is_named(
    tmp_path: Path, engine: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backhaul.warehouses.duckdb._PATIENCE", 0.3)
    source = warehouse(tmp_path)
    process = writer(tmp_path / "shop.duckdb")
    with pytest.raises(SourceError, match="written by another process") as caught:
        source.columns(engine, "select 1")
    process.communicate("\n")
    assert "dbt" in str(caught.value.hint)


def of_version(good: bytes, version: int) -> bytes:
    """A file that says it is of a storage version; its first 8 bytes are the checksum of its first block."""
    block = good[8:12] + struct.pack("<Q", version) + good[20:4096]
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", block):
        checksum ^= word * 0xBF58476D1CE4E5B9 & 2**64 - 1
    return struct.pack("<Q", checksum) + block + good[4096:]


def test_a_file_of_another_version_or_none_is_named(
    tmp_path: Path, engine: duckdb.DuckDBPyConnection
) -> None:
    source = warehouse(tmp_path)
    path = tmp_path / "shop.duckdb"
    good = path.read_bytes()
    for content, said in (
        (b"hello" * 4096, "not a DuckDB file"),
        (good[:4104] + b"\xff" * 16 + good[4120:], "damaged"),
        (of_version(good, 1200), "another version of DuckDB"),
    ):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=said) as caught:
            source.columns(engine, "select 1")
        assert "\n" not in str(caught.value)
    path.write_bytes(of_version(good, *struct.unpack("<Q", good[12:20])))
    assert len(source.columns(engine, "select * from marts.c")) == 3


def folder(root: Path, **files: bytes) -> Files:
    """In a folder whose name would be a pattern."""
    data = root / "data[1]"
    data.mkdir()
    for name, content in files.items():
        (data / f"{name}.csv").write_bytes(content)
    return Files(FilesConfig(path=Path("data[1]")), root)


def test_a_broken_file_does_not_stop_others(tmp_path: Path, engine: duckdb.DuckDBPyConnection) -> None:
    files = folder(tmp_path, good=b"id\n1\n", broken=b"id,name\n1,\xff\n", candidates=b"id\n5\n")
    (tmp_path / "data[1]" / "broken2.parquet").write_bytes(b"PAR1")
    assert [column.name for column in files.columns(engine, "select * from good")] == ["id"]
    for name, said in {
        "broken": "broken.csv, line 2: .* not utf-8",
        "broken2": "broken2.* cannot be read",
    }.items():
        with pytest.raises(SourceError, match=said) as caught:
            files.relation(engine, f"select * from {name}")
        assert "\n" not in str(caught.value)
    relation = files.relation(engine, "select * from CANDIDATES")
    engine.execute("CREATE TEMP TABLE candidates AS SELECT 99 AS id")
    assert engine.execute(f"SELECT * FROM {relation.sql}").fetchall() == [("5",)]
    relation.close()


def test_two_files_of_one_name_are_no_table(tmp_path: Path, engine: duckdb.DuckDBPyConnection) -> None:
    files = folder(tmp_path, people=b"id\n1\n")
    (tmp_path / "data[1]" / "People.tsv").write_bytes(b"id\n1\n")
    with pytest.raises(SourceError, match="more than one file"):
        files.columns(engine, "select * from people")


def test_a_message_names_the_line_but_no_value(tmp_path: Path, engine: duckdb.DuckDBPyConnection) -> None:
    files = folder(tmp_path, late=b"id\n" + b"1\n" * 30_000 + b"s3cret,s3cret\n")
    with pytest.raises(
        SourceError, match=r"late.csv, line 30002: the header has 1 columns, and this line has more"
    ) as caught:
        files.relation(engine, "select * from late")
    assert "s3cret" not in str(caught.value)


def test_a_file_that_changes_while_it_is_read_is_no_result(
    tmp_path: Path, engine: duckdb.DuckDBPyConnection
) -> None:
    files = folder(tmp_path)
    path = tmp_path / "data[1]" / "t.parquet"
    engine.execute(f"COPY (SELECT i AS id FROM range(10) t(i)) TO '{path}'")
    relation = files.relation(engine, "select * from t")
    assert relation.sql != "temp.main.model_rows"
    engine.execute(f"COPY (SELECT i AS id FROM range(11) t(i)) TO '{path}'")
    with pytest.raises(SourceError, match=r"t\.parquet changed while it was read"):
        relation.close()
    assert engine.execute("SELECT current_database()").fetchall() == [("memory",)]
