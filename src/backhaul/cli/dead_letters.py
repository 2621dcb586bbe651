"""backhaul dead-letters: the records that failed for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from backhaul.cli.session import Group, Session, pass_session, sync_option

if TYPE_CHECKING:
    from backhaul.project import Project
    from backhaul.records.letters import Choice

_SHOWN = 50
_GROUPS_SHOWN = 20
_WIDE = 100
"""Columns of a terminal from which on the list has attempts and times, too."""


@click.group(cls=Group, name="dead-letters")
def dead_letters() -> None:
    """The records that failed for good.

    A record that the destination or its field types refuse becomes a dead letter and blocks no other. Fix
    the model or the mapping: when the record's value or the mapping changes, the next run sends it.
    `replay` sends a value that did not change; `discard` says that this value is not to be sent.

    \b
    Examples:
      backhaul dead-letters list
      backhaul dead-letters show 7
      backhaul dead-letters replay --group 4f9a1c
    """


def _chosen_by(action: Callable[..., Any]) -> Callable[..., Any]:
    """--sync, --code, --field and --group: all that are given have to fit."""
    options = (
        sync_option("Only those of this sync (or glob)."),
        click.option("--code", metavar="CODE", help="Only those refused with this code."),
        click.option("--field", metavar="FIELD", help="Only those whose refusal names this field."),
        click.option("--group", metavar="GROUP", help="Only those of this group, as `list` names it."),
    )
    for option in reversed(options):
        action = option(action)
    return action


def _choice(session: Session, project: Project, by: dict[str, str | None], **more: Any) -> Choice:
    from backhaul.records.letters import Choice

    sync = by["sync"]
    names = None if sync is None else [one.name for one in session.syncs(project, [sync])]
    return Choice(names, by["code"], by["field"], by["group"], **more)


@dead_letters.command(name="list")
@_chosen_by
@click.option("--all", "single", is_flag=True, help="Each one, rather than groups.")
@click.option("--discarded", is_flag=True, help="Those that were discarded or have expired instead.")
@pass_session
def list_(session: Session, /, single: bool, discarded: bool, **by: str | None) -> None:
    """Lists them by what is wrong, newest first, with a suggested fix.

    A group is what one destination said with one code about one field; numbers, quoted values, ids and
    addresses within a message do not matter. Use it after a run that ended with exit code 3.

    \b
    Examples:
      backhaul dead-letters list
      backhaul dead-letters list --all --sync contacts
      backhaul dead-letters list --code INVALID_EMAIL --json
    """
    project = session.project()
    choice = _choice(session, project, by, closed=discarded)
    if session.json:
        found = project.dead_letters(choice=choice)
        session.emit({"dead_letters": found, "groups": project.dead_letter_groups(choice)[0]})
    elif single or discarded:
        _show_all(session, project.dead_letters(choice=choice, limit=_SHOWN + 1, payloads=False))
    else:
        _show_groups(session, *project.dead_letter_groups(choice, limit=_GROUPS_SHOWN))


def _show_groups(session: Session, groups: list[dict[str, Any]], count: int) -> None:
    from backhaul.cli.show import ago, key_text, records
    from backhaul.words import in_one_line

    for group in groups:
        about = f" {group['field']}" if group["field"] else ""
        heading = f"{records(group['count'])}  {group['destination']} ({', '.join(group['syncs'])})  "
        said = in_one_line(session.redact(group["code"]) + about)
        session.say(click.style(heading, bold=True) + click.style(said, fg="red"))
        session.say(f"  says     {in_one_line(session.redact(group['message']))}")
        session.say(f"  failed   first {ago(group['first_failed_at'])}, last {ago(group['last_failed_at'])}")
        sample = group["sample"]
        session.say(f"  such as  {key_text(sample['key']).plain}: backhaul dead-letters show {sample['id']}")
        session.say(f"  to do    {group['fix']}")
        session.say(f"  or       backhaul dead-letters replay --group {group['group']}\n")
    if not groups:
        session.say("no dead letters")
        return
    if count > len(groups):
        session.say(
            f"… {count - len(groups):,} more groups: narrow with --sync, --code or --field, or take --json"
        )
    session.say("each one: backhaul dead-letters list --all")


def _show_all(session: Session, found: list[dict[str, Any]]) -> None:
    from backhaul.cli.show import ago, key_text, prose, table, text

    if not found:
        session.say("no dead letters")
        return
    wide = session.console().width >= _WIDE
    more = ("attempts", "last failed") if wide else ()
    rows = table("id", "sync", "key", "code", *more, "message", right=("id", "attempts"))
    for letter in found[:_SHOWN]:
        error = letter["error"]
        again = letter["replay"] or letter["status"] == "waiting"
        when = "to be sent again" if again else ago(letter["last_failed_at"])
        tried = (str(letter["attempts"]), when) if wide else ()
        message = prose(session.redact(error["message"]) or f"({letter['status']})")
        named = (str(letter["id"]), text(letter["sync"]), key_text(letter["key"]), text(error["code"], "red"))
        rows.add_row(*named, *tried, message)
    session.draw(rows)
    if len(found) > _SHOWN:
        session.say(f"… the first {_SHOWN}; all of them: backhaul dead-letters list --json")
    session.say(f"\none in full: backhaul dead-letters show {found[0]['id']}")


@dead_letters.command()
@click.argument("letter", type=int, metavar="ID")
@pass_session
def show(session: Session, letter: int) -> None:
    """Shows one in full: what was sent, what was answered, what to do.

    \b
    Example:
      backhaul dead-letters show 7
    """
    from backhaul.errors import UsageError
    from backhaul.records.letters import Choice

    project = session.project()
    for closed in (False, True):
        found = project.dead_letters(choice=Choice(ids=(letter,), closed=closed))
        if found:
            break
    else:
        raise UsageError(f"there is no dead letter {letter}", hint="see `backhaul dead-letters list`")
    if session.json:
        session.emit({"dead_letter": found[0]})
    else:
        _show_one(session, found[0])


def _show_one(session: Session, letter: dict[str, Any]) -> None:
    from backhaul.cli.show import key_text
    from backhaul.words import in_one_line

    error = letter["error"]
    key = key_text(letter["key"]).plain
    session.say(click.style(f"{letter['sync']} {key}", bold=True))
    code, message = in_one_line(session.redact(error["code"])), in_one_line(session.redact(error["message"]))
    session.say(f"  error     {click.style(code, fg='red')}{': ' if message else ''}{message}")
    attempts = f"{letter['attempts']} attempt{'' if letter['attempts'] == 1 else 's'}"
    session.say(f"  operation {letter['op']}, {attempts}")
    session.say(f"  failed    first {letter['first_failed_at']}, last {letter['last_failed_at']}")
    if letter["payload"] is None:
        session.say(f"  payload   kept no more; what the model says now: backhaul why {letter['sync']} {key}")
    else:
        _show_payload(session, letter["payload"])
    if letter["status"] in ("discarded", "expired"):
        session.say(f"{letter['status']}: not sent until its value or the mapping changes, or you replay it")
        return
    session.say(f"  to do     {letter['fix']}")
    if letter["status"] == "waiting":
        session.say(f"waits for another record: each run sends it again, {letter['runs']} did so far")
    elif letter["replay"]:
        session.say("the next run sends its newest value")
    else:
        session.say(f"mend the model, or send it as it is: backhaul dead-letters replay {letter['id']}")


def _show_payload(session: Session, payload: Any) -> None:
    import orjson

    text = session.redact(orjson.dumps(payload, option=orjson.OPT_INDENT_2).decode())
    session.say("  payload\n" + "\n".join(f"    {line}" for line in text.split("\n")))


def _picked(
    session: Session, project: Project, ids: tuple[int, ...], everything: bool, by: dict[str, str | None]
) -> list[int]:
    """The ids of the letters that a command is about. Raises: UsageError: it does not say which, or there are none."""
    from backhaul.errors import UsageError
    from backhaul.records.letters import numbers

    filters = [f"--{name}" for name, value in by.items() if value is not None]
    if ids and (everything or filters):
        raise UsageError(
            f"{' and '.join(filters) or '--all'} cannot go with ids", hint="an id names one dead letter"
        )
    if not ids and not everything and not filters:
        raise UsageError("name dead letters by their ids, or by --group, --code, --field, --sync, or take --all",
                         hint="`backhaul dead-letters list`")  # fmt: skip
    if ids:
        return list(dict.fromkeys(ids))
    return numbers(project.workspace, _choice(session, project, by))


def _confirm(what: str, letters: list[int], yes: bool) -> None:
    """Asks, where a choice may be of more than was thought of. Raises: UsageError: there is nobody to ask."""
    import sys

    from backhaul.cli.show import records
    from backhaul.errors import UsageError

    if yes or not letters:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"this asks first ({records(len(letters))}), and there is no terminal to ask on", hint="add --yes"
        )
    click.confirm(what.format(records(len(letters))), abort=True, err=True)


_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_ALL = click.option("--all", "everything", is_flag=True, help="All of them.")


@dead_letters.command()
@click.argument("ids", type=int, nargs=-1, metavar="[ID]...")
@_ALL
@_chosen_by
@_YES
@pass_session
def replay(session: Session, /, ids: tuple[int, ...], everything: bool, yes: bool, **by: str | None) -> None:
    """Lets the next run send them again, with newest values.

    Use it when the destination was mended, rather than the model. Says how many, and asks, unless ids are
    named.

    \b
    Examples:
      backhaul dead-letters replay 7 8
      backhaul dead-letters replay --group 4f9a1c
      backhaul dead-letters replay --all --sync contacts --yes
    """
    project = session.project()
    letters = _picked(session, project, ids, everything, by)
    _confirm("Send {} again, with newest values?", letters, yes or bool(ids))
    project.mark_dead_letters(letters, "replay")
    named = f" {by['sync']}" if by["sync"] else ""
    session.say(f"{len(letters):,} go with the next run: backhaul run{named}")
    if session.json:
        session.emit({"replayed": letters})


@dead_letters.command()
@click.argument("ids", type=int, nargs=-1, metavar="[ID]...")
@_ALL
@_chosen_by
@_YES
@pass_session
def discard(session: Session, /, ids: tuple[int, ...], everything: bool, yes: bool, **by: str | None) -> None:
    """Says that these values are not to be sent.

    Their messages and payloads go; the records stay rejected, and are sent when their values change. Use it
    for records that are not worth mending. Says how many, and asks, unless ids are named.

    \b
    Examples:
      backhaul dead-letters discard 7
      backhaul dead-letters discard --code INVALID_EMAIL --field email
    """
    project = session.project()
    letters = _picked(session, project, ids, everything, by)
    _confirm("Discard {}? Their values are not sent until they change.", letters, yes or bool(ids))
    project.mark_dead_letters(letters, "discarded")
    session.say(f"{len(letters):,} not sent until their values change")
    if session.json:
        session.emit({"discarded": letters})
