"""The part of the oracle that sees every request as it leaves and as it ends."""

from __future__ import annotations

import sqlite3
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from backhaul.destinations.kit import Answer
from backhaul.errors import NotApplied

from .house import BATCH, SYNC, House
from .scenario import Row, Setup, Source
from .server import GONE, Request, Server, value_of

_ATTEMPTS = 5
"""Attempts at one value in one run (I31)."""
_HAIR = 1e-6
OURS = "scope IN (SELECT s.id FROM scopes s JOIN syncs n ON n.id = s.sync WHERE n.name = ? AND s.label = ?)"
_STORED = 0.02
"""Seconds within which what an answer said is on the disk."""
_SEEN, _LOOKED = 0.4, 2.4
"""Seconds within which another worker knows of it: with limits, which are asked about, and without, where it is looked for."""


Mapping = tuple[frozenset[tuple[str, str]], bool]
"""The fields of a mapping with their columns, and whether an expression is written otherwise."""
Difference = tuple[str, str, str]
"""A field, what was sent, and what is held."""


def difference_of(name: str, sent: Any, held: Any) -> Difference:
    return name, orjson.dumps(sent).decode(), orjson.dumps(held).decode()


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


class Witness:
    """Watches one scenario. `trace` is everything that happened, in order."""

    def __init__(
        self, house: House, server: Server, source: Source, setup: Setup, sync: str = SYNC,
        beside: Witness | None = None,
    ) -> None:  # fmt: skip
        """`beside`: the oracle of another sync that draws on the same credential, and whose story it is told in."""
        self.house, self.server, self.source, self.setup, self.sync = house, server, source, setup, sync
        self.violations: list[Violation] = beside.violations if beside else []
        self.trace: list[str] = beside.trace if beside else []
        self.snapshot: dict[str, Row] = {}
        self.names: dict[str, str] = {}
        """Identifiers by primary key, of the model as it was read last."""
        self.confirmed: dict[str, set[str]] = {}
        self.acked: dict[str, str] = {}
        self.letters: dict[str, tuple[str, Mapping]] = {}
        """Dead letters by key: the value that was refused, and the mapping that made it."""
        self.mappings: dict[str, Mapping] = {}
        """The mappings so far, by what the state calls them."""
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
        self.sent: dict[str, tuple[Row, int]] = {}
        """What the destination last said it took, by key, and how many times it was said."""
        self.shown: dict[str, dict[Difference, int]] = {}
        """How a record read back differs from what the destination said it took, and how many times that had been said then."""
        self.spelled: dict[str, set[Difference]] = {}
        """Differences that were accepted as the destination's own spelling."""
        self.wrote: set[str] = set()
        """Keys that this sync has sent to this account, or taken over there: only these may be deleted."""
        self.orphans: set[str] = set()
        """Keys that were written and that the state knows nothing of since it was restored."""
        self.forgotten: set[str] = set()
        """Keys that a person had forgotten here: they are not sent again."""
        self.erasing: set[str] = set()
        """Keys that are deleted because a person has them forgotten now."""
        self.past: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        """By run: what was acknowledged before it, and what it was told is taken."""
        self.undoing: tuple[dict[str, str], dict[str, str]] | None = None
        """The one of `past` that a person has undone now."""
        self.partner: Witness | None = None
        """Who watches another mirror of the same object."""
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
        self.before = dict(self.acked)
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
        moment, self.names = self.source.moment(), self.source.names()
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
        if self.undoing is not None:
            self._check_undone(key, value)
        elif request.op == "delete":
            self._check_delete(key)
        if request.op != "delete":
            self.wrote.add(key)
            self.orphans.discard(key)
            self.expect(key not in self.forgotten, "I39", f"{key} is sent although it was forgotten")
            model = self.snapshot.get(key)
            self.expect(
                as_it_was or self.undoing is not None or record == model,
                "I9",
                f"{key} is sent as {value}, and the model says {value_of(model)}",
            )
        said = not as_it_was and self.run.taken.get(key) == value
        self.expect(not said, "I7", f"{key} is sent again after the destination took it")
        known = not as_it_was and not self.setup.by_email and self.acked.get(key) == value
        known = known and self.undoing is None  # of a run that sent what was sent before, after a reset
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
        held = self.partner is not None and key in self.partner.acked
        self.expect(not held, "I41", f"{key} is deleted, and another sync holds it")
        if key not in self.erasing:
            self.expect(key not in self.snapshot, "I23", f"{key} is deleted although the model has it")
            self.expect(self.setup.mode == "mirror", "I23", f"{key} is deleted in mode {self.setup.mode}")

    def _check_undone(self, key: str, value: str) -> None:
        """Only what that run was told is taken and nobody has changed since, and only to what was acknowledged before it."""
        before, taken = self.undoing or ({}, {})
        self.expect(key in taken, "undo", f"{key} is undone, and that run did not deliver it")
        if value == GONE:
            known = key not in before
        else:
            record = orjson.loads(value)
            earlier = [before[key]] if key in before else self.confirmed.get(key, set()) - {GONE}
            # of a field that is new with that run nothing is known: it is emptied
            known = any(
                all(orjson.loads(text).get(name) == record[name] for name in record) for text in earlier
            )
        self.expect(known, "undo", f"{key} is put back as {value}, and was {before.get(key)}")

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
        if request.op == "read":
            self._shows(request, end)
        else:
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
                self.letters.pop(key, None)
                self._taken(key, request.records[key])
            elif said == {"error"}:
                self._refused(key, request)
                self.refused.add((request.idempotency_key, key))
            if "ok" not in said:  # to be tried again: not taken now, but an earlier request may land yet
                self._not_created(key, request, same=said == {"error"})

    def _refused(self, key: str, request: Request) -> None:
        value = self.run.refused[key] = value_of(request.records[key])
        if self.buried.get(key) != value:  # the letter is about this one now
            self.letters.pop(key, None)

    def _taken(self, key: str, record: Row | None) -> None:
        """The destination says that it has a record, or has none any more."""
        self.unseen.discard(key)
        if record is None:
            self.sent.pop(key, None)
        else:
            self.sent[key] = (record, self.sent.get(key, (record, 0))[1] + 1)

    def _shows(self, request: Request, answer: Answer) -> None:
        """Records are read back, or looked up."""
        try:
            held = {record["id"]: record for record in orjson.loads(answer.body)["results"]}
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return
        for key in request.keys:
            if self.setup.index_lag is not None:
                self._looked_up(key, held.get(key))
            sent, times = self.sent.get(key, ({}, 0))
            for name in sent.keys() & held.get(key, {}).keys():
                if held[key][name] != sent[name]:
                    difference = difference_of(name, sent[name], held[key][name])
                    self.shown.setdefault(key, {}).setdefault(difference, times)

    def _looked_up(self, key: str, held: Row | None) -> None:
        """A record that is there is taken for the create in doubt; one that is not, after the declared lag, was not created."""
        waited = self.house.time.elapsed - (self.setup.index_lag or 0.0)
        doubted = self.creates.get(key, [])
        if held is not None:
            self.confirmed.setdefault(key, set()).update(value_of(one.records[key]) for one in doubted)
        else:
            self.creates[key] = [one for one in doubted if one.left > waited + _HAIR]

    def _respelled(self, key: str, fields: dict[str, list[Any]]) -> None:
        """A run takes what the destination holds for its own spelling: it has shown the same, it was sent again, and it shows
        the same once more (I46)."""
        sent, times = self.sent.get(key, ({}, 0))
        for name, (_, held) in fields.items():
            difference = difference_of(name, sent.get(name), held)
            before = self.shown.get(key, {}).get(difference, times)
            self.expect(before < times, "I46",
                        f"{key} is {held!r} in {name}, which is accepted although it was not sent again")  # fmt: skip
            self.spelled.setdefault(key, set()).add(difference)

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

    @property
    def _ours(self) -> tuple[str, str]:
        return self.sync, self.setup.account

    @property
    def _mapping(self) -> Mapping:
        """The mapping of today; the order of its fields means nothing."""
        return frozenset(self.setup.fields), self.setup.reworded

    @property
    def buried(self) -> dict[str, str]:
        """What was refused with the mapping of today and is not sent again, by key."""
        return {key: value for key, (value, made_with) in self.letters.items() if made_with == self._mapping}

    def _state(self, query: str, *values: Any) -> list[Any]:
        if self._database is None:
            self._database = sqlite3.connect(self.house.state_folder / "state.db")
        return self._database.execute(query, values).fetchall()
