"""backhaul demo."""

from __future__ import annotations

from pathlib import Path

import click

from backhaul.cli.session import Command, Session, pass_session


@click.command(cls=Command)
@click.option(
    "--folder", type=click.Path(path_type=Path), metavar="DIR", help="Where.  [default: a temporary folder]"
)
@click.option(
    "--destination", default="hubspot", show_default=True, metavar="NAME",
    help="Which destination to simulate, such as salesforce, braze or zendesk.",
)  # fmt: skip
@pass_session
def demo(session: Session, folder: Path | None, destination: str) -> int:
    """Shows a complete example, on this machine alone.

    Builds a sample warehouse, starts a simulated destination with its real limits, runs a first sync, changes some
    rows, shows the plan, runs again, and says where to look. Use it to see in a minute what backhaul is.

    \b
    Example:
      backhaul demo
      backhaul demo --destination salesforce
    """
    from backhaul.demo import run

    return run(folder, destination=destination, json=session.json, quiet=session.quiet)
