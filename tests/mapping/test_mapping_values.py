"""Any value of any column type to any field type: refused by name, or on every wire exactly what the model holds."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import duckdb
import mapped
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backhaul.errors import UsageError
from backhaul.types import FieldType

NUMBERS = (FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL)
TIMES = (FieldType.DATE, FieldType.DATETIME, FieldType.TIMESTAMP)
BITS = {"TINYINT": 7, "SMALLINT": 15, "INTEGER": 31, "BIGINT": 63, "HUGEINT": 127}
SPECIAL = [
    "NaN",
    "Infinity",
    "-Infinity",
    "-0.0",
    "1e300",
    "5e-324",
    "0.1",
    "1.5",
    "9007199254740993",
    "1e16",
]
TEXTS = [
    "",
    " ",
    "null",
    "NaN",
    "[1,]",
    '{"a": 1.10}',
    "'",
    '"',
    '""',
    "a,b",
    "a\nb",
    "\r\n",
    "\x00",
    "\x1f",
    "\\.",
    "\\N",
    "😀",
    "\u202eabc",
]
STAMPS = [
    "2026-02-30",
    "2026-01-01T10:00:00+02:00",
    "2026-01-01 10:00:00.1234567",
    "2026-01-01",
    "infinity",
    "0000-01-01",
]
WORDS = [
    "true",
    "f",
    "YES",
    "2",
    "0123",
    " 12 ",
    "1.50",
    "1e400",
    "1e-400",
    "12345678901234567890.12",
    "0.30000000000000004",
    "1_0",
]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with mapped.engine(tmp_path_factory.mktemp("engine")) as connection:
        yield connection


def moments() -> st.SearchStrategy[datetime]:
    return st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999))  # noqa: DTZ001


def floats(width: Any) -> st.SearchStrategy[str]:
    return st.floats(width=width).map(repr) | st.sampled_from(SPECIAL)


COLUMNS: dict[str, st.SearchStrategy[str]] = {
    **{name: st.integers(-(2**bits), 2**bits - 1).map(str) for name, bits in BITS.items()},
    "UBIGINT": st.integers(0, 2**64 - 1).map(str),
    "DECIMAL(38,10)": st.decimals("-1e27", "1e27", places=10).map(str) | st.integers(-5, 5).map(str),
    "DECIMAL(4,2)": st.decimals(-99, 99, places=2).map(str),
    "DOUBLE": floats(64),
    "FLOAT": floats(32),
    "BOOLEAN": st.sampled_from(["true", "false"]),
    "DATE": st.dates().map(str) | st.sampled_from(["infinity", "10000-01-01", "0001-01-01 (BC)"]),
    "TIMESTAMP": moments().map(str) | st.sampled_from(["-infinity", "10000-01-01 00:00:00"]),
    "TIMESTAMPTZ": moments().map(lambda at: f"{at}+00"),
    "TIMESTAMP_NS": st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(lambda at: f"{at:%F %T}.{at:%f}001"),  # noqa: DTZ001
    "UUID": st.uuids().map(str),
    "ENUM('a', 'b''c', '')": st.sampled_from(["a", "b'c", ""]),
    "VARCHAR": st.text() | st.sampled_from([*TEXTS, *STAMPS, *WORDS]) | moments().map(str) | floats(64),
    "JSON": st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4).map(json.dumps),
    "BIGINT[]": st.lists(st.integers(-(2**63), 2**63 - 1) | st.none()).map(json.dumps),
    "DOUBLE[]": st.lists(st.floats()).map(str),
    'STRUCT("x y" BIGINT, s DECIMAL(38,10))': st.integers(0, 9**20).map(lambda n: json.dumps({"x y": n % 99, "s": n})),
}  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), kind=st.sampled_from(sorted(COLUMNS)), target=st.sampled_from(FieldType))
def test_a_value_is_refused_by_name_or_written_exactly(
    db: duckdb.DuckDBPyConnection, data: st.DataObject, kind: str, target: FieldType
) -> None:
    given = data.draw(st.lists(COLUMNS[kind] | st.none(), min_size=1, max_size=8))
    check(db, kind, target, given)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(target=st.sampled_from(FieldType), given=st.lists(COLUMNS["VARCHAR"], min_size=1, max_size=12))
@example(target=FieldType.DECIMAL, given=WORDS)
@example(target=FieldType.TIMESTAMP, given=STAMPS)
@example(target=FieldType.DATETIME, given=STAMPS)
@example(target=FieldType.DATE, given=STAMPS)
@example(target=FieldType.JSON, given=TEXTS)
@example(target=FieldType.JSON, given=WORDS)
@example(target=FieldType.ARRAY, given=TEXTS)
@example(target=FieldType.PHONE, given=TEXTS)
@example(target=FieldType.PHONE, given=["+1 500 555 0006", "+44 (0)20 7946-0000", "030 123456"])
@example(target=FieldType.COUNTRY, given=[" de", "Us ", "", "Germany"])
@example(target=FieldType.BOOLEAN, given=WORDS)
def test_a_text_is_refused_by_name_or_written_exactly(
    db: duckdb.DuckDBPyConnection, target: FieldType, given: list[str]
) -> None:
    check(db, "VARCHAR", target, given)


def check(db: duckdb.DuckDBPyConnection, kind: str, target: FieldType, given: list[str | None]) -> None:
    mapped.table(db, {"v": kind}, [[value] for value in given])
    try:
        mapping = mapped.compiled(db, {"v": "v"}, mapped.field("v", target))
    except UsageError as error:
        assert not any(fits(kind, target, value) for value in given if value is not None), error
        assert error.problems[0].line == 10
        return
    held = dict(db.execute("SELECT id, CAST(v AS VARCHAR) FROM t").fetchall())
    refused, wires = mapped.errors(db), {w: mapped.written(db, mapping, w) for w in ("json", "text", "csv")}
    for row, value in held.items():
        if row in refused:
            assert refused[row][:2] == ("v", "type")
            assert value is not None
            assert not fits(kind, target, value), (value, refused[row])
            continue
        sent = json.loads(
            wires["json"][row][:-1], parse_float=Decimal, parse_int=Decimal, parse_constant=wrong
        )
        assert sent["id"] == row
        assert same(kind, target, value, sent["v"]), (value, wires["json"][row])
        text = json.loads(wires["text"][row][:-1])["v"]
        nested = isinstance(value, str) and mapping.fields[1].field.type in (FieldType.JSON, FieldType.ARRAY)
        assert text == ("" if value is None else as_text(wires["json"][row]) if nested else text)
        assert nested or value is None or like(text, sent["v"])
        (cells,) = list(csv.reader(io.StringIO(wires["csv"][row], newline="")))
        assert cells == [str(row), text]
        assert (wires["csv"][row] == f"{row},\n") == (value is None)
        assert close(orjson.loads(wires["json"][row][:-1])["v"], sent["v"])


def wrong(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def as_text(line: str) -> str:
    """The raw text of the member v."""
    return line.split('"v":', 1)[1].removesuffix("},")


def like(text: str, sent: Any) -> bool:
    if isinstance(sent, bool):
        return text == str(sent).lower()
    return Decimal(text) == sent if isinstance(sent, Decimal) else text == sent


def close(parsed: Any, sent: Any) -> bool:
    """What a connector parses is what was written, as far as Python's own number types hold it."""
    if isinstance(sent, Decimal):
        return float(sent) == parsed if isinstance(parsed, float) else sent == parsed
    if isinstance(sent, list):
        return len(parsed) == len(sent) and all(map(close, parsed, sent))
    if isinstance(sent, dict):
        return list(parsed) == list(sent) and all(map(close, parsed.values(), sent.values()))
    return bool(parsed == sent)


def number(text: str) -> Decimal | None:
    try:
        found = Decimal(text.strip(" \t\n\r\f"))
    except InvalidOperation:
        return None
    return found if found.is_finite() and text.isascii() and "_" not in text else None


def moment(text: str) -> datetime | None:
    """A time as text, in UTC."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def same(kind: str, target: FieldType, held: str | None, sent: Any) -> bool:
    """Whether what was sent is the value that the column holds (as the engine's own text)."""
    if held is None:
        return sent is None
    if target is FieldType.PHONE:
        digits = "".join(sign for sign in held.replace("(0)", "") if sign in "0123456789")
        return bool(sent == (f"+{digits}" if held.strip(" ") else ""))
    if target in (FieldType.CURRENCY, FieldType.COUNTRY):
        return bool(sent == held.strip(" ").upper())
    if kind in TIME_TYPES or (target in TIMES and isinstance(sent, str)):
        at, went = moment(held), moment(sent)
        return at == went if kind != "TIMESTAMP_NS" else sent == held.replace(" ", "T")
    if isinstance(sent, bool):
        return held.strip().lower() in (
            ("true", "t", "1", "yes", "y") if sent else ("false", "f", "0", "no", "n")
        )
    if kind in ("DOUBLE", "FLOAT"):
        return repr(float(sent)) == repr(float(held)) or near(kind, target, float(sent), float(held))
    if kind == "BOOLEAN" and isinstance(sent, Decimal):
        return bool(sent == (held == "true"))
    if target in NUMBERS or isinstance(sent, Decimal):
        return number(held) == sent or (target is FieldType.JSON and kind == "VARCHAR")
    if kind in ("JSON", "BIGINT[]", "DOUBLE[]") or kind.startswith("STRUCT"):
        return True  # compared with the engine's text below, by the tests of nested values
    if target in (FieldType.JSON, FieldType.ARRAY) and kind == "VARCHAR":
        return bool(json.loads(held, parse_float=Decimal, parse_int=Decimal) == sent)
    return bool(sent == held)


TIME_TYPES = ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS")


def near(kind: str, target: FieldType, sent: float, held: float) -> bool:
    """Integers have no -0; a FLOAT is written as its shortest text, or in JSON as the double that it is."""
    single = struct.unpack("f", struct.pack("f", sent))[0] if kind == "FLOAT" and abs(sent) < 3.5e38 else sent
    return sent == held or (
        kind == "FLOAT" and repr(single) == repr(struct.unpack("f", struct.pack("f", held))[0])
    )


def fits(kind: str, target: FieldType, value: str) -> bool:
    """Values that must never be refused: the plain ones of each pair of types."""
    if target is FieldType.STRING:
        return kind in ("VARCHAR", "BIGINT", "DECIMAL(38,10)", "BOOLEAN", "UUID")
    if kind in BITS and kind != "HUGEINT":
        return target in (*NUMBERS, FieldType.ANY, FieldType.JSON)
    if kind == "DECIMAL(38,10)" and target is FieldType.INTEGER:
        return number(value) == int(number(value) or 0)
    if kind == "DOUBLE" and target in (FieldType.NUMBER, FieldType.DECIMAL, FieldType.ANY, FieldType.JSON):
        return number(value) is not None
    if kind == "VARCHAR" and target in (FieldType.NUMBER, FieldType.DECIMAL):
        found = number(value)
        return found is not None and len(found.as_tuple().digits) <= 15 and -300 < found.adjusted() < 300
    if kind == "VARCHAR" and target is FieldType.DATE:
        try:
            return len(value) == 10 and str(date.fromisoformat(value)) == value
        except ValueError:
            return False
    return False


@pytest.mark.parametrize("text", ["1.5", "-0.25", "1e-3", "12345678901234567890123456789.5"])
def test_a_fraction_is_no_integer(db: duckdb.DuckDBPyConnection, text: str) -> None:
    for kind in ("VARCHAR", "DOUBLE", "DECIMAL(38,5)"):
        if kind == "DOUBLE" and len(text) > 20:
            continue
        mapped.table(db, {"v": kind}, [[text]])
        mapped.compiled(db, {"v": "v"}, mapped.field("v", FieldType.INTEGER))
        assert mapped.errors(db)[0][:2] == ("v", "type")


NESTED = {
    "[1234567890123456789012.1234567890::DECIMAL(38,10)]": "[1234567890123456789012.1234567890]",
    "{'a': 170141183460469231731687303715884105727::HUGEINT}": '{"a":170141183460469231731687303715884105727}',
    "[9007199254740993, NULL]": "[9007199254740993,null]",
    "[0.1::DOUBLE, 1e300::DOUBLE]": "[0.1,1e300]",
    "MAP {'k\"': 'v' || chr(10)}": '{"k\\"":"v\\n"}',
    "[{'d': DATE '2026-01-01'}]": '[{"d":"2026-01-01"}]',
    "'{\"n\": 1.10000000000000000000001}'::JSON": '{"n": 1.10000000000000000000001}',
}


def test_csv_with_a_text_for_null_leaves_empty_cells_for_what_is_skipped(
    db: duckdb.DuckDBPyConnection,
) -> None:
    """Where an empty cell leaves a field alone: NULL and the empty text are cleared, a skipped NULL and what did not change
    are empty cells."""
    mapped.table(db, {"v": "VARCHAR", "n": "BIGINT"}, [[None, None], ["", "0"], ["#", "1"], ['"', "2"]])
    skipped = {"s": {"value": "v", "null": "skip"}, "m": {"value": "n", "null": "skip"}}
    mapping = mapped.compiled(db, {"v": "v", "n": "n", **skipped})
    lines = mapped.written(db, mapping, "csv", null="#N/A")
    assert list(lines.values()) == [
        "0,#N/A,#N/A,,\n", "1,#N/A,0,#N/A,0\n", '2,"#",1,"#",1\n', '3,"""",2,"""",2\n',
    ]  # fmt: skip
    assert list(mapped.written(db, mapping, "csv").values())[:2] == ["0,,,,\n", '1,"",0,"",0\n']


@pytest.mark.parametrize(("expr", "text"), NESTED.items(), ids=list(NESTED))
def test_nested_values_keep_their_digits(db: duckdb.DuckDBPyConnection, expr: str, text: str) -> None:
    db.execute("CREATE OR REPLACE TABLE t AS SELECT 0 AS id")
    mapping = mapped.compiled(db, {"v": expr})
    assert mapped.errors(db) == {}
    exact = {"parse_float": Decimal, "parse_int": Decimal}
    sent = json.loads(mapped.written(db, mapping, "json")[0][:-1], **exact)  # type: ignore[arg-type]
    assert sent["v"] == json.loads(text, **exact)  # type: ignore[arg-type]
    (row,) = csv.reader(io.StringIO(mapped.written(db, mapping, "csv")[0], newline=""))
    assert json.loads(row[1], **exact) == sent["v"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "expr", ["['nan'::DOUBLE]", "{'a': ['inf'::FLOAT]}", "'[1,]'::JSON", "'nan'::DOUBLE"]
)
@pytest.mark.parametrize("target", [FieldType.JSON, FieldType.ANY])
def test_what_json_cannot_say_is_refused(db: duckdb.DuckDBPyConnection, expr: str, target: FieldType) -> None:
    db.execute("CREATE OR REPLACE TABLE t AS SELECT 0 AS id")
    mapped.compiled(db, {"v": expr}, mapped.field("v", target))
    assert mapped.errors(db)[0][:2] == ("v", "type")


@pytest.mark.parametrize("expr", ["'2026-01-01 10:00:00+02'::TIMESTAMPTZ", "'2026-01-01T10:00:00+02:00'"])
@pytest.mark.parametrize(
    ("target", "text"),
    [(FieldType.DATETIME, "2026-01-01T08:00:00Z"), (FieldType.TIMESTAMP, "2026-01-01T08:00:00")],
)
def test_an_offset_is_not_dropped(
    db: duckdb.DuckDBPyConnection, expr: str, target: FieldType, text: str
) -> None:
    db.execute("CREATE OR REPLACE TABLE t AS SELECT 0 AS id")
    mapping = mapped.compiled(db, {"v": expr}, mapped.field("v", target))
    assert json.loads(mapped.written(db, mapping, "json")[0][:-1])["v"] == text


def test_times_of_all_years_keep_their_microseconds(db: duckdb.DuckDBPyConnection) -> None:
    at = [
        datetime(1, 1, 1, tzinfo=UTC) + timedelta(days=37 * n, microseconds=n) for n in range(0, 90_000, 997)
    ]
    mapped.table(db, {"v": "TIMESTAMPTZ"}, [[str(one)] for one in at])
    mapping = mapped.compiled(db, {"v": "v"})
    sent = [json.loads(line[:-1])["v"] for line in mapped.written(db, mapping, "json").values()]
    assert [datetime.fromisoformat(text) for text in sent] == at


def test_postgres_reads_the_csv_wire(postgres_db: str, tmp_path: Path) -> None:
    """NULL and the empty string arrive as themselves, and nothing in a text ends the data."""
    import psycopg

    texts = [None, *(text for text in TEXTS if "\x00" not in text), *WORDS]
    with mapped.engine(tmp_path) as db, psycopg.connect(postgres_db) as session:
        mapped.table(db, {"v": "VARCHAR"}, [[text] for text in texts])
        mapping = mapped.compiled(db, {"v": "v", "w": "v"})
        session.execute("CREATE TABLE t (id bigint, v text, w text)")
        with session.cursor().copy("COPY t FROM STDIN (FORMAT csv)") as copy:
            copy.write("".join(mapped.written(db, mapping, "csv").values()))
        assert session.execute("SELECT v, w FROM t ORDER BY id").fetchall() == [
            (text, text) for text in texts
        ]
