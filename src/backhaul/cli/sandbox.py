"""backhaul sandbox."""

from __future__ import annotations

from typing import Any

import click

from backhaul.cli.session import Command, Session, pass_session


@click.command(cls=Command)
@click.argument("name", metavar="NAME")
@click.option("--port", type=click.IntRange(0, 65535), default=8100, show_default=True, metavar="P")
@click.option("--token", metavar="TOKEN", help="Refuse every other token.  [default: accept any token]")
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME=VALUE", help="Switch on a fault; may be repeated."
)
@pass_session
def sandbox(session: Session, name: str, port: int, token: str | None, faults: tuple[str, ...]) -> None:
    """Serves a simulated destination, to try a sync against.

    It listens on 127.0.0.1, answers as the vendor's API does, limits and partial failures included, and shows its
    records on a page. It has the custom fields that the demo writes to, prints the lines for backhaul.yml and .env,
    and forgets everything when it ends (Ctrl-C). Port 0 takes any free port.

    Most faults are shares of the write requests, such as error=0.05 (500), throttle=0.1 (429) or reset_after=0.01
    (applied, then the connection breaks). Others are values, such as latency=0.2 and refuse_key=4711. An unknown
    name lists all faults.

    \b
    Examples:
      backhaul sandbox hubspot --port 8100
      backhaul sandbox hubspot --token "$HUBSPOT_TOKEN" --fault error=0.05 --fault latency=0.2
    """
    import asyncio

    from backhaul.errors import UsageError
    from backhaul.sandbox.kit import simulation, switches

    simulated = simulation(name)()
    simulated.add_sample_fields()
    if token is not None:
        if not hasattr(simulated, simulated.credential):
            raise UsageError(f"the simulated {name} has no single token", hint="leave --token out")
        setattr(simulated, simulated.credential, token)
    try:
        simulated.faults = switches(faults)
    except ValueError as error:
        raise UsageError(f"--fault: {error}") from None
    asyncio.run(_serve(session, simulated, port))


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
