"""Writes the pages of docs/ that are made from the code: the configuration and command references."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

DOCS = Path(__file__).resolve().parent.parent / "docs"
_MADE = "<!-- Made by scripts/generate_docs.py; change the code it is made from. -->\n\n"


def pages() -> dict[str, str]:
    """Every generated page by its name under docs/."""
    return {"configuration.md": configuration(), "cli.md": commands()}


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
