"""The machine that backhaul runs on: its clocks, its state folder on tmpfs, its process, which may be killed anywhere."""

from __future__ import annotations

import contextlib
import contextvars
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from math import inf
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from backhaul.config.project import DeadLetters, Project
from backhaul.config.sync import SyncConfig
from backhaul.destinations.http import HttpApi, HttpConfig
from backhaul.destinations.kit import Batch, Destination
from backhaul.engine import open_engine
from backhaul.errors import StateError
from backhaul.ledger.plan import Plan
from backhaul.state.journal import Entry, Journal, Statement
from backhaul.state.keeping import Keeping
from backhaul.state.protocol import Lease, State
from backhaul.state.sqlite import SqliteState
from backhaul.state.sqlite_connection import storing
from backhaul.surroundings import Surroundings
from backhaul.types import Account, Outcomes
from backhaul.values import Retention
from backhaul.warehouses.protocol import Column, Warehouse, WarehouseConfig, narrowed
from backhaul.workspace import Workspace

from .scenario import Setup, Source
from .timing import Killed, Time

BATCH: contextvars.ContextVar[Any] = contextvars.ContextVar("batch")
SYNC = "s"


@dataclass
class House:
    """One machine. `step` is called wherever a process may be killed; `kinds` of steps are counted apart."""

    time: Time
    rng: random.Random
    root: Path
    engine: Any
    doomed: tuple[str, int] | None = None
    """Which step of which kind is the last one."""
    dead: bool = False
    full: bool = False
    """Nothing can be written to the disk."""
    on_kill: Callable[[], None] = lambda: None
    name: str = "first"
    woke: float = -inf
    """When it goes on, or went on, after it was stopped."""
    lives: int = 0
    """How many of its processes were killed."""

    @property
    def folder(self) -> Path:
        """Its disk."""
        return self.root / f"life{self.lives}"

    @property
    def state_folder(self) -> Path:
        return self.folder

    def alive(self) -> None:
        if self.dead:
            raise Killed

    def step(self, kind: str) -> None:
        """One more step; raises Killed where it is the last one."""
        self.alive()
        if self.doomed is None or self.doomed[0] != kind:
            return
        self.doomed = (kind, self.doomed[1] - 1)
        if self.doomed[1] < 0:
            self.kill()

    def kill(self) -> None:
        """What is on the disk now is all that is left."""
        source = self.folder
        self.lives += 1
        if source.exists():
            shutil.copytree(source, self.folder)
        self.dead, self.doomed = True, None
        self.on_kill()
        raise Killed

    def restart(self) -> None:
        """A new process, after a kill."""
        self.dead = False
        shutil.rmtree(self.root / f"life{self.lives - 1}", ignore_errors=True)


@dataclass
class Neighbour(House):
    """Another machine on the same state, or another process on the same machine where the state is a folder."""

    of: House = field(kw_only=True)
    apart: bool = field(kw_only=True)

    @property
    def folder(self) -> Path:
        return self.root / self.name if self.apart else self.of.folder

    @property
    def state_folder(self) -> Path:
        return self.of.folder


@dataclass
class Folder(House):
    """The same machine, looking at a state in another folder of its disk."""

    at: Path = field(kw_only=True)

    @property
    def folder(self) -> Path:
        return self.at


_UNWINDING = ("ROLLBACK", "DETACH", "SET preserve", "RESET")
"""What a dead process's engine still does, because the next process has the same one."""


class Engine:
    """An engine whose statements are steps."""

    def __init__(self, engine: duckdb.DuckDBPyConnection, spill: Path) -> None:
        self.engine, self.spill = engine, spill
        self.step: Callable[[str], None] = lambda kind: None
        self._parsed: dict[str, Any] = {}

    def execute(self, text: str, *values: Any) -> Any:
        if not text.startswith(_UNWINDING):
            self.step("engine")
        return self.engine.execute(text if "/" in text else self._once_parsed(text), *values)

    def _once_parsed(self, text: str) -> Any:
        """A statement that names no file comes again in every run: it is planned each time, and parsed once."""
        if text not in self._parsed:
            if len(self._parsed) > 1000:
                self._parsed.clear()
            self._parsed[text] = self.engine.extract_statements(text)[0]
        return self._parsed[text]

    @cached_property
    def twin(self) -> Engine:
        """Another worker's engine."""
        return new_engine(self.spill.with_name("twin"))

    def optimises(self, wanted: bool) -> None:
        """Whether statements are planned as for millions of rows, which takes longer than a few rows do."""
        self.engine.execute(f"PRAGMA {'enable' if wanted else 'disable'}_optimizer")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def new_engine(folder: Path) -> Engine:
    """One engine for many scenarios: opening it costs more than a run."""
    engine = open_engine(1 << 30, folder)
    engine.execute("SET threads = 1")
    return Engine(engine, folder)


class SimState(SqliteState):
    """The real state; writing it may fail, and may be the last thing that happens."""

    house: House

    def do(self, name: str, values: Any = ()) -> Any:
        self.house.step("state")
        if self.house.full and not name.endswith(("s", "plan", "schema", "until", "refused", "spent")):
            with storing(self.path):
                raise sqlite3.OperationalError("database or disk is full")
        return super().do(name, values)


class InlineJournal(Journal):
    """The real journal, written by the loop's own thread: what waits when a commit is due is committed together."""

    house: House

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._entries: list[Entry] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commit()
        self._writer.close()

    def _start(self) -> None:
        """No thread."""

    def _take(self, entry: Entry) -> None:
        self._entries.append(entry)
        if len(self._entries) == 1:
            self._loop.call_later(self.house.rng.uniform(0.0, 0.004), self._commit)

    def _commit(self) -> None:
        entries, self._entries = self._entries, []
        if not entries or self.house.dead:
            return
        with contextlib.suppress(Killed):
            failure = self._stored(entries)
            self.house.step("journal")
            self._answer(entries, failure)

    def _stored(self, entries: Sequence[Entry]) -> Any:
        self.house.step("journal")
        if not self.house.full:
            return self._store(entries)
        try:
            with storing(self.state.path):
                raise sqlite3.OperationalError("database or disk is full")
        except StateError as error:
            return error


class SimWarehouse(Warehouse):
    """The source's rows as they are at the moment of the read."""

    config = WarehouseConfig
    dialect = "duckdb"

    def __init__(self, source: Source, witness: Any) -> None:
        self.source, self.witness = source, witness

    def table_select(self, table: str) -> str:
        return "SELECT * FROM rows_now"

    def columns(self, engine: Any, select: str) -> tuple[Column, ...]:
        names = {
            "id": "BIGINT",
            "bucket": "BIGINT",
            "email": "VARCHAR",
            "a": "BIGINT",
            "b": "VARCHAR",
            "at": "BIGINT",
        }
        return tuple(Column(name, kind) for name, kind in names.items())

    def relation(self, engine: Any, select: str, *, columns: Any = None, cursor: Any = None) -> Any:
        rows = [{**row, "bucket": row["id"] % 7} for row in self.source.rows.values()]
        table = pa.Table.from_pylist(rows, _SCHEMA)
        engine.register("rows_now", table)
        self.witness.reads()
        return Rows(f"({narrowed(select, columns, cursor)})")


_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("bucket", pa.int64()),
        ("email", pa.string()),
        ("a", pa.int64()),
        ("b", pa.string()),
        ("at", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Rows:
    """Implements Relation."""

    sql: str
    repeatable: bool = True
    rows: int | None = None
    failure: str | None = None

    def again(self) -> Rows:
        return self

    def close(self) -> None:
        """Nothing is open."""


KEEPING = Keeping([b"a key of thirty-two bytes, public"[:32]])
"""Dead letters are encrypted, so that they hold what was refused: the simulation keeps no plan for long."""


class SimApi(HttpApi):
    """The real connector; the network is told which batch a request belongs to, and the destination says whose it is."""

    stated: str

    async def write(self, batch: Batch) -> Outcomes:
        BATCH.set(batch)
        return await super().write(batch)

    async def account(self) -> Account:
        return Account(self.stated, self.stated)


@lru_cache(maxsize=8)
def _api_of(account: str) -> type[SimApi]:
    """The connector to a destination that says it is this account."""
    return type("SimApi", (SimApi,), {"stated": account})


@dataclass
class SimWorkspace(Workspace):
    """The real workspace of a machine."""

    house: House = field(kw_only=True)
    state_class: type[SimState] = field(kw_only=True)
    source: Source = field(kw_only=True)
    account: str = field(kw_only=True)
    witness: Any = field(kw_only=True)
    on_lease: Callable[[], None] = field(kw_only=True, default=lambda: None)
    """Called when this machine has become the owner of its sync."""

    @contextlib.contextmanager
    def lease(self, sync: SyncConfig) -> Iterator[Lease]:
        with super().lease(sync) as lease:
            self.on_lease()
            yield lease

    @cached_property
    def state(self) -> State:
        kind = self.state_class
        state = kind.__new__(kind)
        state.house = self.house
        state.__init__(self.house.state_folder, str, self.surroundings.now)  # type: ignore[misc]
        state.keeping = KEEPING
        state.machine = self.machine
        return state

    def journal(self, plan: Plan) -> Journal:
        journal = InlineJournal(self.state, plan.scope, plan.id, plan.fingerprint)
        journal.house = self.house
        return journal

    @contextlib.contextmanager
    def engine(self) -> Iterator[Any]:
        self.house.engine.step = self.house.step
        try:
            yield self.house.engine
        finally:
            self.house.engine.step = lambda kind: None

    @contextlib.contextmanager
    def warehouse(self, sync: SyncConfig) -> Iterator[Warehouse]:
        yield SimWarehouse(self.source, self.witness)

    def destination_class(self, name: str) -> type[Destination[Any]]:
        return _api_of(self.account)


def project_of(
    setup: Setup, root: Path, folder: Path, name: str = SYNC, beside: Mapping[str, Setup] | None = None
) -> Project:
    """The project that a setup describes, as its files would; `beside` are its other syncs."""
    api, sync = _files(setup, name)
    return Project(
        root=root, name="sim", state=str(folder.relative_to(root)), warehouses={"w": None}, destinations={"d": api}, syncs={name: sync} | {one: _files(other, one)[1] for one, other in (beside or {}).items()},
        warehouse_types={"w": "sim"}, destination_types={"d": "http"},
        dead_letters=DeadLetters.model_construct(keep=Retention(100 * 366 * 86400)),  # more than the clock jumps
    )  # fmt: skip


@lru_cache(maxsize=8)
def _files(setup: Setup, sync_name: str) -> tuple[HttpConfig, SyncConfig]:
    results = {
        "each": "results",
        "delivered": "status == 'ok'",
        "retryable": "status == 'retry'",
        "error": "error",
    }
    results |= {"index": True} if setup.index else {"key": "id"}
    operations = {
        op: {
            "request": f"POST /{op}",
            "batch_size": setup.batch,
            "body": {"records": "$records"},
            "results": results,
        }
        for op in ("upsert", "insert", "update")
    }
    api = HttpConfig.model_validate({
        "base_url": "http://simulated", "rate_limits": setup.rates, "concurrency": setup.concurrency,
        "timeout": setup.timeout, "read_lag": setup.stale or None, "idempotency_life": setup.key_life, "idempotency_header": "Idempotency-Key" if setup.idempotent else None,
        "objects": {"o": {
            "key": "id", **operations,
            "delete": {"request": "POST /delete", "batch_size": setup.batch, "body": {"ids": "$keys"}, "results": results},
            "read": {"request": "POST /read", "body": {"ids": "$keys"}, "each": "results", "index_lag": setup.index_lag},
        }},
    })  # fmt: skip
    name = "email" if setup.by_email else "bucket || '/' || id" if setup.composite else "id::varchar"
    sync = SyncConfig.model_validate({
        "name": sync_name, "file": f"syncs/{sync_name}.yml", "priority": setup.priority, "destination": "d", "object": "o", "mode": setup.mode,
        "model": {
            "warehouse": "w", "table": "t", "primary_key": ["bucket", "id"] if setup.composite else "id",
            **({"cursor": "at"} if setup.cursor else {}),
        },
        "identify": {"id": name}, "fields": {field: {"value": _expression(setup, column)} for field, column in setup.fields},
        "freshness": {"sample": setup.sample}, "guards": {"max_deletes": "off", "max_drop": "off", "min_rows": "off"},
    })  # fmt: skip
    return api, sync


def _expression(setup: Setup, column: str) -> str:
    return f"{column} || ''" if setup.reworded and column == "b" else column


def surroundings(time: Time, rng: random.Random) -> Surroundings:
    def age(path: Path) -> float:
        """By the id that is its name: the file system's clock is not the simulation's."""
        if not path.stem.startswith("p-"):
            return 0.0
        made = datetime.strptime(path.stem[2:17] + "+0000", "%Y%m%d-%H%M%S%z")
        return time.wall() - made.timestamp()

    return Surroundings(time.clock, time.wall, rng, age)


__all__ = [
    "BATCH",
    "SYNC",
    "Engine",
    "House",
    "SimWorkspace",
    "Statement",
    "new_engine",
    "project_of",
    "surroundings",
]
