"""One project as the commands see it: its files, its state folder, and its connections by name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul.config import Project, SyncConfig
from backhaul.delivery.transport import Internet, Transport
from backhaul.errors import UsageError
from backhaul.ledger.ledger import Ledger
from backhaul.ledger.plan import Plan
from backhaul.ledger.shared import SharedLedger
from backhaul.locks import owned
from backhaul.redaction import redact
from backhaul.state.clock import Machine
from backhaul.state.files import ledger_file, plan_file, preparing
from backhaul.state.journal import Journal
from backhaul.state.keeping import Keeping
from backhaul.state.opening import open_state
from backhaul.state.protocol import Buckets, Lease, Row, SharedState, State
from backhaul.state.scopes import Scope, Scopes
from backhaul.surroundings import REAL, Surroundings

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
    surroundings: Surroundings = REAL
    transport: Callable[[float], Transport] = Internet
    """How requests leave, by their timeout in seconds."""
    _begun_anew: set[str] = field(default_factory=set)
    _settled: dict[str, Scope] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.project.state_path

    @cached_property
    def state(self) -> State:
        """The state where backhaul.yml says.

        Raises:
            StateError: it cannot be opened.
        """

        address = self.project.state if "://" in self.project.state else self.folder
        state = open_state(address, self.mask, self.surroundings.now, length=self.project.lease)
        state.machine = self.machine
        state.keeps_history = self.project.history.keep > 0
        state.keeping = Keeping(self.project.dead_letters.secrets())
        return state

    def mask(self, text: str) -> str:
        """The text without the project's secrets, and without those that were given at run time."""
        return redact(text, self.project.secrets)

    def lease(self, sync: SyncConfig) -> AbstractContextManager[Lease]:
        """Holds a sync for this process. Raises: RunError where another one runs it."""
        timeout = float(self.destination_config(sync.destination).timeout)
        return self.state.lease(self.scopes.sync_id(sync.name), timeout=timeout, name=sync.name)

    def is_leased(self, sync: SyncConfig) -> bool:
        """Whether some process is running this sync now."""
        known = self.scopes.known_id(sync.name)
        return known is not None and self.state.is_leased(known)

    @property
    def scopes(self) -> Scopes:
        """What the state knows of the project's syncs, and of the accounts that they deliver to."""
        return Scopes(self.state, self.project.name)

    def scope(self, sync: SyncConfig) -> Scope:
        """What a sync's ledger belongs to: as the destination stated it to this process, else as it did last."""
        settled = self._settled.get(sync.name)
        return settled or self.scopes.remembered(sync, self.address(sync.destination))

    def settle_scope(self, sync: SyncConfig, scope: Scope) -> None:
        """From now on, in this process, the sync's ledger is that of this scope."""
        self._settled[sync.name] = scope

    def address(self, destination: str) -> str:
        """Where a connection leads, without secrets and relative to the project: the same wherever that is moved to."""
        return self.undelivering(destination).address.removeprefix(f"{self.project.root}/")

    @property
    def is_begun(self) -> bool:
        """Whether there may be a state already."""
        return "://" in self.project.state or self.folder.exists()

    def journal(self, plan: Plan) -> Journal:
        """The journal of one plan's delivery."""
        return Journal(self.state, plan.scope, plan.id, plan.fingerprint)

    @property
    def machine(self) -> Machine | None:
        """Whose clocks an embedded state has; None: this machine's."""
        around = self.surroundings
        return None if around is REAL else Machine("given", around.clock, around.wall)

    def buckets(self) -> Buckets:
        """What is spent of the limits of every credential; the caller closes it."""
        return self.state.buckets(self.machine)

    def ledger(self, sync: SyncConfig) -> Ledger:
        """A sync's ledger: where the state is a folder, a file in it; else this worker's copy of what is in the state."""
        return self.ledger_of(self.scope(sync), values=sync.ledger.values)

    def ledger_of(self, scope: Scope, *, values: bool = True) -> Ledger:
        """The ledger of a scope."""
        file, state = f"{scope.id}.duckdb", self.state
        if isinstance(state, SharedState):
            path = self.folder / "copies" / file
            return SharedLedger(path, state, scope.id, name=scope.name, values=values)
        witness = None if scope.id in self._begun_anew else state
        path = ledger_file(self.folder, scope.id)
        return Ledger(path, name=scope.name, values=values, witness=witness, clock=state.clock)

    def has_ledger(self, scope: Scope) -> bool:
        """Whether anything was ever acknowledged to a scope."""
        state = self.state
        return bool(
            state.folds(scope.id)
            if isinstance(state, SharedState)
            else state.do("ledger", {"scope": scope.id})
        )

    def begin_anew(self, scope: Scope) -> None:
        """From now on, in this process, a ledger that was lost is one that never was."""
        if self.ledger_of(scope).is_lost:
            self._begun_anew.add(scope.id)

    def plan_path(self, plan_id: str) -> Path:
        """Raises: StateError: it is no id of a plan."""
        return plan_file(self.folder, plan_id)

    @contextmanager
    def engine(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A fresh engine; what it spills goes when it does, or with the next `tidy` where the process was killed.

        Raises:
            StateError: the state folder cannot be written to.
        """
        from backhaul.engine import open_engine

        with ExitStack() as stack:
            with preparing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                spill = self._spill(stack)
            engine = open_engine(self.project.memory_limit, spill)
            try:
                yield engine
            finally:
                engine.close()

    def _spill(self, stack: ExitStack) -> Path:
        """A folder that is ours; one that `clear` took for a dead process's before it was marked is made again."""
        while True:
            spill = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_SPILL, dir=self.folder)))
            with suppress(FileNotFoundError, BlockingIOError):
                stack.enter_context(owned(spill))
                if spill.exists():
                    return spill

    def tidy(self) -> None:
        """Removes what killed processes left: spilled files, plan files nobody recorded, and reviews nobody wants any more."""
        for spill in self.folder.glob(f"{_SPILL}*"):
            with suppress(OSError), owned(spill):
                shutil.rmtree(spill)  # its owner is dead, or has not marked it yet and makes another one
        before = (self.surroundings.moment() - _REVIEW_KEPT).isoformat()
        for row in self.state.do("old_plans", {"project": self.project.name, "before": before}):
            self.state.drop_plan(row["id"], self.plan_path(row["id"]))
        kept = self._tidy_history()
        for file in self._unrecorded(self._plan_files(), kept):
            with suppress(OSError):
                if self.surroundings.age(file) > _ORPHAN_AGE:
                    file.unlink()

    def _plan_files(self) -> list[Path]:
        return list((self.folder / "plans").glob("p-*"))

    def _unrecorded(self, files: list[Path], kept: set[str]) -> list[Path]:
        """Those plan files that are of neither these plans of the history nor any in the state."""
        return [
            file for file in files if file.stem not in kept and not self.state.do("plan", {"id": file.stem})
        ]

    def clear(self) -> bool:
        """Removes at once what killed processes left; an engine of this process is open. False where plan files stay that no
        one recorded, because another process lives that may be about to."""
        files = self._plan_files()  # first: who made one of them lives still, or has recorded it by then
        living = 0
        for spill in self.folder.glob(f"{_SPILL}*"):
            try:
                with owned(spill):
                    shutil.rmtree(spill)
            except BlockingIOError:
                living += 1
            except FileNotFoundError:
                pass
        files = self._unrecorded(files, {row["plan"] for row in self._history()})
        if files and living > 1:
            return False
        for file in files:
            file.unlink(missing_ok=True)
        return True

    def _history(self) -> Sequence[Row]:
        return self.state.do("history", {"project": self.project.name})

    def _tidy_history(self) -> set[str]:
        """Forgets delivered plans that are too old, and the oldest of what is too much. Gives those that stay."""
        wanted = self.project.history
        before = (self.surroundings.moment() - timedelta(seconds=wanted.keep)).isoformat()
        room, kept = int(wanted.size), set[str]()
        for row in reversed(self._history()):
            path = self.plan_path(row["plan"])
            room -= path.stat().st_size if path.exists() else 0
            if room < 0 or row["settled_at"] < before:
                self.state.drop_plan(row["plan"], path)
            else:
                kept.add(row["plan"])
        return kept

    @contextmanager
    def warehouse(self, sync: SyncConfig) -> Iterator[Warehouse]:
        name = str(sync.model.warehouse)
        warehouse = plugin("warehouses", self.project.warehouse_type(name))(
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
        found: type[Destination[Any]] = plugin("destinations", self.project.destination_type(name))
        return found

    def undelivering(self, name: str) -> Destination[Any]:
        """A destination that is never opened: only what it declares may be asked for."""
        return self.destination_class(name)(self.destination_config(name), _NoDoor())

    def close(self) -> None:
        if "state" in self.__dict__:
            self.state.close()


class _NoDoor:
    """A door that leads nowhere."""

    async def request(self, *_: Any, **__: Any) -> Any:
        raise UsageError("this destination was not opened")

    login = sign_in = refresh = request


@cache
def plugin(group: str, name: str) -> Any:
    """The class that an installed package offers under this name; asked of the disk once a process.

    Raises:
        UsageError: there is none, or its driver is not installed.
    """
    from backhaul.installed import declared

    if entry := declared(group).get(name):
        try:
            return entry.load()
        except ImportError as error:
            raise UsageError(f"{name} needs {error.name}", hint=f"pip install 'backhaul[{name}]'") from None
    raise UsageError(f"there is no {name} among the installed {group}")
