"""A batch HTTP API that stores what it is sent, with faults as switches: for tests of the engine over real HTTP.

`python -m backhaul.testing.sink --port 9000 [--faults '{"status_429": 0.05}']` serves POST /upsert, /insert, /delete and
/update, /read with bodies `{"records": [...]}` or `{"ids": [...]}`, and answers `{"results": [{"id", "status", "error"}]}`.
GET /_state gives the records and every batch it saw, POST /_faults sets the switches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import orjson
from aiohttp import web


@dataclass
class Faults:
    """Shares between 0 and 1, drawn anew for every request unless said otherwise."""

    status_429: float = 0.0
    """Half of them with Retry-After, half without."""
    status_500: float = 0.0
    reset_before: float = 0.0
    reset_after: float = 0.0
    """The write is applied, then the connection is reset."""
    refuse: float = 0.0
    """Records refused inside a 207; drawn by key, so the same ones each time."""
    refuse_key: str = ""
    """The record with this key is refused inside a 207."""
    change_of_mind: str = ""
    """The record with this key is taken with its batch, the connection is reset, and from then on it is refused."""
    poison: str = ""
    """A batch holding a record with this key is refused with a 400 that names nobody."""
    omit: float = 0.0
    """Records left out of the answer; the write is applied."""
    shuffle: float = 0.0
    """Answers whose results are in another order than the records."""
    html: float = 0.0
    """200 with a page instead of an answer; nothing is applied."""
    hollow: float = 0.0
    """200 with an empty object; nothing is applied."""
    latency: float = 0.0
    """Seconds before every answer."""
    silence: float = 0.0
    """Seconds between applying a write and its answer."""
    payment: bool = False
    """Every batch is answered with a 402."""
    reject_all: str = ""
    """Every batch is refused with this code."""
    lie: float = 0.0
    """Records called delivered and not stored; this and the next two are drawn by key, so the same ones each time."""
    drop_field: float = 0.0
    """Records stored without their last field."""
    zombie: float = 0.0
    """Records that an older request, thought lost, overwrites with what they were, a moment after the answer."""
    index_lag: float = 0.0
    """Seconds for which /read does not find a record that was inserted."""


@dataclass
class Seen:
    """One request that was read."""

    path: str
    keys: list[str]
    status: int
    idempotency_key: str | None = None
    at: float = 0.0
    """When it arrived, in seconds of this machine's monotonic clock."""


@dataclass
class Sink:
    """The destination: `records` by id, `seen` in order of arrival."""

    key: str = "id"
    seed: int = 1
    faults: Faults = field(default_factory=Faults)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    read: list[list[str]] = field(default_factory=list)
    """The keys of each read-back."""
    creates: dict[str, int] = field(default_factory=dict)
    """How often a key came into being; an insert always makes another record."""
    honours_keys: bool = False
    """A write under an Idempotency-Key that was applied is answered as it was, and not applied again."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._born: dict[str, float] = {}
        self._answers: dict[tuple[str, str], tuple[bytes, int]] = {}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/_state", self._state)
        app.router.add_post("/_faults", self._set_faults)
        app.router.add_post("/read", self._read)
        for path in ("/upsert", "/insert", "/update", "/delete"):
            app.router.add_post(path, self._write)
        return app

    def refused(self, key: str) -> bool:
        """Whether a record of this key is refused by `faults.refuse`."""
        return (
            key == self.faults.refuse_key
            or zlib.crc32(f"{self.seed}/{key}".encode()) % 10_000 < self.faults.refuse * 10_000
        )

    def _drawn(self, fault: str, key: str) -> bool:
        share = getattr(self.faults, fault)
        return bool(share) and zlib.crc32(f"{fault}/{self.seed}/{key}".encode()) % 10_000 < share * 10_000

    async def _state(self, _: web.Request) -> web.Response:
        body = {
            "records": self.records,
            "seen": [asdict(item) for item in self.seen],
            "creates": self.creates,
        }
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _set_faults(self, request: web.Request) -> web.Response:
        self.faults = faults_from(await request.json())
        return web.json_response(asdict(self.faults))

    async def _read(self, request: web.Request) -> web.Response:
        ids = [str(item) for item in (await request.json())["ids"]]
        self.read.append(ids)
        return web.json_response({"results": [record for key in ids for record in self._found(key)]})

    def _found(self, key: str) -> list[dict[str, Any]]:
        """What a search finds: one record, or as many as inserts made of a key."""
        if key not in self.records or time.monotonic() - self._born.get(key, 0.0) < self.faults.index_lag:
            return []
        copies = self.creates[key] if key in self._born else 1
        return [self.records[key] | {"_id": f"{key}-{number}"} for number in range(copies)]

    async def _write(self, request: web.Request) -> web.Response:
        arrived = time.monotonic()
        body = orjson.loads(await request.read())
        records = body["records"] if "records" in body else [{self.key: key} for key in body["ids"]]
        keys = [str(record[self.key]) for record in records]
        seen = Seen(request.path, keys, 0, request.headers.get("Idempotency-Key"), arrived)
        self.seen.append(seen)
        if self.faults.latency:
            await asyncio.sleep(self.faults.latency)
        answer = self._fault(request, seen, keys)
        if answer is None:
            answer = self._apply(request, seen, records)
            if self.faults.silence:
                await asyncio.sleep(self.faults.silence)
        seen.status = seen.status or answer.status
        return answer

    def _fault(self, request: web.Request, seen: Seen, keys: list[str]) -> web.Response | None:
        faults, draw = self.faults, self.rng.random()
        if faults.payment:
            return web.json_response({"message": "the monthly quota of your plan is used up"}, status=402)
        if faults.reject_all:
            return web.json_response({"code": faults.reject_all, "message": "not like this"}, status=400)
        if (draw := draw - faults.status_429) < 0:
            after = {"Retry-After": "0.2"} if self.rng.random() < 0.5 else {}
            return web.json_response({"message": "slow down"}, status=429, headers=after)
        if (draw := draw - faults.status_500) < 0:
            return web.json_response({"message": "oops"}, status=500)
        if (draw := draw - faults.reset_before) < 0:
            return self._reset(request, seen)
        if (draw := draw - faults.html) < 0:
            return web.Response(text="<html>hello</html>", content_type="text/html")
        if draw - faults.hollow < 0:
            return web.json_response({})
        if faults.poison and faults.poison in keys:
            return web.json_response({"message": "one of the records is bad"}, status=400)
        return None

    def _apply(self, request: web.Request, seen: Seen, records: list[dict[str, Any]]) -> web.Response:
        known = (request.path, seen.idempotency_key or "")
        if self.honours_keys and known in self._answers:
            body, status = self._answers[known]
            return web.Response(body=body, status=status, content_type="application/json")
        results = []
        for key, record in zip(seen.keys, records, strict=True):
            if self.refused(key):
                results.append({"id": record[self.key], "status": "error", "error": f"{key} is not welcome"})
                continue
            if request.path == "/update" and key not in self.records:
                gone = {"code": 404, "message": f"there is no {key}"}
                results.append({"id": record[self.key], "status": "gone", "error": gone})
                continue
            self._store(request.path, key, record)
            if self.rng.random() >= self.faults.omit:
                results.append({"id": record[self.key], "status": "ok"})
        status = 207 if any(item["status"] != "ok" for item in results) else 200
        body = orjson.dumps({"results": results})
        self._answers[known] = body, status
        if self.faults.change_of_mind in seen.keys:
            self.faults = replace(self.faults, change_of_mind="", refuse_key=self.faults.change_of_mind)
            return self._reset(request, seen)
        if self.rng.random() < self.faults.reset_after:
            return self._reset(request, seen)
        return web.Response(body=body, status=status, content_type="application/json")

    def _store(self, path: str, key: str, record: dict[str, Any]) -> None:
        if path == "/delete":
            self.records.pop(key, None)
            return
        if self._drawn("lie", key):
            return
        if self._drawn("drop_field", key):
            record = dict(list(record.items())[:-1])
        if self._drawn("zombie", key) and key in self.records:
            asyncio.get_running_loop().call_later(0.02, self.records.__setitem__, key, self.records[key])
        if path == "/insert":
            self._born[key] = time.monotonic()
        if path == "/insert" or key not in self.records:
            self.creates[key] = self.creates.get(key, 0) + 1
        self.records[key] = record

    def _reset(self, request: web.Request, seen: Seen) -> web.Response:
        seen.status = -1
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)


def faults_from(switches: Mapping[str, Any]) -> Faults:
    """Raises: ValueError at a switch that does not exist."""
    known = {item.name for item in fields(Faults)}
    unknown = set(switches) - known
    if unknown:
        raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return Faults(**switches)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m backhaul.testing.sink")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=json.loads, default={})
    given = parser.parse_args()

    async def serve() -> None:
        runner = web.AppRunner(Sink(seed=given.seed, faults=faults_from(given.faults)).app(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", given.port)
        await site.start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
