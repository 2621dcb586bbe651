"""The budgets of a state in DynamoDB: one document a credential, exchanged by comparing and swapping."""

from __future__ import annotations

import random
import secrets
import time
from contextlib import suppress
from typing import Any

import orjson

from backhaul.errors import StateError
from backhaul.state.buckets import BlockingBuckets
from backhaul.state.dynamo.failures import Refuted
from backhaul.state.dynamo.table import Item, Table, only_if, put
from backhaul.state.protocol import Act, T

_PATIENCE = 30.0
"""Seconds that an exchange is tried again where others are faster."""
_AHEAD = 5.0
"""Seconds by which the state's last time may lie before ours; more than that is a clock that was set."""


class DynamoBuckets(BlockingBuckets):
    """Buckets that workers on any number of hosts share. See protocol.Buckets.

    The time is the server's (clock.py), and never before what a bucket has seen: two hosts that differ a little in what
    they know of it do not make it go back and forth.
    """

    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table

    def _close(self) -> None:
        """The table is the state's."""

    def _salt(self) -> bytes:
        if found := self._table.get("salt", "salt"):
            return bytes(found["value"])
        with suppress(Refuted):
            self._table.do(put("salt", "salt", {"value": secrets.token_bytes(32)}, new=True))
        found = self._table.get("salt", "salt")
        return bytes(found["value"]) if found else b""

    def _exchange(self, bucket: str, act: Act[T]) -> T:
        self._table.clock.look_closer(lambda: self._table.get("state", "version", exact=False))
        deadline, pause = time.monotonic() + _PATIENCE, 0.01
        while True:
            document, found = self._document(bucket)
            result = act(document, self._now(document))
            with suppress(Refuted):
                self._swap(bucket, document, found)
                return result
            if time.monotonic() > deadline:
                raise StateError("too many workers share a limit: its place in the state's DynamoDB was never free",
                                 hint="run again")  # fmt: skip
            time.sleep(random.uniform(0, pause))
            pause = min(pause * 2, 0.5)

    def _peek(self, bucket: str) -> tuple[dict[str, Any], float]:
        document, _ = self._document(bucket)
        return document, self._now(document)

    def _document(self, bucket: str) -> tuple[dict[str, Any], Item | None]:
        found = self._table.get("bucket", bucket)
        return (orjson.loads(found["body"]) if found else {}), found

    def _swap(self, bucket: str, document: dict[str, Any], found: Item | None) -> None:
        item = {"body": orjson.dumps(document), "version": secrets.token_hex(8)}
        write = put("bucket", bucket, item, new=found is None)
        if found is not None:
            write = only_if(write, "#version = :was", ("version",), {"was": found["version"]})
        self._table.do(write)

    def _now(self, document: dict[str, Any]) -> float:
        now, seen = self._table.clock.now(), float(document.get("at", 0.0))
        return seen if 0 < seen - now < _AHEAD else now
