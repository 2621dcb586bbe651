"""backhaul sandbox."""

from __future__ import annotations

from typing import Any

import click

from backhaul.cli.session import Command, Session, pass_session


@click.command(cls=Command)
@click.argument("name", metavar="NAME")
@click.option("--port", type=click.IntRange(0, 65535), default=8100, show_default=True, metavar="P")
@pass_session
def sandbox(session: Session, name: str, port: int) -> None:
    """Serves a simulated destination, to try a sync against.

    It listens on 127.0.0.1, answers as the vendor's API does, limits and partial failures included, shows its
    records on a page, and forgets everything when it ends (Ctrl-C). Port 0 takes any free one.

    \b
    Example:
      backhaul sandbox hubspot --port 8100
    """
    import asyncio
    from importlib.metadata import entry_points

    from backhaul.errors import UsageError

    known = {entry.name: entry for entry in entry_points(group="backhaul.sandboxes")}
    if name not in known:
        raise UsageError(f"there is no sandbox {name}", hint=f"there is {', '.join(sorted(known))}")
    asyncio.run(_serve(session, known[name].load()(), port))


async def _serve(session: Session, simulated: Any, port: int) -> None:
    """Serves until SIGINT or SIGTERM."""
    import asyncio
    import signal

    from backhaul.errors import UsageError
    from backhaul.sandbox.kit import serve

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        async with serve(simulated, port=port) as url:
            session.say(f"{simulated.name} sandbox at {url}  (open it in a browser; Ctrl-C ends it)")
            if session.json:
                session.emit({"sandbox": simulated.name, "url": url})
            await ended.wait()
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}", hint="another one: --port 0"
        ) from None
