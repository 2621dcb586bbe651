"""From a model and a ledger to a plan on disk: compile the mapping, read once, compare, freeze."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from backhaul.engine import is_damaged, number
from backhaul.engine_errors import in_one_line, is_of_values, kind_of
from backhaul.errors import Problem, SourceError, UsageError
from backhaul.ledger.diff import NO_HASH, Diff, DiffOptions
from backhaul.ledger.duplicates import check_repeated
from backhaul.ledger.elsewhere import OtherSync, find_elsewhere, kept_notice
from backhaul.ledger.ledger import ALIAS, Ledger, LedgerView
from backhaul.ledger.plan import Plan
from backhaul.ledger.remapping import remapped
from backhaul.ledger.suppression import Forgotten
from backhaul.ledger.unfilled import unfilled_notices
from backhaul.mapping.failing import failing
from backhaul.mapping.fingerprint import fingerprints, whole_fingerprint
from backhaul.mapping.mapping import Mapping, columns_used, compile_mapping
from backhaul.models import model_columns, model_select, open_model
from backhaul.next_steps import Offer
from backhaul.planning.cursor import CHANGED, Watermark, check_cursor, cursor_of, find_watermark, start_of
from backhaul.planning.fields import check_fields
from backhaul.planning.guards import Guard, check_guards, field_changes, wants_fields
from backhaul.planning.schema_changes import ModelSchema, check_schema
from backhaul.state.protocol import State
from backhaul.state.scopes import Scope
from backhaul.types import Mode, ObjectSchema, Op
from backhaul.warehouses.protocol import Column


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan, the mapping it was made with, what its guards say, and how many records the ledger knows."""

    plan: Plan
    mapping: Mapping
    guards: tuple[Guard, ...]
    held: int
    seconds: dict[str, float]
    schema: ModelSchema
    """The model's columns."""
    stale: tuple[str, ...] = ()
    """Keys (JSON) of dead letters that mean nothing any more."""
    suppressed: int = 0
    """Rows of the model that are not sent because they were forgotten."""
    notices: tuple[str, ...] = ()
    """What a person should know of how the model was read."""

    @property
    def tripped(self) -> list[Guard]:
        return [guard for guard in self.guards if not guard.ok]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a plan comes from."""

    sync: Any
    scope: Scope
    warehouse: Any
    root: Path
    ledger: Ledger
    state: State
    others: Sequence[OtherSync] = ()
    """Other syncs that write to the same object."""


def prepare(
    engine: duckdb.DuckDBPyConnection, sources: Sources, schema: ObjectSchema, plan_id: str, path: Path,
    *, full: bool = False, moves: Op | None = None, offer: Offer = Offer.NONE,
) -> Prepared:  # fmt: skip
    """Reads the model once and freezes what differs from the ledger.

    Raises:
        UsageError: the mapping does not fit the model or the destination.
        SourceError: the model could not be read completely, its key is not one, or its columns changed too much.
    """
    from time import perf_counter

    began = perf_counter()
    sync, scope, warehouse = sources.sync, sources.scope, sources.warehouse
    if problems := [*check_fields(sync, schema), *_values_wanted(sync)]:
        raise UsageError(problems=problems)
    columns = model_columns(sync.model, warehouse, engine, sources.root)
    if problems := check_cursor(sync, columns):
        raise UsageError(problems=problems)
    found_schema = check_schema(sources.state, scope.id, sync, columns)
    mapping = compile_mapping(sync, columns, schema, engine)
    elsewhere = sync.mode is Mode.MIRROR and find_elsewhere(engine, mapping, sources.others)
    with sources.ledger.reading(engine) as view:
        view_mark = None if view is None or view.empty else view.meta.get("watermark")
        full = full or _replays(sources.state, scope.id)
        mark = _watermark(engine, sources, columns) if sync.model.cursor else None
        since = None if full or mark is None else _since(view, sync, mapping, engine, mark.cursor)
        relation = None
        try:
            relation = open_model(
                sync.model, warehouse, engine, sources.root, columns=columns_used(sync, columns),
                cursor=(sync.model.cursor, since) if since is not None else None,
            )  # fmt: skip
            try:
                wanted = _options(sources, mapping, moves, offer, incremental=since is not None)
                diff = Diff(engine, mapping, view, replace(wanted, elsewhere=elsewhere))
                diff.find(relation)
                if since is not None and diff.found.all:
                    with _opened(sources, engine, columns=sync.model.primary_key) as keys:
                        check_repeated(engine, mapping, keys.sql)
            except duckdb.Error as error:
                if relation.failure is None and is_of_values(error):
                    _name_fields(engine, sync, mapping, relation, error)
                raise
            finally:
                relation.close()
        except duckdb.Error as error:
            if is_damaged(error) and view is not None and not view.is_intact():
                raise
            why = (relation.failure if relation is not None else None) or in_one_line(error)
            raise SourceError(f"the model of {sync.name} could not be read: {why}",
                              hint="nothing was planned or sent") from None  # fmt: skip
        found = perf_counter()
        plan = replace(diff.write(plan_id, sync.name, path, mark.text if mark else None), scope=scope.id)
        stale = tuple(_stale(diff, sources))
    held, guards = diff.found.held, tuple(_guards(engine, sources, plan, diff.found.held))
    seconds = {"extract": round(found - began, 3), "diff": round(perf_counter() - found, 3)}
    read = (_read_whole(view_mark, mark, full), mark.notice if mark else "")
    notices = tuple(filter(None, (*read, *_notices(engine, plan, mapping, elsewhere=elsewhere))))
    return Prepared(plan, mapping, guards, held, seconds, found_schema, stale, diff.suppressed, notices)


def _notices(
    engine: duckdb.DuckDBPyConnection, plan: Plan, mapping: Mapping, *, elsewhere: bool
) -> list[str]:
    """What a person should know of a plan's records."""
    kept = kept_notice(engine, plan, mapping) if elsewhere and plan.forgotten else ""
    return [kept, *unfilled_notices(engine, plan, mapping)]


def _options(
    sources: Sources, mapping: Mapping, moves: Op | None, offer: Offer, *, incremental: bool
) -> DiffOptions:
    sync, scope = sources.sync, sources.scope
    refused = _refused(sources.state, scope.id, mapping)
    forgotten = _forgotten(sources.state, scope)
    aside = sync.duplicates == "reject"
    return DiffOptions(sync.mode, incremental, moves, refused, forgotten, aside, offer)


def _guards(engine: duckdb.DuckDBPyConnection, sources: Sources, plan: Plan, held: int) -> list[Guard]:
    scope, wanted = sources.scope, sources.sync.guards
    rows = sources.state.do("last_full_rows", {"sync": scope.sync, "scope": scope.id})
    before = rows[0]["rows"] if rows and not plan.first else None
    fields = field_changes(engine, plan) if held and wants_fields(wanted) else ()
    return list(check_guards(wanted, plan, held, before, fields))


def _stale(diff: Diff, sources: Sources) -> list[str]:
    """Keys of dead letters that mean nothing any more."""
    rows = sources.state.do("letters", {"scope": sources.scope.id})
    return diff.stale([(row["key"], row["hash"]) for row in rows])


def _values_wanted(sync: Any) -> list[Problem]:
    if sync.ledger.values or not wants_fields(sync.guards):
        return []
    return [sync.problem("guards", "guards of single fields compare with acknowledged values, which `ledger: {values: false}` "
                         "does not keep", "leave out max_field_changes and max_null_rise, or keep values")]  # fmt: skip


def _name_fields(
    engine: duckdb.DuckDBPyConnection, sync: Any, mapping: Mapping, relation: Any, error: duckdb.Error
) -> None:
    """Raises: SourceError where expressions of the mapping fail: names them."""
    fields = failing(engine, mapping, relation)
    if not fields:
        return
    said = ", ".join(f"{field.name}: {field.expr}" for field in fields)
    raise SourceError(
        f"the mapping of {sync.name} fails for a row of the model: {said}: {kind_of(error)}",
        hint="TRY(…) around the expression gives NULL for such values; nothing was planned or sent",
    ) from None


def _refused(state: State, scope: str, mapping: Mapping) -> list[tuple[str, str, bool]]:
    """The dead letters that were refused with this mapping; those of another one are free, but for deletes, which are the same
    with any mapping."""
    made_with = whole_fingerprint(fingerprints(mapping))
    return [
        (row["key"], row["hash"], bool(row["by_mapping"]))
        for row in state.do("refused", {"scope": scope})
        if row["mapping"] == made_with or row["hash"] == NO_HASH
    ]


def _forgotten(state: State, scope: Scope) -> Forgotten:
    """The sync's own keys, and the identifiers that any sync has forgotten at the destination's object."""
    rows = state.do("forgotten", {"place": scope.place})
    hashes = [row["hash"] for row in rows if row["kind"] == "identifier" or row["sync"] == scope.sync]
    return Forgotten(hashes, rows[0]["salt"] if rows else "")


def _replays(state: State, scope: str) -> bool:
    """Whether a dead letter waits to be sent again: its row need not have changed, so that only a full read finds it."""
    return len(state.do("letters", {"scope": scope})) > len(state.do("refused", {"scope": scope}))


def _since(
    view: LedgerView | None, sync: Any, mapping: Mapping, engine: duckdb.DuckDBPyConnection, cursor: str
) -> str | None:
    """Where an incremental read may start; None where only a full read tells the truth: no watermark yet or one of another
    model, deletes to find, another mapping, or records whose state is in doubt."""
    if (
        view is None
        or view.empty
        or sync.model.cursor is None
        or sync.mode is Mode.MIRROR
        or not view.fits(mapping)
        or remapped(view, mapping)
    ):
        return None
    if number(engine, f"SELECT count(*) FROM {ALIAS}.acked WHERE _hash IS NULL"):
        return None
    return start_of(view.meta.get("watermark"), cursor)


def _watermark(engine: duckdb.DuckDBPyConnection, sources: Sources, columns: Sequence[Column]) -> Watermark:
    sync, warehouse = sources.sync, sources.warehouse
    select = model_select(sync.model, warehouse, sources.root)
    column = next(one for one in columns if one.name.lower() == sync.model.cursor.lower())
    cursor = cursor_of(sync, select, warehouse.dialect)
    return find_watermark(
        engine, warehouse, select, column, cursor, datetime.fromisoformat(sources.state.now())
    )


def _read_whole(stored: str | None, mark: Watermark | None, full: bool) -> str:
    """Says that a cursor was stored, of another model than this one."""
    other = not full and mark is not None and stored is not None and start_of(stored, mark.cursor) is None
    return CHANGED if other else ""


@contextmanager
def _opened(sources: Sources, engine: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> Iterator[Any]:
    """Some columns of all rows of the model."""
    relation = open_model(sources.sync.model, sources.warehouse, engine, sources.root, columns=columns)
    try:
        yield relation
    finally:
        relation.close()
