"""backhaul records."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument

_STATUSES = ("acknowledged", "rejected", "pending", "in_flight", "unknown", "quarantined", "held")
_SHOWN = 200
"""Rows of the table; programs and curious people take --json."""


@click.command(cls=Command)
@sync_argument()
@click.option("--status", type=click.Choice(_STATUSES), help="Only records of this status.")
@pass_session
def records(session: Session, sync: str, status: str | None) -> None:
    """Shows every record of a sync, and what became of it.

    With --json one object a line: key, status, fields (what was acknowledged, or null), remote_id. Use it
    to answer what became of a record; it works while a run is going on.

    \b
    Examples:
      backhaul records contacts --status rejected
      backhaul records contacts --json | jq -r 'select(.status == "pending") | .key'
    """
    from backhaul.errors import UsageError

    project = session.project()
    found = session.syncs(project, [sync])
    if len(found) > 1:
        raise UsageError(
            f"{sync} means several syncs: {', '.join(one.name for one in found)}", hint="name one"
        )
    rows = project.records(found[0].name, status)
    if session.json:
        _lines(rows)
    elif not session.quiet:
        _table(session, rows, found[0].name, status)


def _lines(rows: Iterator[dict[str, Any]]) -> None:
    import orjson

    for row in rows:
        click.echo(orjson.dumps(row, default=str))


def _table(session: Session, rows: Iterator[dict[str, Any]], sync: str, status: str | None) -> None:
    from backhaul.cli.show import key_text, pairs_text, status_text, table

    shown = table("key", "status", "remote id", "acknowledged")
    first = list(itertools.islice(rows, _SHOWN))
    for row in first:
        fields = pairs_text(row["fields"]) if row["fields"] is not None else ""
        shown.add_row(
            key_text(row["key"]), status_text(row["status"]), key_text(row["remote_id"] or ""), fields
        )
    if not first:
        session.say(f"{sync} knows no {status + ' ' if status else ''}records")
        return
    session.draw(shown)
    if next(rows, None) is not None:
        session.say(f"… the first {_SHOWN}; all of them: backhaul records {sync} --json")
