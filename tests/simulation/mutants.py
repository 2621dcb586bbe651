"""Mutants of the engine: each breaks one thing that keeps a promise, and the simulation must notice. A mutant is a rewrite of
one module's source, made while a test's own child process imports it; the product knows nothing of them."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .scenario import Scenario


@dataclass(frozen=True)
class Mutant:
    """`old` occurs exactly once in the module's source. `needs`: which scenarios can show it at all."""

    name: str
    module: str
    old: str
    new: str
    needs: Callable[[Scenario], bool] = lambda scenario: True


def _unanswered(scenario: Scenario) -> float:
    faults = scenario.faults
    return faults.reset_before + faults.reset_after + faults.broken + faults.garbage


def _taken_over(scenario: Scenario) -> bool:
    """A worker may find that another one has taken its sync."""
    return scenario.setup.shared and scenario.races == "same"


def _renamed_after(deed: str) -> Callable[[Scenario], bool]:
    """The sync is called otherwise after a deed."""

    def renamed(scenario: Scenario) -> bool:
        deeds = scenario.deeds
        return deed in deeds and "rename sync" in deeds[deeds.index(deed) :]

    return renamed


_DELIVERY, _TALLY, _RESULTS = (
    "backhaul.delivery.delivery",
    "backhaul.delivery.tally",
    "backhaul.destinations.http.results",
)
_KIT, _FOLD, _RECOVERY = "backhaul.destinations.kit.answers", "backhaul.ledger.fold", "backhaul.runs.recovery"
_WAITING = "backhaul.delivery.waiting"
_BUDGET, _SHARED = "backhaul.delivery.budget", "backhaul.ledger.shared"
_SENDING, _CONNECT, _DIFF = "backhaul.runs.sending", "backhaul.delivery.connect", "backhaul.ledger.diff"

MUTANTS = (
    Mutant(
        "acknowledge before delivery", _DELIVERY,
        '        failpoint("intended")\n',
        "        self.journal.store(self.journal.settlement(tally.outcome()), lambda failure: None)\n",
    ),
    Mutant("trust a 200", _TALLY, "        if outcomes.everything:\n", "        if True:\n"),
    Mutant(
        "no intent", _DELIVERY, "await self.journal.write([self._intention(whole)])", "pass",
    ),
    Mutant(
        "positional results", _RESULTS,
        "zip(keys, items, strict=True) if results.index else named(results, items)",
        "zip(keys, items)",
    ),
    Mutant(
        "retry of creates", _DELIVERY,
        "if not doubted or batch.op in self._repeatable or self._keyed(batch):", "if True:", lambda s: s.setup.mode == "insert",
    ),
    Mutant(
        "watermark before settle", _FOLD,
        "plan.watermark if complete else None", "plan.watermark", lambda s: s.setup.cursor,
    ),
    Mutant("no limiter", "backhaul.delivery.door", "place = await part.acquire()", "place = None"),
    Mutant("a limiter for each run", _CONNECT, "buckets=buckets,", "buckets=None,", lambda s: "40/1h" in s.setup.rates),
    Mutant("ignore Retry-After", _KIT, "    after = answer.retry_after()\n", "    after = None\n"),
    Mutant(
        "hold the batch that was throttled, not the bucket", _WAITING,
        "                part.hold(wait, str(error))\n", "                pass\n",
    ),
    Mutant(
        "a repeated create is cut to what is open", _DELIVERY,
        "sent = batch if self._keyed(batch) else batch.only(open_rows)", "sent = batch.only(open_rows)",
        lambda s: s.setup.mode == "insert" and s.setup.idempotent,
    ),
    Mutant(
        "forget the journal before the fold", _SENDING,
        "        found = settlements(state, plan.id)\n",
        '        found = settlements(state, plan.id)\n        state.drop_plan(plan.id, plan.path.with_suffix(".gone"))\n',
    ),
    Mutant(
        "unknown is delivered", _RECOVERY,
        "found += [Settlement(Stage.UNKNOWN, number, number + 1)", "found += [Settlement(Stage.ACKNOWLEDGED, number, number + 1)",
    ),
    Mutant("doubt is dropped", _TALLY, "Event.SILENCE if row in self.doubted else Event.NOT_APPLIED", "Event.NOT_APPLIED"),
    Mutant("an interrupted batch is forgotten", _RECOVERY, '        for row in state.do("intents", {"plan": plan_id})\n', "        for row in []\n", lambda s: s.crash > 0.5),
    Mutant("an interrupted batch keeps its hash", _FOLD, "SET _hash = NULL, _state = {_UNKNOWN}", "SET _state = {_UNKNOWN}",
           lambda s: s.setup.mode != "insert" and s.runs > 1 and (s.crash > 0.5 or _unanswered(s) > 0.5)),
    Mutant(
        "rejected is delivered", _TALLY,
        "                self.reject(batch, row, outcome)\n", "                pass\n",
    ),
    Mutant(
        "omitted is delivered", _TALLY,
        "return sorted([*retry, *waiting]), waiting", "return sorted(retry), set()",
    ),
    Mutant("no end of attempts", _DELIVERY, "ATTEMPTS = 5\n", "ATTEMPTS = 50\n"),
    Mutant("no backoff", _WAITING, "longest = min(LONGEST_WAIT, BASE_WAIT * 2**attempt)", "longest = 0.0", lambda s: not s.setup.rates and _unanswered(s) > 0.5),
    Mutant("dead letters are sent by every run", _DIFF, "CASE WHEN dead THEN NULL WHEN gone", "CASE WHEN false THEN NULL WHEN gone"),
    Mutant("a dead letter stays when its record is taken", _DELIVERY, "if key in self._letters]", "if False]"),
    Mutant(
        "a delete is not noted", _FOLD,
        '_remove(view, mapping, f"{_source(plan, everything)} WHERE status = {_ACKNOWLEDGED}")',
        '_remove(view, mapping, f"{_source(plan, everything)} WHERE status = {_ACKNOWLEDGED} AND _change <> 2")',
        lambda s: s.setup.mode == "mirror",
    ),
    Mutant("halving loses the right half", "backhaul.delivery.narrowing", "            await self._send(batch, tally, batch.rows)\n", "            pass\n"),
    Mutant("a 5xx was not applied", _KIT, "        return Unsettled(text, code=str(status))\n", "        return NotApplied(text, code=str(status))\n",
           lambda s: s.faults.broken > 0 and s.setup.mode == "insert"),
    Mutant("a 401 is about the record", _KIT, "    if status == 401:\n", "    if status == 999:\n"),
    Mutant("what differs at the destination is left", "backhaul.verification.spellings", "        mark_doubtful(view, mapping, keys)\n", "        pass\n", lambda s: s.faults.lie > 0),
    Mutant("a refused record of a request in doubt is created under another key", _DELIVERY, "                tally.bind()\n", "                pass\n",
           lambda s: s.setup.mode == "insert" and s.setup.idempotent),
    Mutant("a shared fold is not stored", _SHARED, "                self._store(view)\n", "                pass\n", lambda s: s.setup.shared),
    Mutant("a shared fold keeps what was deleted", _SHARED, "FROM {source} WHERE NOT _gone", "FROM {source}", lambda s: s.setup.shared and s.setup.mode == "mirror"),
    Mutant("a worker believes its own copy", _SHARED, "        self._catch_up(engine)\n        return self.path.exists()", "        return self.path.exists()", lambda s: s.setup.shared),
    Mutant("a plan is not kept for other workers", _SENDING, "        await asyncio.to_thread(state.keep_file, plan.id, plan.path)\n", "", lambda s: s.setup.shared and s.crash > 0.5),
    Mutant("a plan that was recorded and not kept stops everybody", _RECOVERY, "        elif not settlements(state, plan.id):", "        elif False:", lambda s: s.setup.shared and s.crash > 0.5),
    Mutant("two may run one sync", "backhaul.state.lease", "            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "            pass\n", lambda s: s.races == "same" and not s.setup.shared),
    Mutant("a lease is taken and never asked", "backhaul.runs.run", "stack, self._lease.check)", "stack)", _taken_over),
    Mutant("a lease is asked for leave, and not when bytes leave", _BUDGET, "        self.permit()\n        if self.stop", "        if self.stop", _taken_over),
    Mutant("a state ignores the fence", "tests.simulation.shared", "        if self.held is None:\n", "        if True:\n", _taken_over),
    Mutant("a limiter for each sync", _CONNECT, "bucket=bucket_of(destination, await buckets.salt())", "bucket=f'{bucket_of(destination, await buckets.salt())}{priority}'", lambda s: s.races == "beside" and bool(s.setup.rates)),
    Mutant("a Retry-After is not heard while a connection is made", _BUDGET, "        if self._held_until > self._clock():\n            raise Stale", "        if False:\n            raise Stale", lambda s: bool(s.races) and s.faults.throttle + s.faults.busy > 0),
    Mutant("a stop is not heard while a connection is made", _BUDGET, "        if self.stop.is_set() and not stopped:\n", "        if False:\n", lambda s: bool(s.races) and s.faults.unauthorised > 0),
    Mutant("who waited does not look for a longer Retry-After", _BUDGET, "            while await self._silence():", "            if await self._silence() and False:", lambda s: s.races == "beside" and not s.setup.rates and s.faults.throttle + s.faults.busy > 0),
    Mutant("who was silent does not look for a Retry-After", _BUDGET, "self._clock() - self._known > 2 * _LOOK", "False", lambda s: s.races == "beside" and not s.setup.rates and s.faults.throttle + s.faults.busy > 0),
    Mutant("what is to be created again is not read again", _FOLD, '            view.set("watermark", None)  # they', "            pass  # they", lambda s: s.setup.mode == "insert" and s.setup.cursor),
    Mutant("a sample may be of one record alone", "backhaul.verification.verify", "rng.sample(range(ends[-1]), min(ends[-1], count + len(excepted)))", "rng.choices(range(ends[-1]), k=count + len(excepted))", lambda s: s.setup.sample == 200 and s.faults.lie > 0),
    Mutant("a record that left the model is kept", _DIFF, "{kept}ELSE {DELETE} END", "{kept}ELSE {FORGET} END", lambda s: s.setup.mode == "mirror"),
    Mutant("the ledger ignores the account", "backhaul.state.scopes", "_digest(self.project, account, sync.object, size=8)", "_digest(self.project, sync.object, size=8)", lambda s: "account" in s.deeds),
    Mutant("forgotten keys are kept by the sync's name", "backhaul.state.scopes", "sync.object, account, label, place\n        )", "sync.object, account, label, place + sync.name\n        )", _renamed_after("forget")),
    Mutant("the hash covers values by position", "backhaul.mapping.hashing", "    ordered = sorted(names)\n",
           "    columns = ', '.join(ident(f'f.{name}') for name in names)\n    return f'hash({columns}, {error})'\n    ordered = []\n", lambda s: "exchange" in s.deeds),
    Mutant("a dead letter stays when its mapping changes", "backhaul.planning.prepare", 'if row["mapping"] == made_with', "if made_with", lambda s: "reword" in s.deeds and s.rows >= 40),
    Mutant("a run with unknown records succeeds", "backhaul.runs.run", "        if report.undecided:\n            report.status", "        if False:\n            report.status",
           lambda s: s.setup.mode == "insert" and not s.setup.idempotent and s.setup.index_lag is None and _unanswered(s) > 0.1),
    Mutant("a baseline takes records that left the model as deleted", "backhaul.runs.baseline", "    return found\n",
           "    return found + [Settlement(Stage.ACKNOWLEDGED, one.low, one.high) for one in prepared.plan.segments if one.op is Op.DELETE]\n",
           lambda s: s.setup.mode == "mirror" and "baseline" in s.deeds),
    Mutant("the index lag is measured by the wall clock", "backhaul.workspace", "clock=state.clock)", "clock=self.surroundings.wall)", lambda s: s.setup.index_lag is not None and not s.setup.idempotent and not s.setup.shared and _unanswered(s) + s.faults.silence > 0.1),
    Mutant("the life of an idempotency key is measured by the wall clock", "backhaul.runs.doubt", "workspace.state, workspace.state.clock(), Creates()", "workspace.state, workspace.surroundings.wall(), Creates()",
           lambda s: s.setup.mode == "insert" and s.setup.key_life < 86_400 and _unanswered(s) + s.faults.silence > 0.1),
    Mutant("a mirror deletes what another sync holds", "backhaul.planning.prepare", "sync.mode is Mode.MIRROR and find_elsewhere(engine, mapping, sources.others)", "False", lambda s: s.partner),
    Mutant("reset drops unknown creates", "backhaul.runs.reset", "return (Stage.QUARANTINED, Stage.UNKNOWN, Stage.RETRY, *doubled)", "return (Stage.QUARANTINED, Stage.RETRY, *doubled)",
           lambda s: "reset" in s.deeds and s.setup.mode == "insert" and not s.setup.idempotent and _unanswered(s) > 0.1),
)  # fmt: skip


SEEDS: dict[str, tuple[int, ...]] = {
    "a mirror deletes what another sync holds": (61,),
    "the index lag is measured by the wall clock": (6730,),
    "the life of an idempotency key is measured by the wall clock": (2146,),
    "a baseline takes records that left the model as deleted": (515,),
    "a run with unknown records succeeds": (49,),
    "a dead letter stays when its mapping changes": (1485,),
    "the hash covers values by position": (35,),
    "what differs at the destination is left": (67,),
    "a worker believes its own copy": (1,),
    "a shared fold is not stored": (1,),
    "a delete is not noted": (5,),
    "dead letters are sent by every run": (0,),
    "rejected is delivered": (0,),
    "omitted is delivered": (0,),
    "retry of creates": (13,),
    "watermark before settle": (11,),
    "positional results": (0,),
    "no intent": (0,),
    "acknowledge before delivery": (0,),
    "trust a 200": (0,),
    "a sample may be of one record alone": (252,),
    "a refused record of a request in doubt is created under another key": (2004275,),
    "a plan that was recorded and not kept stops everybody": (154,),
    "two may run one sync": (56,),
    "a lease is taken and never asked": (141,),
    "a lease is asked for leave, and not when bytes leave": (572,),
    "a state ignores the fence": (27,),
    "a limiter for each sync": (64,),
    "a Retry-After is not heard while a connection is made": (110,),
    "a stop is not heard while a connection is made": (857, 1772),
    "who was silent does not look for a Retry-After": (259,),
    "what is to be created again is not read again": (7077781,),
    "who waited does not look for a longer Retry-After": (2197, 5000281),
    "no limiter": (3,),
    "a limiter for each run": (20,),
    "ignore Retry-After": (9,),
    "hold the batch that was throttled, not the bucket": (7,),
    "a shared fold keeps what was deleted": (326,),
    "a plan is not kept for other workers": (124,),
    "no end of attempts": (1,),
    "a repeated create is cut to what is open": (97,),
    "forget the journal before the fold": (62,),
    "unknown is delivered": (13,),
    "doubt is dropped": (22,),
    "an interrupted batch is forgotten": (68,),
    "an interrupted batch keeps its hash": (38,),
    "no backoff": (976, 518),
    "a dead letter stays when its record is taken": (29,),
    "halving loses the right half": (3,),
    "a 5xx was not applied": (162, 99),
    "a 401 is about the record": (15,),
    "a record that left the model is kept": (5,),
    "the ledger ignores the account": (12,),
    "forgotten keys are kept by the sync's name": (710,),
    "reset drops unknown creates": (260,),
}
"""Seeds that gave a mutant away before: they are tried first."""


class MutantError(Exception):
    """The source that a mutant rewrites is not what it was: the mutant has to be written again."""


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != self.mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self.mutant)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self.mutant = mutant

    def get_code(self, fullname: str) -> Any:
        source = self.get_data(self.path).decode()
        return compile(mutated(source, self.mutant), self.path, "exec", dont_inherit=True)


def mutated(source: str, mutant: Mutant) -> str:
    """Raises: MutantError where the text to rewrite does not occur exactly once."""
    if source.count(mutant.old) != 1:
        raise MutantError(
            f"{mutant.name}: {mutant.old!r} occurs {source.count(mutant.old)} times in {mutant.module}"
        )
    return source.replace(mutant.old, mutant.new)


def install(mutant: Mutant) -> None:
    """From now on this process imports the mutant."""
    if mutant.module in sys.modules:
        raise MutantError(f"{mutant.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutant))
