"""backhaul schema-changes."""

from __future__ import annotations

from typing import Any

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument


@click.command("schema-changes", cls=Command)
@sync_argument()
@click.option("--accept", is_flag=True, help="Go on with the columns as they are now.")
@pass_session
def schema_changes(session: Session, sync: str, accept: bool) -> None:
    """Shows how the model's columns changed from run to run.

    Each run compares them with the last one's. A column that the sync reads and that is missing stops the run before
    anything is sent, one of another type does so with `on_schema_change: fail`. Use it to see what changed and when;
    --accept takes new types on.

    \b
    Examples:
      backhaul schema-changes contacts
      backhaul schema-changes contacts --accept
    """
    project = session.project()
    names = [one.name for one in session.syncs(project, [sync])]
    if accept:
        for name in names:
            count = project.accept_schema(name)
            session.say(
                f"{name}: {count} changed column{'' if count == 1 else 's'} accepted; next: backhaul plan {name}"
            )
    found = {name: project.schema_changes(name) for name in names}
    if session.json:
        session.emit({"schema_changes": [{"sync": name, **one} for name in names for one in found[name]]})
    elif not accept:
        for name in names:
            _show(session, name, found[name])


def _show(session: Session, name: str, versions: list[dict[str, Any]]) -> None:
    from backhaul.cli.show import ago, table, text

    if not versions:
        session.say(f"{name}: no run has read the model yet; next: backhaul plan {name}")
        return
    newest = versions[-1]
    session.say(f"{name}: version {newest['version']}, {len(newest['columns'])} columns")
    shown = table("version", "when", "", "column", "change")
    for one in reversed(versions):
        went = text("" if one["taken"] else "refused", "red")
        rows = [(text(change["column"]), text(_words(change))) for change in one["changes"]]
        for number, cells in enumerate(rows or [(text(""), text("as first seen"))]):
            head = (text(str(one["version"])), text(ago(one["at"])), went) if number == 0 else (text(""),) * 3
            shown.add_row(*head, *cells)
    session.draw(shown)


def _words(change: dict[str, Any]) -> str:
    used = ", mapped" if change["used"] else ""
    if change["change"] == "retyped":
        return f"{change['was']} → {change['now']}{used}"
    perhaps = f", perhaps {change['perhaps']} now" if change["perhaps"] else ""
    return f"{change['change']}, {change['was'] or change['now']}{used}{perhaps}"
