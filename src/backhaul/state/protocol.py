"""What every state offers, wherever it is kept: named statements, a durable writer, budgets, and one lease a sync.

A statement is known by its name alone (sql/queries.sql is the list with what each takes and gives), so that a
store without SQL can offer the same ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson

from backhaul.errors import StateError
from backhaul.state.clock import Machine
from backhaul.state.keeping import Keeping
from backhaul.surroundings import REAL

T = TypeVar("T")
Act = Callable[[dict[str, Any], float], T]


class Row(Protocol):
    """One row of an answer, by column name."""

    def __getitem__(self, name: str, /) -> Any: ...


class Writer(Protocol):
    """A connection of its own for one thread that stores a run's journal."""

    def write(self, groups: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Stores the rows of list statements, by statement, in one transaction, and forces it to the disk.

        Raises:
            StateError: nothing was stored, or nobody knows whether it was (a connection broke).
        """

    def close(self) -> None: ...


class Lease(Protocol):
    """The right to run one sync."""

    def check(self) -> None:
        """Called before bytes leave.

        Raises:
            StateError: the lease is not surely ours any more.
        """


class LeaseLost(StateError):
    """Another worker may run this sync by now; nothing more was sent."""


def before_scopes(what: str) -> StateError:
    """The error for a state of the time before ledgers knew whose account they are about."""
    return StateError(
        f"{what} was written by a backhaul before its first release, and does not say which account each ledger is about",
        hint="nothing was changed; move that state away, then `backhaul baseline SYNC` takes the records of a sync as delivered",
    )


class Buckets(Protocol):
    """Documents by bucket. Used by one task at a time, and by any number of processes."""

    async def salt(self) -> bytes:
        """A random key of this state, the same for every process that uses it."""

    async def exchange(self, bucket: str, act: Act[T]) -> T:
        """Gives `act` a bucket's document ({} where there is none) and the time by the state's clock, and stores what it
        has made of the document: as one step, whoever else does the same. `act` may be called again where that failed.

        Raises:
            StateError: it cannot be stored.
        """

    async def peek(self, bucket: str) -> tuple[dict[str, Any], float]:
        """The document and the time, changing nothing."""

    async def close(self) -> None: ...


class State(ABC):
    """The state of one or more projects. `mask` takes the secrets out of what a destination said, before it is stored; `now` is
    the time as it is stored."""

    def __init__(self, mask: Callable[[str], str] = str, now: Callable[[], str] = REAL.now) -> None:
        self.mask = mask
        self.now = now
        self.keeps_history = True
        self.machine: Machine | None = None
        """Whose clocks an embedded state has; None: this machine's."""
        self.keeping = Keeping()

    @abstractmethod
    def do(self, name: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> Sequence[Row]:
        """Runs one named statement and gives its rows.

        Raises:
            StateError: it could not be done; says what is wrong with the state.
        """

    def do_all(self, name: str, rows: Sequence[Sequence[Any]]) -> None:
        """Runs one of the statements that take a JSON list of rows."""
        if rows:
            self.do(name, (orjson.dumps(rows).decode(),))

    @abstractmethod
    def together(self) -> AbstractContextManager[None]:
        """One transaction around several `do`."""

    @abstractmethod
    def writer(self) -> Writer:
        """A new writer; whoever asked closes it."""

    @abstractmethod
    def buckets(self, machine: Machine | None = None) -> Buckets:
        """What is spent of the limits of every credential, over a connection of its own, which the caller closes."""

    @abstractmethod
    def clock(self) -> float:
        """Seconds since 1970, more or less, by the one clock of all that use this state: no change of a wall clock moves it, so
        that durations between processes are measured by it."""

    @abstractmethod
    def lease(self, sync: str, *, timeout: float = 60.0, name: str = "") -> AbstractContextManager[Lease]:
        """Holds a sync, by its id, for one run; `timeout` is the longest that one of its requests may take, in seconds, and
        `name` what errors call it.

        Raises:
            RunError: another process is running it.
        """

    @abstractmethod
    def is_leased(self, sync: str) -> bool:
        """Whether some process is running this sync now."""

    def keep_file(self, name: str, file: Path) -> None:  # noqa: B027 - a state of one disk has nothing to do
        """Makes a file available to workers on other disks."""

    def fetch_file(self, name: str, file: Path) -> bool:
        """Brings a kept file to where it should be, unless it is there; False where there is none."""
        return file.exists()

    def retire_plan(self, plan_id: str, file: Path) -> None:
        """Moves a folded plan into the history, where its outcomes and its file stay; forgets it where none is kept."""
        if not self.keeps_history:
            self.drop_plan(plan_id, file)
            return
        with self.together():
            self.do("keep_history", {"id": plan_id, "at": self.now()})
            self.do("drop_plan_intents", {"id": plan_id})
            self.do("drop_plan", {"id": plan_id})

    def drop_plan(self, plan_id: str, file: Path) -> None:
        """Forgets a plan, its journal and its file."""
        with self.together():
            for name in ("drop_plan_intents", "drop_plan_outcomes", "drop_plan", "drop_history"):
                self.do(name, {"id": plan_id})
        file.unlink(missing_ok=True)

    beyond: str
    """In words, what `scrub` does not reach."""

    @abstractmethod
    def scrub(self) -> None:
        """Writes anew what holds people's values, so that nothing of what was deleted is left in it.

        Raises:
            StateError: it cannot be done now, so that deleted bytes may be left.
        """

    @abstractmethod
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fold:
    """One step of a ledger that workers on many disks share: its file (named `file`) holds all rows (`base`) or those that
    changed. `body` is JSON of the ledger's own."""

    scope: str
    fold: int
    base: bool
    lineage: str
    rows: int
    body: str

    @property
    def file(self) -> str:
        return f"ledger/{self.scope}/{self.fold}"


class SharedState(State):
    """A state that workers on many disks share, and so the one that keeps their files and ledgers."""

    @abstractmethod
    def folds(self, scope: str) -> list[Fold]:
        """The newest base of a scope's ledger and what came after it, in order."""

    @abstractmethod
    def add_fold(self, fold: Fold, file: Path) -> None:
        """Stores a fold with its file, in one step; of a base, everything older goes.

        Raises:
            StateError: it is not ours to store, or another worker has stored a fold of this number.
        """
