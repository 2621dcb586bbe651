"""The progress of a run on stderr, where stderr is a terminal."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from backhaul.cli.session import Session
    from backhaul.delivery.tally import Totals


class Meter:
    """One bar for the sync that is running: delivered of total, rejected, records a second."""

    def __init__(self, session: Session) -> None:
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not session.quiet and not session.json:
            self._bar = _bar()

    def sync(self, name: str) -> AbstractContextManager[object]:
        """Shows the bar while this sync runs."""
        if self._bar is None:
            return nullcontext()
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(name, total=None, note="reading the model")
        return self._bar

    def __call__(self, sync: str, total: int, totals: Totals) -> None:
        if self._bar is not None:
            note = totals.waits or (f"{totals.rejected:,} rejected" if totals.rejected else "")
            self._bar.update(self._bar.task_ids[0], total=total, completed=totals.settled, note=note)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
