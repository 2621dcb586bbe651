"""The connections of backhaul.yml: each looked up by its type and read into that type's own class."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from backhaul.config.documents import Document, Where
from backhaul.config.explain import explain
from backhaul.config.inline import secrets_of
from backhaul.config.interpolate import Interpolated
from backhaul.config.parts import NAME
from backhaul.config.plugins import Connector, Kind, Missing, Plugins
from backhaul.config.shape import choices
from backhaul.errors import Problem

KINDS: tuple[Kind, ...] = get_args(Kind)


def _by_kind() -> dict[Kind, dict[str, Any]]:
    return {kind: {} for kind in KINDS}


@dataclass(slots=True)
class Connections:
    """The connections that could be read, and what is wrong with the others."""

    configs: dict[Kind, dict[str, Any]] = field(default_factory=_by_kind)
    type_names: dict[Kind, dict[str, str]] = field(default_factory=_by_kind)
    """The `type` of each; every name that stands in the file is here, '' where its type is not known."""
    types: dict[Where, type[BaseModel]] = field(default_factory=dict)
    dialects: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    problems: list[tuple[Where, Problem]] = field(default_factory=list)


def read_connections(document: Document, found: Interpolated, plugins: Plugins) -> Connections:
    """Reads `warehouses` and `destinations`; problems are listed, never raised."""
    result = Connections()
    for kind in KINDS:
        section = found.data.get(kind)
        if isinstance(section, dict):
            for name, given in section.items():
                _read(result, document, found, plugins, kind, name, given)
        elif section is not None:
            result.problems.append(((kind,), document.problem((kind,), f"`{kind}` is a mapping of names")))
    return result


def _read(
    result: Connections,
    document: Document,
    found: Interpolated,
    plugins: Plugins,
    kind: Kind,
    name: str,
    given: Any,
) -> None:
    where: Where = (kind, name)
    result.type_names[kind][name] = ""

    def refuse(place: Where, message: str, hint: str | None = None) -> None:
        result.problems.append((place, document.problem(place, message, hint)))

    if not re.fullmatch(NAME, name):
        refuse(where, f"{name[:40]!r} is not a name: 1 to 64 letters, digits, `_`, `.` or `-`")
    if not isinstance(given, dict):
        return refuse(where, f"`{kind}.{name[:64]}` is a mapping with a `type`")
    typed = given.get("type")
    known = plugins.names(kind)
    if typed is None:
        return refuse(where, f"`{kind}.{name[:64]}` has no `type`", f"one of {', '.join(known)}")
    if typed not in known:
        hint = f"{choices(str(typed)[:64], known)} there is {', '.join(known)}" if known else None
        return refuse((*where, "type"), f"unknown {kind[:-1]} type `{str(typed)[:64]}`", hint)
    try:
        connector = plugins.find(kind, typed)
    except Missing as error:
        return refuse((*where, "type"), str(error), error.hint)
    result.type_names[kind][name] = typed
    result.types[where] = connector.config
    if kind == "warehouses":
        result.dialects[name] = connector.dialect
    return _validate(result, document, found, where, connector, given)


def _validate(
    result: Connections,
    document: Document,
    found: Interpolated,
    where: Where,
    connector: Connector,
    given: dict[str, Any],
) -> None:
    data = {key: value for key, value in given.items() if key != "type"}
    try:
        config = connector.config.model_validate(data)
    except ValidationError as error:
        result.problems.extend(explain(error, document, where, connector.config))
        return
    kind, name = where
    result.configs["warehouses" if kind == "warehouses" else "destinations"][str(name)] = config
    result.secrets |= secrets_of(found, where, config)
