"""`reset`: forgets what was acknowledged, so that the next run sends everything again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backhaul.changes import Stage
from backhaul.errors import StateError
from backhaul.ledger.fold import forget_values
from backhaul.next_steps import Step, next_step, offer_of
from backhaul.runs.recovery import JobsUnderway, abandon_earlier, settle_earlier
from backhaul.state.scopes import Scope
from backhaul.types import Mode
from backhaul.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Reset:
    """How many records the next run sends again, or looks up where it is an insert, and how many dead letters."""

    records: int
    dead_letters: int = 0
    kept: bool = False
    """Acknowledged inserts stay as they are: a second insert would make a second record."""


def reset(workspace: Workspace, scope: Scope, sync: Any | None) -> Reset:
    """Forgets what was acknowledged in a scope, keeps the known keys, and has dead letters sent again. Inserts whose outcome is
    unknown stay as they are, with their idempotency keys. `sync` None: its sync is no more.

    Raises:
        JobsUnderway: the destination still works on records, which it would apply after newer values.
    """
    state = workspace.state
    lease = workspace.lease(sync) if sync else state.lease(scope.sync, name=scope.name)
    with lease, workspace.engine() as engine:
        workspace.begin_anew(scope)
        ledger = workspace.ledger_of(scope, values=sync is None or sync.ledger.values)
        try:
            settle_earlier(engine, state, ledger, scope, workspace.plan_path)
        except JobsUnderway:
            raise
        except StateError:
            abandon_earlier(state, scope.id, workspace.plan_path)
        kept = kept_stages(workspace, sync) if sync else (Stage.QUARANTINED, Stage.UNKNOWN, Stage.RETRY)
        records = forget_values(engine, ledger, but=kept)
        if not ledger.exists(engine):
            state.do("forget_ledger", {"scope": scope.id})
        letters = [
            (row["id"],)
            for row in state.do("dead_letters", {"scope": scope.id, "id": None})
            if row["status"] == "dead"
        ]
        state.do_all("replay_letters", letters)
        return Reset(records, len(letters), Stage.ACKNOWLEDGED in kept)


def kept_stages(workspace: Workspace, sync: Any) -> tuple[Stage, ...]:
    """Stages of ledger rows that a reset leaves alone: those that a person decides, and of inserts all that a second insert
    would double."""
    if sync.mode is not Mode.INSERT:
        return (Stage.QUARANTINED,)
    offer = offer_of(sync, workspace.undelivering(sync.destination), keyed=False)
    again = next_step(Stage.DETECTED, True, sync.mode, offer)
    doubled = (Stage.ACKNOWLEDGED,) if again is Step.DECIDE else ()
    return (Stage.QUARANTINED, Stage.UNKNOWN, Stage.RETRY, *doubled)
