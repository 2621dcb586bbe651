"""A model of a destination: what it holds, what it answers, and everything that may go wrong between it and a client."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from math import inf
from typing import Any
from urllib.parse import urlsplit

import orjson

from backhaul.destinations.kit import Answer
from backhaul.errors import NotApplied, Unsettled

from .scenario import MAX_LATE, POISON, REFUSED, Faults, Row, Setup
from .timing import Time

GONE = "gone"
"""What a key holds that was deleted, as a value."""


def value_of(record: Row | None) -> str:
    """A record as a text that is equal for equal records."""
    return GONE if record is None else orjson.dumps(record, option=orjson.OPT_SORT_KEYS).decode()


@dataclass
class Request:
    """One request from the moment it leaves. `records` are by key; None is a delete."""

    number: int
    op: str
    keys: list[str]
    records: dict[str, Row | None]
    idempotency_key: str | None
    left: float
    landed: bool = False
    """The server has read it, so it may have been applied."""
    done: bool = False
    """What it asks for has been carried out."""


@dataclass
class Server:
    """The destination itself. `late` are requests that it will carry out though nobody waits any more."""

    setup: Setup
    time: Time
    rng: random.Random
    faults: Faults = field(default_factory=Faults)
    records: dict[str, Row] = field(default_factory=dict)
    creates: Counter[str] = field(default_factory=Counter)
    late: list[tuple[float, int, Request]] = field(default_factory=list)
    remembered: dict[tuple[str, str], tuple[float, dict[str, Any]]] = field(default_factory=dict)
    """Results by idempotency key and record, and when they were made; what was to be tried again is none."""
    past: dict[str, list[tuple[float, Row | None]]] = field(default_factory=dict)
    """What a record was until when, for reads that show it late."""
    away: bool = False
    _applied: float = 0.0
    """When what is being carried out arrived."""
    lied: set[str] = field(default_factory=set)
    """Keys whose last write was answered with a lie."""

    def catch_up(self) -> None:
        """Carries out what is due by now."""
        due = sorted((item for item in self.late if item[0] <= self.time.elapsed), key=lambda item: item[:2])
        self.late = [item for item in self.late if item[0] > self.time.elapsed]
        for at, _, request in due:
            self.apply(request, lying=False, at=at)  # nobody could have seen it in time

    def refuses(self, request: Request) -> bool:
        return any(record is not None and POISON in record.values() for record in request.records.values())

    def apply(self, request: Request, *, lying: bool = True, at: float | None = None) -> list[dict[str, Any]]:
        """Carries a request out, record by record, now or `at` some moment of before; the same idempotency key a second time
        changes nothing."""
        request.landed = request.done = True
        self._applied = self.time.elapsed if at is None else at
        token = request.idempotency_key if self.setup.idempotent else None
        if self.refuses(request):
            return []
        results = []
        for key in request.keys:
            told = self._remembered(token, key) if token is not None else None
            results.append(told or self._one(request, key, lying))
            if not told and results[-1]["status"] != "retry" and token is not None:
                self.remembered[token, key] = (self._applied, results[-1])
        return results

    def _remembered(self, token: str, key: str) -> dict[str, Any] | None:
        made, result = self.remembered.get((token, key), (-inf, None))
        return result if self._applied < made + self.setup.key_life else None

    def shows(self, key: str) -> Row | None:
        """A record as a read sees it, which may be late."""
        if not self.setup.stale:
            return self.records.get(key)
        moment = self.time.elapsed - self.rng.uniform(0, self.setup.stale)
        was = (record for until, record in self.past.get(key, ()) if moment < until)
        return next(was, self.records.get(key))

    def _put(self, key: str, record: Row | None) -> None:
        if self.setup.stale:
            self.past.setdefault(key, []).append((self._applied, self.records.get(key)))
        if record is None:
            self.records.pop(key, None)
        else:
            self.records[key] = record

    def _one(self, request: Request, key: str, lying: bool) -> dict[str, Any]:
        record = request.records[key]
        if record is None:
            self._put(key, None)
            self.lied.discard(key)
        elif REFUSED in record.values():
            return {"id": key, "status": "error", "error": {"code": "bad_b", "message": "b is not welcome"}}
        elif request.op == "update" and key not in self.records:
            return {"id": key, "status": "error", "error": {"code": "missing", "message": "no such record"}}
        elif self.rng.random() < self.faults.retryable:
            return {"id": key, "status": "retry", "error": "busy with it"}
        else:
            if request.op == "insert" or key not in self.records:
                self.creates[key] += 1
            lies = lying and self.rng.random() < self.faults.lie
            self._put(key, {**record, "a": 99} if lies else record)
            (self.lied.add if lies else self.lied.discard)(key)
        return {"id": key, "status": "ok"}


class Network:
    """Implements Transport: the way to the server and back. `witness` sees every request and every answer."""

    def __init__(self, server: Server, witness: Any, timeout: float) -> None:
        self.server, self.witness, self.timeout = server, witness, timeout

    async def close(self) -> None:
        """Nothing is open."""

    async def exchange(
        self, method: str, url: str, body: bytes | None, params: Mapping[str, str] | None, headers: Mapping[str, str],
        departed: Callable[[], None],
    ) -> Answer:  # fmt: skip
        op = urlsplit(url).path.strip("/")
        request = self._request(op, orjson.loads(body or b"{}"), headers)
        departed()
        self.witness.departs(request)
        try:
            answer = await self._carry(request)
        except (NotApplied, Unsettled) as error:
            self.witness.ends(request, error)
            raise
        except BaseException:
            self.witness.vanishes(request)
            raise
        self.witness.ends(request, answer)
        return answer

    def _request(self, op: str, body: Any, headers: Mapping[str, str]) -> Request:
        if "records" in body:
            records: dict[str, Row | None] = {str(record["id"]): record for record in body["records"]}
            keys = [str(record["id"]) for record in body["records"]]
        else:
            keys = [str(key) for key in body["ids"]]
            records = dict.fromkeys(keys)
        token = headers.get("Idempotency-Key")
        return Request(self.witness.number(), op, keys, records, token, self.server.time.elapsed)

    async def _carry(self, request: Request) -> Answer:
        server, faults, rng = self.server, self.server.faults, self.server.rng
        travel = rng.uniform(0.001, 0.05)
        if server.away or rng.random() < faults.connect:
            await asyncio.sleep(travel)
            raise NotApplied("cannot connect", code="connect")
        if rng.random() < faults.slow:
            travel += rng.uniform(0.2, 2.0)
        kind = self._fate(rng, faults)
        if kind == "reset_before":
            await asyncio.sleep(travel)
            raise Unsettled("the connection broke", code="reset")
        if kind == "silence":
            await self._nothing(request)
        await asyncio.sleep(travel / 2)
        server.catch_up()
        answer = self._answer(request, kind)
        await asyncio.sleep(travel / 2)
        if kind == "reset_after":
            raise Unsettled("the connection broke", code="reset")
        return answer

    def _fate(self, rng: random.Random, faults: Faults) -> str:
        draw = rng.random()
        for name in (
            "reset_before",
            "reset_after",
            "silence",
            "throttle",
            "busy",
            "broken",
            "garbage",
            "unauthorised",
        ):
            draw -= getattr(faults, name)
            if draw < 0:
                return name
        return ""

    async def _nothing(self, request: Request) -> None:
        """No answer comes in time; the request is applied soon, late, or never."""
        rng, now = self.server.rng, self.server.time.elapsed
        after = rng.choice((rng.uniform(0.01, self.timeout), self.timeout + rng.uniform(0, MAX_LATE), None))
        if after is not None and request.op != "read":
            request.landed = True
            self.server.late.append((now + after, request.number, request))
        await asyncio.sleep(self.timeout)
        self.server.catch_up()
        raise Unsettled("no complete answer", code="timeout")

    def _answer(self, request: Request, kind: str) -> Answer:
        rng = self.server.rng
        if kind == "unauthorised":
            return self._page(401, b'{"message": "who are you"}')
        if kind in ("throttle", "busy"):
            return self._throttled(kind)
        if kind in ("broken", "garbage") and rng.random() < 0.5:
            return self._useless(kind)
        if request.op == "read":
            found = [record for key in request.keys if (record := self.server.shows(key)) is not None]
            return (
                self._useless(kind)
                if kind in ("broken", "garbage")
                else self._page(200, orjson.dumps({"results": found}))
            )
        results = self.server.apply(request)
        if kind in ("broken", "garbage"):
            return self._useless(kind)
        if self.server.refuses(request):
            return self._page(400, b'{"message": "one of the records is poison"}')
        return self._page(200, orjson.dumps({"results": self._told(results)}))

    def _told(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results as they come back: in another order, with gaps, twice, contradicting, of strangers."""
        rng, faults = self.server.rng, self.server.faults
        if self.server.setup.index:
            return results if rng.random() >= faults.omitted else results[1:]
        told = []
        for result in results:
            if rng.random() < faults.omitted:
                continue
            told.append(result)
            if rng.random() < faults.doubled:
                told.append(result)
            if rng.random() < faults.torn:
                other = {"error": "no"} if result["status"] == "ok" else {}
                told.append({"id": result["id"], "status": "error" if other else "ok", **other})
        if rng.random() < faults.strangers:
            told.append({"id": "nobody", "status": rng.choice(("ok", "error"))})
        rng.shuffle(told)
        return told

    def _throttled(self, kind: str) -> Answer:
        rng, headers = self.server.rng, {}
        seconds = rng.choice((0, 0.5, 2, 7, 30, 120))
        how = rng.choice(("seconds", "date", "none", "rubbish")) if kind == "throttle" else "seconds"
        moment = datetime.fromtimestamp(self.server.time.elapsed + 2e9, UTC)
        headers["date"] = format_datetime(moment, usegmt=True)
        if how == "seconds":
            headers["retry-after"] = str(seconds)
        elif how == "date":
            seconds = float(int(seconds))
            then = datetime.fromtimestamp(int(moment.timestamp()) + seconds, UTC)
            headers["retry-after"] = format_datetime(then, usegmt=True)
        elif how == "rubbish":
            headers["retry-after"] = "soon"
        if how in ("seconds", "date"):
            headers["x-hold"] = str(seconds)
        return self._page(429 if kind == "throttle" else 503, b'{"message": "slow down"}', headers)

    def _useless(self, kind: str) -> Answer:
        rng = self.server.rng
        if kind == "broken":
            return self._page(rng.choice((500, 502, 504)), b'{"message": "oops"}')
        body = rng.choice(
            (b"<html>hello</html>", b"", b'{"results": [{"id": "1", "sta', b'{"results": null}', b"[]")
        )
        return self._page(200, body)

    def _page(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        kind = "text/html" if body.startswith(b"<") else "application/json"
        return Answer(status, {"content-type": kind, **(headers or {})}, body)
