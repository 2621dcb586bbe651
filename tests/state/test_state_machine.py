"""Any history of plans, intents, outcomes, dead letters, leases and budgets: the state says what a model in memory says,
also after it was closed and opened, and after a transaction that did not come to its end. Over every kind of state."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from backhaul.changes import Stage
from backhaul.errors import RunError
from backhaul.records.letters import ACTS
from backhaul.runs.recovery import settlements
from backhaul.state.journal import BatchOutcome, Journal
from backhaul.state.letters import DeadLetter
from backhaul.state.opening import open_state

_WORLDS = itertools.count()
FATES = st.sampled_from(["delivered", "delivered", "rejected", "unknown", "pending"])
BATCH = st.tuples(st.integers(0, 5), st.booleans(), st.lists(FATES, min_size=4, max_size=4))
"""Which four rows of a plan, whether an outcome comes, and the rows' fates."""


@dataclass
class Letter:
    """A dead letter of the model."""

    hash: str
    code: str
    plan: str
    attempts: int
    by_mapping: bool
    status: str = "dead"


@dataclass
class Kept:
    """What the state should hold."""

    plans: dict[str, str] = field(default_factory=dict)
    intents: dict[tuple[str, int], str] = field(default_factory=dict)
    outcomes: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    letters: dict[str, Letter] = field(default_factory=dict)
    spent: int = 0


class Histories(RuleBasedStateMachine):
    """Every example has a sync of its own in one state."""

    address = ""

    @initialize()
    def start(self) -> None:
        self.number = next(_WORLDS)
        self.sync, self.model = f"s{self.number}", Kept()
        self.state = open_state(self.address)
        self.plan_numbers = itertools.count()

    def name(self, number: int) -> str:
        return f"p{self.number}-{number}"

    @rule(status=st.sampled_from(["held", "delivering"]))
    def plan(self, status: str) -> None:
        name = self.name(next(self.plan_numbers))
        row = {"id": name, "scope": self.sync, "file": f"{name}.parquet", "header": "{}", "status": status}
        self.state.do("add_plan", row | {"created_at": self.state.now()})
        self.model.plans[name] = status

    @rule(
        number=st.integers(0, 3),
        batches=st.lists(BATCH, min_size=1, max_size=4, unique_by=lambda batch: batch[0]),
    )
    def deliver(self, number: int, batches: list[Any]) -> None:
        """Batches in flight together; those without an outcome are what a kill leaves."""
        name = self.name(number)
        if name in self.model.plans:
            asyncio.run(self._deliver(name, batches))

    async def _deliver(self, name: str, batches: list[Any]) -> None:
        async with Journal(self.state, self.sync, name) as journal:
            await asyncio.gather(
                *(self._batch(journal, 4 * place, ends, fates) for place, ends, fates in batches)
            )

    async def _batch(self, journal: Journal, low: int, ends: bool, fates: list[str]) -> None:
        await journal.intend(low, low + 4, "upsert", f"k{low}", "{}")
        self.model.intents[journal.plan, low] = f"k{low}"
        if not ends:
            return
        rows = {name: [low + at for at, fate in enumerate(fates) if fate == name] for name in set(fates)}
        dead = [
            DeadLetter(f"{row}", "upsert", f"c{row % 2}", "no", 1, "{}", f"h{row}-{journal.plan}")
            for row in rows.get("rejected", ())
        ]
        raised = [f"{row}" for row in rows.get("delivered", ()) if f"{row}" in self.model.letters]
        lists = {name: rows.get(name, []) for name in ("rejected", "unknown", "pending")}
        await journal.settle(BatchOutcome(low, low + 4, **lists), dead, raised)
        del self.model.intents[journal.plan, low]
        self.model.outcomes[journal.plan, low] = fates
        for letter in dead:
            self._bury(letter.key, letter.hash, letter.code, journal.plan, 1, by_mapping=False)
        for key in raised:
            self.model.letters.pop(key)

    def _bury(self, key: str, hash: str, code: str, plan: str, attempts: int, *, by_mapping: bool) -> None:
        before = self.model.letters[key].attempts if key in self.model.letters else 0
        self.model.letters[key] = Letter(hash, code, plan, before + attempts, by_mapping)

    @rule(number=st.integers(0, 3), keys=st.sets(st.integers(0, 9), max_size=3))
    def refuse_by_mapping(self, number: int, keys: set[int]) -> None:
        at, plan = self.state.now(), self.name(number)
        rows = [
            (self.sync, f"{key}", "upsert", "null", "no", 0, at, at, "", f"m{key}", 1, plan, "f", "", "record", 0, "dead", "m", "")
            for key in sorted(keys)
        ]  # fmt: skip
        self.state.do_all("bury", rows)
        for key in keys:
            self._bury(f"{key}", f"m{key}", "null", plan, 0, by_mapping=True)

    @rule(key=st.integers(0, 23), status=st.sampled_from(["replay", "discarded"]))
    def mark(self, key: int, status: str) -> None:
        for row in self.state.do("dead_letters", {"scope": self.sync, "id": None}):
            if row["key"] == f"{key}":
                self.state.do_all(ACTS[status], [(row["id"],)])
                self.model.letters[f"{key}"].status = status

    @rule(number=st.integers(0, 3), code=st.sampled_from(["c0", "c1"]))
    def void(self, number: int, code: str) -> None:
        """A run that ended for one reason unsays its refusals."""
        plan = self.name(number)
        self.state.do("void_refusals", {"plan": plan, "code": code})
        gone = [
            k for k, x in self.model.letters.items() if (x.plan, x.code, x.by_mapping) == (plan, code, False)
        ]
        for key in gone:
            del self.model.letters[key]

    @rule(number=st.integers(0, 3), whole=st.booleans())
    def drop(self, number: int, whole: bool) -> None:
        """A plan goes with its journal, or not at all."""
        plan = self.name(number)
        if not whole:
            with pytest.raises(KeyError), self.state.together():
                for name in ("drop_plan_intents", "drop_plan_outcomes"):
                    self.state.do(name, {"id": plan})
                raise KeyError(plan)
            return
        with self.state.together():
            for name in ("drop_plan_intents", "drop_plan_outcomes", "drop_plan"):
                self.state.do(name, {"id": plan})
        self.model.plans.pop(plan, None)
        for kept in (self.model.intents, self.model.outcomes):
            for key in [key for key in kept if key[0] == plan]:
                del kept[key]  # type: ignore[attr-defined]

    @rule(count=st.integers(1, 5), fails=st.booleans())
    def spend(self, count: int, fails: bool) -> None:
        """A budget's document changes as a whole, or not at all."""

        def act(document: dict[str, Any], now: float) -> int:
            document["spent"] = document.get("spent", 0) + count
            if fails:
                raise KeyError("changed its mind")
            return int(document["spent"])

        async def exchange() -> int:
            buckets = self.state.buckets()
            try:
                return await buckets.exchange(f"b{self.number}", act)
            finally:
                await buckets.close()

        if fails:
            with pytest.raises(KeyError):
                asyncio.run(exchange())
            return
        self.model.spent += count
        assert asyncio.run(exchange()) == self.model.spent

    @rule()
    def lease(self) -> None:
        """One run at a time; it is over when its owner says so."""
        with self.state.lease(self.sync) as held:
            held.check()
            assert self.state.is_leased(self.sync)
            other = open_state(self.address)
            with pytest.raises(RunError), other.lease(self.sync):
                raise AssertionError("two at once")
            other.close()
        assert not self.state.is_leased(self.sync)

    @rule()
    def reopen(self) -> None:
        self.state.close()
        self.state = open_state(self.address)

    @invariant()
    def the_journal_is_as_it_was_told(self) -> None:
        if not hasattr(self, "state"):
            return
        for status in ("held", "delivering"):
            rows = self.state.do("plans_with_status", {"scope": self.sync, "status": status})
            assert [row["id"] for row in rows] == [
                name for name, what in self.model.plans.items() if what == status
            ]
        for plan in self.model.plans:
            intents = {
                (plan, row["low"]): row["idempotency_key"] for row in self.state.do("intents", {"plan": plan})
            }
            assert intents == {key: token for key, token in self.model.intents.items() if key[0] == plan}
            self._check_settlements(plan)

    def _check_settlements(self, plan: str) -> None:
        """An intent without an outcome is doubt; a row is delivered only where its outcome says so."""
        fates: dict[int, str] = {}
        for item in settlements(self.state, plan):
            for row in range(item.low, item.high):
                if row not in item.except_rows:
                    fates[row] = "delivered" if item.status is Stage.ACKNOWLEDGED else "unknown"
        wanted = {}
        for (name, low), outcome in self.model.outcomes.items():
            if name == plan:
                known = {
                    low + at: fate for at, fate in enumerate(outcome) if fate in ("delivered", "unknown")
                }
                wanted.update(known)
        for name, low in self.model.intents:
            if name == plan and (plan, low) not in self.model.outcomes:
                wanted.update(dict.fromkeys(range(low, low + 4), "unknown"))
        told_twice = {
            row
            for name, low in self.model.intents
            if (name, low) in self.model.outcomes
            for row in range(low, low + 4)
        }
        assert {row: fate for row, fate in fates.items() if row not in told_twice} == {
            row: fate for row, fate in wanted.items() if row not in told_twice
        }

    @invariant()
    def the_dead_letters_are_those_refused(self) -> None:
        if not hasattr(self, "state"):
            return
        model = self.model.letters
        assert {row["key"] for row in self.state.do("dead_keys", {"scope": self.sync})} == model.keys()
        found = {
            row["key"]: (row["hash"], bool(row["by_mapping"]))
            for row in self.state.do("refused", {"scope": self.sync})
        }
        assert found == {key: (x.hash, x.by_mapping) for key, x in model.items() if x.status != "replay"}
        shown = {
            row["key"]: (row["code"], row["attempts"], row["status"])
            for row in self.state.do("dead_letters", {"scope": self.sync, "id": None})
        }
        assert shown == {
            key: (x.code, x.attempts, x.status) for key, x in model.items() if x.status != "discarded"
        }

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()


def test_any_history(address: str) -> None:
    """I3, I4, I5, I26, I28 as far as the state keeps them."""
    examples = 3 if address.startswith("dynamodb") else 25  # a simulated server is slow
    machine = type("HistoriesHere", (Histories,), {"address": address})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
