"""A destination over real HTTP that remembers what it has answered, so that what is sent without need is seen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from backhaul.testing.sink import Faults, Seen, Sink

CALM = Faults(latency=0.002)
STORM = Faults(
    status_429=0.05, status_500=0.05, reset_before=0.04, reset_after=0.04, omit=0.005, html=0.02,
    shuffle=0.3, refuse=0.01, latency=0.004,
)  # fmt: skip


@dataclass
class Witness(Sink):
    """A sink that tells a needless repeat from a needed one. `appends`: an insert always makes a new record, unless
    its idempotency key was seen before."""

    appends: bool = False
    needless: list[str] = field(default_factory=list)
    """Keys sent again with the value that was acknowledged last, which were not in flight when a process died."""
    overlaps: list[str] = field(default_factory=list)
    """Keys that were in two requests of living processes at once."""
    sends: int = 0
    """Records in write requests."""
    _held: dict[str, str] = field(default_factory=dict)
    _open: list[frozenset[str]] = field(default_factory=list)
    _answered: dict[str, bytes] = field(default_factory=dict)

    def excuse(self, keys: Iterable[str]) -> None:
        """These may be sent once more: the process that sent them may not have heard the answer."""
        for key in keys:
            self._held.pop(key, None)
        self._open.clear()

    async def _write(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        sent = body.get("records") or [{self.key: key, "gone": True} for key in body.get("ids", ())]
        values = {str(record[self.key]): json.dumps(record, sort_keys=True) for record in sent}
        keys = frozenset(values)
        self.sends += len(sent)
        again = [key for key, value in values.items() if self._held.pop(key, None) == value]
        self.needless += again if request.path != "/delete" else [f"{key} (deleted)" for key in again]
        self.overlaps += [key for other in self._open for key in keys & other]
        self._open.append(keys)
        answer = await super()._write(request)
        if any(other is keys for other in self._open):
            self._open = [other for other in self._open if other is not keys]
            self._held |= {key: values[key] for key in delivered(answer) if key in values}
        return answer

    def _apply(self, request: web.Request, seen: Seen, records: list[dict[str, Any]]) -> web.Response:
        known = seen.idempotency_key
        if not self.appends or known is None or request.path != "/insert":
            return super()._apply(request, seen, records)
        if known not in self._answered:
            for key, record in zip(seen.keys, records, strict=True):
                self.creates[key] = self.creates.get(key, 0) + 1
                self.records[key] = record
            results = [{"id": record[self.key], "status": "ok"} for record in records]
            self._answered[known] = orjson.dumps({"results": results})
        if self.rng.random() < self.faults.reset_after:
            return self._reset(request, seen)
        return web.Response(body=self._answered[known], content_type="application/json")


def delivered(answer: web.Response) -> list[str]:
    """The keys that an answer calls delivered."""
    if answer.status not in (200, 207) or not isinstance(answer.body, bytes):
        return []
    try:
        results = orjson.loads(answer.body)["results"]
    except (orjson.JSONDecodeError, KeyError):
        return []
    return [str(item["id"]) for item in results if item["status"] == "ok"]
