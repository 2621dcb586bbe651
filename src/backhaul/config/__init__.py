"""What the user wrote: YAML into frozen objects with line numbers; secrets; JSON Schema and reference."""

from backhaul.config.load import find_root, load
from backhaul.config.model import ModelConfig
from backhaul.config.parts import FieldMapping, Freshness, Guards, LedgerOptions
from backhaul.config.project import Project
from backhaul.config.redact import redact
from backhaul.config.reference import reference
from backhaul.config.schema import schema
from backhaul.config.sync import SyncConfig

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
