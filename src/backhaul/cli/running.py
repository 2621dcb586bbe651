"""backhaul plan and run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backhaul.cli import failures
from backhaul.cli.session import Command, Session, pass_session, syncs_argument

if TYPE_CHECKING:
    from backhaul.config import SyncConfig
    from backhaul.errors import BackhaulError
    from backhaul.project import Project
    from backhaul.runs.report import PlanReport


@click.command(cls=Command)
@syncs_argument()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write them there as JSON."
)
@click.option("--full", is_flag=True, help="Read the whole model, whatever the cursor says.")
@pass_session
def plan(session: Session, names: tuple[str, ...], out: Path | None, full: bool) -> int:
    """Shows what a run would do, and sends nothing.

    Counts, old and new values field by field, guards, and what it would cost in requests and time. Use it
    before the first run, and after a change of a model or mapping. Each plan has an id: `backhaul run
    --plan` delivers exactly what you saw, or refuses when the model has moved since.

    \b
    Examples:
      backhaul plan
      backhaul plan contacts --out plan.json
    """
    project = session.project()
    plans: list[PlanReport] = []
    errors: list[tuple[str, BackhaulError]] = []
    for sync in session.syncs(project, names):
        _plan_one(session, project, sync, full, plans, errors)
    document: dict[str, Any] = {"plans": [one.json() for one in plans]}
    if errors:
        document["errors"] = [{"sync": name, **failures.describe(error)} for name, error in errors]
    if out is not None:
        _write(out, document)
        session.say(f"written to {out}; deliver it: backhaul run --plan {out}")
    if session.json:
        session.emit(document)
    return failures.worst([failures.code_of(error) for _, error in errors])


def _plan_one(
    session: Session,
    project: Project,
    sync: SyncConfig,
    full: bool,
    plans: list[PlanReport],
    errors: list[tuple[str, BackhaulError]],
) -> None:
    import asyncio

    from backhaul.cli.plans import draw
    from backhaul.errors import BackhaulError

    try:
        report = asyncio.run(project.plan_report(sync, full=full))
    except BackhaulError as error:
        errors.append((sync.name, error))
        if not session.json:
            failures.complain(session, error, f"{sync.name}: ")
        return
    if plans:
        session.say()
    plans.append(report)
    if not session.json:
        draw(session, report)


def _write(path: Path, document: dict[str, Any]) -> None:
    """The plan holds customers' values: only its owner may read it, whoever could read a file that was there; a link is replaced
    and not followed."""
    import tempfile

    import orjson

    from backhaul.errors import UsageError

    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            file.write(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2) + b"\n")
        Path(file.name).replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


@click.command(cls=Command)
@syncs_argument()
@click.option("--plan", "reference", metavar="ID|FILE", help="Deliver this reviewed plan, or refuse.")
@click.option("--full", is_flag=True, help="Read the whole model, whatever the cursor says.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Send at most N changes.")
@pass_session
def run(
    session: Session, names: tuple[str, ...], reference: str | None, full: bool, limit: int | None
) -> int:
    """Delivers what changed, and notes every answer.

    Reads each model, compares, checks guards, sends. Use it from a scheduler or by hand; a second run sends
    only what changed since. Ctrl-C finishes what is in flight, and the next run goes on from there.

    Exits with 0 when all was delivered, 1 when a run failed or was held, 2 when the command or the files are
    wrong, 3 with rejected or deferred records.

    \b
    Examples:
      backhaul run
      backhaul run contacts --limit 10
      backhaul run contacts --plan p-20261123-021500-1a2b3c
    """
    import asyncio

    from backhaul.cli.execution import Execution

    project = session.project()
    if reference is not None and not names:
        names = tuple(project.planned(reference))
    syncs = session.syncs(project, names)
    reviewed = {sync.name: project.reviewed(reference, sync.name) for sync in syncs} if reference else {}
    execution = Execution(session, project, full=full, limit=limit, reviewed=reviewed)
    asyncio.run(execution.run(syncs))
    if session.json:
        session.emit({"runs": [report.json() for report in execution.reports]})
    return execution.exit_code
