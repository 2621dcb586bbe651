"""backhaul undo."""

from __future__ import annotations

import click

from backhaul.cli.session import Command, Session, pass_session


@click.command(cls=Command)
@click.argument("run", metavar="RUN")
@pass_session
def undo(session: Session, run: str) -> None:
    """Plans to put back what a run replaced.

    Sends nothing: shows old and new values like `backhaul plan`, and the command that delivers exactly this.
    What the run updated gets its old values, what it created is deleted, what it deleted is created again.
    Records that changed since are left out.

    Fix the model or the mapping before the next normal run: it sends the model's values again.

    \b
    Examples:
      backhaul undo r-20261123-021500-1a2b3c
      backhaul runs contacts
    """
    from backhaul.cli.plans import draw

    report = session.project().undo(run)
    if session.json:
        session.emit({"plans": [report.json()]})
    else:
        draw(session, report)
