"""Values that JSON, tables or people get wrong: delivered exactly, or refused record by record (bad inputs 22 to 27)."""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from bad_project import BadProject

from backhaul.testing.serving import serving


def only(bad: BadProject, expression: str, kind: str = "", **field: Any) -> BadProject:
    """The model has two rows: a sound one with the key 1 and a text, and the given one with the key 2."""
    bad.sql(f"create or replace table t as select 2 as id, {expression} as v")
    bad.model = {"table": "t", "primary_key": "id"}
    bad.object = {"fields": {"v": {"type": kind}}} if kind else {}
    bad.sync = {"fields": {"v": field or "v"}}
    return bad.write()


@pytest.mark.parametrize(
    "value", ["'NaN'::double", "'Infinity'::double", "'-inf'::float", "1e308::double * 10"]
)
def test_a_number_that_is_none_is_rejected(bad: BadProject, value: str) -> None:
    said = only(bad, value).call("run")
    assert said.code == 3, said
    assert bad.sink.records == {}
    (letter,) = bad.letters()
    assert letter["error"]["code"] == "type"
    assert "does not fit" in letter["error"]["message"]


@pytest.mark.parametrize("value", ["'1e400'", "'nan'", "'12,5'", "'0x10'", "'1 000'"])
def test_a_text_that_is_no_number_is_rejected(bad: BadProject, value: str) -> None:
    said = only(bad, value, "number").call("run")
    assert said.code == 3, said
    assert bad.sink.records == {}


EXACT = {
    "-0.0::double": b"-0.0",
    "9007199254740993": b"9007199254740993",
    "-170141183460469231731687303715884105727::hugeint": None,
    "99999999999999999999999999999999999999::hugeint": b"99999999999999999999999999999999999999",
    "18446744073709551615::ubigint": b"18446744073709551615",
    "1234567890123456789012345678.0123456789::decimal(38,10)": b"1234567890123456789012345678.0123456789",
    "0.10::decimal(4,2)": b"0.10",
    "0.1::float": b"0.1",
    "1e300::double": b"1e300",
    "5e-324::double": b"5e-324",
    "'9999-12-31 23:59:59.999999'::timestamp": b'"9999-12-31T23:59:59.999999"',
    "'0001-01-01'::timestamp": b'"0001-01-01T00:00:00"',
    "'0001-01-01'::date": b'"0001-01-01"',
    "'2025-10-26 02:30:00+02'::timestamptz": b'"2025-10-26T00:30:00Z"',
    "'2025-10-26 02:30:00+01'::timestamptz": b'"2025-10-26T01:30:00Z"',
    "'10000-01-01'::date": None,
    "'-0044-03-15'::date": None,
    "'infinity'::timestamp": None,
    "'2026-02-30'": b'"2026-02-30"',
    "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid": b'"6ba7b810-9dad-11d1-80b4-00c04fd430c8"',
    "chr(8238) || 'abc'": b'"\\u202eabc"',
    "'a' || chr(0) || 'b'": b'"a\\u0000b"',
    "'line' || chr(10) || 'tab' || chr(9) || '\"\\'": b'"line\\ntab\\t\\"\\\\"',
    "'😀' || chr(65279)": b'"\xf0\x9f\x98\x80\xef\xbb\xbf"',
    "[1, 2, NULL]": b"[1,2,null]",
    "{'a': 1, 'b': [true]}": b'{"a":1,"b":[true]}',
    "map {'k': 1}": b'{"k":1}',
    '\'{"a": 1.10, "n": 9007199254740993.0000000001}\'::json': b'{"a":1.10,"n":9007199254740993.0000000001}',
    "'{\"a\": NaN}'::json": None,
    "'[1, 2, ]'::json": None,
    '\'["NaN", "a\\",]"]\'::json': b'["NaN", "a\\",]"]',
    "['nan'::double]": None,
    "'5000000-01-01'::date": None,
}


@pytest.mark.parametrize(("value", "bytes_sent"), EXACT.items(), ids=list(EXACT))
def test_a_value_goes_over_the_wire_exactly_or_not_at_all(
    bad: BadProject, value: str, bytes_sent: bytes | None
) -> None:
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.json_response({"results": [{"id": 2, "status": "ok"}]})

    app = web.Application()
    app.router.add_post("/upsert", take)
    with serving(app) as bad.url:
        said = only(bad, value).call("run")
    if bytes_sent is None:
        assert (said.code, bodies) == (3, []), bodies
        return
    assert said.code == 0, said
    sent = bodies[0].split(b'"v":', 1)[1].rsplit(b"}]}", 1)[0].strip()
    assert _same(sent, bytes_sent), sent


def _same(sent: bytes, wanted: bytes) -> bool:
    """As JSON, with numbers compared as they are written, or where they are floats by exact value."""

    def number(text: str) -> Any:
        return float(text) if "e" in text.lower() else Decimal(text)

    def read(text: bytes) -> Any:
        return json.loads(text, parse_float=number, parse_int=Decimal)

    return repr(read(sent)) == repr(read(wanted)) or (read(sent) == read(wanted) and b"e" in sent)


@pytest.mark.parametrize("value", ["'2026-02-30'", "'31.12.2026'", "'soon'", "'2026-13-01'", "''"])
def test_a_text_that_is_no_date_is_rejected(bad: BadProject, value: str) -> None:
    said = only(bad, value, "date").call("run")
    assert said.code == 3, said
    assert bad.sink.records == {}


def test_bytes_are_refused_before_anything_runs(bad: BadProject) -> None:
    only(bad, "'\\xFF\\x00'::blob").refuses(2, "is BLOB", "base64", "syncs/users.yml:1")


@pytest.mark.parametrize("value", ["interval 1 month", "'12:30:00'::time", "'POINT(1 2)'", "'01'::bit"])
def test_other_kinds_are_text_or_refused(bad: BadProject, value: str) -> None:
    said = only(bad, value).call("run")
    if said.code == 2:
        assert "is BIT" in said.err
    else:
        assert said.code == 0, said
        assert isinstance(bad.sink.records["2"]["v"], str)


def test_json_of_a_thousand_levels(bad: BadProject) -> None:
    """As deep as it came, or rejected by name."""
    bad.sql(f"create table deep as select 2 as id, '{'[' * 1000}{']' * 1000}' as v")
    bad.model, bad.object = {"table": "deep", "primary_key": "id"}, {"fields": {"v": {"type": "json"}}}
    bad.sync = {"fields": {"v": "v"}}
    bad.write()
    for words in (("plan",), ("plan", "--json")):
        assert bad.call(*words).code == 0
    bad.runs()
    value, depth = bad.sink.records["2"]["v"], 1
    while value:
        (value,), depth = value, depth + 1
    assert depth == 1000
    bad.sql("update deep set v = '{}'")
    for words in (("plan",), ("plan", "--json"), ("records", "users"), ("records", "users", "--json")):
        assert bad.call(*words).code == 0


def test_a_refused_record_of_a_thousand_levels_can_be_looked_at(bad: BadProject) -> None:
    bad.sql(f"create table deep as select 2 as id, '{'[' * 1000}{']' * 1000}' as v")
    bad.model, bad.object = {"table": "deep", "primary_key": "id"}, {"fields": {"v": {"type": "json"}}}
    bad.sync = {"fields": {"v": "v"}}
    bad.sink.faults.refuse_key = "2"
    assert bad.write().call("run").code == 3
    for words in (("list",), ("list", "--json"), ("show", "1"), ("show", "1", "--json")):
        assert bad.call("dead-letters", *words).code == 0


def test_a_text_of_ten_megabytes(bad: BadProject) -> None:
    only(bad, "repeat('x', 10000000)").runs()
    assert len(bad.sink.records["2"]["v"]) == 10_000_000
    shown = bad.call("records", "users")
    assert len(shown.out) < 10_000
    bad.sql("update t set v = repeat('y', 10000000)")
    assert len(bad.call("plan").out) < 10_000


def test_a_csv_that_is_not_utf8(bad: BadProject) -> None:
    (bad.root / "data").mkdir()
    (bad.root / "data" / "t.csv").write_bytes(b"id,name,v\n1,Jos\xe9,1.0\n2,ok,2.0\n")
    bad.warehouse = {"type": "files", "path": "data"}
    bad.write().refuses(1, "t.csv, line 2: ", "not utf-8")


def test_a_csv_with_a_row_too_wide(bad: BadProject) -> None:
    (bad.root / "data").mkdir()
    rows = b"".join(b"%d,n,1.0\n" % number for number in range(50_000))
    (bad.root / "data" / "t.csv").write_bytes(b"id,name,v\n" + rows + b"50001,a,b,c,d\n")
    bad.warehouse = {"type": "files", "path": "data"}
    bad.write().refuses(1, "t.csv, line 50002: the header has 3 columns, and this line has more")


def test_a_sqlite_text_that_is_not_utf8(bad: BadProject) -> None:
    with sqlite3.connect(bad.root / "w.db") as warehouse:
        warehouse.execute("create table t (id integer, name text, v real)")
        warehouse.execute("insert into t values (1, cast(x'4a6f73e9' as text), 1.0), (2, 'ok', 2.0)")
    warehouse.close()
    bad.warehouse = {"type": "sqlite", "path": "w.db"}
    bad.write().refuses(1, "w.db", "UTF-8")


def test_a_model_that_became_empty(bad: BadProject) -> None:
    bad.sync = {"mode": "mirror"}
    bad.write().runs()
    bad.sql("delete from t")
    said = bad.refuses(1, "held, nothing was sent", "the model has 0 rows; 3 records are known", "--plan p-")
    plan = said.err.split("--plan ")[1].split("`")[0]
    assert bad.call("run", "users", "--plan", plan).code == 0
    assert bad.sink.records == {}


def test_a_model_that_lost_most_of_its_rows(bad: BadProject) -> None:
    bad.sql("create or replace table t as select i as id, 'n' as name, 1.0 as v from range(100) x(i)")
    bad.sync = {"mode": "mirror"}
    bad.write().runs()
    bad.sql("delete from t where id >= 10")
    said = bad.refuses(1, "max_drop: the model has 10 rows, 100 at the last run", "--plan p-")
    plan = said.err.split("--plan ")[1].split("`")[0]
    bad.sql("delete from t where id = 0")
    bad.refuses(
        1,
        f"plan {plan} is not what the model and the ledger give now",
        words=("run", "users", "--plan", plan),
    )
    bad.sql("insert into t values (0, 'n', 1.0)")
    assert bad.call("run", "--plan", plan).code == 0
    assert len(bad.sink.records) == 10


def test_a_column_whose_type_changed(bad: BadProject) -> None:
    bad.runs()
    bad.sql("alter table t alter v type varchar using 'v' || v")
    bad.refuses(1, "column v is VARCHAR and was DOUBLE", "schema-changes users --accept")
    bad.sync = {"on_schema_change": "apply"}
    bad.write().runs()
    assert bad.sink.records["2"]["v"] == "v3.0"


def test_a_column_whose_type_no_longer_fits_the_field(bad: BadProject) -> None:
    bad.object = {"fields": {"v": {"type": "number"}, "name": {"type": "string"}}}
    bad.write().runs()
    bad.sql("alter table t alter v type date using date '2026-01-01'")
    bad.sync = {"on_schema_change": "apply"}
    bad.write()
    bad.refuses(2, "v: v is DATE, which is no number", "syncs/users.yml:1")


def test_a_column_that_left_the_model(bad: BadProject) -> None:
    bad.runs()
    bad.sql("alter table t drop v")
    bad.refuses(1, "column v is missing", "mend the model, or the mapping")


def test_a_key_whose_type_changed(bad: BadProject) -> None:
    bad.runs()
    bad.sql("alter table t alter id type varchar")
    bad.refuses(1, "the primary key was (id BIGINT) and is now (id VARCHAR)", "baseline")


def test_an_integer_key_that_became_wider_is_the_same_key(bad: BadProject) -> None:
    bad.sql("alter table t alter id type smallint")
    bad.runs()
    bad.sql("alter table t alter id type bigint", "update t set name = 'new' where id = 1")
    bad.runs()
    assert bad.sink.records["1"]["name"] == "new"
    assert sum(len(seen.keys) for seen in bad.sink.seen) == 4
