"""One project as the commands see it: its files, its state folder, and its connections by name."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul.config import Project, SyncConfig
from backhaul.config.redact import redact
from backhaul.errors import UsageError
from backhaul.ledger.ledger import Ledger
from backhaul.state.store import State

if TYPE_CHECKING:
    import duckdb

    from backhaul.destinations.kit import Destination
    from backhaul.warehouses.protocol import Warehouse

_SPILL = "spill-"
_REVIEW_KEPT = timedelta(days=30)
_ORPHAN_AGE = 3600.0
"""Seconds. What is younger may be another process's that is about to record or mark it."""


@dataclass
class Workspace:
    """Opens what a project names. Close it when done."""

    project: Project

    @property
    def folder(self) -> Path:
        return self.project.state_path

    @cached_property
    def state(self) -> State:
        return State(self.folder, lambda text: redact(text, self.project.secrets))

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    def ledger(self, sync: SyncConfig) -> Ledger:
        return Ledger(self.folder / "ledgers" / f"{sync.name}.duckdb", values=sync.ledger.values)

    def plan_path(self, plan_id: str) -> Path:
        return self.folder / "plans" / f"{plan_id}.parquet"

    @contextmanager
    def engine(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A fresh engine; what it spills goes when it does, or with the next `tidy` where the process was killed."""
        from backhaul.engine import open_engine

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=_SPILL, dir=self.folder) as spill, owned(Path(spill)):
            engine = open_engine(self.project.memory_limit, Path(spill))
            try:
                yield engine
            finally:
                engine.close()

    def tidy(self) -> None:
        """Removes what killed processes left: spilled files, plan files nobody recorded, and reviews nobody wants any more."""
        for spill in self.folder.glob(f"{_SPILL}*"):
            with suppress(OSError):
                if _age(spill) > _ORPHAN_AGE:
                    with owned(spill):
                        shutil.rmtree(spill)
        before = (datetime.now(UTC) - _REVIEW_KEPT).isoformat()
        for row in self.state.do("old_plans", {"before": before}):
            self.state.drop_plan(row["id"], self.plan_path(row["id"]))
        for file in (self.folder / "plans").glob("p-*"):
            with suppress(OSError):
                if _age(file) > _ORPHAN_AGE and not self.state.do("plan", {"id": file.stem}):
                    file.unlink()

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
        found: type[Destination[Any]] = plugin("backhaul.destinations", self.project.destination_type(name))
        return found

    def undelivering(self, name: str) -> Destination[Any]:
        """A destination that is never opened: only what it declares may be asked for."""
        return self.destination_class(name)(self.destination_config(name), _NoDoor())

    def close(self) -> None:
        if "state" in self.__dict__:
            self.state.close()


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Marks a folder as a living process's; the mark goes with the process.

    Raises:
        BlockingIOError: it is another living process's.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


class _NoDoor:
    """A door that leads nowhere."""

    async def request(self, *_: Any, **__: Any) -> Any:
        raise UsageError("this destination was not opened")


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
