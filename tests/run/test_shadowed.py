"""A DuckDB file may define functions, tables and types of built-in names. Only the model's own SELECT sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sites import Servers, Site, outcome

import backhaul
from backhaul.errors import SourceError
from backhaul.testing.duckdb_file import opened
from backhaul.testing.sink import Sink

SPOOLED = "select distinct id, name, v from t"
SCANNED = "select id, name, v from t"


def shadow(db: duckdb.DuckDBPyConnection) -> None:
    """A macro for every built-in function, a type and a view: each of them gives nonsense."""
    known = db.execute(
        "SELECT DISTINCT function_name, function_type LIKE 'table%' FROM duckdb_functions()"
    ).fetchall()
    tables = {name for name, of_rows in known if of_rows}
    scalars = {name for name, _ in known} - tables
    assert {
        "hash",
        "to_json",
        "concat",
        "sha256",
        "count_star",
        "sum",
        "json_serialize_sql",
        "+",
        "||",
    } <= scalars
    assert {"read_parquet", "duckdb_functions", "duckdb_views"} <= tables
    many = ", ".join(f"({', '.join(f'a{at}' for at in range(count))}) AS 1" for count in range(6))
    rows = ", ".join(
        f"({', '.join(f'a{at}' for at in range(count))}) AS TABLE (SELECT 'shadow' AS x)"
        for count in range(3)
    )
    quoted = [(name.replace('"', '""'), many) for name in sorted(scalars)]
    quoted += [(name.replace('"', '""'), rows) for name in sorted(tables)]
    db.execute("BEGIN")
    for name, bodies in quoted:
        db.execute(f'CREATE MACRO "{name}"{bodies}')
    db.execute("CREATE TYPE json AS ENUM ('shadow')")
    db.execute("CREATE VIEW candidates AS SELECT 'shadow' AS x")
    db.execute("COMMIT")


@pytest.fixture
def story(tmp_path: Path, servers: Servers) -> Callable[[str, bool], list[Any]]:
    """What a project's runs give, with or without macros that stand for the built-in functions."""

    def told(sql: str, shadowed: bool) -> list[Any]:
        root = tmp_path / f"shadowed-{shadowed}"
        root.mkdir()
        sink = Sink()
        site = Site(root, servers, sink, servers.start(sink.app()))
        site.sync = {
            "model": {"warehouse": "main", "sql": sql, "primary_key": ["id", "name"]},
            "fields": {"name": "name", "score": "v", "upper": "upper(name)", "doc": "to_json(name)",
                       "n": {"value": "left(name, 2)", "type": "integer"}},
            "freshness": {"sample": 0},
        }  # fmt: skip
        site.write()
        site.sql(
            "create table t as select i as id, i::varchar as name, i * 1.5::double as v from range(40) x(i)"
        )
        if shadowed:
            with opened(root / "warehouse.duckdb") as db:
                shadow(db)
        steps: list[Any] = []

        def step() -> None:
            with backhaul.load(root) as project:
                try:
                    done = project.run("users")
                    steps.append(
                        (outcome(done.report), done.report.rows, done.report.status, done.report.error)
                    )
                except SourceError as error:
                    steps.append(str(error))
                steps.append(project.why("users", '[3,"3"]')["model"])
            steps.append(site.rows("select json_extract(header, '$.digest') from plans order by rowid"))

        step()
        step()
        site.sql(
            "update t set v = 7 where id < 3",
            "delete from t where id = 9",
            "update t set name = 'x' where id = 8",
        )
        step()
        site.sql("insert into t values (3, '3', 1)")
        step()
        site.sql("delete from t where id = 3", "insert into t values (NULL, 'n', 1)")
        step()
        site.sync["model"] |= {"cursor": "v"}
        site.sync["mode"] = "upsert"
        site.write()
        site.sql("delete from t where id is null", "insert into t values (50, '50', 99)")
        step()
        steps.append(sorted(map(str, sink.records.items())))
        return steps

    return told


@pytest.mark.parametrize("sql", [SCANNED, SPOOLED])
def test_a_warehouses_functions_never_stand_for_ours(
    story: Callable[[str, bool], list[Any]], sql: str
) -> None:
    assert story(sql, True) == story(sql, False)


def test_the_model_itself_sees_the_warehouses_functions(site: Site) -> None:
    site.sync = {
        "model": {"warehouse": "main", "sql": "select id, hash(name) as name, v from t", "primary_key": "id"}
    }
    site.write()
    site.fill(2).sql("create macro hash(a) as 'theirs'")
    site.run()
    assert {record["name"] for record in site.sink.records.values()} == {"theirs"}
