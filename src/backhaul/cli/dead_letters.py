"""backhaul dead-letters: the records that failed for good."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from backhaul.cli.session import Group, Session, pass_session, sync_option

if TYPE_CHECKING:
    from backhaul.project import Project

_SHOWN = 50


@click.group(cls=Group, name="dead-letters")
def dead_letters() -> None:
    """The records that failed for good.

    A record that the destination or its field types refuse becomes a dead letter and blocks no other. Mend
    the model: when the record's value changes, the next run sends it. `replay` sends a value that did not
    change.

    \b
    Examples:
      backhaul dead-letters list
      backhaul dead-letters show 7
      backhaul dead-letters replay --all --sync contacts
    """


def _names(session: Session, project: Project, sync: str | None) -> list[str] | None:
    return None if sync is None else [one.name for one in session.syncs(project, [sync])]


def _letters(session: Session, project: Project, sync: str | None) -> list[dict[str, Any]]:
    names = _names(session, project, sync)
    return [letter for letter in project.dead_letters() if names is None or letter["sync"] in names]


@dead_letters.command(name="list")
@sync_option("Only those of this sync.")
@pass_session
def list_(session: Session, sync: str | None) -> None:
    """Lists them: how many by error code, then one a line.

    Use it after a run that ended with exit code 3, to see what was refused and why.

    \b
    Example:
      backhaul dead-letters list --sync contacts
    """
    found = _letters(session, session.project(), sync)
    if session.json:
        session.emit({"dead_letters": found})
    elif not found:
        session.say("no dead letters")
    else:
        _show(session, found)


def _show(session: Session, found: list[dict[str, Any]]) -> None:
    from backhaul.cli.show import ago, key_text, prose, table, text

    groups = table("records", "sync", "code", "for instance", right=("records",))
    kinds = [(letter["sync"], letter["error"]["code"], letter["error"]["message"]) for letter in found]
    example = {(name, code): message for name, code, message in reversed(kinds)}
    for (name, code), count in Counter((name, code) for name, code, _ in kinds).most_common():
        groups.add_row(
            f"{count:,}", text(name), text(code, "red"), prose(session.redact(example[name, code]))
        )
    session.draw(groups)
    session.say()
    rows = table("id", "sync", "key", "code", "attempts", "last failed", "message", right=("id", "attempts"))
    for letter in found[:_SHOWN]:
        error, when = (
            letter["error"],
            "to be sent again" if letter["replay"] else ago(letter["last_failed_at"]),
        )
        message = text(session.redact(error["message"]))
        named = (str(letter["id"]), text(letter["sync"]), key_text(letter["key"]), text(error["code"], "red"))
        rows.add_row(*named, str(letter["attempts"]), when, message)
    session.draw(rows)
    if len(found) > _SHOWN:
        session.say(f"… {len(found) - _SHOWN:,} more: backhaul dead-letters list --json")
    session.say(f"\none in full: backhaul dead-letters show {found[0]['id']}")


@dead_letters.command()
@click.argument("letter", type=int, metavar="ID")
@pass_session
def show(session: Session, letter: int) -> None:
    """Shows one in full: what was sent, what was answered.

    \b
    Example:
      backhaul dead-letters show 7
    """
    from backhaul.errors import UsageError

    found = session.project().dead_letters(letter=letter)
    if not found:
        raise UsageError(f"there is no dead letter {letter}", hint="see `backhaul dead-letters list`")
    if session.json:
        session.emit({"dead_letter": found[0]})
    else:
        _show_one(session, found[0])


def _show_one(session: Session, letter: dict[str, Any]) -> None:
    import orjson

    from backhaul.cli.show import key_text

    error = letter["error"]
    session.say(click.style(f"{letter['sync']} {key_text(letter['key']).plain}", bold=True))
    code, message = click.style(session.redact(error["code"]), fg="red"), session.redact(error["message"])
    session.say(f"  error     {code}: {message}")
    session.say(f"  operation {letter['op']}, {letter['attempts']} attempts")
    session.say(f"  failed    first {letter['first_failed_at']}, last {letter['last_failed_at']}")
    payload = orjson.dumps(letter["payload"], option=orjson.OPT_INDENT_2).decode()
    session.say("  payload\n" + "\n".join(f"    {line}" for line in session.redact(payload).split("\n")))
    if letter["replay"]:
        session.say("the next run sends its newest value")
    else:
        session.say(f"mend the model, or send it as it is: backhaul dead-letters replay {letter['id']}")


def _chosen(
    session: Session, project: Project, ids: tuple[int, ...], everything: bool, sync: str | None
) -> list[int]:
    from backhaul.errors import UsageError

    if everything == bool(ids):
        raise UsageError("name dead letters by their ids, or take --all", hint="`backhaul dead-letters list`")
    if sync is not None and not everything:
        raise UsageError("--sync goes with --all", hint="an id names one dead letter of one sync")
    return [letter["id"] for letter in _letters(session, project, sync)] if everything else list(ids)


@dead_letters.command()
@click.argument("ids", type=int, nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@sync_option("With --all: only those of this sync.")
@pass_session
def replay(session: Session, ids: tuple[int, ...], everything: bool, sync: str | None) -> None:
    """Lets the next run send them again, with newest values.

    Use it when the destination was mended, rather than the model.

    \b
    Examples:
      backhaul dead-letters replay 7 8
      backhaul dead-letters replay --all --sync contacts
    """
    project = session.project()
    letters = _chosen(session, project, ids, everything, sync)
    project.mark_dead_letters(letters, "replay")
    session.say(f"{len(letters):,} go with the next run: backhaul run{f' {sync}' if sync else ''}")
    if session.json:
        session.emit({"replayed": letters})


@dead_letters.command()
@click.argument("ids", type=int, nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@sync_option("With --all: only those of this sync.")
@pass_session
def discard(session: Session, ids: tuple[int, ...], everything: bool, sync: str | None) -> None:
    """Drops them until their values change.

    Use it for records that are not worth mending.

    \b
    Example:
      backhaul dead-letters discard 7
    """
    project = session.project()
    letters = _chosen(session, project, ids, everything, sync)
    project.mark_dead_letters(letters, "discarded")
    session.say(f"{len(letters):,} dropped until their values change")
    if session.json:
        session.emit({"discarded": letters})
