"""backhaul completion."""

from __future__ import annotations

import click

from backhaul.cli.session import Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Prints your shell's completion script.

    It completes commands, options and the names of syncs.

    \b
    Examples:
      backhaul completion bash >> ~/.bashrc
      backhaul completion zsh >> ~/.zshrc
      backhaul completion fish > ~/.config/fish/completions/backhaul.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        root = click.get_current_context().find_root().command
        click.echo(found(root, {}, "backhaul", "_BACKHAUL_COMPLETE").source())
