"""Any history of models, mappings, answers and crashes: in the end the destination holds what the model says."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from world import APPLIED, LOST, OK, REFUSED, WAITING, World, sync

from backhaul.types import Mode

FIELDS: dict[str, tuple[str, Any]] = {
    "a": ("a", lambda row: row["a"]),
    "a + 1": ("a", lambda row: None if row["a"] is None else row["a"] + 1),
    "a::varchar": ("a", lambda row: None if row["a"] is None else str(row["a"])),
    "a * 1.5": ("a", lambda row: None if row["a"] is None else row["a"] * 1.5),
    "b": ("b", lambda row: row["b"]),
    "upper(b)": ("b", lambda row: row["b"] and row["b"].upper()),
    "a = 1": ("c", lambda row: None if row["a"] is None else row["a"] == 1),
}
EMAILS = st.sampled_from(["x", "y", "z", "w", "", None])
NUMBERS = st.sampled_from([0, 1, 2, None])
WORDS = st.sampled_from(["p", "q", "7", "", None])
FATES = st.sampled_from([OK, OK, OK, LOST, APPLIED, REFUSED, WAITING])


class Sync(RuleBasedStateMachine):
    """`stable` models never give a known key another identifier: destinations that cannot move a record keep the old."""

    @initialize(
        moves=st.booleans(), values=st.booleans(), mode=st.sampled_from([Mode.MIRROR, Mode.UPSERT]),
        skip=st.booleans(), ids=st.booleans(), by_id=st.booleans(),
    )  # fmt: skip
    def start(self, *, moves: bool, values: bool, mode: Mode, skip: bool, ids: bool, by_id: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bh-machine-"))
        self.world = World(self.folder, moves=moves and not by_id, values=values, ids=ids or moves)
        self.mode, self.skip, self.by_id = mode, skip, by_id
        self.identifier = "id" if by_id else "email"
        self.world.destination.identifier = self.identifier
        self.rows: dict[int, dict[str, Any]] = {}
        self.mapped = ["a", "b"]
        self.left_behind: set[Any] = set()

    def config(self) -> Any:
        fields = {FIELDS[expr][0]: expr for expr in self.mapped}
        return sync(
            self.mode.value,
            fields,
            identify={self.identifier: self.identifier},
            nulls="skip" if self.skip else "clear",
        )

    @rule(key=st.integers(1, 4), email=EMAILS, a=NUMBERS, b=WORDS)
    def write(self, key: int, email: str | None, a: int | None, b: str | None) -> None:
        self.rows[key] = {"id": key, "email": email, "a": a, "b": b}

    @rule(key=st.integers(1, 4), a=NUMBERS, b=WORDS)
    def change(self, key: int, a: int | None, b: str | None) -> None:
        if key in self.rows:
            self.rows[key] |= {"a": a, "b": b}

    @rule(giver=st.integers(1, 4), taker=st.integers(1, 4), left=EMAILS, stays=st.booleans())
    def hand_over(self, giver: int, taker: int, left: str | None, stays: bool) -> None:
        """One key's identifier becomes another key's; the first goes, or takes yet another."""
        if giver in self.rows and giver != taker:
            row = self.rows.pop(giver)
            self.rows[taker] = row | {"id": taker, "a": 2}
            if stays:
                self.rows[giver] = row | {"email": left}

    @rule(key=st.integers(1, 4))
    def remove(self, key: int) -> None:
        self.rows.pop(key, None)

    @rule(one=st.sampled_from(list(FIELDS)))
    def remap(self, one: str) -> None:
        """Adds a field, takes it away, or gives it another expression."""
        name = FIELDS[one][0]
        rest = [expr for expr in self.mapped if FIELDS[expr][0] != name]
        self.mapped = rest if one in self.mapped else [*rest, one]

    @rule(data=st.data())
    def run_with_faults(self, data: st.DataObject) -> None:
        self.carry_out(lambda row: data.draw(FATES))

    @rule()
    def run(self) -> None:
        self.carry_out(lambda row: OK)

    @rule(data=st.data())
    def run_folded_twice(self, data: st.DataObject) -> None:
        self.fill()
        plan = self.world.plan(self.config())
        settled = self.world.carry_out(plan, lambda row: data.draw(FATES))
        self.note(plan)
        self.world.settle(plan, settled)
        before = self.world.held()
        self.world.settle(plan, settled)
        assert self.world.held() == before

    @precondition(lambda self: self.rows)
    @rule()
    def drain(self) -> None:
        """The operator replays what was refused, and the destination is healthy."""
        self.world.letters = {k: letter for k, letter in self.world.letters.items() if letter[1]}
        for _ in range(4):
            if not self.carry_out(lambda row: OK).total:
                break
        plan = self.world.plan(self.config())
        if not any(refused is False for _, refused in self.world.letters.values()):
            assert (plan.total, plan.refused) == (0, 0), self.world.rows(plan)
            self.converged()

    def fill(self) -> None:
        self.world.put(*([row["id"], row["email"], row["a"], row["b"]] for row in self.rows.values()))

    def carry_out(self, fate: Any) -> Any:
        self.fill()
        plan = self.world.plan(self.config())
        self.note(plan)
        self.world.settle(plan, self.world.carry_out(plan, fate))
        return plan

    def note(self, plan: Any) -> None:
        """Identifiers that a destination without moves keeps when a known key changes its own."""
        held = {key: row.get(f"f.{self.identifier}") for key, row in self.world.held().items()}
        for row in self.world.rows(plan):
            old = held.get(row["key"])
            if old not in (None, row["identifier"]):
                self.left_behind |= {old, row["identifier"]}
            if row["segment"] == 9 or row["remote_id"] is None:
                self.left_behind.add(row["identifier"] if not self.by_id else None)

    def clean(self) -> dict[Any, dict[str, Any]]:
        """The model's rows that can be sent, by identifier."""
        if self.by_id:
            return self.rows
        found: dict[Any, list[Any]] = {}
        for row in self.rows.values():
            found.setdefault(row["email"], []).append(row)
        return {email: rows[0] for email, rows in found.items() if email and len(rows) == 1}

    def converged(self) -> None:
        held = {str(value): record for value, record in self.world.destination.by_identifier().items()}
        clean = {str(value): row for value, row in self.clean().items()}
        for value, row in clean.items():
            assert value in held, f"{value} of {row} is not at the destination"
            for expr in self.mapped:
                name, oracle = FIELDS[expr]
                wanted = oracle(row)
                if wanted is not None or not self.skip:
                    assert (held[value].get(name), type(held[value].get(name))) == (wanted, type(wanted)), (
                        value,
                        name,
                    )
        if self.mode is Mode.MIRROR and self.by_id:
            assert held.keys() == clean.keys()
        elif self.mode is Mode.MIRROR:
            kept = {row["email"] for row in self.rows.values()} | {str(one) for one in self.left_behind}
            assert held.keys() - clean.keys() <= kept

    @invariant()
    def no_twins_at_the_destination(self) -> None:
        if hasattr(self, "world"):
            held = [record[self.identifier] for record in self.world.destination.records.values()]
            assert len(held) == len(set(held))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            shutil.rmtree(self.folder, ignore_errors=True)


Sync.TestCase.settings = settings(
    max_examples=60, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSync = Sync.TestCase
