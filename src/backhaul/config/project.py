"""What backhaul.yml says, frozen, with the project's syncs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from backhaul.config.parts import Name, Section
from backhaul.config.shape import choices
from backhaul.config.sync import SyncConfig, SyncDefaults
from backhaul.errors import UsageError
from backhaul.values import Size

VERSION = 1
"""The newest `version` of backhaul.yml that this release reads."""


def _sane(value: Size) -> Size:
    if not 16 * 1024**2 <= value <= 1024**5:
        raise ValueError("expected a size between 16 MiB and 1 PiB, such as 1 GiB")
    return value


Memory = Annotated[
    Size,
    AfterValidator(_sane),
    WithJsonSchema({"type": ["string", "integer"], "description": "Bytes, or 1 GiB."}),
]
State = Annotated[str, Field(min_length=1, max_length=1000)]


class BackhaulFile(Section):
    """The keys of backhaul.yml."""

    version: Annotated[int, Field(ge=1, le=VERSION)] = VERSION
    """The version of this file's format."""
    project: Name
    """The name of the project."""
    state: State = ".backhaul"
    """A folder, relative to this file, or postgresql://user:${PASSWORD}@host/db."""
    warehouses: dict[Name, dict[str, Any]] = Field(default={})
    """Named connections that models are read from. Each has a `type` and the keys of that type."""
    destinations: dict[Name, dict[str, Any]] = Field(default={})
    """Named connections that records are delivered to. Each has a `type` and the keys of that type."""
    memory_limit: Memory = Size(1024**3)
    """Memory of the embedded engine; beyond it, it works on disk."""
    defaults: SyncDefaults = SyncDefaults()
    """What every sync takes unless its own file says otherwise."""
    alerts: dict[str, Any] = Field(default={})
    """Where failures are reported."""


class Project(BaseModel):
    """A project that has been read and found free of problems. Its repr and dump hold no connection."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    root: Path
    name: str
    state: str = Field(repr=False, exclude=True)
    warehouses: dict[str, Any] = Field(repr=False, exclude=True)
    """The configuration of each warehouse, an object of its type's own class."""
    destinations: dict[str, Any] = Field(repr=False, exclude=True)
    """The configuration of each destination, an object of its type's own class."""
    syncs: dict[str, SyncConfig]
    memory_limit: Size = Size(1024**3)
    defaults: SyncDefaults = SyncDefaults()
    alerts: dict[str, Any] = Field(default={}, repr=False, exclude=True)
    secrets: frozenset[str] = Field(default=frozenset(), repr=False, exclude=True)
    """What must never be shown: values that came from outside into secret keys and DSNs."""
    warehouse_types: dict[str, str] = Field(default={}, repr=False)
    destination_types: dict[str, str] = Field(default={}, repr=False)

    @property
    def state_path(self) -> Path:
        """The state's folder.

        Raises:
            UsageError: the state is a database.
        """
        if "://" in self.state:
            raise UsageError(f"the state of {self.name} is a database, and this release keeps it in a folder")
        return self.root / self.state

    def warehouse_type(self, name: str) -> str:
        """The `type` of a warehouse."""
        return self.warehouse_types[name]

    def destination_type(self, name: str) -> str:
        """The `type` of a destination."""
        return self.destination_types[name]

    def select(self, names: Sequence[str] = ()) -> list[SyncConfig]:
        """The syncs that any of these names or globs mean, sorted by name; no name means all.

        Raises:
            UsageError: a name or a glob means no sync.
        """
        chosen = {name for pattern in names for name in self._matching(pattern)} if names else set(self.syncs)
        return [self.syncs[name] for name in sorted(chosen)]

    def _matching(self, pattern: str) -> Iterable[str]:
        found = [name for name in self.syncs if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            raise UsageError(
                f"there is no sync {pattern!r} in {self.name}", hint=choices(pattern, self.syncs)
            )
        return found
