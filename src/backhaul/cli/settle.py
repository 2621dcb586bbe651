"""backhaul settle."""

from __future__ import annotations

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument


@click.command(cls=Command)
@sync_argument()
@click.argument("key", metavar="[KEY]", required=False)
@click.option("--delivered", is_flag=True, help="The destination holds it: never create it again.")
@click.option(
    "--not-delivered", is_flag=True, help="The destination does not hold it: the next run creates it."
)
@click.option(
    "--id", "remote_id", metavar="ID", help="With --delivered: the destination's own id of the record."
)
@click.option("--all", "everything", is_flag=True, help="All records that wait for a decision.")
@click.option(
    "--where", metavar="EXPR", help="Those for which this SQL condition over keys and fields holds."
)
@pass_session
def settle(
    session: Session, sync: str, key: str | None, delivered: bool, not_delivered: bool, remote_id: str | None,
    everything: bool, where: str | None,
) -> None:  # fmt: skip
    """Decides records whose outcome is unknown.

    For records that `records --status unknown` or `quarantined` lists: an insert got no answer, or the
    destination holds several records of one key. backhaul does not send them again by itself, so look in the
    destination, remove duplicates, and say what you found. Sends nothing. KEY is the primary key, a JSON
    list where that has several columns.

    \b
    Examples:
      backhaul settle contacts 4711 --delivered
      backhaul settle contacts 4711 --delivered --id 0031x00000ABC
      backhaul settle contacts --all --not-delivered
      backhaul settle contacts --where "id > 4000" --delivered
    """
    from backhaul.errors import UsageError

    project = session.project()
    name = session.syncs(project, [sync])[0].name
    if delivered == not_delivered or (remote_id is not None and not (delivered and key is not None)):
        hint = f"look for it in the destination, then `backhaul settle {name} KEY --delivered` or `--not-delivered`"
        raise UsageError(
            "settle takes one of --delivered and --not-delivered; --id goes with KEY and --delivered",
            hint=hint,
        )
    if (key is not None) + everything + (where is not None) != 1:
        raise UsageError(
            "settle takes one of KEY, --all and --where", hint=f"backhaul settle {name} --all --delivered"
        )
    found = project.settle(name, key, delivered=delivered, remote_id=remote_id, where=where)
    many = key is None
    if many:
        after = "they count as delivered" if delivered else "the next run creates them"
        session.say(f"{name}: {found['records']:,} records decided; {after}")
    else:
        after = "it counts as delivered" if delivered else "the next run creates it"
        session.say(f"{name}: the record was {found['was']}; {after}")
    if session.json:
        session.emit(found)
