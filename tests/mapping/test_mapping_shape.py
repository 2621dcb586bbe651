"""A plan and a ledger remember every property of a mapped field: what is built again from them is the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as some

from backhaul.mapping.coercion import Coercion
from backhaul.mapping.mapping import KeyColumn, MappedField, Mapping
from backhaul.types import Field, FieldType, Nulls

Names = some.text(min_size=1, max_size=5)
Fields = some.builds(
    Field, name=Names, type=some.sampled_from(FieldType), writable=some.booleans(), required=some.booleans(),
    unique=some.booleans(), max_length=some.none() | some.integers(0, 999),
    choices=some.none() | some.lists(Names, max_size=3).map(tuple), case_insensitive=some.none() | some.booleans(),
    native_type=some.none() | Names, parent=some.booleans(), skip_null=some.booleans(),
)  # fmt: skip
Mapped = some.builds(
    MappedField, field=Fields, expr=some.just("x"), nulls=some.sampled_from(Nulls), identifier=some.booleans(),
    coercion=some.sampled_from(["VARCHAR", "BIGINT", "DECIMAL(38,0)"]).map(lambda kind: Coercion("x", kind, "lost")),
    place=some.just("") | Names,
)  # fmt: skip


@given(some.lists(Mapped, min_size=1, max_size=4, unique_by=lambda field: field.name))
def test_what_is_remembered_is_the_same_but_for_how_it_is_read(fields: list[MappedField]) -> None:
    mapping = Mapping((KeyColumn("id", "BIGINT", "k0"), KeyColumn("b", "VARCHAR", "k1")), tuple(fields))
    again = Mapping.from_shape(orjson.loads(orjson.dumps(mapping.shape)))
    assert again.keys == mapping.keys
    assert again.fields == tuple(
        dataclasses.replace(field, expr="", coercion=Coercion("", field.storage)) for field in fields
    )
    assert again.shape == mapping.shape


OTHERS = {"max_length": 7, "choices": ("a",), "case_insensitive": True}


def test_no_property_of_a_field_is_forgotten() -> None:
    """Each in turn has another value than its default: also those that are added later."""
    for item in dataclasses.fields(Field):
        if item.name == "name":
            continue
        value = OTHERS.get(item.name, _other(item.default))
        field = dataclasses.replace(Field("f"), **{item.name: value})
        mapped = MappedField(field, "x", Coercion("x", "VARCHAR"), Nulls.CLEAR, False)
        (again,) = Mapping.from_shape(Mapping((), (mapped,)).shape).fields
        assert getattr(again.field, item.name) == value, item.name


def _other(default: Any) -> Any:
    if isinstance(default, FieldType):
        return FieldType.DATE
    if isinstance(default, bool):
        return not default
    return "x" if default is None else f"{default}x"
