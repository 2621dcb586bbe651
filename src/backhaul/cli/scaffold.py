"""backhaul init: a project that runs, after at most three questions."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backhaul.cli import templates
from backhaul.cli.session import Command, Session, pass_session

if TYPE_CHECKING:
    from backhaul.warehouses.csv_inference import CsvModel

_ENDINGS = {".duckdb": "duckdb", ".ddb": "duckdb", ".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite",
            ".csv": "files", ".tsv": "files"}  # fmt: skip
_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"


@click.command(cls=Command)
@click.argument("folder", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option(
    "--warehouse", metavar="TYPE|PATH", help="duckdb, postgres, sqlite, files, or a database or CSV file."
)
@click.option("--destination", type=click.Choice(list(templates.DESTINATIONS)), help="Where records go.")
@click.option("--sync", metavar="NAME", help="The name of the first sync.")
@click.option("--yes", is_flag=True, help="Ask nothing, take the defaults.")
@pass_session
def init(
    session: Session,
    folder: Path,
    warehouse: str | None,
    destination: str | None,
    sync: str | None,
    yes: bool,
) -> None:
    """Makes a project that runs.

    Its connections and one sync; with the defaults also a sample warehouse and database, so that you can
    plan and run at once. Asks at most three questions. Overwrites nothing.

    \b
    Examples:
      backhaul init
      backhaul init shop --yes
      backhaul init --warehouse postgres --destination hubspot --sync contacts
      backhaul init --warehouse data/customers.csv
    """
    if not yes:
        types = ", ".join(templates.WAREHOUSES)
        warehouse = warehouse or _ask(f"Where do rows come from ({types}, or the path of a file)?", "duckdb")
        destination = destination or _ask("Where do records go?", "sqlite", list(templates.DESTINATIONS))
        sync = sync or _ask("The first sync's name?", "customers")
    choice = choose(warehouse or "duckdb", destination or "sqlite", sync or "customers")
    if choice.path is not None:
        choice = replace(choice, path=path_in(folder, choice.path))
    made = make(folder, choice)
    if session.json:
        session.emit({"folder": str(folder), "files": made})
    else:
        _tell(session, folder, choice, made)


def _ask(question: str, default: str, choices: list[str] | None = None) -> str:
    """One question, on stderr, so that stdout stays the result's."""
    from backhaul.errors import UsageError

    kind = click.Choice(choices) if choices else None
    try:
        answer: str = click.prompt(question, default=default, type=kind, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError("init asks, and nobody answers", hint="add --yes to take the defaults") from None
    return answer.strip()


@dataclass(frozen=True)
class Choice:
    """What to scaffold. `path` is a warehouse file of the user's own; without one there is a sample."""

    warehouse: str
    destination: str
    sync: str
    path: str | None = None

    @property
    def samples(self) -> list[str]:
        """The data files that are made, by name."""
        found = [templates.SAMPLES.get(self.warehouse) if self.path is None else None]
        found.append("app.db" if self.destination == "sqlite" else None)
        return [name for name in found if name]


def choose(warehouse: str, destination: str, sync: str) -> Choice:
    """What the answers mean. Raises: UsageError: nothing."""
    import re

    from backhaul.errors import UsageError

    if not re.fullmatch(_NAME, sync):
        raise UsageError(
            f"{sync[:64]!r} is not a name for a sync", hint="1 to 64 letters, digits, `_`, `.` or `-`"
        )
    if warehouse in templates.WAREHOUSES:
        return Choice(warehouse, destination, sync)
    kind = _ENDINGS.get(Path(warehouse).suffix)
    if kind is None:
        hint = f"one of {', '.join(templates.WAREHOUSES)}, or a file that ends in {', '.join(_ENDINGS)}"
        raise UsageError(
            f"{warehouse[:64]!r} is not a type of warehouse, nor a database or CSV file", hint=hint
        )
    return Choice(kind, destination, sync, warehouse)


def path_in(folder: Path, path: str) -> str:
    """A path of this folder, as the files of a project in `folder` write it: relative to the project."""
    if Path(path).is_absolute():
        return path
    return Path(os.path.relpath(Path(path).absolute(), folder.absolute())).as_posix()


def make(folder: Path, choice: Choice) -> list[str]:
    """Writes the project, and gives the names of its files.

    Raises:
        UsageError: one of them is there already (nothing was written), or the folder cannot be written.
        SourceError: the CSV file cannot be read; nothing was written.
    """
    from backhaul.errors import UsageError

    texts = templates.paths(choice.sync)
    there = [name for name in (*texts, *choice.samples) if (folder / name).exists()]
    if there:
        one = len(there) == 1
        raise UsageError(
            f"{', '.join(there)} {'is' if one else 'are'} there already, and nothing is overwritten",
            hint="choose an empty folder: backhaul init DIR",
        )
    csv = _csv_model(folder / choice.path) if choice.warehouse == "files" and choice.path else None
    try:
        _samples(folder, choice)
        if choice.warehouse == "files" and csv is None:
            csv = _csv_model(folder / templates.SAMPLES["files"])
        name, warehouse = folder.absolute().name, choice.warehouse
        files = templates.files(name, warehouse, choice.destination, choice.sync, choice.path, csv)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        _ignore(folder / ".gitignore")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    return [*texts, ".gitignore", *choice.samples]


def _csv_model(path: Path) -> CsvModel:
    """Raises: SourceError: there is no such file, or it cannot be read."""
    from backhaul.warehouses.csv_inference import infer_model

    return infer_model(path)


def _ignore(path: Path) -> None:
    """Adds what is missing to .gitignore."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    missing = [line for line in (".backhaul/", ".env") if line not in old.splitlines()]
    between = "" if not old or old.endswith("\n") else "\n"
    path.write_text(old + between + "".join(f"{line}\n" for line in missing), encoding="utf-8")


def _samples(folder: Path, choice: Choice) -> None:
    from backhaul.cli import sample

    for name in choice.samples:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "app.db":
            sample.database(folder / name, choice.sync)
        else:
            sample.WAREHOUSES[choice.warehouse](folder / name)


def _tell(session: Session, folder: Path, choice: Choice, made: list[str]) -> None:
    session.say(f"made {', '.join(made)}" + (f" in {folder}" if folder != Path() else ""))
    session.say("\nnext:")
    if folder != Path():
        session.say(f"  cd {folder}")
    if templates.variables(choice.warehouse, choice.destination):
        session.say("  cp .env.example .env      # and fill it in")
    if not choice.samples or choice.path or choice.destination != "sqlite":
        session.say(f"  edit syncs/{choice.sync}.yml  # its model, object and fields")
    session.say("  backhaul check            # files, connections and fields")
    session.say("  backhaul plan             # what a run would do; sends nothing")
    session.say("  backhaul run              # deliver")
