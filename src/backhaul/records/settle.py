"""`settle`: a person says whether the destination holds records that backhaul cannot or need not ask it about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from backhaul.changes import Event, Stage, after, code, named
from backhaul.errors import UsageError
from backhaul.ledger.duplicates import key_is, key_json
from backhaul.ledger.keys import spellings
from backhaul.ledger.ledger import ALIAS, LedgerView
from backhaul.ledger.lookups import take_in
from backhaul.ledger.plan import plan_from
from backhaul.next_steps import Offer, Step, next_step, offer_of
from backhaul.planning.explain import parsed
from backhaul.runs.doubt import repeatable
from backhaul.runs.recovery import settle_earlier
from backhaul.sql import ident, literal
from backhaul.workspace import Workspace

_OPEN = (Stage.UNKNOWN, Stage.QUARANTINED, Stage.DETECTED)
_BY_PEOPLE = (Step.DECIDE, Step.LOOK_UP)
Row = tuple[str, Stage, bool]
"""A record's key as JSON, its stage, and whether it was ever acknowledged."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The records to settle: one by its key as typed, those that a SQL condition over keys and fields holds for, or all that
    wait for a decision."""

    key: str | None = None
    where: str | None = None


def settle(
    workspace: Workspace, sync: Any, chosen: Chosen, *, delivered: bool, remote_id: str | None = None
) -> dict[str, Any]:
    """`delivered`: the destination holds the records, maybe the one under `remote_id`; otherwise it does not, and the next run
    creates them. Returns `{sync, key, was, delivered}` of one record, `{sync, records, delivered}` of many.

    Raises:
        UsageError: the record does not wait for a decision, or the condition cannot be evaluated.
        RunError: the sync runs.
    """
    with workspace.lease(sync), workspace.engine() as engine:
        ledger = workspace.ledger(sync)
        settle_earlier(engine, workspace.state, ledger, workspace.scope(sync), workspace.plan_path)
        repeated = _to_be_repeated(engine, workspace, sync)
        offer = offer_of(sync, workspace.undelivering(sync.destination), keyed=False)

        def step(row: Row) -> Step:
            return next_step(row[1], row[2], sync.mode, Offer.KEYED if row[0] in repeated else offer)

        if chosen.key is not None:
            rows = [_one(engine, workspace, sync, chosen.key)]
            _refuse(sync, rows[0], step(rows[0]))
        else:
            rows = [row for row in _among(engine, workspace, sync, chosen.where) if step(row) in _BY_PEOPLE]
        event = Event.FOUND if delivered else Event.ABSENT
        if rows:
            take_in(
                engine,
                ledger,
                [(pk, after(was, event), remote_id if delivered else None) for pk, was, _ in rows],
            )
    if chosen.key is None:
        return {"sync": sync.name, "records": len(rows), "delivered": delivered}
    return {
        "sync": sync.name,
        "key": parsed(rows[0][0]),
        "was": rows[0][1].value,
        "delivered": delivered,
    }


def _refuse(sync: Any, row: Row, step: Step) -> None:
    """Raises UsageError where the next run settles the record."""
    if step is Step.SEND:
        said = f"{sync.name} settles {row[0]} by itself: sent again, it does no harm"
    elif step is Step.REPEAT:
        said = f"{sync.name} sends {row[0]} again under its idempotency key: that settles it"
    else:
        return
    raise UsageError(said, hint=f"`backhaul run {sync.name}`")


def _to_be_repeated(engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any) -> set[str]:
    """Primary keys (JSON) of inserts whose request the next run sends again as it was."""
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


def _one(engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any, key: str) -> Row:
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
    pk, stage, known = rows[0]
    if named(stage) not in _OPEN:
        raise UsageError(f"record {pk} of {sync.name} is neither unknown nor quarantined", hint=where)
    return pk, named(stage), known


def _among(
    engine: duckdb.DuckDBPyConnection, workspace: Workspace, sync: Any, where: str | None
) -> Iterator[Row]:
    """The open records of the ledger that a condition holds for."""
    with workspace.ledger(sync).reading(engine) as view:
        if view is None or view.empty:
            return
        columns = _columns(view)
        stages = ", ".join(str(code(stage)) for stage in _OPEN)
        source = (
            f"SELECT {key_json(view.mapping())} AS _pk, _state, _at IS NOT NULL AS _known, "
            f"{', '.join(f'{column} AS {ident(name)}' for name, column in columns.items())} "
            f"FROM {ALIAS}.acked WHERE _state IN ({stages})"
        )
        try:
            rows = engine.execute(
                f"SELECT _pk, _state, _known FROM ({source}) WHERE ({where or 'true'}) ORDER BY 1"
            ).fetchall()
        except duckdb.Error:
            names = ", ".join(columns)
            raise UsageError(
                f"--where is not a condition over the records of {sync.name}", hint=f"its columns are {names}"
            ) from None
    yield from ((pk, named(stage), known) for pk, stage, known in rows)


def _columns(view: LedgerView) -> dict[str, str]:
    """Columns of the ledger by the names that people know: fields, and keys before them."""
    mapping = view.mapping()
    fields = {field.name: ident(field.column) for field in mapping.fields}
    return {key.name: key.column for key in mapping.keys} | {
        name: column for name, column in fields.items() if name not in {key.name for key in mapping.keys}
    }
