"""backhaul sandbox."""

from __future__ import annotations

import click

from backhaul.cli.session import Command, Session, pass_session


@click.command(cls=Command)
@click.argument("name", metavar="NAME")
@click.option("--port", type=click.IntRange(0, 65535), default=8100, show_default=True, metavar="P")
@pass_session
def sandbox(session: Session, name: str, port: int) -> None:
    """Serves a simulated destination, to try a sync against.

    It listens on 127.0.0.1, answers as the vendor's API does, limits and partial failures included, shows its
    records on a page, and forgets everything when it ends (Ctrl-C).

    \b
    Example:
      backhaul sandbox hubspot --port 8100
    """
    from importlib.metadata import entry_points

    from backhaul.errors import UsageError

    known = {entry.name: entry for entry in entry_points(group="backhaul.sandboxes")}
    if name not in known:
        raise UsageError(f"there is no sandbox {name}", hint=f"there is {', '.join(sorted(known))}")
