"""What the installed packages declare to backhaul: connection types and simulators."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points


def declared(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of `backhaul.GROUP`, by name."""
    return _groups(tuple(sys.path)).get(f"backhaul.{group}", {})


@cache
def _groups(_path: tuple[str, ...]) -> dict[str, dict[str, EntryPoint]]:
    """Every package's metadata are read for them: once, as long as modules are looked for in the same folders."""
    every = entry_points()
    return {
        group: {point.name: point for point in every.select(group=group)}
        for group in every.groups
        if group.startswith("backhaul.")
    }
