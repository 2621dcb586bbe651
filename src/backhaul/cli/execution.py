"""Runs syncs one after the other, stops politely when asked to, and sums each run up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from backhaul.cli import failures, show
from backhaul.cli.progress import Meter
from backhaul.runs.report import RunOptions
from backhaul.runs.run import Run

if TYPE_CHECKING:
    from backhaul.cli.session import Session
    from backhaul.config import SyncConfig
    from backhaul.project import Project
    from backhaul.runs.report import RunReport

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Execution:
    """The runs of one command. `reports` has one for each sync that was started."""

    def __init__(
        self,
        session: Session,
        project: Project,
        *,
        full: bool,
        limit: int | None,
        reviewed: Mapping[str, tuple[str, str]],
    ) -> None:
        self._session, self._project, self._meter = session, project, Meter(session)
        self._full, self._limit, self._reviewed = full, limit, reviewed
        self._current: Run | None = None
        self._stopping = False
        self._left: list[str] = []
        self.reports: list[RunReport] = []

    @property
    def exit_code(self) -> int:
        codes = [report.exit_code for report in self.reports]
        return failures.worst([*codes, failures.UNFINISHED] if self._left else codes)

    async def run(self, syncs: Sequence[SyncConfig]) -> None:
        """Runs all of them, whatever becomes of one; after a signal no further one starts."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop)
        for position, sync in enumerate(syncs):
            if self._stopping:
                self._left = [one.name for one in syncs[position:]]
                self._session.note(f"not started: {', '.join(self._left)}")
                break
            report = self._skipped(sync) or await self._one(sync)
            self.reports.append(report)
            if not self._session.json:
                tell(self._session, report)
        if len(self.reports) > 1 and not self._session.json:
            self._session.say(_total(self.reports))

    def _stop(self) -> None:
        """The first signal finishes what is in flight; another one ends the process there and then."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, lambda *_: os._exit(failures.INTERRUPTED))
        self._session.note("finishing what is in flight; again to stop at once")
        if self._current is not None:
            self._current.stop()

    def _skipped(self, sync: SyncConfig) -> RunReport | None:
        """The report of a sync that is not run, because one that it depends on did not deliver in this command."""
        wrong = [
            f"{one.sync} {'was' if one.status in ('held', 'skipped') else 'has'} {one.status}"
            for one in self.reports
            if one.sync in sync.depends_on and one.status in ("failed", "held", "skipped")
        ]
        if not wrong:
            return None
        report = Run(self._project.workspace, sync, RunOptions()).report
        report.id, report.finished_at = "", report.started_at
        report.status, report.error = (
            "skipped",
            f"not run: it depends on {' and '.join(sync.depends_on)}, and {', '.join(wrong)}",
        )
        return report

    async def _one(self, sync: SyncConfig) -> RunReport:
        from backhaul.errors import BackhaulError, UsageError

        options = RunOptions(
            full=self._full, limit=self._limit, reviewed=self._reviewed.get(sync.name), progress=self._meter
        )
        run = self._current = Run(self._project.workspace, sync, options)
        try:
            with self._meter.sync(sync.name):
                return await run.execute()
        except BackhaulError as error:
            report = run.report
            report.status, report.error, report.hint = "failed", str(error), error.hint
            report.usage = isinstance(error, UsageError)
            return report


def _total(reports: Sequence[RunReport]) -> str:
    """One line over the runs of a command."""
    ended = Counter(report.status for report in reports)
    syncs = ", ".join(f"{count} {status}" for status, count in ended.items())
    counts = {name: sum(getattr(report, name) for report in reports) for name in _COUNTED}
    records = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "delivered")
    return f"{click.style('total', bold=True)}  {len(reports)} syncs: {syncs} · {records}"


_COUNTED = ("delivered", "rejected", "deferred", "unknown", "pending")


def tell(session: Session, report: RunReport) -> None:
    """One run in one to three lines: what was done, why, and what to do next. What failed goes to stderr."""
    if report.status in ("failed", "held", "skipped"):
        failures.line(session, f"{report.sync}: {report.error}", report.hint)
    if report.status == "skipped" or (report.status == "failed" and not report.requests):
        return
    say = session.warn if report.exit_code else session.say
    colour = show.STATUS_COLOURS.get(report.status)
    name, status = click.style(report.sync, bold=True), click.style(report.status, fg=colour)
    say(f"{name}  {status}  {' · '.join(_parts(report))}")
    for line in _notes(report):
        say(f"  {line}")


def _parts(report: RunReport) -> list[str]:
    total = sum(report.changes.values())
    if not total and not report.rejected:
        return [f"{report.rows:,} rows, nothing changed", f"{show.duration(report.seconds['total'])}"]
    kinds = ", ".join(f"{count:,} {op}d" for op, count in report.changes.items() if count)
    changed = f"{total:,} changed: {kinds}" if total else "nothing changed"
    if report.status == "held":
        return [changed, "nothing sent"]
    fates = {
        "delivered": report.delivered,
        "rejected": report.rejected,
        "deferred": report.deferred,
        "unknown": report.unknown,
        "pending": report.pending,
    }
    said = ", ".join(f"{count:,} {fate}" for fate, count in fates.items() if count or fate == "delivered")
    before = report.rejected - max(total - sum(fates.values()) + report.rejected, 0)
    if before > 0:
        said += f" ({before:,} before sending)"
    requests = f"{report.requests:,} request{'' if report.requests == 1 else 's'}"
    return [changed, said, f"{requests} in {show.duration(report.seconds['total'])}"]


def _notes(report: RunReport) -> list[str]:
    held = report.status == "held"
    notes = [show.first(report.account, report.kept)] if report.first and (held or report.kept) else []
    notes += show.reasons(report.reasons, report.remapped)
    notes += [*report.notices, *show.schema_changes(report.schema_changes)]
    notes += show.suppressed(report.suppressed)
    if report.recreated:
        notes.append(f"{show.records(report.recreated)} gone at the destination, made again")
    if report.verified is not None and report.verified.checked:
        wrong = len(report.verified.mismatches)
        said = (
            f"{wrong:,} differ and are sent again: backhaul verify {report.sync}" if wrong else "all as sent"
        )
        notes.append(f"{show.records(report.verified.checked)} read back, {said}")
    notes += show.refused(report)
    if report.unknown:
        where = f"backhaul records {report.sync} --status unknown"
        notes.append(f"{show.records(report.unknown)} may or may not have arrived: {where}")
    if report.hint and report.status != "failed":
        notes.append(report.hint)
    if report.deferred and report.status == "deferred":
        notes.append(f"{show.records(report.deferred)} not sent: {report.error}")
    if report.pending:
        notes.append(f"{show.records(report.pending)} left by --limit: {show.rest(report.sync, report.undo)}")
    elif report.undo and report.deferred:
        notes.append(f"plan the rest of the undo: {show.rest(report.sync, report.undo)}")
    return notes
