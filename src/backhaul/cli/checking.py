"""backhaul check and schema: what can be known before anything runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backhaul.cli import show
from backhaul.cli.failures import FAILED, OK, WRONG
from backhaul.cli.session import Command, Session, pass_session, syncs_argument

if TYPE_CHECKING:
    from backhaul.project import Check


@click.command(cls=Command)
@syncs_argument()
@pass_session
def check(session: Session, names: tuple[str, ...]) -> int:
    """Checks files, connections, models and every field.

    The model's key must be unique and never null, and each mapped field must exist at the destination and
    be writable, by the destination's own metadata. Sends nothing. Use it after every edit, and in CI. Exits
    with 2 where the files are wrong, with 1 where a connection is.

    \b
    Examples:
      backhaul check
      backhaul check contacts
    """
    import asyncio

    project = session.project()
    found: list[Check] = []
    for sync in session.syncs(project, names):
        checks = asyncio.run(project.check(sync))
        found += checks
        _show(session, sync.name, checks)
    orphaned = {} if names else project.orphans()
    for name, where in orphaned.items():
        session.warn(f"{click.style('!', fg='yellow')} {show.orphan(name, where)}")
    bad = [one for one in found if not one.ok]
    if session.json:
        session.emit({"ok": not bad, "checks": [asdict(one) for one in found], "orphans": orphaned})
    elif not bad:
        warnings = sum(one.warning for one in found) + len(orphaned)
        said = f"no errors, {warnings} warning{'s' if warnings > 1 else ''}" if warnings else "all is well"
        session.say(f"\n{said}; next: backhaul plan")
    if not bad:
        return OK
    return WRONG if any(one.usage for one in bad) else FAILED


def _show(session: Session, name: str, checks: list[Check]) -> None:
    session.say(click.style(name, bold=True))
    for one in checks:
        text = session.redact(one.message)
        if one.warning:
            session.warn(f"  {click.style('!', fg='yellow')} {one.name:<12} {text}")
        elif one.ok:
            session.say(f"  {click.style('✓', fg='green')} {one.name:<12} {text}")
        else:
            session.warn(f"  {click.style('✗', fg='red')} {one.name:<12} {text}")


@click.command(cls=Command)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write files there."
)
@pass_session
def schema(session: Session, out: Path | None) -> None:
    """Writes the JSON Schema of the project's files.

    For editors that complete and check YAML while you type. Name it in the first line of a sync's file:
    `# yaml-language-server: $schema=../.schema/sync.schema.json`

    \b
    Examples:
      backhaul schema --out .schema
      backhaul schema | jq .sync
    """
    import orjson

    from backhaul.config import schema as build

    documents = build()
    if out is None:
        click.echo(orjson.dumps(documents, option=orjson.OPT_INDENT_2))
        return
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.schema.json" for name in documents]
    for path, document in zip(paths, documents.values(), strict=True):
        path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        session.say(str(path))
    if session.json:
        session.emit({"files": [str(path) for path in paths]})
