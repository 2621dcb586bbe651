"""What became of one batch, row by row, while its requests come and go; and the sums of a run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backhaul.advice import field_of
from backhaul.changes import Event, Stage, after
from backhaul.delivery.batches import PlanBatch
from backhaul.state.journal import BatchOutcome, Reason
from backhaul.state.letters import LONGEST_CODE, DeadLetter, KnownLetter
from backhaul.types import Delivered, Gone, Op, Outcomes, RefusalClass, Rejected
from backhaul.words import in_one_line

_GONE = ("404", "410")
WAITING_RUNS = 10
"""Runs that try a record again that waits for another one; then it is a dead letter."""
WAITING = frozenset({RefusalClass.REFERENCE, RefusalClass.CONFLICT})
UNNAMED = Reason("", "the answer does not name the record", RefusalClass.UNKNOWN)


@dataclass(slots=True)
class Unsettled:
    """Records that are deferred or unknown for one reason."""

    reason: Reason
    count: int = 0


@dataclass(slots=True)
class Totals:
    """The sums of a delivery, in records; `requests` and `retries` in requests."""

    delivered: int = 0
    rejected: int = 0
    unknown: int = 0
    deferred: int = 0
    retries: int = 0
    writes: int = 0
    recreated: int = 0
    """Records that were gone at the destination, and were made again."""
    waits: str = ""
    """What the delivery waits for just now."""
    codes: Counter[str] = field(default_factory=Counter)
    """Records the destination refused that were no dead letters before, by code."""
    words: dict[str, str] = field(default_factory=dict)
    """One message of each code."""
    classes: dict[str, RefusalClass] = field(default_factory=dict)
    """The class of each code."""
    unsettled: dict[tuple[Stage, str], Unsettled] = field(default_factory=dict)
    """Why records are deferred or unknown, by stage and code."""
    stray: str = ""
    """A key that an answer named and its request did not hold."""

    @property
    def settled(self) -> int:
        return self.delivered + self.rejected

    @property
    def has_conflicts(self) -> bool:
        """Whether records wait for a value that another record holds."""
        return any(why.reason.kind is RefusalClass.CONFLICT for why in self.unsettled.values())

    def take_over(self, earlier: Totals) -> None:
        """Takes over why earlier deliveries of the run left records, but for those that this one has sent again."""
        for (stage, code), why in earlier.unsettled.items():
            if why.reason.kind not in WAITING:
                self.unsettled.setdefault((stage, code), why)


class Tally:
    """Where the rows of one batch are. All of them are in flight; `stages` has those that left it for another stage than
    acknowledged, which is what is left when a batch ends. `recreates`: what is gone at the destination is made again. `mask`
    takes secrets out of what the destination says."""

    def __init__(
        self, batch: PlanBatch, doubted: Sequence[int] = (), *, recreates: bool = False,
        class_of: Callable[[str], RefusalClass] = lambda code: RefusalClass.RECORD,
        letters: Mapping[str, KnownLetter] | None = None, mask: Callable[[str], str] = str,
    ) -> None:  # fmt: skip
        self.batch = batch
        self._mask = mask
        self._masked: dict[Reason, Reason] = {}
        self._class_of = class_of
        self._letters = letters or {}
        self.reasons: dict[int, Reason] = {}
        """Why rows were not taken, of those that are not refused for good."""
        self.waiting: dict[int, int] = {}
        """Rows that wait for another record, and how many runs have tried them."""
        self.broken_off = False
        """Its rows seemed to be refused one and all: those that are left are sent again where others of the plan are taken."""
        self._recreates = recreates
        self.missing: list[int] = []
        """Rows that are gone at the destination and wait to be made again."""
        self.anew: list[int] = []
        """Rows that left to be made again."""
        self.intents: dict[int, int] = {}
        """What the journal holds of this batch: first row and end of each request with a key of its own."""
        self.storing = asyncio.Lock()
        """Held while an intent of this batch is stored."""
        self.refusals: dict[int, Reason] = {}
        self.stages: dict[int, Stage] = {}
        self.resumed = bool(doubted)
        self._asked = frozenset(doubted)
        self.doubted = set(doubted)
        """Rows of a request that may have been applied without our knowing."""
        self.remote_ids: dict[int, str] = {}
        self.stray = ""
        self.pause = 0.0
        """Seconds that the last answer asked to wait with one of its records."""
        self.no_room: Reason | None = None
        """Why the last answer had no room for one of its records."""
        self.sent: list[Sequence[int]] = []
        """The rows of each request."""
        self._bound: set[int] = set()
        """Refused rows of a request that will be sent again as it was: refused or not, they are in it."""

    def is_intended(self, batch: PlanBatch) -> bool:
        """Whether the journal holds this request."""
        return self.intents.get(batch.low) == batch.high

    def take(
        self, batch: PlanBatch, open_rows: Sequence[int], outcomes: Outcomes
    ) -> tuple[list[int], set[int]]:
        """Takes an answer in. Returns which of the open rows are still open, and those among them that it did not name."""
        self.pause, self.no_room = 0.0, None
        if outcomes.everything:
            return [], set()
        by_key = dict(zip(batch.keys, batch.rows, strict=True))
        waiting = set(open_rows)
        retry = []
        for outcome in outcomes.items:
            row = by_key.get(outcome.key)
            self.stray = self.stray or (outcome.key if row is None else "")
            if row is None or row not in waiting:
                continue
            waiting.discard(row)
            if isinstance(outcome, Delivered):
                if outcome.remote_id is not None:
                    self.remote_ids[row] = outcome.remote_id
                if outcome.created and batch.is_part(row):
                    self._complete(row)
            elif isinstance(outcome, Rejected):
                if self._class(outcome) is RefusalClass.TRANSIENT:
                    retry.append(row)
                    self._note(row, Reason(outcome.code, outcome.message, RefusalClass.TRANSIENT))
                else:
                    self.reject(batch, row, outcome)
            else:
                retry.append(row)
                self._note(row, Reason("", outcome.reason, RefusalClass.TRANSIENT))
                self.pause = max(self.pause, outcome.after or 0.0)
        return sorted([*retry, *waiting]), waiting

    def _complete(self, row: int) -> None:
        """The record had gone, and was made of the changed fields alone: it is sent as a whole, by a later run if not now."""
        self.doubted.add(row)
        self.give_up([row])
        self.missing.append(row)

    def reject(self, batch: PlanBatch, row: int, refusal: Rejected) -> bool:
        """Takes in a record's refusal. False where it is none: the record is gone, which is what a delete wants, and what
        makes it anew where the sync says so."""
        gone = isinstance(refusal, Gone)
        if batch.op is Op.DELETE and (gone or (refusal.code in _GONE and self._is_repeat(row))):
            return False
        if self._recreates and (gone or refusal.code in _GONE) and batch.is_held(row):
            self.give_up([row])
            self.missing.append(row)
            return False
        reason = Reason(refusal.code, refusal.message, self._class(refusal))
        if reason.kind is RefusalClass.CAPACITY:
            self.give_up([row], reason)
            self.no_room = reason
            return False
        if reason.kind in WAITING and (tries := self._tries(row) + 1) < WAITING_RUNS:
            self.give_up([row], reason)
            self.waiting[row] = tries
            return False
        self.refuse(row, reason)
        return True

    def _class(self, refusal: Rejected) -> RefusalClass:
        return refusal.kind or self._class_of(refusal.code)

    def _tries(self, row: int) -> int:
        """How many runs have tried this record with this value, and found it waiting."""
        letter = self._letters.get(self.batch.primary_key(row)) if self._letters else None
        return letter.tries if letter is not None and letter.hash == self.batch.hash(row) else 0

    def is_clean(self, rows: Iterable[int]) -> bool:
        """Whether none of these rows was refused, for good or for now."""
        return not any(row in self.stages for row in rows)

    def _is_repeat(self, row: int) -> bool:
        """Whether an earlier request, which was in doubt, may have deleted the record."""
        return row in self.doubted or self.batch.is_repeat(row)

    def recall(self, rows: Iterable[int]) -> None:
        """Rows that are gone at the destination leave once more, to be made again."""
        for row in rows:
            after(self.stages.pop(row), Event.LEAVE)
            self.anew.append(row)

    def refuse(self, row: int, reason: Reason) -> None:
        self._move(row, Event.REFUSE)
        self.refusals[row] = self._safe(reason)
        self.reasons.pop(row, None)

    def doubt(self, rows: Iterable[int], reason: Reason) -> None:
        """These rows may have been applied; they are sent again."""
        self.doubted.update(rows)
        self.reasons.update(dict.fromkeys(rows, self._safe(reason)))

    def leave(self, keys: Collection[str]) -> None:
        """Leaves rows with these primary keys to a later run."""
        self.give_up([row for row in self.batch.rows if self.batch.primary_key(row) in keys] if keys else [])

    def refuse_larger(self, most: int, name: str) -> None:
        """Refuses records of more bytes than the destination takes."""
        for row, size in self.batch.larger(most):
            if row not in self.stages:
                said = f"the record has {size:,} bytes, and {name} takes {most:,}"
                self.refuse(row, Reason("too_large", said, RefusalClass.RECORD))

    def lose(self, rows: Iterable[int], reason: Reason | None = None) -> None:
        """The outcome of these rows is not known, and sending them again is no way to find out."""
        for row in rows:
            self._move(row, Event.SILENCE)
            self._note(row, reason)

    def _note(self, row: int, reason: Reason | None) -> None:
        if reason is not None:
            self.reasons[row] = self._safe(reason)

    def _safe(self, reason: Reason) -> Reason:
        """A destination may echo a secret: it is taken out before the text is cut, since half of it would not be recognised."""
        if reason not in self._masked:
            code, words = (self._mask(text) for text in (reason.code, reason.message))
            self._masked[reason] = replace(
                reason, code=in_one_line(code, LONGEST_CODE), message=in_one_line(words)
            )
        return self._masked[reason]

    def _move(self, row: int, event: Event) -> None:
        self.stages[row] = after(self.stages.get(row, Stage.IN_FLIGHT), event)

    def release(self, rows: Sequence[int], reason: Reason | None = None) -> None:
        """An earlier run's request was refused as it was: it has done nothing, and its values may be old by now. The next
        plan has these rows anew."""
        self.doubted.difference_update(rows)
        self.give_up(rows, reason)

    def give_up(self, rows: Sequence[int], reason: Reason | None = None) -> None:
        """Ends the run's attempts at these rows: unknown where any request was in doubt, to be tried later where none was."""
        for row in rows:
            self._move(row, Event.SILENCE if row in self.doubted else Event.NOT_APPLIED)
            self._note(row, reason)

    def at(self, stage: Stage) -> list[int]:
        """The rows at one stage that is not acknowledged, in order."""
        return sorted(row for row, there in self.stages.items() if there is stage)

    def ended(self) -> list[int]:
        """First rows of those requests that no row is left in doubt of."""
        first, doubtful = self.batch.chunk.first, self.at(Stage.UNKNOWN)
        return [
            low
            for low, high in self.intents.items()
            if not any(low <= first + row < high for row in doubtful)
        ]

    def bind(self) -> None:
        """A request with a key that is in doubt is sent again as it was, with all its rows: those that were not delivered are
        in doubt with it, so that nobody creates them under another key meanwhile."""
        moved: list[int] | None = None
        while moved is None or moved:
            moved = [row for row in self.at(Stage.RETRY) if self._is_bound(row)]
            self.stages.update(dict.fromkeys(moved, Stage.UNKNOWN))
        self._bound = {row for row in self.refusals if self._is_bound(row)}

    def _is_bound(self, row: int) -> bool:
        at, over = self.batch.chunk.first + row, self.ended()
        return any(low <= at < high for low, high in self.intents.items() if low not in over)

    def delivered(self) -> list[int]:
        """Of a request that is repeated as it was, only the rows that were in doubt: others may have been refused before."""
        asked = (row for row in self.batch.rows if not self._asked or row in self._asked)
        return [row for row in asked if row not in self.stages]

    def outcome(self) -> BatchOutcome:
        """For the journal; row numbers are the plan's."""
        first = self.batch.chunk.first
        ids = [self.remote_ids.get(row) for row in self.batch.rows] if self.remote_ids else None
        if not self.stages:
            return BatchOutcome(self.batch.low, self.batch.high, ids)
        rows = {
            "rejected": self.at(Stage.REJECTED),
            "unknown": sorted([*self.at(Stage.UNKNOWN), *self._perhaps_there()]),
            "pending": self.at(Stage.RETRY),
        }
        return BatchOutcome(
            self.batch.low, self.batch.high, ids,
            **{name: [first + row for row in found] for name, found in rows.items()}, reasons=self._grouped(first),
        )  # fmt: skip

    def _grouped(self, first: int) -> list[tuple[Reason, list[int]]]:
        """Why rows are deferred or unknown, each reason with the numbers of its rows in the plan."""
        found: dict[Reason, list[int]] = {}
        for row, reason in self.reasons.items():
            if row in self.stages:
                found.setdefault(reason, []).append(first + row)
        return list(found.items())

    def _perhaps_there(self) -> list[int]:
        """Refused rows that an earlier request of this batch may have changed all the same: what was acknowledged before
        counts no more. A create is refused under the key of that request, which so has done nothing, unless it is bound."""
        if self.batch.op is Op.INSERT:
            return sorted(self._bound)
        return [row for row in self.refusals if row in self.doubted]

    def dead_letters(self) -> list[DeadLetter]:
        """Of records that are refused for good, and of those that wait for another record."""
        refused = self.refusals | {row: self.reasons[row] for row in self.waiting if self._is_waiting(row)}
        if not refused:
            return []
        batch, attempts = self.batch, self._attempts(refused)
        names = [field.name for field in batch.fields]
        return [
            DeadLetter(
                batch.primary_key(row),
                str(batch.op),
                reason.code,
                reason.message,
                attempts[row],
                batch.payload(row),
                batch.hash(row),
                field=field_of(reason.message, names),
                kind=reason.kind,
                tries=self.waiting.get(row, 0),
            )
            for row, reason in refused.items()
        ]

    def _is_waiting(self, row: int) -> bool:
        return self.stages.get(row) is Stage.RETRY

    def waiting_rows(self) -> list[int]:
        """The plan's numbers of the rows that wait for another record, or for others to be tried."""
        rows = list(self.stages) if self.broken_off else list(self.waiting)
        return [self.batch.chunk.first + row for row in rows if self._is_waiting(row)]

    def _attempts(self, refused: Mapping[int, Reason]) -> dict[int, int]:
        """How many requests each refused row was in."""
        steps: Counter[int] = Counter()
        for rows in self.sent:
            plain = isinstance(rows, range)
            for first, last in ((rows[0], rows[-1]),) if plain else zip(rows, rows, strict=True):
                steps[first] += 1
                steps[last + 1] -= 1
        found, running = {}, 0
        for row in range(min(steps, default=0), max(refused) + 1):
            running += steps[row]
            if row in refused:
                found[row] = running
        return found

    def add_to(self, totals: Totals) -> None:
        stages = Counter(self.stages.values())
        totals.rejected += stages[Stage.REJECTED]
        totals.unknown += stages[Stage.UNKNOWN]
        totals.deferred += stages[Stage.RETRY]
        totals.delivered += len(self.batch) - len(self.stages)
        totals.stray = totals.stray or self.stray
        totals.recreated += sum(row not in self.stages for row in self.anew)
        for row, reason in self.refusals.items():
            totals.words.setdefault(reason.code, reason.message)
            totals.classes.setdefault(reason.code, reason.kind)
            if not self._letters or self.batch.primary_key(row) not in self._letters:
                totals.codes[reason.code] += 1
        for row, stage in self.stages.items():
            if stage in (Stage.RETRY, Stage.UNKNOWN) and (why := self.reasons.get(row)) is not None:
                totals.unsettled.setdefault((stage, why.code), Unsettled(why)).count += 1
