"""Writes the pages of docs/ that are made from the code: the configuration and command references."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from backhaul.testing.conformance import DestinationSuite

DOCS = Path(__file__).resolve().parent.parent / "docs"
_MADE = "<!-- Made by scripts/generate_docs.py; change the code it is made from. -->\n\n"


def pages() -> dict[str, str]:
    """Every generated page by its name under docs/."""
    return {
        "configuration.md": configuration(),
        "cli.md": commands(),
        "destinations/conformance.md": conformance(),
        **destinations(),
    }


def configuration() -> str:
    """The reference of every key in every file."""
    from backhaul.config import reference

    return _MADE + reference().strip() + "\n"


def commands() -> str:
    """The reference of every command, from click's own help."""
    from backhaul.cli import main

    if not isinstance(main, click.Group):
        raise TypeError("backhaul.cli.main is not a click group")
    parts = ["# Commands", *_command(main, "backhaul", None)]
    return _MADE + "\n\n".join(parts) + "\n"


def conformance() -> str:
    """Which destination does what, by the suites that test it."""
    from backhaul.testing.conformance import matrix

    return _MADE + _CONFORMANCE + matrix(_suites())


def destinations() -> dict[str, str]:
    """Every destination's page, with what its connector declares."""
    from declared import page

    simulated = {entry.name for entry in entry_points(group="backhaul.sandboxes")}
    made = {}
    for entry in sorted(entry_points(group="backhaul.destinations"), key=lambda entry: entry.name):
        path = f"destinations/{entry.name}.md"
        text = (DOCS / path).read_text(encoding="utf-8")
        made[path] = page(text, entry.name, entry.load(), _suites(), entry.name in simulated)
    return made


def _suites() -> list[type[DestinationSuite]]:
    from backhaul.testing.conformance import DestinationSuite

    folder = DOCS.parent / "tests" / "destinations"
    sys.path.insert(0, str(folder))
    for file in sorted(folder.glob("test_conformance_*.py")):
        importlib.import_module(file.stem)
    return DestinationSuite.__subclasses__()


_CONFORMANCE = """# What every destination does

Each row is a test of `backhaul.testing.conformance`, run at every change with the whole engine against a simulation of the
destination (PostgreSQL, MariaDB and SQLite: the real thing). A gap is declared with its reason, and fails the build when it works
after all; a dash: the destination has no such mode.

"""


def _command(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, max_content_width=100)
    context.terminal_width = 100
    yield f"## `{path}`\n\n```text\n{command.get_help(context).strip()}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _command(found, f"{path} {name}", context)


if __name__ == "__main__":
    for name, text in pages().items():
        if "--check" not in sys.argv:
            (DOCS / name).write_text(text, encoding="utf-8")
        elif (DOCS / name).read_text(encoding="utf-8") != text:
            sys.exit(f"docs/{name} is not what the code says: run `make docs`")
