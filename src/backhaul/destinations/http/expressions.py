"""JMESPath expressions, compiled when the configuration is read. The forms that nearly every API needs (`a`,
`a.b`, `a == 'x'`, `!a`, `a && b`, `a || b`, `@`) become plain Python; anything else is left to jmespath.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from backhaul.values import Parsed

Reader = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Expression(Parsed):
    """A JMESPath expression, such as `results` or `status == 'ok'`."""

    text: str
    of: Reader = field(compare=False, repr=False)
    """The expression's value in a JSON value; None where it finds nothing."""

    @classmethod
    def parse(cls, value: Any) -> Expression:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{value!r} is not a JMESPath expression")
        try:
            compiled = jmespath.compile(value)
        except JMESPathError as error:
            said = " ".join(str(error).replace("^", "").split())
            raise ValueError(f"{value!r} is not a JMESPath expression: {said}") from None
        return cls(value, plain_reader(compiled.parsed) or quiet(compiled.search))

    def __str__(self) -> str:
        return self.text


def quiet(search: Reader) -> Reader:
    """A function of JMESPath that meets a type it cannot take finds nothing, as a missing field does."""

    def read(value: Any) -> Any:
        try:
            return search(value)
        except (JMESPathError, TypeError):
            return None

    return read


def plain_reader(node: Any) -> Reader | None:
    """The expression as plain Python, from jmespath's syntax tree; None where it is not of a common form."""
    kind, children = node["type"], node["children"]
    if kind == "current":
        return lambda value: value
    if kind == "field":
        return member(node["value"])
    if kind == "comparator" and node["value"] in ("eq", "ne") and children[1]["type"] == "literal":
        return comparison(plain_reader(children[0]), children[1]["value"], node["value"] == "eq")
    parts = [plain_reader(child) for child in children]
    readers = [part for part in parts if part]
    if not readers or len(readers) != len(parts):
        return None
    return combined(kind, readers)


def member(name: str) -> Reader:
    return lambda value: value.get(name) if type(value) is dict else None


def comparison(left: Reader | None, literal: Any, equal: bool) -> Reader | None:
    if left is None:
        return None
    if isinstance(literal, bool) or literal is None:
        return (lambda value: left(value) is literal) if equal else (lambda value: left(value) is not literal)
    if not isinstance(literal, str):
        return None
    return (lambda value: left(value) == literal) if equal else (lambda value: left(value) != literal)


def combined(kind: str, readers: list[Reader]) -> Reader | None:
    first, last = readers[0], readers[-1]
    if kind == "subexpression" and len(readers) > 2:
        return combined(kind, [part for part in (combined(kind, readers[:-1]), last) if part])
    if kind == "subexpression":
        return lambda value: last(first(value))
    if kind == "not_expression":
        return lambda value: nothing(first(value))
    if kind == "or_expression":
        return lambda value: last(value) if nothing(found := first(value)) else found
    if kind == "and_expression":
        return lambda value: found if nothing(found := first(value)) else last(value)
    return None


def nothing(value: Any) -> bool:
    """JMESPath's falsehood: zero is not among it."""
    return value is None or value is False or value == "" or value == [] or value == {}
