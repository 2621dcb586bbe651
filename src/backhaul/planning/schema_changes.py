"""The model's columns from run to run: what was added, removed or retyped, and whether a run may go on (I27)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from backhaul.errors import SourceError
from backhaul.mapping.mapping import columns_used
from backhaul.state.protocol import State
from backhaul.warehouses.protocol import Column

_NUMBERS = frozenset({
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
    "FLOAT", "DOUBLE", "DECIMAL",
})  # fmt: skip
_ALIKE = 0.6
"""difflib's ratio from which two names look like one that was renamed."""


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """One column that is not as before. `change` is added, removed or retyped; `used`: the sync's key, cursor or an
    expression reads it; `perhaps`: the added column that a removed one may be called now."""

    column: str
    change: str
    was: str | None
    now: str | None
    used: bool = False
    perhaps: str | None = None

    @property
    def is_break(self) -> bool:
        """Whether it can change what is sent: one kind of number in place of another does not count."""
        return self.used and self.change != "added" and {_family(self.was), _family(self.now)} != {"number"}

    def __str__(self) -> str:
        if self.change == "removed":
            renamed = f" (perhaps it is {self.perhaps} now)" if self.perhaps else ""
            return f"column {self.column} is missing{renamed}"
        if self.change == "retyped":
            return f"column {self.column} is {self.now} and was {self.was}"
        return f"column {self.column} ({self.now}) is new"


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """The columns of this read, and how they differ from those of the last run that went on."""

    columns: tuple[Column, ...]
    changes: tuple[ColumnChange, ...] = ()
    known: bool = True
    """A run has seen the model before."""


def check_schema(state: State, scope: str, sync: Any, columns: Sequence[Column]) -> ModelSchema:
    """Compares the model's columns with the last ones, as `on_schema_change` says.

    Raises:
        SourceError: a column that the sync reads is missing, or, with `fail`, of another type; the refusal is noted.
    """
    found = model_schema(state, scope, sync, columns)
    missing = [change for change in found.changes if change.is_break and change.change == "removed"]
    # a key of another type is for the ledger to refuse, whatever the policy
    keys = {name.lower() for name in sync.model.primary_key}
    broken = [change for change in found.changes if change.is_break and change.column.lower() not in keys]
    stops = (
        [*missing, *(one for one in broken if one not in missing)]
        if sync.on_schema_change == "fail"
        else missing
    )
    if stops:
        note_schema(state, scope, found, taken=False)
        raise SourceError(f"the model of {sync.name} changed: {'; '.join(map(str, stops))}; nothing was planned or sent",
                          hint=_hint(sync.name, bool(missing)))  # fmt: skip
    return found


def _hint(sync: str, missing: bool) -> str:
    if missing:
        return f"mend the model, or the mapping in the sync's file; see `backhaul schema-changes {sync}`"
    return (
        f"mend the model or the mapping, or take the new type on: `backhaul schema-changes {sync} --accept`"
    )


def model_schema(state: State, scope: str, sync: Any, columns: Sequence[Column]) -> ModelSchema:
    """The model's columns beside those of the last run that went on."""
    rows = [row for row in state.do("model_schemas", {"scope": scope}) if row["taken"]]
    if not rows:
        return ModelSchema(tuple(columns), known=False)
    before = [Column(name, kind) for name, kind in orjson.loads(rows[-1]["columns"])]
    if before == [*columns]:
        return ModelSchema(tuple(columns))
    used = {name.lower() for name in columns_used(sync, [*before, *columns])}
    return ModelSchema(tuple(columns), _changes(before, columns, used))


def _changes(before: Sequence[Column], now: Sequence[Column], used: set[str]) -> tuple[ColumnChange, ...]:
    had, has = ({column.name.lower(): column for column in some} for some in (before, now))
    added = [has[name] for name in has if name not in had]
    found = []
    for name, column in had.items():
        if name not in has:
            perhaps = _renamed(column, added)
            found.append(ColumnChange(column.name, "removed", column.type, None, name in used, perhaps))
        elif has[name].type != column.type:
            found.append(ColumnChange(column.name, "retyped", column.type, has[name].type, name in used))
    found += [ColumnChange(one.name, "added", None, one.type, one.name.lower() in used) for one in added]
    return tuple(found)


def _renamed(gone: Column, added: Sequence[Column]) -> str | None:
    """A guess for people: the new column of the same type with the likest name, or the only one of the type."""
    same = {column.name.lower(): column.name for column in added if column.type == gone.type}
    close = difflib.get_close_matches(gone.name.lower(), list(same), 1, _ALIKE)
    if close:
        return same[close[0]]
    return next(iter(same.values())) if len(same) == 1 else None


def _family(kind: str | None) -> str | None:
    return "number" if kind and kind.split("(")[0] in _NUMBERS else kind


def note_schema(state: State, scope: str, found: ModelSchema, *, taken: bool) -> None:
    """Keeps the columns as a new version, unless the newest one says the same."""
    rows = state.do("model_schemas", {"scope": scope})
    columns = orjson.dumps([[column.name, column.type] for column in found.columns]).decode()
    if rows and rows[-1]["columns"] == columns and (rows[-1]["taken"] or not taken):
        return
    if taken and found.known and not found.changes:
        return
    state.do("keep_model_schema", {
        "scope": scope, "version": rows[-1]["version"] + 1 if rows else 1, "at": state.now(), "taken": int(taken),
        "columns": columns, "changes": orjson.dumps([asdict(change) for change in found.changes]).decode(),
    })  # fmt: skip


def notices(sync: Any, found: ModelSchema) -> list[str]:
    """What a run says of changes it went on with; `ignore` says nothing."""
    if sync.on_schema_change == "ignore":
        return []
    return [
        f"{change}{', and nothing maps it' * (change.change == 'added' and not change.used)}"
        for change in found.changes
    ]


def versions(state: State, scope: str) -> list[dict[str, Any]]:
    """The changelog, oldest first: `{version, at, taken, columns: [{name, type}], changes: [{column, change, …}]}`."""
    return [
        {
            "version": row["version"], "at": row["at"], "taken": bool(row["taken"]),
            "columns": [{"name": name, "type": kind} for name, kind in orjson.loads(row["columns"])],
            "changes": orjson.loads(row["changes"]),
        } for row in state.do("model_schemas", {"scope": scope})
    ]  # fmt: skip
