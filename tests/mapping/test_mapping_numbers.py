"""Numbers as text: in their own digits, whole ones without fraction or exponent; what cannot be exact is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import duckdb
import mapped
import pytest

from backhaul.errors import UsageError
from backhaul.types import FieldType


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with mapped.engine(tmp_path_factory.mktemp("engine")) as connection:
        yield connection


TEXTS = [
    ("DOUBLE", "123", "123"), ("DOUBLE", "-0", "0"), ("DOUBLE", "1.5", "1.5"), ("DOUBLE", "1e21", "1" + "0" * 21),
    ("DOUBLE", "123456789012345680", "123456789012345680"), ("DOUBLE", "9007199254740993", "9007199254740992"),
    ("DOUBLE", "1e39", None), ("DOUBLE", "inf", None), ("DOUBLE", "nan", None), ("DOUBLE", None, None),
    ("FLOAT", "16777216", "16777216"), ("FLOAT", "0.1", "0.1"), ("DECIMAL(38,18)", "19.99", "19.99"),
    ("DECIMAL(38,18)", "20", "20"), ("DECIMAL(38,18)", "0.000000000000000001", "0.000000000000000001"),
    ("DECIMAL(12,2)", "19.90", "19.90"), ("DECIMAL(38,0)", "100", "100"), ("BIGINT", "100", "100"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "text"), TEXTS)
def test_a_number_in_a_text_field(
    db: duckdb.DuckDBPyConnection, kind: str, value: str | None, text: str | None
) -> None:
    mapped.table(db, {"v": kind}, [[value]])
    mapping = mapped.compiled(db, {"v": "v"}, mapped.field("v", FieldType.STRING))
    if text is None and value is not None:
        assert mapped.errors(db)[0][:2] == ("v", "type")
    else:
        assert json.loads(mapped.written(db, mapping, "json")[0][:-1])["v"] == text


@pytest.mark.parametrize(("kind", "value", "text"), [
    ("DOUBLE", "1e21", "1" + "0" * 21), ("DOUBLE", "123", "123"), ("DOUBLE", "1.5", "1.5"), ("DECIMAL(38,18)", "1.5", "1.5"),
])  # fmt: skip
def test_a_number_on_a_wire_of_texts(db: duckdb.DuckDBPyConnection, kind: str, value: str, text: str) -> None:
    """HubSpot and others take every value as text, also for fields of numbers."""
    mapped.table(db, {"v": kind}, [[value]])
    mapping = mapped.compiled(db, {"v": "v"}, mapped.field("v", FieldType.NUMBER))
    assert json.loads(mapped.written(db, mapping, "text")[0][:-1])["v"] == text
    assert mapped.written(db, mapping, "csv")[0] == f"0,{text}\n"


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT"])
def test_a_double_identifies_no_record(db: duckdb.DuckDBPyConnection, kind: str) -> None:
    mapped.table(db, {"ext": kind}, [["123"]])
    with pytest.raises(UsageError) as caught:
        mapped.compiled(
            db, {}, mapped.field("External_Id__c", FieldType.STRING), identify={"External_Id__c": "ext"}
        )
    (problem,) = caught.value.problems
    assert f"ext is {kind}" in problem.message
    assert "`ext::bigint`" in str(problem.hint)
    mapping = mapped.compiled(db, {}, identify={"External_Id__c": "ext::bigint"})
    assert mapped.keys(db, mapping) == ["123"]
