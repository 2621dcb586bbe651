"""backhaul why."""

from __future__ import annotations

from typing import Any

import click

from backhaul.cli.session import Command, Session, pass_session, sync_argument


@click.command(cls=Command)
@sync_argument()
@click.argument("key", metavar="KEY")
@click.option("--offline", is_flag=True, help="Do not ask the destination.")
@pass_session
def why(session: Session, sync: str, key: str, offline: bool) -> None:
    """Tells the life of one record, and what comes next.

    Why it was or was not sent; what model, ledger and destination hold; every kept plan it was in, and what
    was answered. KEY is its primary key, a JSON list where that has several columns. Changes nothing; works
    while a run is going on.

    \b
    Examples:
      backhaul why contacts 4711
      backhaul why order_lines '[4711, 2]'
      backhaul why contacts 4711 --offline --json
    """
    project = session.project()
    found = project.why(session.syncs(project, [sync])[0].name, key, offline=offline)
    if session.json:
        session.emit(found)
    else:
        _show(session, found)


def _show(session: Session, found: dict[str, Any]) -> None:
    from backhaul.cli.show import key_text

    session.say(click.style(f"{found['sync']} {key_text(found['key']).plain}", bold=True))
    session.say(session.redact(found["summary"]))
    _values(session, found)
    session.say("\nWhat happened, newest last")
    if not found["history"]:
        session.say("  nothing is kept: see `history` in backhaul.yml")
    for step in found["history"]:
        _step(session, step)
    letter = found["dead_letter"]
    if letter:
        session.say(
            f"\nDead letter {letter['id']}: {session.redact(letter['code'])}: {session.redact(letter['message'])}"
        )
        session.say(
            f"  {letter['attempts']} attempts, first {letter['first_failed_at']}, last {letter['last_failed_at']}"
        )


def _values(session: Session, found: dict[str, Any]) -> None:
    from backhaul.cli.show import LONGEST, table, text, value_text

    model, ledger, held = found["model"], found["ledger"] or {}, found["destination"]
    columns = [part.get("fields") or {} for part in (model, ledger, held)]
    shown = table("", "model", "acknowledged", "destination")
    state = ledger["state"] if ledger else "never sent"
    shown.add_row("", text(model["status"], "dim"), text(state, "dim"), text(held["status"], "dim"))
    names = list(dict.fromkeys(name for part in columns for name in part))
    room = session.console().width - max(map(len, names), default=0) - 2 * len(columns)
    longest = max(10, min(LONGEST, room // len(columns)))
    for name in names:
        cells = [text(value_text(part[name], longest) if name in part else "-") for part in columns]
        shown.add_row(text(name), *cells)
    session.say()
    session.draw(shown)
    if ledger.get("remote_id"):
        session.say(f"  id at the destination: {session.redact(ledger['remote_id'])}")
    for name, (sent, stored) in (ledger.get("spelled") or {}).items():
        session.say(
            session.redact(f"  {name}: the destination stores {sent!r} as {stored!r}, which is accepted")
        )
    for where, part in (("model", model), ("destination", held)):
        if part.get("error"):
            session.say(f"  {where}: {session.redact(part['error'])}")


def _step(session: Session, step: dict[str, Any]) -> None:
    from backhaul.cli.show import value_text

    of = f"run {step['run']}" if step["run"] else f"plan {step['plan']}"
    session.say(f"  {step['at'][:19]}  {step['change']}  {click.style(step['status'], bold=True)}  {of}")
    for name, (old, new) in step["fields"].items():
        before = "" if step["change"] == "create" else f"{value_text(old, 30)} -> "
        session.say(session.redact(f"    {name}: {before}{value_text(new, 30)}"))
    if step.get("left_at"):
        answered = f", answered {step['answered_at']}" if step.get("answered_at") else ""
        batch = f", in a batch of {step['batch']:,}" if step.get("batch") else ""
        session.say(f"    left {step['left_at']}{answered}{batch}")
    said = step.get("message") or step.get("error")
    if said:
        session.say(session.redact(f"    {step.get('code', 'refused')}: {said}"))
