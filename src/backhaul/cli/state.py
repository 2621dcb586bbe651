"""backhaul state."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from backhaul.cli.session import Group, Session, pass_session


@click.group(cls=Group)
def state() -> None:
    """Looks after the state: what backhaul knows of the project.

    \b
    Examples:
      backhaul state check
      backhaul state backup before-upgrade.tar
      backhaul state restore before-upgrade.tar
      backhaul state compact
    """


@state.command()
@pass_session
def check(session: Session) -> int:
    """Says whether every file of the state is whole.

    Reads state.db, each sync's ledger with all its rows, and the plan files that the state names; changes
    nothing, and may be asked while syncs run. One line a file that something is to be said of, and what to do
    where something is wrong. Exit code 1 if something is. For a state in a folder.

    \b
    Examples:
      backhaul state check
      backhaul state check --json
    """
    found = session.project().check_state()
    for one in found:
        say = session.say if one.ok else session.warn
        hint = f" ({one.hint})" if one.hint else ""
        say(session.redact(f"{'ok   ' if one.ok else 'WRONG'}  {one.file}: {one.message}{hint}"))
    if session.json:
        session.emit({"ok": all(one.ok for one in found), "findings": [asdict(one) for one in found]})
    return 0 if all(one.ok for one in found) else 1


@state.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@pass_session
def backup(session: Session, file: Path) -> None:
    """Writes the state into one file.

    It holds state.db, the ledgers and the plan files: keys and values of your records, but no credentials. Only
    you can read it. No sync may be running; a file that is there is left as it is. For a state in a folder.

    \b
    Examples:
      backhaul state backup before-upgrade.tar
    """
    made = session.project().back_up_state(file)
    session.say(
        f"{file}: {made.files:,} files, {_size(made.bytes)}; put it back with `backhaul state restore {file}`"
    )
    if session.json:
        session.emit({"file": str(file), **asdict(made)})


@state.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--as-is", is_flag=True, help="Nothing was delivered since: resend nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def restore(session: Session, file: Path, as_is: bool, yes: bool) -> None:
    """Puts a backup in the place of the state.

    Nobody knows what was delivered since the backup was made, so the next runs send every known record
    again; say --as-is only if nothing was. In mode insert, records created since are unknown and would be
    created again: look first. The state that was there is kept beside it. Asks first.

    \b
    Examples:
      backhaul state restore before-upgrade.tar
      backhaul state restore before-upgrade.tar --as-is --yes
    """
    project = session.project()
    _confirm(f"Replace the state by {file}?", yes)
    restored = project.restore_state(file, as_is=as_is)
    session.say(
        f"the state of {restored.backup.made_at} is back"
        + ("" if as_is else "; the next runs send every known record again")
    )
    if restored.old is not None:
        session.say(f"the state that was there is in {restored.old}")
    if restored.carried is False:
        session.warn(
            "what was spent of limits since, and who was forgotten since, could not be read from the state that was there: "
            "forget those again"
        )
    inserts = [sync.name for sync in project.config.syncs.values() if sync.mode.value == "insert"]
    if inserts and not as_is:
        names = ", ".join(inserts)
        session.warn(f"records that {names} created since are not known: look before you run (mode insert)")
    if session.json:
        replaced = restored.old and str(restored.old)
        session.emit({"file": str(file), "replaced": replaced, "carried": restored.carried, "as_is": as_is,
                      **asdict(restored.backup)})  # fmt: skip


def _confirm(question: str, yes: bool) -> None:
    """Raises: UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        from backhaul.errors import UsageError

        raise UsageError("restore asks first, and there is no terminal to ask on", hint="add --yes")
    click.confirm(question, abort=True, err=True)


@state.command()
@pass_session
def compact(session: Session) -> None:
    """Gives room back.

    Drops plans that `history` does not want any more, and writes state.db and the ledgers anew without what was
    deleted. No sync may be running. It may be interrupted: each old file stays until the new one is whole.

    \b
    Examples:
      backhaul state compact
    """
    before, after = session.project().compact_state()
    session.say(f"{_size(before)} before, {_size(after)} now")
    if session.json:
        session.emit({"before": before, "after": after})


def _size(count: int) -> str:
    return f"{count / 1024:,.0f} KiB" if count < 10 << 20 else f"{count / (1 << 20):,.0f} MiB"
