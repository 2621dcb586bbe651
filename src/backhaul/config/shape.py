"""What a configuration class looks like: its keys, the type at a place, and the docstring under each key."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr

from backhaul.config.documents import Where


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The hint for an unknown name: the most similar one that exists."""
    folded = {known.casefold(): known for known in names}
    found = difflib.get_close_matches(name.casefold(), list(folded), 1, 0.6)
    return f"did you mean `{folded[found[0]]}`?" if found else None


def choices(name: str, names: Iterable[str]) -> str:
    """The nearest name, or else the list of those that exist."""
    known = sorted(names)
    return nearest(name, known) or (f"there is {', '.join(known)}" if known else "there is none")


def keys(model: type[BaseModel]) -> list[str]:
    """The keys a user may write."""
    return [info.alias or name for name, info in model.model_fields.items()]


def variants(annotation: Any) -> Iterator[Any]:
    """The plain types of an annotation: members of unions, without Annotated and Optional."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from variants(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from variants(member)
    else:
        yield annotation


def at(annotation: Any, where: Where) -> list[Any]:
    """The types that can stand at a place below a type; places without a type are passed over."""
    found = list(variants(annotation))
    for part in where:
        below = [item for one in found for item in _step(one, part)]
        found = below or found
    return found


def _step(one: Any, part: str | int) -> Iterator[Any]:
    if isinstance(one, type) and issubclass(one, BaseModel):
        yield from _fields(one).get(part, ())
        return
    origin, arguments = get_origin(one), get_args(one)
    if isinstance(origin, type) and arguments:
        if issubclass(origin, Mapping) and isinstance(part, str):
            yield from variants(arguments[1])
        elif issubclass(origin, Sequence | set | frozenset) and isinstance(part, int):
            yield from variants(arguments[0])


@cache
def _fields(model: type[BaseModel]) -> dict[str | int, list[Any]]:
    """The types of each field, under its name and its alias."""
    found: dict[str | int, list[Any]] = {}
    for name, info in model.model_fields.items():
        for key in {name, info.alias or name}:
            found.setdefault(key, []).extend(variants(info.annotation))
    return found


def is_secret(annotation: Any) -> bool:
    return annotation in (SecretStr, SecretBytes)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configuration classes an annotation mentions, outermost first."""
    for one in variants(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one
        else:
            for argument in get_args(one):
                yield from models_in(argument)


@cache
def docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each key of a class and of the classes it extends, as one line."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if cls is not BaseModel and issubclass(cls, BaseModel):
            found |= _docs(cls)
    return found


def _docs(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, SyntaxError, TypeError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = {}
    for field, text in pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if (
            isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = " ".join(text.value.value.split())
    return found


def summary(model: type) -> str:
    """The first paragraph of a class's own docstring; '' where it has none."""
    return " ".join(inspect.cleandoc(model.__dict__.get("__doc__") or "").split("\n\n")[0].split())
