"""What one file under syncs/ says, frozen."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from backhaul.config.model import ModelConfig
from backhaul.config.parts import (
    Expression,
    FieldMapping,
    Freshness,
    Guards,
    LedgerOptions,
    Line,
    Name,
    Priority,
    Section,
)
from backhaul.errors import Problem
from backhaul.types import Mode, Nulls


class SyncDefaults(Section):
    """What every sync of the project takes unless its own file says otherwise."""

    nulls: Nulls = Nulls.CLEAR
    """What a NULL in the model does to the destination's field: clear it, skip it, or reject the record."""
    guards: Guards = Guards()
    """What stops a run before anything is sent."""
    freshness: Freshness = Freshness()
    """How much is read back."""
    on_schema_change: Literal["fail", "apply", "ignore"] = "fail"
    """A column that the sync reads has another type: refuse the run, go on, or go on silently. A missing one is refused."""
    duplicates: Literal["refuse", "reject"] = "refuse"
    """Rows of the model that share a primary key or have none: refuse the run, or reject them all, as dead letters, and send the
    rest."""
    gone: Literal["recreate", "reject"] | None = None
    """The destination no longer holds a record that it acknowledged: make it again by an upsert, or reject it. Unset: recreate in
    mode upsert and mirror, reject in mode update."""
    approve: Literal["first", "always", "never"] = "never"
    """Which runs wait for `backhaul run --plan`: the first and those after a changed mapping, all, or none."""
    ledger: LedgerOptions = LedgerOptions()
    """What the ledger keeps of each acknowledged record."""


class SyncFile(SyncDefaults):
    """The keys of a file under syncs/."""

    name: Name
    """The name of the sync, which commands take and the state is filed under."""
    model: ModelConfig
    """Where the rows come from."""
    destination: Name
    """A connection of backhaul.yml."""
    object: Line
    """What the destination calls the thing: contacts, Account, a table."""
    mode: Mode = Mode.UPSERT
    """insert, update, upsert, or mirror (upsert, and delete what left the model)."""
    priority: Priority = 0
    """Who sends first among syncs that share a credential: high, normal, low, or a number; the larger goes first."""
    depends_on: list[Name] = Field(default=[], max_length=100)
    """Syncs that run before this one where one command runs both; it does not run where one of them failed or was held."""
    unknown: Literal["at_most_once", "at_least_once"] = "at_most_once"
    """Of creates that nobody can look up and whose end nobody knows: leave them to a person, or send them again."""
    identify: dict[Line, Expression] = Field(min_length=1, max_length=32)
    """Destination identifier <- SQL expression."""
    fields: dict[Line, FieldMapping] = Field(default={}, max_length=2000)
    """Destination field <- SQL expression; a dot in a field's name nests."""

    @model_validator(mode="after")
    def _identifiers_once(self) -> Self:
        for name in self.fields.keys() & self.identify.keys():
            if self.fields[name] != FieldMapping(value=self.identify[name]):
                raise ValueError(f"`{name}` is under identify and, with another value, under fields")
        return self


class SyncConfig(SyncFile):
    """One sync, as its file and the project's defaults describe it. `model.warehouse` is filled in."""

    file: str = Field(exclude=True)
    """The file it was read from, relative to the project."""
    lines: dict[str, tuple[int, int]] = Field(default={}, repr=False, exclude=True)
    """Line and column, from 1, of each key by its dotted path (`fields.tier.value`)."""

    def problem(self, path: str, message: str, hint: str | None = None) -> Problem:
        """A problem at the place of a dotted path, or at the nearest parent that stands in the file."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        line, column = self.lines.get(path, (1, 1))
        return Problem(message, self.file, line, column, hint)
