"""JSON Schema (draft 2020-12) of the project's files, for editors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from backhaul.config.connections import KINDS
from backhaul.config.parts import NAME
from backhaul.config.plugins import EntryPoints, Kind, Missing, Plugins
from backhaul.config.project import BackhaulFile
from backhaul.config.shape import docs
from backhaul.config.sync import SyncFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"\$\{.+\}"}


class _Described(GenerateJsonSchema):
    """Adds the docstring under each key as its description."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        described = super().model_schema(schema)
        for name, text in docs(schema["cls"]).items():
            if name in described.get("properties", {}):
                described["properties"][name]["description"] = text
        return described


def schema(plugins: Plugins | None = None) -> dict[str, Any]:
    """`{"backhaul": …, "sync": …}`: two documents, with the keys of every installed connection type."""
    return {
        "backhaul": _backhaul(plugins or EntryPoints()),
        "sync": _document(SyncFile, "A sync of backhaul"),
    }


def installed(plugins: Plugins, kind: Kind) -> Iterator[tuple[str, type[BaseModel]]]:
    """The connection types that can be imported here, with the class of their keys."""
    for name in plugins.names(kind):
        try:
            yield name, plugins.find(kind, name).config
        except Missing:
            continue


def _document(model: type[BaseModel], title: str) -> dict[str, Any]:
    refs, definitions = models_json_schema([(model, "validation")], schema_generator=_Described)
    body = {"$ref": refs[model, "validation"]["$ref"], **definitions}
    return {"$schema": DIALECT, "title": title, **_referable(body)}


def _backhaul(plugins: Plugins) -> dict[str, Any]:
    types = {kind: list(installed(plugins, kind)) for kind in KINDS}
    models: set[type[BaseModel]] = {BackhaulFile}
    models |= {config for pairs in types.values() for _, config in pairs}
    ordered = sorted(models, key=lambda one: (one.__module__, one.__name__))
    refs, body = models_json_schema([(model, "validation") for model in ordered], schema_generator=_Described)
    definitions = body["$defs"]
    top = refs[BackhaulFile, "validation"]
    properties = _found(definitions, top)["properties"]
    for kind, pairs in types.items():
        options = [_typed(name, _found(definitions, refs[config, "validation"])) for name, config in pairs]
        entry = {"anyOf": options} if options else {"type": "object"}
        properties[kind] |= {"patternProperties": {f"^{NAME}$": entry}, "additionalProperties": False}
        properties[kind].pop("propertyNames", None)
    return {"$schema": DIALECT, "title": "backhaul.yml", **top, **_referable(body)}


def _found(definitions: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definitions[reference["$ref"].rpartition("/")[2]]
    return found


def _typed(name: str, config: dict[str, Any]) -> dict[str, Any]:
    properties = {"type": {"const": name}, **config.get("properties", {})}
    return {**config, "properties": properties, "required": ["type", *config.get("required", [])]}


def _referable(node: Any) -> Any:
    """A number, a boolean or a choice may also be written as a reference."""
    if isinstance(node, list):
        return [_referable(item) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {key: _referable(value) for key, value in node.items()}
    if inner.get("type") in ("integer", "number", "boolean") or "enum" in inner:
        kept = {key: inner.pop(key) for key in ("description", "default", "title") if key in inner}
        return {**kept, "anyOf": [inner, _REFERENCE]}
    return inner
