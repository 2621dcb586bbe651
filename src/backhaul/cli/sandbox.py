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

    from backhaul.sandbox.kit import simulation

    asyncio.run(_serve(session, simulation(name)(), port))


async def _serve(session: Session, simulated: Any, port: int) -> None:
    """Serves until SIGINT or SIGTERM."""
    import asyncio
    import gc
    import signal

    from backhaul.errors import UsageError
    from backhaul.sandbox.kit import serve

    # a full collection over all records would hold requests up, and make them look sent at once
    gc.set_threshold(100_000, 50, 1_000)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        async with serve(simulated, port=port) as url:
            session.say(f"{simulated.name} sandbox at {url}  (open it in a browser; Ctrl-C ends it)")
            if simulated.sample:
                session.say(f"  backhaul.yml   crm: {simulated.sample.connection(url)}")
                session.say(f"  .env           {'  '.join(simulated.sample.environment())}")
            if session.json:
                session.emit({"sandbox": simulated.name, "url": url})
            await ended.wait()
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}", hint="another one: --port 0"
        ) from None
