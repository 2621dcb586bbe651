"""backhaul settle."""

from __future__ import annotations

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument


@click.command(cls=Command)
@sync_argument()
@click.argument("key", metavar="KEY")
@click.option("--delivered", is_flag=True, help="It is there: never create it again.")
@click.option("--not-delivered", is_flag=True, help="It is not there: the next run creates it.")
@click.option(
    "--id", "remote_id", metavar="ID", help="With --delivered: the destination's own id of the record."
)
@pass_session
def settle(
    session: Session, sync: str, key: str, delivered: bool, not_delivered: bool, remote_id: str | None
) -> None:
    """Says what became of one record that nobody can look up.

    For records that `records --status unknown` or `quarantined` lists: a create got no answer, or the
    destination holds several records of one key. backhaul does not send them again by itself, so look in the
    destination, remove what is too much, and say what you found. Sends nothing. KEY is the primary key, a JSON
    list where that has several columns.

    \b
    Examples:
      backhaul settle contacts 4711 --delivered
      backhaul settle contacts 4711 --delivered --id 0031x00000ABC
      backhaul settle contacts 4711 --not-delivered
    """
    from backhaul.errors import UsageError

    project = session.project()
    name = session.syncs(project, [sync])[0].name
    if delivered == not_delivered or (remote_id is not None and not delivered):
        hint = f"look for it in the destination, then `backhaul settle {name} KEY --delivered` or `--not-delivered`"
        raise UsageError(
            "settle takes one of --delivered and --not-delivered; --id goes with --delivered", hint=hint
        )
    found = project.settle(name, key, delivered=delivered, remote_id=remote_id)
    after = "it counts as delivered" if delivered else "the next run creates it"
    session.say(f"{name}: the record was {found['was']}; {after}")
    if session.json:
        session.emit(found)
