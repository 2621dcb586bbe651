"""The progress of a run on stderr, where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
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
    from rich.console import Console, RenderableType
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

    console = Console(stderr=True)

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    class TwoLines(Progress):
        """The bar, and what it waits for on a line of its own: beside the bar, a long note takes the bar's place."""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["note"]:
                    yield Text(f"  {task.fields['note']}", style="dim", no_wrap=True, overflow="ellipsis")

    return TwoLines(
        TextColumn("{task.description}"),
        BarColumn(bar_width=min(40, max(10, console.width - 60))),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
