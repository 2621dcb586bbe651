"""backhaul baseline and reset: what changes the ledger without sending."""

from __future__ import annotations

import sys

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument


@click.command(cls=Command)
@sync_argument()
@click.option(
    "--from",
    "source",
    type=click.Choice(["model", "destination"]),
    default="model",
    show_default=True,
    help="Take all rows on trust, or read the destination and take what is equal.",
)
@pass_session
def baseline(session: Session, sync: str, source: str) -> None:
    """Takes the model's rows as delivered, without sending.

    Use it once, when a destination holds these records already, for instance because another tool put them
    there: from then on only changes are sent. With --from destination each record is read and compared; what
    is missing or differs is left for the next run.

    \b
    Examples:
      backhaul baseline contacts
      backhaul baseline contacts --from destination
    """
    project = session.project()
    read = source == "destination"
    found = {one.name: project.baseline(one.name, read=read) for one in session.syncs(project, [sync])}
    for name, taken in found.items():
        left = f"{taken.differ:,} are not there as they should be: backhaul plan {name}"
        after = left if taken.differ else f"compare them: backhaul verify {name}"
        session.say(f"{name}: {taken.records:,} records taken as delivered; {after}")
        if taken.left:
            gone = "1 known record" if taken.left == 1 else f"{taken.left:,} known records"
            session.say(f"{name}: {gone} left the model; the next run in mode mirror deletes them")
    if session.json:
        told = [
            {"sync": name, "records": taken.records, "differ": taken.differ, "left": taken.left}
            for name, taken in found.items()
        ]
        session.emit({"baselines": told})


@click.command(cls=Command)
@sync_argument()
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def reset(session: Session, sync: str, yes: bool) -> None:
    """Forgets what was acknowledged, to send everything again.

    The next run sends every record of the model, dead letters included. Known keys are kept, so nothing is
    created twice: in mode insert, acknowledged records are looked up, or stay acknowledged where the destination
    cannot be searched, and inserts with an unknown outcome stay as they are. Use it when the destination was restored
    or emptied by someone else. Refuses while the destination works on a job of an earlier run. Asks first.

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
    for name, done in forgotten.items():
        also = f", and {done.dead_letters:,} dead letters are sent again" if done.dead_letters else ""
        session.say(
            f"{name}: the values of {done.records:,} records are forgotten{also}; look at `backhaul plan {name}`"
        )
        if done.kept:
            session.say(
                "  acknowledged inserts stay acknowledged: sending them again would create them twice"
            )
    if session.json:
        told = [
            {"sync": name, "records": done.records, "dead_letters": done.dead_letters}
            for name, done in forgotten.items()
        ]
        session.emit({"resets": told})


def _ask(names: list[str]) -> None:
    from backhaul.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("reset asks first, and there is no terminal to ask on", hint="add --yes")
    question = f"Forget what was acknowledged of {', '.join(names)}? The next run sends everything again."
    click.confirm(question, abort=True, err=True)
