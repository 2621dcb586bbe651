"""One file of syncs/, checked against the project it stands in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from backhaul.config.connections import Connections
from backhaul.config.documents import Document, Where, read_text
from backhaul.config.explain import explain
from backhaul.config.model import ModelConfig
from backhaul.config.shape import choices
from backhaul.config.sql import Fault, check_expression, check_model
from backhaul.config.sync import SyncConfig, SyncFile
from backhaul.errors import Problem, UsageError

Found = tuple[Where, Problem]


def read_sync(
    root: Path,
    document: Document,
    data: dict[str, Any],
    defaults: dict[str, Any],
    connections: Connections | None,
) -> tuple[SyncConfig | None, list[Found]]:
    """The sync, as far as it can be read, and everything that is wrong with it.

    `connections` is None where backhaul.yml could not be read: then names are not looked up.
    """
    try:
        file = SyncFile.model_validate(merged(defaults, data))
    except ValidationError as error:
        problems = list(explain(error, document, (), SyncFile))
        return None, problems + list(_references(document, data, connections))
    problems = [*_references(document, data, connections), *_model(root, document, file.model, connections)]
    problems += _expressions(document, file)
    return _sync(document, file, connections), problems


def merged(defaults: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The project's defaults under a sync's own keys."""
    result = dict(defaults)
    for key, value in data.items():
        below = result.get(key)
        result[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _sync(document: Document, file: SyncFile, connections: Connections | None) -> SyncConfig:
    model = file.model
    if model.warehouse is None and connections is not None and len(connections.type_names["warehouses"]) == 1:
        model = model.model_copy(update={"warehouse": next(iter(connections.type_names["warehouses"]))})
    lines = {
        ".".join(map(str, where)): (spot.line, spot.column)
        for where, spot in (document.values | document.keys).items()
        if where
    }
    kept = {name: getattr(file, name) for name in SyncFile.model_fields}
    kept |= {
        "model": model,
        "fields": {name: it for name, it in file.fields.items() if name not in file.identify},
    }
    return SyncConfig(**kept, file=document.file, lines=lines)


def order_problems(syncs: Mapping[str, SyncConfig]) -> Iterator[Problem]:
    """What is wrong with `depends_on`: a sync that is not there, and syncs that wait for each other."""
    for sync in syncs.values():
        for name in sync.depends_on:
            if name not in syncs:
                yield sync.problem(
                    "depends_on", f"there is no sync `{name}` to depend on", choices(name, syncs)
                )
        circle = _circle(syncs, sync.name)
        if circle and sync.name == min(circle):
            message = f"syncs depend on each other: {' -> '.join([*circle, sync.name])}"
            yield sync.problem("depends_on", message, "remove one of them")


def _circle(syncs: Mapping[str, SyncConfig], start: str) -> list[str]:
    """The way by which a sync depends on itself; empty where it does not."""
    ways, seen = [[start]], set[str]()
    while ways:
        way = ways.pop()
        for name in syncs[way[-1]].depends_on:
            if name == start:
                return way
            if name in syncs and name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def _references(document: Document, data: dict[str, Any], connections: Connections | None) -> Iterator[Found]:
    if connections is None:
        return
    model = data.get("model")
    warehouse = model.get("warehouse") if isinstance(model, dict) else None
    destinations, warehouses = connections.type_names["destinations"], connections.type_names["warehouses"]
    for where, name, known in (
        (("destination",), data.get("destination"), destinations),
        (("model", "warehouse"), warehouse, warehouses),
    ):
        if isinstance(name, str) and name not in known:
            message = f"there is no {where[-1]} `{name[:64]}` in backhaul.yml"
            yield where, document.problem(where, message, choices(name[:64], known))
    if isinstance(model, dict) and warehouse is None and len(warehouses) != 1:
        hint = f"one of {', '.join(sorted(warehouses))}" if warehouses else "add one under `warehouses`"
        yield ("model",), document.problem(("model",), "the model names no `warehouse`", hint)


def _model(
    root: Path, document: Document, model: ModelConfig, connections: Connections | None
) -> Iterator[Found]:
    warehouse = (
        connections.type_names["warehouses"].get(model.warehouse or "", "files") if connections else "files"
    )
    if model.columns and warehouse != "files":
        where = ("model", "columns")
        message = f"`columns` declares the types of CSV columns, and {model.warehouse} is {warehouse}"
        yield where, document.problem(where, message, "cast in the model's SQL")
    dialects = connections.dialects if connections else {}
    dialect = dialects.get(model.warehouse or "") or next(iter(dialects.values()), "duckdb")
    for source in ("dbt", "audience"):
        if getattr(model, source) is not None:
            where = ("model", source)
            message = f"this release does not read `{source}` models yet"
            yield where, document.problem(where, message, "use sql, table or file")
    if model.sql is not None:
        fault = check_model(model.sql, dialect)
        if fault:
            yield _at(document, ("model", "sql"), fault)
    if model.file is not None:
        yield from _sql_file(root, document, model.file, dialect)


def _sql_file(root: Path, document: Document, name: str, dialect: str) -> Iterator[Found]:
    where = ("model", "file")
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        yield where, document.problem(where, "`model.file` leaves the project")
        return
    if not path.is_file():
        yield where, document.problem(where, f"there is no file {name}", "relative to backhaul.yml")
        return
    file = path.resolve().relative_to(root.resolve()).as_posix()
    try:
        fault = check_model(read_text(path, file), dialect)
    except UsageError as error:
        yield from ((where, problem) for problem in error.problems)
        return
    if fault:
        yield where, Problem(fault.message, file, fault.line, fault.column)


def _expressions(document: Document, file: SyncFile) -> Iterator[Found]:
    for name, text in file.identify.items():
        fault = check_expression(text)
        if fault:
            yield _at(document, ("identify", name), fault)
    for name, mapping in file.fields.items():
        fault = check_expression(mapping.value)
        if fault:
            yield _at(document, ("fields", name, "value"), fault)


def _at(document: Document, where: Where, fault: Fault) -> Found:
    line, column = document.within(where, fault.line, fault.column)
    shown = ".".join(str(part) for part in document.resolve(where))
    return where, Problem(f"`{shown}`: {fault.message}", document.file, line, column)
