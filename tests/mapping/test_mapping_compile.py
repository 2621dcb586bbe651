"""What a mapping refuses before anything runs, and what it makes of NULLs, defaults, lengths, choices and names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import mapped
import pytest

from backhaul.errors import UsageError
from backhaul.mapping.mapping import columns_used
from backhaul.types import Field, FieldType


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with mapped.engine(tmp_path_factory.mktemp("engine")) as connection:
        yield connection


@pytest.fixture(autouse=True)
def people(db: duckdb.DuckDBPyConnection) -> None:
    db.execute(
        """CREATE OR REPLACE TABLE t AS SELECT * FROM (VALUES
        (0, 'ann', 1, true, DATE '2026-01-01', {'city': 'Rome', 'zip': 1}, [1, 2], 1.5::DOUBLE),
        (1, NULL, NULL, NULL, NULL, NULL, NULL, NULL))
        AS rows(id, name, n, ok, day, place, list, d)"""
    )


def lines(
    db: duckdb.DuckDBPyConnection, fields: Any, wire: str = "json", **keys: Any
) -> list[dict[str, Any]]:
    mapping = mapped.compiled(db, fields, **keys)
    assert mapped.errors(db) == {}
    return [json.loads(line[:-1]) for line in mapped.written(db, mapping, wire).values()]


def said(db: duckdb.DuckDBPyConnection, fields: Any, types: Any = None, **keys: Any) -> str:
    with pytest.raises(UsageError) as error:
        mapped.compiled(db, fields, types, **keys)
    return "\n".join(str(problem) for problem in error.value.problems)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"a": "nmae"}, ["syncs/s.yml:10:3", 'Referenced column "nmae" not found', "columns: id, name"]),
        ({"ok": "n", "a": "upper("}, ["syncs/s.yml:11:3", "a: "]),
        ({"a": "sqrt(name, 1, 2)"}, ["syncs/s.yml:10:3", "sqrt"]),
        ({"a": "'x'::blob"}, ["is BLOB; make it text first"]),
        ({"a": {"value": "day", "type": "number"}}, ["a: day is DATE, which is no number"]),
        (
            {"a": {"value": "n", "default": "unknown"}},
            ["syncs/s.yml:10:3", "a: the default 'unknown' does not fit"],
        ),
        ({"a": {"value": "n", "default": 1.5}}, ["the default 1.5 does not fit"]),
        ({"a": {"value": "day", "default": "31.12.2026"}}, ["the default '31.12.2026' does not fit"]),
        ({"a": "name", "A": "name"}, ["a and A differ in case only"]),
        ({"a": "name", "a.b": "name"}, ["a.b nests in a, which is a value itself"]),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    db: duckdb.DuckDBPyConnection, fields: Any, parts: list[str]
) -> None:
    text = said(db, fields)
    assert all(part in text for part in parts), text


def test_every_problem_is_told_at_once(db: duckdb.DuckDBPyConnection) -> None:
    text = said(db, {"a": "x1", "b": "x2"}, model={"warehouse": "main", "table": "t", "primary_key": "idd"})
    assert len(text.splitlines()) == 3
    assert "the model has no column idd (did you mean id?)" in text


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT", "BLOB"])
def test_a_key_without_exact_text_is_refused(db: duckdb.DuckDBPyConnection, kind: str) -> None:
    db.execute(f"CREATE OR REPLACE TABLE t AS SELECT CAST(NULL AS {kind}) AS id")
    assert f"the key column id is {kind}, which has no exact text" in said(db, {})


def test_nulls_clear_skip_or_reject(db: duckdb.DuckDBPyConnection) -> None:
    fields = {"cleared": "n", "skipped": {"value": "n", "null": "skip"}, "plain": "name"}
    assert lines(db, fields)[1] == {"id": 1, "cleared": None, "plain": None}
    assert lines(db, fields, nulls="skip")[1] == {"id": 1}
    assert lines(db, fields, "text")[1] == {"id": "1", "cleared": "", "plain": ""}
    mapped.compiled(db, {"a": {"value": "n", "null": "error"}, "b": "n"})
    assert mapped.errors(db) == {1: ("a", "null", "is null, and nulls are an error here")}
    mapped.compiled(db, {"a": {"value": "n", "null": "clear"}, "b": "n"}, nulls="error")
    assert mapped.errors(db)[1][0] == "b"


DEFAULTS = [
    ("n", "7", 7), ("n", 7, 7), ("name", 0, "0"), ("name", "it's", "it's"), ("name", True, "true"), ("ok", False, False),
    ("day", "2026-02-03", "2026-02-03"), ("d", 2.25, Decimal("2.25")), ("name", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("expr", "default", "sent"), DEFAULTS)
@pytest.mark.parametrize("nulls", ["clear", "skip", "error"])
def test_a_default_is_sent_in_place_of_a_null(
    db: duckdb.DuckDBPyConnection, expr: str, default: Any, sent: Any, nulls: str
) -> None:
    found = lines(db, {"a": {"value": expr, "default": default, "null": nulls}})
    assert (found[1]["a"], type(found[1]["a"])) == (sent, type(sent)) or float(found[1]["a"]) == float(sent)
    assert found[0]["a"] not in (None, sent)


@pytest.mark.parametrize("value", ["NULL", "''", "name", "'  '", "concat(chr(9), chr(160), chr(10))"])
def test_an_identifier_is_never_null_or_empty(db: duckdb.DuckDBPyConnection, value: str) -> None:
    mapped.compiled(db, {}, identify={"email": value}, nulls="skip")
    assert mapped.errors(db)[1] == ("email", "null", "an identifier must not be null, empty or blank")


def test_an_identifier_is_sent_without_the_blanks_that_the_destination_cuts_off(
    db: duckdb.DuckDBPyConnection,
) -> None:
    padded = "concat(chr(9), ' z9', chr(160))"
    for trims, sent in ((True, "z9"), (False, "\t z9\xa0")):
        types = {"key": Field("key", FieldType.STRING, trims=trims)}
        assert mapped.keys(db, mapped.compiled(db, {}, types, identify={"key": padded}))[0] == sent


def test_lengths_and_choices(db: duckdb.DuckDBPyConnection) -> None:
    types = {
        "short": Field("short", FieldType.STRING, max_length=3),
        "one": Field("one", FieldType.STRING, choices=("red", "it's")),
    }
    rows = [
        ["äöü", "red"],
        ["👨‍👩‍👧", "red"],
        ["abcd", "red"],
        ["", "it's"],
        ["a", "Red"],
        [None, None],
        ["a", ""],
    ]
    mapped.table(db, {"s": "VARCHAR", "c": "VARCHAR"}, rows)
    mapped.compiled(db, {"short": "s", "one": "c"}, types)
    assert mapped.errors(db) == {
        1: ("short", "length", "has 5 characters, at most 3 fit"),
        2: ("short", "length", "has 4 characters, at most 3 fit"),
        4: ("one", "choice", '"Red" is not one of the allowed values'),
    }


NAMES = [
    "select",
    "with space",
    'qu"ote',
    "it's",
    "back\\slash",
    "ünïcödé",
    "😀",
    "a$b",
    "tab\there",
    "line\nbreak",
    "id2",
    "_hash",
    "k0",
]


@pytest.mark.parametrize("name", NAMES)
def test_fields_and_columns_of_any_name(db: duckdb.DuckDBPyConnection, name: str) -> None:
    from backhaul.sql import ident

    mapped.table(db, {name: "VARCHAR"}, [["v"], [None]])
    keys = {name: ident(name), f"{name} 2": f"upper({ident(name)})"}
    for wire in ("json", "text"):
        assert lines(db, keys, wire)[0] | {"id": 0} == {"id": 0, name: "v", f"{name} 2": "V"}
    skipped = lines(db, keys, nulls="skip")
    assert skipped[1] == {"id": 1}
    assert columns_used(mapped.sync(fields=keys), mapped.columns_of(db)) == ["id", name]
    (cells,) = csv.reader(io.StringIO(mapped.written(db, mapped.compiled(db, keys), "csv")[0], newline=""))
    assert cells == ["0", "v", "V"]


def test_dots_nest(db: duckdb.DuckDBPyConnection) -> None:
    fields = {"address.city": "name", "n": "n", "address.geo.lat": "d", "address.geo.lon": "n", "x.y": "ok"}
    assert lines(db, fields)[0] == {
        "id": 0, "address": {"city": "ann", "geo": {"lat": 1.5, "lon": 1}}, "n": 1, "x": {"y": True},
    }  # fmt: skip
    assert lines(db, fields, "text")[0]["address"]["geo"] == {"lat": "1.5", "lon": "1"}
    assert lines(db, fields, nulls="skip")[1] == {"id": 1}
    half = {"a.b": "id", "a.c": {"value": "n", "null": "skip"}}
    assert lines(db, half)[1] == {"id": 1, "a": {"b": 1}}


@pytest.mark.parametrize(
    ("expr", "used"),
    [
        ("place.city", ["id", "place"]), ("t.name", ["id", "name"]), ("model.name", ["id", "name"]), ("NAME", ["id", "name"]),
        ('"n" + d', ["id", "n", "d"]), ("list_transform(list, lambda x: x + n)", ["id", "n", "list"]), ("1", ["id"]),
        ("to_json(model)", ["id", "name", "n", "ok", "day", "place", "list", "d"]), ("place['city']", ["id", "place"]),
        ("(select max(v) from (select n as v))", ["id", "n"]),
    ],
)  # fmt: skip
def test_only_the_columns_that_are_needed_are_read(
    db: duckdb.DuckDBPyConnection, expr: str, used: list[str]
) -> None:
    told = mapped.sync(fields={"a": expr})
    columns = columns_used(told, mapped.columns_of(db))
    assert columns == used or set(used) <= set(columns)
    if not expr.startswith("t."):
        names = ", ".join(f'"{name}"' for name in columns)
        mapping = mapped.compiled(db, {"a": expr})
        db.execute(f"SELECT * FROM ({mapping.desired(f'(SELECT {names} FROM t)')})").fetchall()


def test_composite_identifiers(db: duckdb.DuckDBPyConnection) -> None:
    mapping = mapped.compiled(db, {}, identify={"a": "id", "b": "coalesce(name, 'q\"')"})
    assert [json.loads(key) for key in mapped.keys(db, mapping)] == [["0", "ann"], ["1", 'q"']]


def test_an_identifier_may_stand_under_fields_as_well(db: duckdb.DuckDBPyConnection) -> None:
    assert lines(db, {"id": "id", "a": "n"})[0] == {"id": 0, "a": 1}


def test_the_shape_gives_the_mapping_again(db: duckdb.DuckDBPyConnection) -> None:
    from backhaul.mapping.mapping import Mapping

    types = {"id": Field("id", FieldType.INTEGER, case_insensitive=True)}
    mapping = mapped.compiled(db, {"a": {"value": "place", "null": "skip"}, "b": "day"}, types)
    again = Mapping.from_shape(json.loads(json.dumps(mapping.shape)))
    assert again.shape == mapping.shape
    assert [field.field.case_insensitive for field in again.fields] == [True, None, None]  # None: not stated
    for wire in ("json", "text", "csv"):
        assert mapped.written(db, again, wire) == mapped.written(db, mapping, wire)
