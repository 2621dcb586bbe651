"""What torture has counted, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

QUIET, STORMY = 1.05, 1.6
"""Records sent for each change at most: without faults and kills, and in a storm of both."""


@dataclass
class Figures:
    """Counts of one profile. `changes` counts a row each time that it changes, comes or leaves."""

    runs: int = 0
    kills: int = 0
    stops: int = 0
    restarts: int = 0
    full: int = 0
    changes: int = 0
    sends: int = 0
    lost: int = 0
    duplicates: int = 0
    needless: int = 0
    windows: int = 0
    violations: list[str] = field(default_factory=list)

    def violation(self, where: str, what: str) -> Literal[False]:
        self.violations.append(f"{where}: {what}")
        return False

    @property
    def amplification(self) -> float:
        return self.sends / self.changes if self.changes else 0.0


def total(all_figures: list[Figures]) -> Figures:
    """The sum over profiles."""
    made = Figures()
    for one in all_figures:
        for item in fields(Figures):
            setattr(made, item.name, getattr(made, item.name) + getattr(one, item.name))
    return made


_COLUMNS = (
    "runs",
    "kills",
    "stops",
    "restarts",
    "full",
    "changes",
    "lost",
    "duplicates",
    "needless",
    "windows",
)


def table(by_profile: dict[str, Figures]) -> str:
    """One line a profile, and the sum."""
    rows = [["profile", *_COLUMNS, "sends/changes"]]
    for name, one in [*by_profile.items(), ("all", total(list(by_profile.values())))]:
        ratio = f"{one.amplification:.2f}" if one.sends and name != "all" else "-"
        rows.append([name, *(f"{getattr(one, column):,}" for column in _COLUMNS), ratio])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
