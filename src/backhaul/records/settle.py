"""`settle`: a person says what became of one create that nobody can look up."""

from __future__ import annotations

from typing import Any

import duckdb

from backhaul.changes import Event, Stage, after, named
from backhaul.errors import UsageError
from backhaul.ledger.duplicates import key_is, key_json
from backhaul.ledger.keys import spellings
from backhaul.ledger.ledger import ALIAS
from backhaul.ledger.lookups import take_in
from backhaul.ledger.plan import plan_from
from backhaul.planning.explain import parsed
from backhaul.runs.doubt import repeatable
from backhaul.runs.recovery import settle_earlier
from backhaul.sql import literal
from backhaul.types import Mode
from backhaul.workspace import Workspace


def settle(
    workspace: Workspace, sync: Any, key: str, *, delivered: bool, remote_id: str | None = None
) -> dict[str, Any]:
    """`{sync, key, was, status}`. `delivered`: the destination holds the record, maybe under `remote_id`; otherwise it does
    not, and the next run creates it.

    Raises:
        UsageError: the record is not one that waits for a person.
        RunError: the sync runs.
    """
    with workspace.lease(sync), workspace.engine() as engine:
        ledger = workspace.ledger(sync)
        settle_earlier(engine, workspace.state, ledger, workspace.scope(sync), workspace.plan_path)
        pk, was, known = _row(engine, workspace, sync, key)
        if was is Stage.UNKNOWN and (sync.mode is not Mode.INSERT or known):
            raise UsageError(f"{sync.name} settles {pk} by itself: sent again, it does no harm",
                             hint=f"`backhaul run {sync.name}`")  # fmt: skip
        if pk in _to_be_repeated(engine, workspace, sync):
            raise UsageError(f"{sync.name} sends {pk} again under its idempotency key: that settles it",
                             hint=f"`backhaul run {sync.name}`")  # fmt: skip
        stage = after(was, Event.FOUND if delivered else Event.ABSENT)
        take_in(engine, ledger, [(pk, stage, remote_id if delivered else None)])
    return {"sync": sync.name, "key": parsed(pk), "was": was.value, "delivered": delivered}


def _to_be_repeated(engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any) -> set[str]:
    """Primary keys (JSON) of creates whose request the next run sends again as it was."""
    life, state = workspace.undelivering(sync.destination).idempotency_life, workspace.state
    found: set[str] = set()
    for row in (
        state.do("plans_with_status", {"scope": workspace.scope(sync).id, "status": "folded"})
        if life is not None
        else ()
    ):
        plan = plan_from(row["header"], workspace.plan_path(row["id"]))
        if life is not None and state.fetch_file(plan.id, plan.path):
            for batch, rows in repeatable(workspace, sync, engine, plan, life):
                found.update(map(batch.primary_key, rows))
    return found


def _row(
    engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any, key: str
) -> tuple[str, Stage, bool]:
    """The record's key as JSON, its stage, and whether it was ever acknowledged."""
    with workspace.ledger(sync).reading(engine) as view:
        rows = []
        if view is not None and not view.empty:
            pk, typed = key_json(view.mapping()), spellings(key)
            rows = engine.execute(
                f"SELECT {pk}, _state, _at IS NOT NULL FROM {ALIAS}.acked "
                f"WHERE {key_is(view.mapping(), typed)} ORDER BY {pk} = {literal(typed[0])} DESC"
            ).fetchall()
    where = f"see `backhaul records {sync.name} --status unknown` and `--status quarantined`"
    if not rows:
        raise UsageError(f"no record {key!r} of {sync.name} waits for an answer", hint=where)
    pk, code, known = rows[0]
    if named(code) not in (Stage.UNKNOWN, Stage.QUARANTINED):
        raise UsageError(f"record {pk} of {sync.name} is neither unknown nor quarantined", hint=where)
    return pk, named(code), known
