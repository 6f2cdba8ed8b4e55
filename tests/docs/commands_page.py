"""The reference page of the command line: what every --help says."""

from __future__ import annotations

from collections.abc import Iterator

import click

from pgflywheel.cli.main import cli

WIDTH = 110
INTRODUCTION = """# Commands

`pgflywheel <noun> <verb>`. Results go to stdout, progress and errors to stderr; commands that read
print JSON with `--json`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a check failed, or the database refused |
| 2 | wrong use |
| 3 | the database cannot be reached |
| 4 | the schema or the extension is missing, or of another version |
| 130 | interrupted |
"""


def commands(command: click.Command = cli, path: str = "pgflywheel") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with the words it is called by, groups before their members."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            assert member is not None, f"{path} {name} is listed and not there"
            yield from commands(member, f"{path} {name}")


def page() -> str:
    """Return the page: the help of every command."""
    return "\n".join([INTRODUCTION, *(_section(path, command) for path, command in commands())])


def _section(path: str, command: click.Command) -> str:
    context = click.Context(
        command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
    )
    return f"## {path}\n\n```text\n{command.get_help(context)}\n```\n"
