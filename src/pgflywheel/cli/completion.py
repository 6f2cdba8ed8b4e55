"""pgflywheel completion: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the shell's completion script.

    \b
    Example:
        pgflywheel completion bash >> ~/.bashrc
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    root = context.find_root().command
    click.echo(kind(root, {}, "pgflywheel", "_PGFLYWHEEL_COMPLETE").source())
