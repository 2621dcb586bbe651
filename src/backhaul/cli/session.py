"""What every command shares: options, the project it works on, and the ways out to the terminal."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backhaul.cli.wrapping import terminal_width, wrap
from backhaul.words import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from backhaul.config import SyncConfig
    from backhaul.project import Project

FILE = "backhaul.yml"
_MESSAGES = ("error", "message", "hint", "code", "fix", "summary")
"""Keys whose texts may quote what a driver or a destination said."""


@contextmanager
def _uncollected() -> Iterator[None]:
    """Lets nothing be looked for that could be freed: importing makes some 100,000 objects, and all of them stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@dataclass
class Session:
    """One call of the command line. `secrets` are known once the project is read."""

    project_folder: Path | None = None
    env_file: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def colour(self) -> bool | None:
        """Whether to colour, as NO_COLOR and FORCE_COLOR say (https://no-color.org); None: on a terminal."""
        import os

        return False if os.environ.get("NO_COLOR") else bool(os.environ.get("FORCE_COLOR")) or None

    def project(self) -> Project:
        """The project, read once and closed when the command ends. Raises: UsageError."""
        with _uncollected():
            from backhaul.project import load

            project = load(self.project_folder or Path(), env_file=self.env_file)
        self.secrets = project.config.secrets
        click.get_current_context().call_on_close(project.workspace.close)
        return project

    def syncs(self, project: Project, names: Sequence[str]) -> list[SyncConfig]:
        """The syncs these names mean. Raises: UsageError: none."""
        from backhaul.errors import UsageError

        found = project.config.select(names)
        if not found:
            hint = "put a file under syncs/, or see what `backhaul init` makes"
            raise UsageError(f"{project.config.name} has no syncs yet", hint=hint)
        return found

    def redact(self, text: str) -> str:
        """The text without the project's secrets and without control characters."""
        from backhaul.redaction import redact

        return printable(redact(text, self.secrets))

    def say(self, text: str = "") -> None:
        """One text for people, on stdout; nothing with --quiet or --json."""
        if not self.quiet and not self.json:
            click.echo(wrap(text, terminal_width(sys.stdout)))

    def warn(self, text: str) -> None:
        """A result that is not all well: as `say`, and with --quiet on stderr."""
        if not self.json:
            click.echo(wrap(text, terminal_width(sys.stderr if self.quiet else sys.stdout)), err=self.quiet)

    def note(self, text: str) -> None:
        """One remark beside the result, on stderr; nothing with --quiet."""
        if not self.quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """What is wrong, on stderr."""
        click.echo(wrap(text, terminal_width(sys.stderr)), err=True, color=self.colour)

    def emit(self, document: Any) -> None:
        """The one JSON document of the command."""
        import orjson

        click.echo(orjson.dumps(self._clean(document), default=str, option=orjson.OPT_INDENT_2))

    def _clean(self, node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {name: self._clean(value, name) for name, value in node.items()}
        if isinstance(node, list | tuple):
            return [self._clean(item, key) for item in node]
        if isinstance(node, str) and key in _MESSAGES:
            from backhaul.redaction import redact

            return redact(node, self.secrets)
        return node

    def console(self) -> Console:
        """Where tables go: stdout; a pipe gets wide lines, unless COLUMNS says otherwise."""
        import os

        from rich.console import Console

        width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 240
        return Console(file=sys.stdout, width=width, highlight=False)

    def draw(self, drawn: Table) -> None:
        """A table, without the spaces that fill its last column."""
        console = self.console()
        with console.capture() as captured:
            console.print(drawn)
        self.say("\n".join(line.rstrip() for line in captured.get().splitlines()))


pass_session = click.make_pass_decorator(Session, ensure=True)


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Notes a shared option wherever it stood; one that was not given changes nothing."""
    if value and option.name:
        setattr(context.ensure_object(Session), option.name, value)


def _flag(name: str, help: str) -> click.Option:
    return click.Option([name], is_flag=True, help=help, expose_value=False, callback=_keep, is_eager=True)


def shared_options() -> list[click.Parameter]:
    """--project, --env-file, --json, --quiet and --verbose, which may stand before or after the command."""
    folder = click.Option(
        ["--project", "project_folder"],
        type=click.Path(exists=True, path_type=Path),
        metavar="DIR",
        expose_value=False,
        callback=_keep,
        is_eager=True,
        help="The project's folder.  [default: the nearest with backhaul.yml]",
    )
    variables = click.Option(
        ["--env-file", "env_file"],
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_keep,
        is_eager=True,
        help="Read variables from this file.  [default: .env beside backhaul.yml]",
    )
    return [
        folder,
        variables,
        _flag("--json", "One JSON document on stdout and nothing else there."),
        _flag("--quiet", "Say only what is wrong."),
        _flag("--verbose", "Say more: tracebacks of unexpected errors."),
    ]


class Command(click.Command):
    """A command that takes the shared options."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params = [*self.params, *shared_options()]


class Group(click.Group):
    """Commands under one name; an unknown one is answered with the nearest."""

    command_class = Command

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params = [*self.params, *shared_options()]
        self.no_args_is_help = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing and args[0][:1] != "-":
            raise click.UsageError(f"there is no command `{args[0]}`{_nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name.lower(), list(known), 1, 0.5)
    return f"; did you mean `{found[0]}`?" if found else ""


def _sync_names(context: click.Context, argument: click.Parameter, incomplete: str) -> list[str]:
    """The names of files under syncs/: completion reads no file, so that it answers at once."""
    start = (context.ensure_object(Session).project_folder or Path()).absolute()
    root = next((folder for folder in (start, *start.parents) if (folder / FILE).is_file()), None)
    files = (root / "syncs").glob("*.yml") if root else ()
    return sorted(path.stem for path in files if path.stem.startswith(incomplete))


def sync_argument(name: str = "sync") -> Callable[[Any], Any]:
    """SYNC: one name or glob."""
    return click.argument(name, metavar="SYNC", shell_complete=_sync_names)


def syncs_argument() -> Callable[[Any], Any]:
    """[SYNC]...: names and globs; none means all."""
    return click.argument("names", nargs=-1, metavar="[SYNC]...", shell_complete=_sync_names)


def sync_option(help: str) -> Callable[[Any], Any]:
    """--sync NAME."""
    return click.option("--sync", metavar="SYNC", shell_complete=_sync_names, help=help)
