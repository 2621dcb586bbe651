"""The budgets of an embedded state: one document a credential, changed by one process at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from backhaul.state.buckets import BlockingBuckets
from backhaul.state.clock import Machine, StateClock, this_machine
from backhaul.state.protocol import Act, T
from backhaul.state.sqlite_connection import ROWS, connect, storing
from backhaul.state.statements import queries


class SqliteBuckets(BlockingBuckets):
    """Buckets in the state's SQLite file.

    Commits are not forced to the disk: they outlive every end of a process, and the journal's next commit forces them.
    Processes queue at a lock of the system, which wakes them in order; SQLite's own makes them sleep and try again.
    """

    def __init__(self, path: Path, machine: Machine | None = None) -> None:
        self._path = path
        super().__init__()
        with storing(path):
            self._db = connect(path)
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._queue = os.open(path.parent / "budgets.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._clock = StateClock(machine or this_machine(), self._settle)

    def _close(self) -> None:
        self._db.close()
        os.close(self._queue)

    def _salt(self) -> bytes:
        with self._transaction():
            self._do("keep_salt", {"value": secrets.token_bytes(32)})
            return bytes(self._do("salt")[0]["value"])

    def _exchange(self, bucket: str, act: Act[T]) -> T:
        with self._transaction():
            document = self._document(bucket)
            result = act(document, self._clock.now(document.get("at", 0.0)))
            self._do("keep_bucket", {"bucket": bucket, "body": orjson.dumps(document)})
            return result

    def _peek(self, bucket: str) -> tuple[dict[str, Any], float]:
        with storing(self._path):
            document = self._document(bucket)
            return document, self._clock.now(document.get("at", 0.0))

    def _document(self, bucket: str) -> dict[str, Any]:
        rows = self._do("bucket", {"bucket": bucket})
        return orjson.loads(rows[0]["body"]) if rows else {}

    def _settle(self, boot: str, began: float) -> float:
        self._do("keep_boot", {"boot": boot, "began": began})
        return float(self._do("boot", {"boot": boot})[0]["began"])

    def _do(self, name: str, values: dict[str, Any] | tuple[()] = ()) -> list[sqlite3.Row]:
        return self._db.execute(queries(ROWS)[name], values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction, and nobody else's meanwhile."""
        with storing(self._path):
            fcntl.flock(self._queue, fcntl.LOCK_EX)
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            finally:
                fcntl.flock(self._queue, fcntl.LOCK_UN)
