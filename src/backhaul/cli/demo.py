"""backhaul demo."""

from __future__ import annotations

from pathlib import Path

import click

from backhaul.cli.session import Command, Session, pass_session


@click.command(cls=Command)
@click.option(
    "--folder", type=click.Path(path_type=Path), metavar="DIR", help="Where.  [default: a temporary folder]"
)
@pass_session
def demo(session: Session, folder: Path | None) -> int:
    """Shows a complete example, on this machine alone.

    Builds a sample warehouse, starts a simulated CRM, runs a first sync, changes some rows, shows the plan,
    runs again, and says where to look. Use it to see in a minute what backhaul is.

    \b
    Example:
      backhaul demo
    """
    from backhaul.demo import run

    return run(folder, json=session.json, quiet=session.quiet)
