"""The configuration reference, in Markdown, generated from the classes that read the files."""

from __future__ import annotations

import types
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from backhaul.config.json_schema import installed
from backhaul.config.plugins import EntryPoints, Kind, Plugins
from backhaul.config.project import BackhaulFile
from backhaul.config.shape import docs, is_secret, models_in, summary
from backhaul.config.sync import SyncFile
from backhaul.values import Size

_INTRODUCTION = """# Configuration

<!-- Generated from the classes in src/backhaul/config. -->

Texts take `${NAME}`, `${NAME:-default}` and `${file:/path}`; `$${` is a literal `${`. A `.env` beside
backhaul.yml is read; the real environment wins. A missing or empty variable is an error, and so is
a key that is not listed here.
"""
_PLAIN = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    type(None): "null",
    Any: "any value",
}
_TITLES: tuple[tuple[Kind, str], ...] = (("warehouses", "Warehouse"), ("destinations", "Destination"))


def reference(plugins: Plugins | None = None) -> str:
    """Every key of every file with its type, default and meaning."""
    plugins = plugins or EntryPoints()
    parts = [_INTRODUCTION, *_sections("backhaul.yml", BackhaulFile)]
    for kind, title in _TITLES:
        for name, config in installed(plugins, kind):
            parts += _sections(f"{title} type `{name}`", config)
    parts += _sections("syncs/*.yml", SyncFile)
    return "\n".join(parts).rstrip() + "\n"


def _sections(title: str, model: type[BaseModel]) -> Iterator[str]:
    """A table of the class, then one of each class below it."""
    yield f"## {title}\n\n{summary(model)}\n\n{_table(model)}\n"
    for path, below in _below(model, "", (model,)):
        yield f"### {title}: `{path}`\n\n{summary(below)}\n\n{_table(below)}\n"


def _below(
    model: type[BaseModel], prefix: str, seen: tuple[type[BaseModel], ...]
) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, info in model.model_fields.items():
        path = prefix + (info.alias or name) + (".NAME" if _is_mapping(info.annotation) else "")
        for below in models_in(info.annotation):
            if below not in seen:
                yield path, below
                yield from _below(below, path + ".", (*seen, below))


def _is_mapping(annotation: Any) -> bool:
    return annotation is not None and any(
        get_origin(one) is dict for one in (annotation, *get_args(annotation))
    )


def _table(model: type[BaseModel]) -> str:
    rows = ["| key | type | default | |", "| --- | --- | --- | --- |"]
    texts = docs(model)
    for name, info in model.model_fields.items():
        cells = (f"`{info.alias or name}`", _type(info.annotation), _default(info), texts.get(name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, BaseModel) or value in ({}, (), [], ""):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Size):
        return f"`{value / 1024**3:g} GiB`" if value >= 1024**3 else f"`{value:,} bytes`"
    if is_secret(type(value)):
        return "set"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _type(annotation: Any) -> str:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in arguments if one is not type(None)))
    if origin is Literal:
        return ", ".join("`off`" if one is False else f"`{one}`" for one in arguments)
    if origin is not None and isinstance(origin, type):
        return _collection(origin, arguments)
    return _named(annotation)


def _collection(origin: type, arguments: tuple[Any, ...]) -> str:
    if issubclass(origin, dict):
        return f"mapping of {_type(arguments[1])}"
    return f"list of {_type(arguments[0])}"


def _named(annotation: Any) -> str:
    if is_secret(annotation):
        return "secret, by reference"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return getattr(annotation, "__name__", str(annotation)).lower()
