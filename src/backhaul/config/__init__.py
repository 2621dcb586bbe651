"""What the user wrote: YAML into frozen objects with line numbers; secrets; JSON Schema and reference."""

from __future__ import annotations

from typing import Any

from backhaul.config.load import find_root, load
from backhaul.config.model import ModelConfig
from backhaul.config.parts import FieldMapping, Freshness, Guards, LedgerOptions
from backhaul.config.plugins import Plugins
from backhaul.config.project import Project
from backhaul.config.sync import SyncConfig
from backhaul.redaction import redact

__all__ = [
    "FieldMapping",
    "Freshness",
    "Guards",
    "LedgerOptions",
    "ModelConfig",
    "Project",
    "SyncConfig",
    "find_root",
    "load",
    "redact",
    "reference",
    "schema",
]


def schema(plugins: Plugins | None = None) -> dict[str, Any]:
    """JSON Schemas for editors, `{"backhaul": …, "sync": …}`, with every installed connection type."""
    from backhaul.config.json_schema import schema as build

    return build(plugins)


def reference(plugins: Plugins | None = None) -> str:
    """The configuration reference in Markdown: every key of every file with its type, default and meaning."""
    from backhaul.config.markdown import reference as write

    return write(plugins)
