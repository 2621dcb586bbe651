from __future__ import annotations

from typing import Any

import pytest

from backhaul.destinations.kit import Batch, Wire
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, FieldType, Op

FIELDS = (
    Field("id", FieldType.INTEGER),
    Field("name", FieldType.STRING),
    Field("home.city"),
    Field("vip", FieldType.BOOLEAN),
)
ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": 'O"Hara, "Jr"', "home.city": None, "vip": True},
    {"id": 2, "name": "", "vip": None},
]


def batch(wire: Wire, rows: list[dict[str, Any]] = ROWS, **more: Any) -> Batch:
    return RecordBatch(Op.UPSERT, "user", ("id",), FIELDS, rows, wire, **more)


@pytest.mark.parametrize(("wire", "text"), [
    (Wire.JSON, b'{"id":1,"name":"O\\"Hara, \\"Jr\\"","home":{"city":null},"vip":true},{"id":2,"name":"","vip":null}'),
    (Wire.TEXT, b'{"id":"1","name":"O\\"Hara, \\"Jr\\"","home":{"city":""},"vip":"true"},{"id":"2","name":"","vip":""}'),
    (Wire.CSV, b'1,"O""Hara, ""Jr""",,true\n2,"",,\n'),
])  # fmt: skip
def test_a_wire_is_written_as_the_kit_says(wire: Wire, text: bytes) -> None:
    assert batch(wire).text() == text


def test_keys_are_texts_and_a_list_of_texts_where_there_are_several() -> None:
    assert batch(Wire.JSON).keys == ["1", "2"]
    two = RecordBatch(Op.DELETE, "user", ("id", "name"), FIELDS[:2], ROWS)
    assert two.keys == ['["1","O\\"Hara, \\"Jr\\""]', '["2",""]']


def test_the_idempotency_key_follows_the_values() -> None:
    assert batch(Wire.JSON).idempotency_key == batch(Wire.JSON).idempotency_key
    assert batch(Wire.JSON).idempotency_key != batch(Wire.JSON, ROWS[:1]).idempotency_key


def test_remote_ids_are_none_unless_given_and_one_for_each_row() -> None:
    assert batch(Wire.JSON).remote_ids == [None, None]
    assert batch(Wire.JSON, remote_ids=["a", None]).remote_ids == ["a", None]
    with pytest.raises(ValueError, match="one remote id"):
        batch(Wire.JSON, remote_ids=["a"])


def test_a_key_comes_once() -> None:
    with pytest.raises(ValueError, match="no key twice"):
        batch(Wire.JSON, [ROWS[0], ROWS[0]])
