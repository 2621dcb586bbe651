"""What became of one batch, row by row, while its requests come and go; and the sums of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from backhaul.delivery.batches import PlanBatch
from backhaul.state.journal import BatchOutcome, DeadLetter
from backhaul.types import Delivered, Outcomes, Rejected


@dataclass(slots=True)
class Totals:
    """The sums of a delivery, in records; `requests` and `retries` in requests."""

    delivered: int = 0
    rejected: int = 0
    unknown: int = 0
    deferred: int = 0
    retries: int = 0
    writes: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    """Records the destination refused, by code."""
    words: dict[str, str] = field(default_factory=dict)
    """One message of each code."""

    @property
    def settled(self) -> int:
        return self.delivered + self.rejected


class Tally:
    """The fates of one batch's rows. A row without one was delivered; `open` ones are still on their way."""

    def __init__(self, batch: PlanBatch) -> None:
        self.batch = batch
        self.refusals: dict[int, tuple[str, str]] = {}
        self.unknown: set[int] = set()
        self.pending: set[int] = set()
        self.doubted: set[int] = set()
        """Rows of a request that may have been applied without our knowing."""
        self.remote_ids: dict[int, str] = {}
        self.requests = 0

    def take(self, batch: PlanBatch, outcomes: Outcomes) -> tuple[list[int], set[int]]:
        """Takes an answer in. Returns the rows still open, and those among them that it did not name."""
        if outcomes.everything:
            return [], set()
        by_key = dict(zip(batch.keys, batch.rows, strict=True))
        waiting = set(batch.rows)
        retry = []
        for outcome in outcomes.items:
            row = by_key.get(outcome.key)
            if row is None or row not in waiting:
                continue
            waiting.discard(row)
            if isinstance(outcome, Delivered):
                if outcome.remote_id is not None:
                    self.remote_ids[row] = outcome.remote_id
            elif isinstance(outcome, Rejected):
                self.refusals[row] = (outcome.code, outcome.message)
            else:
                retry.append(row)
        self.doubted -= set(batch.rows) - waiting
        return sorted([*retry, *waiting]), waiting

    def refuse(self, row: int, code: str, message: str) -> None:
        self.refusals[row] = (code, message)
        self.doubted.discard(row)

    def give_up(self, rows: Sequence[int]) -> None:
        """Ends the run's attempts at these rows: unknown where a request was in doubt, pending where none was."""
        for row in rows:
            (self.unknown if row in self.doubted else self.pending).add(row)

    def delivered(self) -> list[int]:
        return [
            row
            for row in self.batch.rows
            if row not in self.refusals and row not in self.unknown and row not in self.pending
        ]

    def outcome(self) -> BatchOutcome:
        """For the journal; row numbers are the plan's."""
        first = self.batch.chunk.first
        ids = [self.remote_ids.get(row) for row in self.batch.rows] if self.remote_ids else None
        return BatchOutcome(
            self.batch.low, self.batch.high, ids,
            rejected=[first + row for row in sorted(self.refusals)], unknown=[first + row for row in sorted(self.unknown)],
            pending=[first + row for row in sorted(self.pending)],
        )  # fmt: skip

    def dead_letters(self) -> list[DeadLetter]:
        batch, attempts = self.batch, max(self.requests, 1)
        return [
            DeadLetter(
                batch.primary_key(row),
                str(batch.op),
                code,
                message,
                attempts,
                batch.payload(row),
                batch.hash(row),
            )
            for row, (code, message) in self.refusals.items()
        ]

    def add_to(self, totals: Totals) -> None:
        totals.rejected += len(self.refusals)
        totals.unknown += len(self.unknown)
        totals.deferred += len(self.pending)
        totals.delivered += len(self.batch) - len(self.refusals) - len(self.unknown) - len(self.pending)
        for code, message in self.refusals.values():
            totals.codes[code] += 1
            totals.words.setdefault(code, message)
