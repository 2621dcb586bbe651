"""One project as the commands see it: its files, its state folder, and its connections by name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul.config import Project, SyncConfig
from backhaul.errors import UsageError
from backhaul.ledger.ledger import Ledger
from backhaul.state.store import State

if TYPE_CHECKING:
    import duckdb

    from backhaul.destinations.kit import Destination
    from backhaul.warehouses.protocol import Warehouse


@dataclass
class Workspace:
    """Opens what a project names. Close it when done."""

    project: Project

    @property
    def folder(self) -> Path:
        return self.project.state_path

    @cached_property
    def state(self) -> State:
        return State(self.folder)

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    def ledger(self, sync: SyncConfig) -> Ledger:
        return Ledger(self.folder / "ledgers" / f"{sync.name}.duckdb", values=sync.ledger.values)

    def plan_path(self, plan_id: str) -> Path:
        return self.folder / "plans" / f"{plan_id}.parquet"

    @contextmanager
    def engine(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A fresh engine; what it spills goes when it does."""
        from backhaul.engine import open_engine

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix="spill-", dir=self.folder) as spill:
            engine = open_engine(self.project.memory_limit, Path(spill))
            try:
                yield engine
            finally:
                engine.close()

    @contextmanager
    def warehouse(self, sync: SyncConfig) -> Iterator[Warehouse]:
        name = str(sync.model.warehouse)
        warehouse = plugin("backhaul.warehouses", self.project.warehouse_type(name))(
            self.project.warehouses[name], self.project.root
        )
        try:
            yield warehouse
        finally:
            warehouse.close()

    def destination_config(self, name: str) -> Any:
        """A destination's configuration; its paths are relative to the project."""
        config = self.project.destinations[name]
        paths = {key: self.project.root / value for key, value in config if isinstance(value, Path)}
        return config.model_copy(update=paths)

    def destination_class(self, name: str) -> type[Destination[Any]]:
        return plugin("backhaul.destinations", self.project.destination_type(name))

    def close(self) -> None:
        if "state" in self.__dict__:
            self.state.close()


def plugin(group: str, name: str) -> Any:
    """The class that an installed package offers under this name.

    Raises:
        UsageError: there is none, or its driver is not installed.
    """
    from importlib.metadata import entry_points

    for entry in entry_points(group=group, name=name):
        try:
            return entry.load()
        except ImportError as error:
            raise UsageError(f"{name} needs {error.name}", hint=f"pip install 'backhaul[{name}]'") from None
    raise UsageError(f"there is no {name} among the installed {group.split('.')[-1]}")
