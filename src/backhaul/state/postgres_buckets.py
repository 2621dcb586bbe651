"""The budgets of a state in PostgreSQL: one document a credential, changed by one worker at a time, on the database's clock."""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from backhaul.state.buckets import BlockingBuckets
from backhaul.state.postgres_connection import LOCAL, connect, storing, transaction
from backhaul.state.protocol import Act, T

_TIME = "extract(epoch FROM clock_timestamp())::float AS at"
_HELD = f"SELECT body, {_TIME} FROM (SELECT body FROM buckets WHERE bucket = %s FOR UPDATE) AS held"
"""The time is asked for when the row is ours: whoever had it before is in the past."""
_ADD = "INSERT INTO buckets (bucket, body) VALUES (%s, '{}') ON CONFLICT (bucket) DO NOTHING"


class PostgresBuckets(BlockingBuckets):
    """Buckets that workers on any number of hosts share. See protocol.Buckets.

    An exchange is two round trips, and holds the bucket's row for one.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__()
        with storing():
            self._db = connect(dsn)

    def _close(self) -> None:
        self._db.close()

    def _salt(self) -> bytes:
        with storing(), transaction(self._db):
            self._db.execute(
                "INSERT INTO salts (id, value) VALUES (1, %s) ON CONFLICT (id) DO NOTHING",
                [secrets.token_bytes(32)],
            )
            row = self._db.execute("SELECT value FROM salts").fetchone()
            return bytes(row["value"]) if row else b""

    def _exchange(self, bucket: str, act: Act[T]) -> T:
        with storing(), self._db.pipeline(), self._db.transaction():
            self._db.execute(LOCAL)
            row = self._db.execute(_HELD, [bucket]).fetchone()
            if row is None:
                self._db.execute(_ADD, [bucket])
                row = self._db.execute(_HELD, [bucket]).fetchone()
            document: dict[str, Any] = orjson.loads(row["body"]) if row else {}
            result = act(document, float(row["at"]) if row else 0.0)
            self._db.execute(
                "UPDATE buckets SET body = %s WHERE bucket = %s", [orjson.dumps(document), bucket]
            )
            return result

    def _peek(self, bucket: str) -> tuple[dict[str, Any], float]:
        with storing(), transaction(self._db):
            row = self._db.execute("SELECT body FROM buckets WHERE bucket = %s", [bucket]).fetchone()
            return (orjson.loads(row["body"]) if row else {}), self._now()

    def _now(self) -> float:
        row = self._db.execute(f"SELECT {_TIME}").fetchone()
        return float(row["at"]) if row else 0.0
