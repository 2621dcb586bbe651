"""Reverse ETL that loses nothing: delivers what changed in your warehouse, and can say what became of every record."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from backhaul.errors import BackhaulError, RunError, UsageError
    from backhaul.project import FinishedRun, Plan, Project, load

_HOMES = {
    "BackhaulError": "backhaul.errors", "RunError": "backhaul.errors", "UsageError": "backhaul.errors",
    "FinishedRun": "backhaul.project", "Plan": "backhaul.project", "Project": "backhaul.project", "load": "backhaul.project",
}  # fmt: skip

__all__ = ["BackhaulError", "FinishedRun", "Plan", "Project", "RunError", "UsageError", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that the command line starts fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'backhaul' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(_HOMES[name]), name)
    return found
