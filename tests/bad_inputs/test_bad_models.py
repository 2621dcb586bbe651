"""Models that are missing, wrong, or have columns of every name (bad inputs 15 to 20)."""

from __future__ import annotations

import pytest
from bad_project import BadProject


def test_the_project_is_sound(bad: BadProject) -> None:
    bad.runs()
    assert bad.sink.records["2"] == {"id": 2, "name": "n2", "v": 3.0}


def test_a_missing_table(bad: BadProject) -> None:
    bad.model = {"table": "nowhere", "primary_key": "id"}
    bad.write().refuses(1, "nowhere", "does not exist")


def test_a_missing_file(bad: BadProject) -> None:
    bad.warehouse = {"type": "duckdb", "path": "gone.duckdb"}
    bad.write().refuses(1, "there is no DuckDB file gone.duckdb", "path")


def test_a_missing_model_file(bad: BadProject) -> None:
    bad.model = {"file": "models/gone.sql", "primary_key": "id"}
    bad.write().refuses(2, "models/gone.sql")


def test_sql_with_a_mistake_names_its_place(bad: BadProject) -> None:
    bad.write()
    block = "model:\n  warehouse: main\n  primary_key: id\n  sql: |\n    select id, name, v\n    from t\n    where and\n"
    rest = "destination: api\nobject: user\nidentify: {id: id}\nfields: {name: name}\n"
    (bad.root / "syncs" / "users.yml").write_text(f"name: users\n{block}{rest}")
    said = bad.refuses(2, "syncs/users.yml:8:11", "not valid SQL: something is missing near 'and'")
    assert "class" not in said.err


def test_sql_that_only_the_warehouse_finds_wrong(bad: BadProject) -> None:
    bad.model = {"sql": "select id,\n nme as name, v from t", "primary_key": "id"}
    bad.write().refuses(1, "nme", "LINE")


def test_a_warehouse_that_is_none(bad: BadProject) -> None:
    (bad.root / "w.duckdb").write_bytes(b"this is a letter, not a database" * 100)
    bad.refuses(1, "w.duckdb")


def test_a_damaged_warehouse_is_not_taken_for_a_busy_one(bad: BadProject) -> None:
    with (bad.root / "w.duckdb").open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096) + b"x" * 4096)
    bad.refuses(1, "w.duckdb", "damaged")


@pytest.mark.parametrize(
    "sql",
    [
        "select id, name, v from t; select 1",
        "delete from t",
        "with x as (select 1) insert into t select 1,'',1",
    ],
)
def test_more_than_a_select(bad: BadProject, sql: str) -> None:
    bad.model = {"sql": sql, "primary_key": "id"}
    bad.write().refuses(2, "syncs/users.yml")


def test_two_columns_of_one_name(bad: BadProject) -> None:
    bad.model = {"sql": "select id, name, v, id as ID from t", "primary_key": "id"}
    bad.write().refuses(1, "two columns named", "AS")


NAMES = [
    "select",
    "order by",
    'with "quotes"',
    "it's",
    "naïve ☃",
    "a.b",
    "r.name",
    "f.x",
    "_hash",
    "k0",
    "model",
    "$x",
    "{y}",
    "%s",
    "-- c",
    "x;y",
]


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_any_name_are_delivered(bad: BadProject, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    bad.sql(f"create table odd as select 1 as id, 'here' as {quoted}")
    bad.model, bad.sync = {"table": "odd", "primary_key": "id"}, {"fields": {"value": quoted}}
    bad.write().runs()
    assert bad.sink.records == {"1": {"id": 1, "value": "here"}}


@pytest.mark.parametrize("name", ["select", 'a "b"', "it's", "ß☃"])
def test_keys_of_any_name(bad: BadProject, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    bad.sql(f"create table odd as select 7 as {quoted}, 'here' as v")
    bad.model = {"table": "odd", "primary_key": name}
    bad.sync = {"identify": {"id": quoted}, "fields": {"v": "v"}}
    bad.write().runs()
    bad.sql("update odd set v = 'there'")
    bad.runs()
    assert bad.sink.records == {"7": {"id": 7, "v": "there"}}


@pytest.mark.parametrize("name", ["select", 'a "b"', "it's", "ünï", "a b", "a\\b"])
def test_fields_of_any_name(bad: BadProject, name: str) -> None:
    bad.sync = {"fields": {name: "name"}}
    bad.write().runs()
    assert bad.sink.records["1"] == {"id": 1, name: "n1"}


def test_a_field_without_a_name(bad: BadProject) -> None:
    bad.sync = {"fields": {"": "name"}}
    bad.write().refuses(2, "syncs/users.yml")


def test_a_key_column_that_is_not_there_is_answered_with_the_nearest(bad: BadProject) -> None:
    bad.model = {"table": "t", "primary_key": "idd"}
    bad.write().refuses(2, "the model has no column idd", "did you mean id?", "syncs/users.yml:1")


def test_a_mapped_column_that_is_not_there(bad: BadProject) -> None:
    bad.sync = {"fields": {"name": "nmae"}}
    bad.write().refuses(2, "nmae", "columns: id, name, v")


def test_null_keys(bad: BadProject) -> None:
    bad.runs()
    bad.sql("insert into t values (null, 'x', 1), (null, 'y', 2)")
    bad.refuses(1, "2 rows have NULL in the primary key (id)", "filter them out")


@pytest.mark.parametrize("first", [True, False], ids=["first run", "later run"])
def test_keys_that_occur_twice(bad: BadProject, first: bool) -> None:
    if not first:
        bad.runs()
    bad.sql("insert into t values (1, 'again', 1)")
    bad.refuses(1, "the primary key is not unique: 1 (2 rows)")


@pytest.mark.parametrize("first", [True, False], ids=["first run", "later run"])
def test_keys_that_differ_in_case_and_spaces(bad: BadProject, first: bool) -> None:
    bad.sql("create or replace table t as select 'A@x.example' as id, 'a' as name, 1.0 as v")
    if not first:
        bad.runs()
    bad.sql("insert into t values ('a@x.example ', 'b', 2)")
    said = bad.refuses(1, "differ only in case, spaces or Unicode form")
    assert "a@x.example" not in said.err


def test_a_key_that_is_no_exact_text(bad: BadProject) -> None:
    bad.model = {"sql": "select id, name, v from t", "primary_key": "v"}
    bad.write().refuses(2, "the key column v is DOUBLE", "cast it")


@pytest.mark.parametrize("table", ["../../etc/passwd", "t; drop table t", "t where", "'"])
def test_a_table_that_is_no_name(bad: BadProject, table: str) -> None:
    bad.model = {"table": table, "primary_key": "id"}
    said = bad.write().call("run")
    assert said.code in (1, 2)


def test_a_plan_file_whose_sync_is_no_name(bad: BadProject) -> None:
    (bad.root / "plan.json").write_text('{"sync": 5, "digest": "d", "id": "p-1"}')
    bad.refuses(2, "is not a plan file", words=("run", "--plan", str(bad.root / "plan.json")))
