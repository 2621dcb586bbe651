"""The oracle: sees every request as it leaves and as it ends, and what every run leaves behind. It knows what the promises
are, and nothing of how the engine keeps them."""

from __future__ import annotations

import sqlite3
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import duckdb
import orjson

from backhaul.destinations.kit import Answer
from backhaul.errors import NotApplied

from .house import BATCH, KEEPING, SYNC, House
from .scenario import POISON, REFUSED, Row, Setup, Source
from .server import Request, Server, value_of

_ATTEMPTS = 5
"""Attempts at one value in one run (I31)."""
_HAIR = 1e-6
_OURS = "scope IN (SELECT s.id FROM scopes s JOIN syncs n ON n.id = s.sync WHERE n.name = ? AND s.label = ?)"
_STORED = 0.02
"""Seconds within which what an answer said is on the disk."""
_SEEN, _LOOKED = 0.4, 2.4
"""Seconds within which another worker knows of it: with limits, which are asked about, and without, where it is looked for."""


@dataclass(frozen=True)
class Violation:
    """A promise that was broken."""

    rule: str
    what: str
    at: float


@dataclass(frozen=True)
class Hold:
    """The destination told `house` at `since` to be silent until `until`."""

    since: float
    until: float
    house: House

    def binds(self, house: House, now: float, late: float) -> bool:
        """Whoever heard of it at once; others, and who was stopped meanwhile, `late` seconds later."""
        own = self.house is house
        return now < self.until - _HAIR and (own or now > max(self.since, house.woke) + late)


@dataclass
class Verdicts:
    """What the answers to one request said about one run's records, as any client can read them."""

    taken: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    """Keys that an earlier run was told are taken, and that left once more in a body that is repeated as it was."""
    repeated: set[str] = field(default_factory=set)
    """Keys that left in a body that is repeated as it was."""


class Oracle:
    """Watches one scenario. `trace` is everything that happened, in order."""

    def __init__(
        self, house: House, server: Server, source: Source, setup: Setup, sync: str = SYNC,
        beside: Oracle | None = None,
    ) -> None:  # fmt: skip
        """`beside`: the oracle of another sync that draws on the same credential, and whose story it is told in."""
        self.house, self.server, self.source, self.setup, self.sync = house, server, source, setup, sync
        self.violations: list[Violation] = beside.violations if beside else []
        self.trace: list[str] = beside.trace if beside else []
        self.snapshot: dict[str, Row] = {}
        self.confirmed: dict[str, set[str]] = {}
        self.acked: dict[str, str] = {}
        self.buried: dict[str, str] = {}
        self.in_flight: dict[int, Request] = {}
        self.creates: dict[str, list[Request]] = {}
        self.left: deque[float] = beside.left if beside else deque()
        self.holds: list[Hold] = beside.holds if beside else []
        self.gaps: list[float] = []
        self.sends = self.requests = 0
        self.tokens: set[str] = set()
        """Idempotency keys of bodies that have left: repeated, they have all of their rows, also those refused before."""
        self.promised: set[str | None] = set()
        """Idempotency keys of bodies that may have left with a process that was killed."""
        self.refused: set[tuple[str | None, str]] = set()
        """Idempotency key and record, where the destination has refused it: a repeat of the body creates nothing."""
        self.unseen: set[str] = set()
        """Keys that the destination lied about in a run that could not read them back."""
        self.wrote: set[str] = set()
        """Keys that this sync has sent to this account, or taken over there: only these may be deleted."""
        self.forgotten: set[str] = set()
        """Keys that a person had forgotten here: they are not sent again."""
        self.erasing: set[str] = set()
        """Keys that are deleted because a person has them forgotten now."""
        self.freed: set[str] = set()
        """Keys of dead letters whose mapping has changed, so that they have to be tried again."""
        self.strangers = frozenset(server.records)
        """What somebody else wrote."""
        self._numbers = 0
        self._database: sqlite3.Connection | None = None
        self.begin()

    def note(self, *what: object) -> None:
        self.trace.append(f"{self.house.time.elapsed:12.4f}  {' '.join(map(str, what))}")

    def fail(self, rule: str, what: str) -> None:
        self.note("VIOLATION", rule, what)
        self.violations.append(Violation(rule, what, self.house.time.elapsed))

    def expect(self, fact: bool, rule: str, what: str) -> None:
        if not fact:
            self.fail(rule, what)

    def begin(self) -> None:
        """A run begins."""
        self.run = Verdicts()
        self.attempts: dict[str, int] = {}
        self.tries: dict[tuple[str, str | None], int] = {}
        self.ended: dict[str, tuple[float, bool]] = {}
        self.unauthorised: float | None = None
        self.halved = False
        self.run_requests = 0
        if self._database is not None:
            self._database.close()
        self._database = None

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def reads(self) -> None:
        """The model is read now."""
        moment = self.source.moment()
        self.snapshot = {key: moment[key] for key in moment.keys() - self.forgotten}
        self.note("read", f"{len(self.snapshot)} rows")

    # requests

    def departs(self, request: Request) -> None:
        self.house.alive()
        now = self.house.time.elapsed
        self.requests += 1
        self.run_requests += 1
        self.note("->", request.number, request.op, ",".join(request.keys), request.idempotency_key or "")
        self._check_windows(now)
        late = _SEEN if self.setup.rates else _LOOKED
        early = max(
            (hold.until - now for hold in self.holds if hold.binds(self.house, now, late)), default=0.0
        )
        self.expect(not early, "I29", f"request {request.number} left {early:.3f} s too early")
        if request.op == "read":
            return
        self.sends += len(request.keys)
        self.expect(
            self.unauthorised is None or now <= self.unauthorised,
            "I13",
            f"request {request.number} left after a 401",
        )
        self._check_intent(request)
        self.expect(
            len(set(request.keys)) == len(request.keys), "I18", f"request {request.number} holds a key twice"
        )
        flying = {key for other in self.in_flight.values() for key in other.keys}
        both = flying & set(request.keys)
        self.expect(not both, "I18", f"{sorted(both)} are in two requests at once")
        waited = [
            now - self.ended[key][0] for key in request.keys if key in self.ended and not self.ended[key][1]
        ]
        self.gaps += waited[:1]
        for key in request.keys:
            self._check_record(request, key)
        self.tokens.add(request.idempotency_key or "")
        self.in_flight[request.number] = request

    def _check_windows(self, now: float) -> None:
        self.left.append(now)
        for text in self.setup.rates:
            count, per = text.split("/")
            length = float(per[:-1]) * {"s": 1, "m": 60, "h": 3600}[per[-1]]
            if len(self.left) > int(count):
                span = now - self.left[-1 - int(count)]
                self.expect(
                    span >= length - _HAIR,
                    "I28",
                    f"more than {text}: {int(count) + 1} requests in {span:.3f} s",
                )

    def _check_intent(self, request: Request) -> None:
        batch = BATCH.get()
        rows = self._state("SELECT low, high FROM intents WHERE plan = ?", batch.chunk.plan.id)
        covered = any(low <= batch.low and batch.high <= high for low, high in rows)
        self.expect(covered, "I5", f"request {request.number} left without a durable intent")

    def _check_record(self, request: Request, key: str) -> None:
        record = request.records[key]
        value = value_of(record)
        again = self._is_repeated(request)
        as_it_was = self.setup.idempotent and (again or request.idempotency_key in self.promised)
        if as_it_was:
            self.run.repeated.add(key)
        self.freed.discard(key)
        if request.op == "delete":
            self._check_delete(key)
        else:
            self.wrote.add(key)
            self.expect(key not in self.forgotten, "I39", f"{key} is sent although it was forgotten")
            model = self.snapshot.get(key)
            self.expect(
                as_it_was or record == model,
                "I9",
                f"{key} is sent as {value}, and the model says {value_of(model)}",
            )
        said = not as_it_was and self.run.taken.get(key) == value
        self.expect(not said, "I7", f"{key} is sent again after the destination took it")
        known = not as_it_was and not self.setup.by_email and self.acked.get(key) == value
        self.expect(not known, "I7", f"{key} is sent although {value} is acknowledged")
        whole = self.setup.idempotent and (request.idempotency_key or "-") in self.tokens
        dead = not whole and not self.setup.by_email and self.buried.get(key) == value
        self.expect(not dead, "I3", f"{key} is sent again although {value} is a dead letter")
        self._check_attempts(key, request.idempotency_key if self.setup.idempotent else None)
        if request.op == "insert":
            self._check_create(request, key)

    def _check_delete(self, key: str) -> None:
        self.expect(
            key in self.wrote,
            "I41",
            f"{key} is deleted, and this sync did not write it to {self.setup.account}",
        )
        if key not in self.erasing:
            self.expect(key not in self.snapshot, "I23", f"{key} is deleted although the model has it")
            self.expect(self.setup.mode == "mirror", "I23", f"{key} is deleted in mode {self.setup.mode}")

    def _is_repeated(self, request: Request) -> bool:
        """Whether it left before under its key, and what became of one of its records is not known."""
        held = (one for key in request.keys for one in self.creates.get(key, ()))
        return any(
            one.idempotency_key == request.idempotency_key and one.records == request.records for one in held
        )

    def _check_attempts(self, key: str, token: str | None) -> None:
        """A create that was refused when it was repeated is planned anew, with a key and attempts of its own."""
        self.attempts[key] = self.attempts.get(key, 0) + 1
        count = self.tries[key, token] = self.tries.get((key, token), 0) + 1
        most = _ATTEMPTS * 6 if self.halved else _ATTEMPTS
        self.expect(count <= most, "I31", f"attempt {count} at {key} in one run")

    def _check_create(self, request: Request, key: str) -> None:
        for earlier in self.creates.get(key, ()):
            if not self.setup.idempotent:
                self.fail(
                    "I16", f"{key} is created again although request {earlier.number} may have created it"
                )
            elif earlier.idempotency_key != request.idempotency_key:
                self.fail(
                    "I15",
                    f"{key} is created again under another idempotency key than in request {earlier.number}",
                )
        if not self.setup.idempotent or (request.idempotency_key, key) not in self.refused:
            self.creates.setdefault(key, []).append(request)

    def ends(self, request: Request, end: Any) -> None:
        """An answer, or an error in its place, has reached the client."""
        if self.house.dead:
            return
        now = self.house.time.elapsed
        self.in_flight.pop(request.number, None)
        if not isinstance(end, Answer):
            self.note("<-", request.number, type(end).__name__, end.code)
            self._ended(request, now, never=isinstance(end, NotApplied))
            return
        shown = end.body.decode("utf-8", "replace")
        self.note(
            "<-",
            request.number,
            end.status,
            end.headers.get("retry-after", ""),
            shown if len(shown) < 300 else f"{shown[:300]}…",
        )
        if "x-hold" in end.headers:
            self.holds.append(Hold(now, now + float(end.headers["x-hold"]), self.house))
        if end.status == 401:
            self.unauthorised = now
        self.halved = self.halved or end.status == 400
        if request.op != "read":
            never = end.status in (400, 401, 429) or "x-hold" in end.headers
            self._ended(request, now, never=never, plain=end.status == 400)
            self._verdicts(request, end)

    def vanishes(self, request: Request) -> None:
        """The client stopped waiting for its own reasons."""
        if not self.house.dead:
            self.in_flight.pop(request.number, None)

    def forgets_holds(self, house: House) -> None:
        """What this machine was told a moment ago may not be stored."""
        now = self.house.time.elapsed
        self.holds[:] = [hold for hold in self.holds if hold.house is not house or hold.since < now - _STORED]

    def killed(self) -> None:
        """The process is gone; what it had sent may still arrive."""
        self.note("KILLED")
        self.forgets_holds(self.house)
        for request in self.in_flight.values():
            if request.op != "read" and not request.landed and self.server.rng.random() < 0.5:
                request.landed = True
                due = self.house.time.elapsed + self.server.rng.uniform(0, 2)
                self.server.late.append((due, request.number, request))
        self.in_flight.clear()

    def _ended(self, request: Request, now: float, *, never: bool, plain: bool = False) -> None:
        for key in request.keys:
            self.ended[key] = (now, plain)
            if never:
                self._not_created(key, request, same=plain)

    def _not_created(self, key: str, request: Request, *, same: bool = False) -> None:
        """It has created nothing; where the `same` idempotency key was refused, nor has any other that had it."""
        token = request.idempotency_key if same else None
        self.creates[key] = [
            other for other in self.creates.get(key, ())
            if other is not request and (token is None or other.idempotency_key != token)
        ]  # fmt: skip

    def _verdicts(self, request: Request, answer: Answer) -> None:
        if answer.status == 400 and len(request.keys) == 1:
            self._refused(request.keys[0], request)
            return
        for key, said in self._said(request, answer).items():
            if said == {"ok"}:
                value = value_of(request.records[key])
                # a repeated body has all of its rows
                if request.op != "insert" or self.acked.get(key) != value:
                    repeated = request.op == "insert" and value in self.confirmed.get(key, ())
                    self.run.again |= {key} if repeated else set()
                    self.run.taken[key] = value
                self.confirmed.setdefault(key, set()).add(value)
                self.buried.pop(key, None)
            elif said == {"error"}:
                self._refused(key, request)
                self.refused.add((request.idempotency_key, key))
            if "ok" not in said:  # to be tried again: not taken now, but an earlier request may land yet
                self._not_created(key, request, same=said == {"error"})

    def _refused(self, key: str, request: Request) -> None:
        value = self.run.refused[key] = value_of(request.records[key])
        if self.buried.get(key) != value:  # the letter is about this one now
            self.buried.pop(key, None)

    def _said(self, request: Request, answer: Answer) -> dict[str, set[str]]:
        """What an answer says about each record that was sent: nothing, one thing, or several."""
        try:
            items = orjson.loads(answer.body)["results"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return {}
        if answer.status != 200 or not isinstance(items, list):
            return {}
        if self.setup.index:
            if len(items) != len(request.keys):
                return {}
            return {key: {item["status"]} for key, item in zip(request.keys, items, strict=True)}
        said: dict[str, set[str]] = {}
        for item in items:
            if item["id"] in request.records:
                said.setdefault(item["id"], set()).add(item["status"])
        return said

    # what people do

    @property
    def _ours(self) -> tuple[str, str]:
        return self.sync, self.setup.account

    def remapped(self) -> None:
        """The mapping is another one: every dead letter is free, and has to be tried again."""
        self.freed |= self.buried.keys()
        self.replayed()

    def replayed(self) -> None:
        """Dead letters are sent again."""
        self.buried, self.house_lost = {}, True

    def reset(self) -> None:
        """Whatever was acknowledged may be sent again; creates may not."""
        self.replayed()
        if self.setup.mode != "insert":
            self.acked = {}

    def forgets(self, key: str, *, done: bool) -> None:
        """A person had a record forgotten; not `done`: what was sent of it is in doubt."""
        self.acked.pop(key, None)
        self.buried.pop(key, None)
        self.freed.discard(key)
        self.house_lost = True
        if done:
            self.forgotten.add(key)
            self.snapshot.pop(key, None)

    def taken_over(self, ledger: dict[str, tuple[str | None, int]]) -> None:
        """The destination has shown what it holds, and the ledger took what is as in the model."""
        for key, record in self.server.records.items():
            shown = self.snapshot.get(key) if self.setup.mode == "insert" else record
            self.confirmed.setdefault(key, set()).add(value_of(shown))
        self.acked = {key: value for key, (value, _) in ledger.items() if value is not None}
        self.wrote |= self.acked.keys()

    # what a run leaves

    def _state(self, query: str, *values: Any) -> list[Any]:
        if self._database is None:
            self._database = sqlite3.connect(self.house.state_folder / "state.db")
        return self._database.execute(query, values).fetchall()

    def after(self, report: Any, ledger: dict[str, tuple[str | None, int]], calm: bool) -> None:
        """A run has ended by itself. `ledger`: value and state by identifier; `calm`: the state could be written."""
        if report is not None and report.verified is not None and report.verified.respelled:
            # the same lie after a resend is taken for the destination's spelling, and ends the resending
            self.unseen |= self.server.lied
        for key, (value, _) in ledger.items():
            if value is not None:
                known = value in self.confirmed.get(key, ())
                self.expect(
                    known, "I2", f"{key} is acknowledged as {value}, which the destination never said"
                )
        held = {key: value for key, (value, _) in ledger.items() if value is not None}
        # what a killed run was told may wait in the journal for a run that can fold it
        self.acked = held if calm or report is not None else dict(held.items() & self.acked.items())
        if report is None or report.verified is None:
            self.unseen |= self.server.lied & self.attempts.keys()
        self._letters(report, calm)
        if report is not None and self.setup.mode == "insert":
            unknown = {key for key, (value, state) in ledger.items() if value is None and state == 1}
            self.expect(
                report.status != "succeeded" or unknown <= self.buried.keys(),
                "I43",
                f"the run succeeded, and the outcome of {sorted(unknown)} is unknown",
            )
        # intents that could not be ended are as good as a kill, and outcomes may wait in the journal
        if not calm:
            for key in self._intended() | self.run.taken.keys():
                self.acked.pop(key, None)
        if not calm or report is None:
            return
        open_intents = self._state(
            f"SELECT count(*) FROM intents JOIN plans ON plans.id = plan WHERE {_OURS} AND (op <> 'insert' OR status <> 'folded')",
            *self._ours,
        )[0][0]  # creates in doubt keep theirs: rows and key are needed to send them again
        self.expect(not open_intents, "I4", f"{open_intents} intents are left by a run that ended")
        self.expect(
            report.requests <= self.run_requests,
            "I3",
            f"the run says {report.requests} requests, there were {self.run_requests}",
        )
        delivered = len(self.run.taken)
        self.expect(
            delivered - len(self.run.again) <= report.delivered <= delivered,
            "I3",
            f"the run says {report.delivered} delivered, the destination took {delivered}",
        )
        for key, value in self.run.taken.items():
            held = ledger.get(key, (None, 0))[0]
            doubted = report.verified is not None and report.verified.mismatches
            self.expect(
                self.setup.by_email
                or key not in self.buried,  # the letter may be of the key that had the identifier
                "I3",
                f"{key} was taken as {value}, and is still a dead letter",
            )
            if value != "gone" and not doubted and key not in self.run.again:
                self.expect(held == value, "I2", f"{key} was taken as {value}, and the ledger says {held}")

    def _letters(self, report: Any, calm: bool) -> None:
        rows = self._state(
            f"SELECT id, scope, key, message, payload, seal FROM dead_letters WHERE status = 'dead' AND {_OURS}",
            *self._ours,
        )
        names = ("id", "scope", "key", "message", "payload", "seal")
        opened = [KEEPING.open(dict(zip(names, row, strict=True)))[1] for row in rows]
        records = [orjson.loads(payload) for payload in opened if payload]
        letters = {record["id"]: value_of(record) for record in records}
        for key, value in letters.items():
            known = key in self.run.refused or self.buried.get(key) == value
            refusable = known or self.house_lost or not calm or self.setup.by_email
            self.expect(refusable, "I3", f"{key} is a dead letter, and the destination never refused it")
        if calm and report is not None and "looks like configuration" not in (report.error or ""):
            for key, value in self.run.refused.items():
                # a create that is repeated as it was and refused as a whole is planned anew, maybe by a later run
                if key not in self.run.taken and key not in self.run.repeated:
                    self.expect(key in letters, "I3", f"{key} was refused as {value}, and is no dead letter")
        self.buried = letters

    house_lost = False
    """A kill came between: what was refused before it may have become a dead letter or not."""

    def crashed(self) -> None:
        """A run was killed: what it had sent is in doubt, what it had been told may or may not have been stored."""
        self.house_lost = True
        self.unseen |= self.server.lied & self.attempts.keys()
        gone = (
            self.buried.keys() - self.snapshot.keys()
        )  # forgotten with their rows, if the run came that far
        for key in self.attempts.keys() | self._intended() | gone:
            self.acked.pop(key, None)
            self.buried.pop(key, None)

    def _intended(self) -> set[str]:
        """Keys of which the state says that they may have left: I5 makes them dirty, whatever was acknowledged before."""
        keys: set[str] = set()
        if not (self.house.state_folder / "state.db").exists():
            return keys
        query = f"SELECT plan, low, high, idempotency_key FROM intents JOIN plans ON plans.id = plan WHERE {_OURS}"
        for plan, low, high, token in self._state(query, *self._ours):
            self.promised.add(token)
            file = self.house.folder / "plans" / f"{plan}.parquet"
            if file.exists():
                rows = f"read_parquet('{file}', file_row_number = true)"
                where = f"file_row_number >= {low} AND file_row_number < {high}"
                keys |= {
                    str(key) for (key,) in duckdb.sql(f'SELECT "f.id" FROM {rows} WHERE {where}').fetchall()
                }
        self.wrote |= keys  # nobody knows whether it has left
        return keys

    # the end

    def final(self, ledger: dict[str, tuple[str | None, int]]) -> None:
        """The sync has drained against a healthy destination."""
        self.server.catch_up()
        unknown = {key for key, (value, state) in ledger.items() if value is None and state == 1}
        self.expect(not self.freed & self.snapshot.keys(), "I42",
                    f"{sorted(self.freed)} are dead letters, and their mapping has changed since")  # fmt: skip
        lasting = sorted(self.strangers - self.wrote - self.server.records.keys())
        self.expect(not lasting, "I41", f"{lasting} are gone, and this sync did not write them")
        for key, record in self.snapshot.items():
            if self.setup.mode == "insert":
                self._check_created(key, unknown)
            else:
                self._check_held(key, record)
        if self.setup.mode == "mirror" and not self.setup.by_email:
            extra = sorted(
                self.server.records.keys()
                - self.snapshot.keys()
                - self.buried.keys()
                - self._not_ours()
                - self.forgotten
            )
            self.expect(not extra, "I1", f"{extra} left the model, and the destination still has them")
        if self.setup.mode == "insert":
            twins = {key: count for key, count in self.server.creates.items() if count > 1}
            self.expect(not twins, "I14", f"created more than once: {twins}")
        if len(self.gaps) >= 20:
            mean = sum(self.gaps) / len(self.gaps)
            self.expect(mean >= 0.1, "I31", f"retries follow after {mean:.3f} s on average")

    def _not_ours(self) -> frozenset[str]:
        """Records that this sync never wrote and has to leave alone."""
        return self.strangers - self.wrote

    def _check_created(self, key: str, unknown: set[str]) -> None:
        there = self.server.creates[key] > 0
        named = key in unknown or key in self.buried
        self.expect(there or named, "I1", f"{key} is not at the destination, and nothing says so")

    def _check_held(self, key: str, record: Row) -> None:
        held, value = self.server.records.get(key), value_of(record)
        refusable = not {REFUSED, POISON}.isdisjoint(record.values()) or (
            self.setup.mode == "update" and held is None
        )
        if refusable:
            self.expect(
                self.buried.get(key) == value, "I3", f"{key} cannot be delivered, and is no dead letter"
            )
        elif key in self.server.lied:
            self.expect(
                self.setup.sample < 200 or key in self.unseen,
                "I40",
                f"{key} is not what the destination said it took, and nobody looked",
            )
        else:
            self.expect(
                held == record,
                "I1",
                f"{key} is {held and value_of(held)} at the destination, and {value} in the model",
            )
