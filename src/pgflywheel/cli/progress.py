"""A progress bar on stderr, and silence where stderr is a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgflywheel.cli.text import clean, stderr_console

Update = Callable[[float, str], None]


@contextmanager
def progress_bar(title: str, total: float | None) -> Iterator[Update]:
    """Show how much of ``total`` is done; call what this yields with the amount and a remark."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = stderr_console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total or None, remark="")

        def update(done: float, remark: str = "") -> None:
            bar.update(task, completed=min(done, total) if total else done, remark=clean(remark))

        yield update
