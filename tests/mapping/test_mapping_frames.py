"""Records that are more than their fields, written by the engine and taken apart again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import mapped
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backhaul.delivery.batches import unframed
from backhaul.mapping.wire import record_text
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, Frame, Op

NAMES = ("a", "b", "deep.c", "deep.d", "deep.er.e")
FRAMES = {
    "into": Frame("attributes", {"type": "profile"}),
    "beside": Frame("data", {"merge": True, "data._update": 1}, {"id": "who.id", "a": "a"}),
    "deep": Frame("record.values", {"record.kind": "x'y\"z", "op": None}, {"id": "record.id"}),
    "constants": Frame(constants={"action": "delete"}),
    "plain": Frame(),
}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with mapped.engine(Path(tmp_path_factory.mktemp("frames"))) as connection:
        yield connection


@pytest.mark.parametrize("frame", FRAMES.values(), ids=list(FRAMES))
@given(
    values=st.lists(st.one_of(st.none(), st.text(max_size=8).filter(lambda text: "\x00" not in text)), min_size=5, max_size=5),
    skipped=st.sets(st.sampled_from(NAMES)),
)  # fmt: skip
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_engine_writes_a_framed_record_that_can_be_taken_apart(
    db: duckdb.DuckDBPyConnection, frame: Frame, values: list[str | None], skipped: set[str]
) -> None:
    mapped.table(db, dict.fromkeys("vwxyz", "VARCHAR"), [values])
    fields = {
        name: {"value": column, "null": "skip" if name in skipped else "clear"}
        for name, column in zip(NAMES, "vwxyz", strict=True)
    }
    mapping = mapped.compiled(db, fields)
    ((text,),) = db.execute(f"SELECT {record_text('json', mapping.fields, frame=frame)} FROM d").fetchall()
    row: dict[str, Any] = {"id": 0} | {
        name: value
        for name, value in zip(NAMES, values, strict=True)
        if value is not None or name not in skipped
    }
    plain = tuple(Field(name) for name in ("id", *NAMES))
    by_hand, bare = (
        RecordBatch(Op.UPSERT, "o", ("id",), plain, [row], frame=given).records()[0]
        for given in (frame, None)
    )
    assert text.endswith("},")
    assert json.loads(text[:-1]) == by_hand
    assert unframed(json.loads(text[:-1]), plain, frame) == bare
