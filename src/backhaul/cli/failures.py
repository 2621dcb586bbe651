"""What went wrong, as one clear line (or one JSON document) and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from backhaul.cli.session import Session
    from backhaul.errors import BackhaulError

OK, FAILED, WRONG, UNFINISHED = 0, 1, 2, 3
"""Exit codes: all delivered; a run failed; command or files are wrong; rejected or deferred records."""
INTERRUPTED = 130


_QUOTE_VALUES = (
    "_duckdb",
    "duckdb",
    "psycopg",
    "adbc_driver_manager",
    "sqlite3",
    "pymysql",
    "asyncmy",
    "pyarrow",
)
"""Libraries whose errors quote the value of a row: their texts are never shown."""


def code_of(error: BackhaulError) -> int:
    """The exit code of an error that ended a command."""
    from backhaul.errors import UsageError

    return WRONG if isinstance(error, UsageError) else FAILED


def worst(codes: list[int]) -> int:
    """The exit code of several syncs: failed before wrong files before unfinished."""
    return next((code for code in (FAILED, WRONG, UNFINISHED) if code in codes), OK)


def describe(error: BackhaulError) -> dict[str, Any]:
    """The error as the JSON that programs read."""
    from dataclasses import asdict

    from backhaul.errors import UsageError

    problems = [asdict(problem) for problem in error.problems] if isinstance(error, UsageError) else []
    return {"message": str(error), "hint": error.hint, "problems": problems}


def complain(session: Session, error: BackhaulError, about: str = "") -> None:
    """Prints the error on stderr: what, then what to do next; each problem of a project on its own line."""
    from backhaul.errors import UsageError

    problems = error.problems if isinstance(error, UsageError) else ()
    if problems:
        for problem in problems:
            session.complain(session.redact(str(problem)))
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        line(session, f"{about}{count}, nothing was run", error.hint)
    else:
        line(session, f"{about}{error}", error.hint)


def line(session: Session, message: str, hint: str | None = None) -> None:
    """`error: …` in red and a dim hint below it, on stderr."""
    session.complain(f"{click.style('error:', fg='red', bold=True)} {session.redact(message)}")
    if hint:
        session.complain(click.style(f"  {session.redact(hint)}", dim=True))


def report(session: Session, error: BaseException) -> int:
    """Reports whatever ended a command, and gives its exit code."""
    from backhaul.errors import BackhaulError

    if isinstance(error, click.ClickException):
        return _wrong_command(session, error)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return _plain(session, "stopped", None, INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return hush()
    if not isinstance(error, BackhaulError):
        return _unexpected(session, error)
    if session.json:
        session.emit({"error": describe(error)})
    else:
        complain(session, error)
    return code_of(error)


def _wrong_command(session: Session, error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else None
    return _plain(session, error.format_message().rstrip("."), hint, error.exit_code)


def _unexpected(session: Session, error: BaseException) -> int:
    quotes = type(error).__module__.partition(".")[0] in _QUOTE_VALUES
    if session.verbose:
        told = traceback.format_tb(error.__traceback__) if quotes else traceback.format_exception(error)
        click.echo(session.redact("".join(told)), err=True, color=session.colour)
    said = "" if quotes else str(error).strip().split("\n")[0]
    name = type(error).__name__
    again = "" if session.verbose else "; run again with --verbose"
    where = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    said = f"{name}: {said}" if said else name
    return _plain(session, f"unexpected error: {said}{where}{again}", None, FAILED)


def _plain(session: Session, message: str, hint: str | None, code: int) -> int:
    if session.json:
        session.emit({"error": {"message": message, "hint": hint, "problems": []}})
    elif message.startswith("unexpected error"):
        click.echo(session.redact(message), err=True, color=session.colour)
    else:
        line(session, message, hint)
    return code


def hush() -> int:
    """Nobody reads stdout any more: what is still to be flushed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
