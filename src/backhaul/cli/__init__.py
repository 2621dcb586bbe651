"""The command line: parse, call, print."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from backhaul.cli import (
    changing,
    checking,
    completion,
    dead_letters,
    demo,
    failures,
    forget,
    looking,
    records,
    running,
    sandbox,
    scaffold,
    schema_changes,
    scoping,
    settle,
    state,
    undo,
    why,
)
from backhaul.cli.session import Group, Session

_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Start": (demo.demo, scaffold.init, checking.check),
    "Deliver": (running.plan, running.run, undo.undo, settle.settle),
    "Look": (
        looking.status,
        looking.runs,
        records.records,
        why.why,
        dead_letters.dead_letters,
        looking.verify,
        schema_changes.schema_changes,
    ),
    "Take over and start again": (
        changing.baseline,
        changing.reset,
        scoping.bind,
        scoping.rename,
        forget.forget,
    ),
    "Tools": (state.state, sandbox.sandbox, checking.schema, completion.completion),
}
"""The commands in the order in which one comes to need them."""


class Backhaul(Group):
    """The whole command. Whatever ends it is reported in one line, and becomes an exit code."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self.commands))
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(one.name), one.get_short_help_str(width)) for one in commands])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Runs one command and exits. Always ends in SystemExit."""
        given = list(sys.argv[1:] if args is None else args)
        session = Session(json="--json" in given, verbose="--verbose" in given)
        extra.setdefault("color", session.colour)
        _write_anything()
        code: Any
        try:
            code = super().main(
                given, prog_name or "backhaul", complete_var, standalone_mode=False, obj=session, **extra
            )
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            code = failures.report(session, error)
        except Exception as error:  # noqa: BLE001 - here an error of any kind becomes one line and a code
            code = failures.report(session, error)
        sys.exit(code if isinstance(code, int) else failures.OK)


def _write_anything() -> None:
    """A terminal that lacks a character gets its code instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@click.group(cls=Backhaul, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="backhaul", message="%(prog)s %(version)s")
def main() -> None:
    """Delivers what changed in your warehouse, and says what became of every record.

    \b
    backhaul demo             see it work, on this machine alone
    backhaul init             make a project
    backhaul plan             what a run would do; sends nothing
    backhaul run              deliver
    """


for _commands in _SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
