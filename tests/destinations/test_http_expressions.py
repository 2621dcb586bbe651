"""The fast reading of JMESPath gives what jmespath gives."""

from __future__ import annotations

import jmespath
import pytest

from backhaul.destinations.http.expressions import Expression, plain_reader

VALUES = [
    {}, [], "text", None, 0, 1, True,
    {"a": 1}, {"a": 0}, {"a": True}, {"a": False}, {"a": None}, {"a": ""}, {"a": "x"}, {"a": []}, {"a": {}},
    {"a": {"b": "x"}}, {"a": {"b": None}}, {"a": {"b": True}, "c": "y"}, {"a": [{"b": "x"}]}, {"c": "y"},
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "a", "a.b", "@", "a == 'x'", "a != 'x'", "a.b == 'x'", "a == `true`", "a == `false`", "a == `null`",
        "a != `null`",        "!a", "a || c", "a && c", "a == 'x' || c == 'y'", "!(a == 'x')", "a.b.c", "@.a",
    ],
)  # fmt: skip
def test_common_forms_are_plain_python_and_mean_the_same(text):
    assert plain_reader(jmespath.compile(text).parsed) is not None
    for value in VALUES:
        assert Expression.parse(text).of(value) == jmespath.search(text, value), value
        assert type(Expression.parse(text).of(value)) is type(jmespath.search(text, value)), value


@pytest.mark.parametrize(
    "text", ["a[0].b", "a[].b", "a == `1`", "keys(a)", "[a, c]", "a > `1`", "a | b", "{x: a}", "'lit'"]
)
def test_other_forms_are_left_to_jmespath(text):
    assert plain_reader(jmespath.compile(text).parsed) is None
    found = Expression.parse(text)
    for value in VALUES:
        try:
            expected = jmespath.search(text, value)
        except (jmespath.exceptions.JMESPathError, TypeError):
            expected = None
        assert found.of(value) == expected
