"""backhaul forget."""

from __future__ import annotations

import sys
from typing import Any

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument


@click.command(cls=Command)
@sync_argument()
@click.argument("key", metavar="[KEY]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--local", is_flag=True, help="Erase here only; the destination is not asked to delete.")
@click.option("--list", "listing", is_flag=True, help="Show the proofs of what was forgotten, without data.")
@click.option("--lift", is_flag=True, help="Let a forgotten record be sent again.")
@pass_session
def forget(
    session: Session, sync: str, key: str | None, yes: bool, local: bool, listing: bool, lift: bool
) -> None:
    """Erases one record: at the destination and in the state.

    Sends the delete, erases the record's values in the state, and never sends it again while the model still
    has it. Kept plans that hold it go whole. If the destination does not delete it, nothing is erased. Asks
    first. KEY is the primary key, a JSON list where that has several columns. What it does not reach (backups) it says.

    \b
    Examples:
      backhaul forget contacts 4711
      backhaul forget contacts 4711 --yes --local
      backhaul forget contacts --list
      backhaul forget contacts 4711 --lift
    """
    from backhaul.errors import UsageError

    project = session.project()
    name = session.syncs(project, [sync])[0].name
    if listing:
        _list(session, name, project.forgotten(name))
        return
    if key is None:
        raise UsageError("forget needs the KEY of a record", hint=f"backhaul forget {name} KEY")
    if lift:
        project.lift(name, key)
        _tell(session, f"{name}: the next run sends the record again", {"sync": name, "lifted": True})
        return
    if not yes:
        _ask(name, local)
    found = project.forget(name, key, local=local)
    here = f"erased here ({found['plans']} kept plans went with it)"
    said = f"{name}: {here}; destination: {found['destination']}\n  not reached: {found['not_reached']}"
    _tell(session, said, found)


def _tell(session: Session, said: str, document: dict[str, Any]) -> None:
    session.say(said)
    if session.json:
        session.emit(document)


def _list(session: Session, name: str, proofs: list[dict[str, Any]]) -> None:
    for proof in proofs:
        session.say(
            f"{proof['at'][:19]}  {proof['hash']}  by {proof['by']}  destination: {proof['destination']}"
        )
    if not proofs:
        session.say(f"{name}: nothing was forgotten")
    if session.json:
        session.emit({"sync": name, "forgotten": proofs})


def _ask(name: str, local: bool) -> None:
    from backhaul.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("forget asks first, and there is no terminal to ask on", hint="add --yes")
    where = "in the state only" if local else "at the destination and in the state"
    click.confirm(f"Erase this record of {name} {where}? It cannot be undone.", abort=True, err=True)
