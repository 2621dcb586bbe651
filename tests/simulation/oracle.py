"""The oracle: sees every request as it leaves and as it ends, and what every run leaves behind. It knows what the promises
are, and nothing of how the engine keeps them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

import duckdb
import orjson

from backhaul.changes import Stage, code

from .house import KEEPING
from .scenario import POISON, REFUSED, Row
from .server import value_of
from .witness import OURS, Mapping, Violation, Witness, difference_of

__all__ = ["Oracle", "Violation"]

_ACKNOWLEDGED, _UNKNOWN = code(Stage.ACKNOWLEDGED), code(Stage.UNKNOWN)
"""What the ledger calls them."""


class Oracle(Witness):
    """Judges what runs and people leave, and where the story ends."""

    # what people do

    def replayed(self) -> None:
        """Dead letters are sent again."""
        self.letters, self.house_lost = {}, True

    def reset(self) -> None:
        """Whatever was acknowledged may be sent again; creates may not."""
        self.replayed()
        if self.setup.mode != "insert":
            self.acked = {}

    def restored(self, known: AbstractSet[str]) -> None:
        """The state is an earlier one, which knows these keys: what was written since and left the model is nobody's."""
        self.reset()
        self.orphans |= self.wrote - known

    def forgets(self, key: str, *, done: bool) -> None:
        """A person had a record forgotten; not `done`: what was sent of it is in doubt."""
        self.acked.pop(key, None)
        self.letters.pop(key, None)
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

    def after(self, report: Any, ledger: dict[str, tuple[str | None, int]], calm: bool) -> None:
        """A run has ended by itself. `ledger`: value and state by identifier; `calm`: the state could be written."""
        for one in report.verified.respelled if report is not None and report.verified is not None else ():
            self._respelled(self.names[one.pk], one.fields)
        for key, (value, _) in ledger.items():
            if value is not None:
                known = value in self.confirmed.get(key, ())
                self.expect(
                    known, "I2", f"{key} is acknowledged as {value}, which the destination never said"
                )
        if self.setup.mode == "upsert":
            # in doubt, never acknowledged, and no longer in a model that deletes nothing: such a record stays and is nobody's
            self.orphans |= self.wrote - self.snapshot.keys() - self.acked.keys()
        self.orphans -= ledger.keys()
        held = {key: value for key, (value, _) in ledger.items() if value is not None}
        # what a killed run was told may wait in the journal for a run that can fold it
        self.acked = held if calm or report is not None else dict(held.items() & self.acked.items())
        if report is None or report.verified is None:
            self.unseen |= self.server.lied & self.attempts.keys()
        self._letters(report, calm)
        if report is not None and self.setup.mode == "insert":
            unknown = {key for key, (value, state) in ledger.items() if value is None and state == _UNKNOWN}
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
            f"SELECT count(*) FROM intents JOIN plans ON plans.id = plan WHERE {OURS} AND (op <> 'insert' OR status <> 'folded')",
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
        self.past[report.id] = (self.before, dict(self.run.taken))
        for key, value in self.run.taken.items():
            held, state = ledger.get(key, (None, None))
            doubted = report.verified is not None and report.verified.mismatches
            self.expect(
                self.setup.by_email
                or key not in self.buried,  # the letter may be of the key that had the identifier
                "I3",
                f"{key} was taken as {value}, and is still a dead letter",
            )
            # a create that is repeated as it was may have the fields of an earlier mapping, and the ledger those of today
            reshaped = key in self.run.repeated and held is None and state == _ACKNOWLEDGED
            if value != "gone" and not doubted and key not in self.run.again and not reshaped:
                self.expect(held == value, "I2", f"{key} was taken as {value}, and the ledger says {held}")

    def _letters(self, report: Any, calm: bool) -> None:
        rows = self._state(
            f"SELECT id, scope, key, message, payload, seal, mapping FROM dead_letters WHERE status = 'dead' AND {OURS}",
            *self._ours,
        )
        names = ("id", "scope", "key", "message", "payload", "seal")
        letters: dict[str, tuple[str, Mapping]] = {}
        for *values, mapping in rows:
            payload = KEEPING.open(dict(zip(names, values, strict=True)))[1]
            if payload:
                record = orjson.loads(payload)
                made_with = self.mappings.setdefault(mapping, self._mapping)
                letters[record["id"]] = (value_of(record), made_with)
        for key, (value, made_with) in letters.items():
            known = key in self.run.refused or self.letters.get(key) == (value, made_with)
            refusable = known or self.house_lost or not calm or self.setup.by_email
            self.expect(refusable, "I3", f"{key} is a dead letter, and the destination never refused it")
        if calm and report is not None and "looks like configuration" not in (report.error or ""):
            for key, value in self.run.refused.items():
                # a create that is repeated as it was and refused as a whole is planned anew, maybe by a later run
                if key not in self.run.taken and key not in self.run.repeated:
                    self.expect(key in letters, "I3", f"{key} was refused as {value}, and is no dead letter")
        self.letters = letters

    house_lost = False
    """A kill came between: what was refused before it may have become a dead letter or not."""

    def crashed(self) -> None:
        """A run was killed: what it had sent is in doubt, what it had been told may or may not have been stored."""
        self.house_lost = True
        self.unseen |= self.server.lied & self.attempts.keys()
        gone = (
            self.letters.keys() - self.snapshot.keys()
        )  # forgotten with their rows, if the run came that far
        for key in self.attempts.keys() | self._intended() | gone:
            self.acked.pop(key, None)
            self.letters.pop(key, None)

    def _intended(self) -> set[str]:
        """Keys of which the state says that they may have left: I5 makes them dirty, whatever was acknowledged before."""
        keys: set[str] = set()
        if not (self.house.state_folder / "state.db").exists():
            return keys
        query = (
            f"SELECT plan, low, high, idempotency_key FROM intents JOIN plans ON plans.id = plan WHERE {OURS}"
        )
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
        unknown = {key for key, (value, state) in ledger.items() if value is None and state == _UNKNOWN}
        stale = sorted((self.letters.keys() - self.buried.keys() - unknown) & self.snapshot.keys())
        self.expect(not stale, "I42", f"{stale} are dead letters, and their mapping has changed since")
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
                - self.orphans
                - (self.partner.snapshot.keys() | self.partner.orphans if self.partner is not None else set())
                - self.forgotten
            )
            self.expect(not extra, "I1", f"{extra} left the model, and the destination still has them")
        if self.setup.index_lag is not None:
            self.expect(not unknown, "I43", f"{sorted(unknown)} could be looked up, and are unknown")
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
            shown = held or {}
            wrong = {
                difference_of(name, record[name], shown.get(name))
                for name in record
                if shown.get(name) != record[name]
            }
            accepted = held is not None and wrong <= self.spelled.get(key, set())
            self.expect(
                self.setup.sample < 200 or key in self.unseen or accepted,
                "I40",
                f"{key} is not what the destination said it took, and nobody looked",
            )
        else:
            self.expect(
                held == record,
                "I1",
                f"{key} is {held and value_of(held)} at the destination, and {value} in the model",
            )
