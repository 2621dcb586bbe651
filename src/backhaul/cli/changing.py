"""backhaul baseline and reset: what changes the ledger without sending."""

from __future__ import annotations

import sys

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument


@click.command(cls=Command)
@sync_argument()
@pass_session
def baseline(session: Session, sync: str) -> None:
    """Takes the model's rows as delivered, without sending.

    Use it once, when a destination holds these records already, for instance because another tool put them
    there: from then on only changes are sent.

    \b
    Example:
      backhaul baseline contacts
    """
    project = session.project()
    taken = {one.name: project.baseline(one.name) for one in session.syncs(project, [sync])}
    for name, count in taken.items():
        session.say(f"{name}: {count:,} records taken as delivered; compare them: backhaul verify {name}")
    if session.json:
        session.emit({"baselines": [{"sync": name, "records": count} for name, count in taken.items()]})


@click.command(cls=Command)
@sync_argument()
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def reset(session: Session, sync: str, yes: bool) -> None:
    """Forgets what was acknowledged, to send all again.

    The known keys are kept, so that nothing is created twice. Use it when the destination was restored
    or emptied behind backhaul's back. Asks first.

    \b
    Examples:
      backhaul reset contacts
      backhaul reset contacts --yes
    """
    project = session.project()
    names = [one.name for one in session.syncs(project, [sync])]
    if not yes:
        _ask(names)
    forgotten = {name: project.reset(name) for name in names}
    for name, count in forgotten.items():
        session.say(f"{name}: the values of {count:,} records are forgotten; look at `backhaul plan {name}`")
    if session.json:
        session.emit({"resets": [{"sync": name, "records": count} for name, count in forgotten.items()]})


def _ask(names: list[str]) -> None:
    from backhaul.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("reset asks first, and there is no terminal to ask on", hint="add --yes")
    question = f"Forget what was acknowledged of {', '.join(names)}? The next run sends everything again."
    click.confirm(question, abort=True, err=True)
