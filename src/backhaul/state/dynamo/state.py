"""The state in DynamoDB: any number of workers on any number of hosts share one table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from backhaul.errors import StateError
from backhaul.state.clock import Machine
from backhaul.state.dynamo import files
from backhaul.state.dynamo.buckets import DynamoBuckets
from backhaul.state.dynamo.creation import prepare
from backhaul.state.dynamo.failures import Refuted
from backhaul.state.dynamo.lease import DynamoLease, hold, holder
from backhaul.state.dynamo.statements import LISTS, READS, SAFE_ORDER, WRITES
from backhaul.state.dynamo.table import Table, Write, delete, put
from backhaul.state.protocol import Buckets, Fold, Lease, Row, SharedState
from backhaul.state.scopes import sync_of
from backhaul.surroundings import REAL
from backhaul.values import TableAddress


class DynamoState(SharedState):
    """The state of one project in a table. Statements in `together` do not see what was written there before them."""

    def __init__(
        self,
        address: str,
        mask: Callable[[str], str] = str,
        now: Callable[[], str] = REAL.now,
        *,
        length: float = 30.0,
    ) -> None:
        super().__init__(mask, now)
        self.length = length
        self.held: DynamoLease | None = None
        self._turn = threading.RLock()
        self._together: list[Write] | None = None
        try:
            self.table = Table(TableAddress.parse(address))
        except ValueError as error:
            raise StateError(f"`state` is no address of a table: {error}") from None
        prepare(self.table)

    def close(self) -> None:
        self.table.close()

    def do(self, name: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> Sequence[Row]:
        if name in READS:
            return READS[name](self.table, values if isinstance(values, Mapping) else {})
        with self._turn:
            if isinstance(values, Mapping):
                writes = WRITES[name](self.table, values)
            else:
                writes = LISTS[name](self.table, orjson.loads(values[0]))
            if self._together is not None:
                self._together += writes
            else:
                self.store(writes)
        return [write.told for write in writes if write.told is not None]

    def store(self, writes: Sequence[Write]) -> None:
        """Stores writes of a run, each transaction only while its lease is ours.

        Raises:
            LeaseLost, StateError
        """
        held = self.held
        try:
            self.table.store(writes, held.fence_check if held else None)
        except Refuted as error:
            if held and error.index < 0:
                raise held.lose() from None
            raise

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._turn:
            self._together = []
            try:
                yield
                writes = self._together
            finally:
                self._together = None
            self.store(writes)

    def writer(self) -> DynamoWriter:
        return DynamoWriter(self)

    def buckets(self, machine: Machine | None = None) -> Buckets:
        return DynamoBuckets(self.table)

    def clock(self) -> float:
        self.table.clock.look_closer(lambda: self.table.get("state", "version", exact=False))
        return self.table.clock.now()

    @contextmanager
    def lease(self, sync: str, *, timeout: float = 60.0, name: str = "") -> Iterator[Lease]:
        with hold(self.table, sync, self.length, timeout, name or sync) as lease:
            self.held = lease
            try:
                yield lease
            finally:
                self.held = None

    def is_leased(self, sync: str) -> bool:
        return holder(self.table, sync) is not None

    def keep_file(self, name: str, file: Path) -> None:
        named, token = files.upload(self.table, name, file)
        self.store([named])
        files.clear(self.table, name, keep=token)

    def fetch_file(self, name: str, file: Path) -> bool:
        return file.exists() or files.download(self.table, name, file)

    def drop_plan(self, plan_id: str, file: Path) -> None:
        # a plan without its file is found and dropped again, a file without its plan by nobody; and where the journal is large,
        # a plan is never there with a part of it
        files.clear(self.table, plan_id)
        with self.together():
            for name in ("drop_plan", "drop_history", "drop_plan_intents", "drop_plan_outcomes"):
                self.do(name, {"id": plan_id})
        file.unlink(missing_ok=True)

    beyond = "point-in-time recovery (up to 35 days back), backups, exports and streams of the table"

    def scrub(self) -> None:
        """A deleted item is gone for every reader. Left to find are parts of files that a process began and never named."""
        files.sweep(self.table, self._is_somebodys)

    def _is_somebodys(self, name: str, token: str) -> bool:
        """Whether parts are of a file that is there, or that somebody may be storing now: a plan's is stored after the plan, and
        of a sync that we hold nobody else stores a ledger."""
        if not name.startswith("ledger/"):
            return any(self.table.get(f"plan/{name}", kind) for kind in ("plan", "history"))
        ours = self.held is not None and sync_of(name.split("/")[1]) == self.held.sync
        return not ours or files.token_of(self.table, name) == token

    def folds(self, scope: str) -> list[Fold]:
        newest: list[Fold] = []
        for item in self.table.query(f"folds/{scope}", newest=True, page=100):
            fold = Fold(scope, item["fold"], bool(item["base"]), item["lineage"], item["rows"], item["body"])
            newest.append(fold)
            if fold.base:
                break
        return newest[::-1] if newest and newest[-1].base else []

    def add_fold(self, fold: Fold, file: Path) -> None:
        named, token = files.upload(self.table, fold.file, file)
        item = {
            "fold": fold.fold,
            "base": int(fold.base),
            "lineage": fold.lineage,
            "rows": fold.rows,
            "body": fold.body,
        }
        self.store([put(f"folds/{fold.scope}", f"{fold.fold:012d}", item, new=True), named])
        files.clear(self.table, fold.file, keep=token)
        if fold.base:
            self._drop_before(fold)

    def _drop_before(self, base: Fold) -> None:
        for item in self.table.query(f"folds/{base.scope}"):
            if item["fold"] < base.fold:
                files.clear(self.table, f"ledger/{base.scope}/{item['fold']}")
                self.table.do(delete(item["pk"], item["sk"]))


class DynamoWriter:
    """Writes list statements, in one transaction where they fit into one; see protocol.Writer."""

    def __init__(self, state: DynamoState) -> None:
        self._state = state

    def write(self, groups: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        names = [name for name in SAFE_ORDER if name in groups]
        self._state.store([write for name in names for write in LISTS[name](self._state.table, groups[name])])

    def close(self) -> None:
        """The table is the state's."""
