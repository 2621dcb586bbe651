"""backhaul bind and rename: whose ledger is whose."""

from __future__ import annotations

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument


@click.command(cls=Command)
@sync_argument()
@click.option("--same-account", is_flag=True, help="It is the account of before: go on with its ledger.")
@click.option(
    "--new-ledger", is_flag=True, help="It is another account: begin another ledger, keep the old one."
)
@pass_session
def bind(session: Session, sync: str, same_account: bool, new_ledger: bool) -> None:
    """Says whether a destination is still the same account.

    A ledger belongs to one account. Where a destination does not state its account and its address changes, backhaul sends
    nothing until you say which it is. The answer counts for every sync of that destination. Sends nothing.

    \b
    Examples:
      backhaul bind contacts --same-account
      backhaul bind contacts --new-ledger
    """
    from backhaul.errors import UsageError

    project = session.project()
    name = session.syncs(project, [sync])[0].name
    if same_account == new_ledger:
        raise UsageError("bind takes one of --same-account and --new-ledger")
    scope = project.bind(name, same=same_account)
    session.say(f"{name}: {scope.where}; next: backhaul plan {name}")
    if session.json:
        session.emit({"sync": name, "account": scope.label, "object": scope.object, "ledger": scope.id})


@click.command(cls=Command)
@click.argument("old")
@click.argument("new")
@pass_session
def rename(session: Session, old: str, new: str) -> None:
    """Gives a sync's state to its new name.

    Change `name` in the sync's file first. Ledgers, plans, dead letters and the history stay as they are; nothing is sent
    again. `backhaul status` lists state whose sync has no file.

    \b
    Examples:
      backhaul rename users contacts
    """
    found = session.project().rename(old, new)
    session.say(f"{new}: has the state of {old} now ({len(found)} ledgers); next: backhaul plan {new}")
    if session.json:
        session.emit({"sync": new, "was": old, "ledgers": [one.id for one in found]})
