"""What a run is asked, and what a run and a plan say of themselves: the objects behind the JSON of `run` and `plan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backhaul.delivery.tally import Totals
from backhaul.planning.estimate import Estimate
from backhaul.planning.prepare import Prepared
from backhaul.verification.verify import Verified

_PHASES = ("extract", "diff", "deliver", "settle", "total")


@dataclass(frozen=True)
class RunOptions:
    """`reviewed` is the digest and id of a plan that must be delivered exactly."""

    full: bool = False
    limit: int | None = None
    reviewed: tuple[str, str] | None = None
    progress: Callable[[str, int, Totals], None] = lambda sync, total, totals: None


@dataclass
class RunReport:
    """One run. `status` is succeeded, partial, deferred, held or failed; counts are records."""

    id: str
    sync: str
    started_at: str
    status: str = "running"
    error: str | None = None
    hint: str | None = None
    finished_at: str | None = None
    plan: str | None = None
    rows: int = 0
    changes: dict[str, int] = field(default_factory=lambda: {"create": 0, "update": 0, "delete": 0})
    delivered: int = 0
    rejected: int = 0
    deferred: int = 0
    unknown: int = 0
    recreated: int = 0
    """Of those delivered, records that were gone at the destination and were made again."""
    requests: int = 0
    retries: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PHASES, 0.0))
    first: bool = False
    incremental: bool = False
    reasons: dict[str, int] = field(default_factory=dict)
    remapped: dict[str, int] = field(default_factory=dict)
    """Fields whose mapping changed, and how many updates each causes."""
    notices: list[str] = field(default_factory=list)
    """What a person should know of how the model was read."""
    schema_changes: list[str] = field(default_factory=list)
    """How the model's columns differ from those of the last run, in words."""
    suppressed: int = 0
    """Rows of the model that were not sent because they were forgotten."""
    refused: list[dict[str, Any]] = field(default_factory=list)
    """What most records of this run were refused for: `{code, field, count, class, fix}`, the commonest first."""
    expired: int = 0
    """Dead letters of which nothing is kept any more but that their values are refused."""
    pending: int = 0
    """Changes that `--limit` left for the next run."""
    undo: str | None = None
    """The run whose changes it took back; None where it delivered the model."""
    undecided: int = 0
    """Records that this run or an earlier one left with an unknown outcome, and that are not simply sent again."""
    guards: list[dict[str, Any]] = field(default_factory=list)
    verified: Verified | None = None
    account: str = ""
    """Whose ledger it worked on, as the destination calls the account."""
    ledger: str | None = None
    """The id of that ledger; None where the destination did not state its account yet."""
    kept: list[str] = field(default_factory=list)
    """The sync's ledgers for other objects and accounts."""
    usage: bool = False
    """It failed because the files are wrong: nothing ran."""

    @property
    def exit_code(self) -> int:
        if self.status == "failed":
            return 2 if self.usage else 1
        return {"held": 1, "skipped": 1, "succeeded": 0}.get(self.status, 3)

    def json(self) -> dict[str, Any]:
        """The RUN of the public contract, and beside it what a person would ask next."""
        verified = self.verified
        return {
            "id": self.id, "sync": self.sync, "status": self.status, "error": self.error,
            "started_at": self.started_at, "finished_at": self.finished_at, "rows": self.rows, "changes": self.changes,
            "delivered": self.delivered, "rejected": self.rejected, "deferred": self.deferred, "unknown": self.unknown,
            "requests": self.requests, "retries": self.retries, "seconds": self.seconds,
            "plan": self.plan, "first": self.first, "incremental": self.incremental, "reasons": self.reasons,
            "remapped": self.remapped, "schema_changes": self.schema_changes, "suppressed": self.suppressed,
            "recreated": self.recreated, "refused": self.refused, "expired": self.expired, "pending": self.pending,
            "undo": self.undo,
            "undecided": self.undecided,
            "hint": self.hint, "notices": self.notices, "account": self.account, "ledger": self.ledger,
            "kept": self.kept,
            "verified": None if verified is None else {
                "checked": verified.checked,
                "mismatches": [{"key": m.key, "missing": m.missing, "fields": m.fields} for m in verified.mismatches],
                "respelled": [{"key": m.key, "fields": m.fields} for m in verified.respelled],
            },
        }  # fmt: skip


@dataclass(frozen=True)
class PlanReport:
    """One plan, with its guards, what it would cost and a sample. `refusals` groups the rows that the mapping refuses by reason:
    `{code, field, count, message, keys}`."""

    id: str
    sync: str
    rows: int
    changes: dict[str, int]
    guards: list[dict[str, Any]]
    estimate: dict[str, float]
    sample: list[dict[str, Any]]
    digest: str
    refused: int = 0
    refusals: list[dict[str, Any]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    remapped: dict[str, int] = field(default_factory=dict)
    schema_changes: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    first: bool = False
    incremental: bool = False
    suppressed: int = 0
    destination: str = ""
    object: str = ""
    records: dict[str, int] = field(default_factory=dict)
    """The sync's records by status, as they are before the plan."""
    account: str = ""
    """Whose ledger it was compared with, as the destination calls the account."""
    ledger: str = ""
    kept: list[str] = field(default_factory=list)
    """The sync's ledgers for other objects and accounts."""
    undo: dict[str, Any] | None = None
    """`{run, left_out: {reason: {count, keys}}}` where it takes a run back."""

    def json(self) -> dict[str, Any]:
        """The PLAN of the public contract, and what `run --plan FILE` needs."""
        return {
            "id": self.id, "sync": self.sync, "rows": self.rows, "changes": self.changes, "guards": self.guards,
            "estimate": self.estimate, "sample": self.sample, "digest": self.digest, "refused": self.refused,
            "refusals": self.refusals, "reasons": self.reasons, "first": self.first, "incremental": self.incremental,
            "destination": self.destination, "object": self.object, "remapped": self.remapped,
            "schema_changes": self.schema_changes, "notices": self.notices, "suppressed": self.suppressed,
            "records": self.records,
            "account": self.account, "ledger": self.ledger, "kept": self.kept,
            **({"undo": self.undo} if self.undo else {}),
        }  # fmt: skip


def describe_plan(
    prepared: Prepared, cost: Estimate, sample: list[dict[str, Any]], refusals: list[dict[str, Any]]
) -> PlanReport:
    """A plan in its public form; where it goes is the caller's to say."""
    plan = prepared.plan
    return PlanReport(
        id=plan.id,
        sync=plan.sync,
        rows=plan.rows,
        changes=plan.changes,
        guards=[{"name": guard.name, "ok": guard.ok, "message": guard.message} for guard in prepared.guards],
        estimate={"requests": cost.requests, "seconds": cost.seconds},
        sample=sample,
        digest=plan.digest,
        refused=plan.refused,
        refusals=refusals,
        reasons=plan.reasons,
        remapped=plan.remapped,
        first=plan.first,
        incremental=plan.incremental,
        suppressed=prepared.suppressed,
        notices=list(prepared.notices),
    )
