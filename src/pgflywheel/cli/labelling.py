"""One binary question per screen: show a span, take a key, save, and only then tell what the judge said."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import click

from pgflywheel.cli.text import clean, one_line, to_json
from pgflywheel.db import labels
from pgflywheel.errors import LabelRefused

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database
    from pgflywheel.db.labels import Task, Verdict

KEYS = "p pass   f fail   c critique   x fix the output   d defer   u undo   q quit"
SHOWN_CHARACTERS = 20_000


class Screen(Protocol):
    """Where questions are shown and answers come from."""

    def show(self, text: str) -> None:
        """Show the next question."""

    def say(self, text: str) -> None:
        """Tell the outcome of a key."""

    def key(self) -> str:
        """Return the next key; q at the end of the input."""

    def ask(self, wanted: str) -> str:
        """Return a line of text, empty when none was given."""

    def edit(self, text: str) -> str | None:
        """Return the text as it was changed, None when it was not."""


class Terminal:
    """Single keys, a cleared screen for each question, fixes in $EDITOR.

    The terminal gives keys as they are pressed for the whole session: switching it for each key would lose
    what is typed ahead.
    """

    def __init__(self) -> None:
        self.said = ""
        self.keyboard = sys.stdin.fileno()
        self.before = termios.tcgetattr(self.keyboard)
        self.on_interrupt = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> Terminal:
        """Take single keys; Ctrl-C ends the session at once, not with the event loop's next step."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._take_keys()
        return self

    def __exit__(self, *_: object) -> None:
        self._take_lines()
        signal.signal(signal.SIGINT, self.on_interrupt)

    def show(self, text: str) -> None:
        """Clear the screen and show the question below what was said."""
        click.clear()
        click.echo(self.said + text)
        self.said = ""

    def say(self, text: str) -> None:
        """Tell it at once, and again above the next question."""
        click.echo(text)
        self.said += text + "\n"

    def key(self) -> str:
        """Wait for one key; what an arrow or function key sends counts as one."""
        pressed = os.read(self.keyboard, 1)
        if pressed == b"\x03":
            raise KeyboardInterrupt
        while _unfinished(pressed) and select.select([self.keyboard], [], [], 0.05)[0]:
            pressed += os.read(self.keyboard, 1)
        return "q" if pressed in (b"", b"\x04") else pressed.decode("ascii", "replace").lower()

    def ask(self, wanted: str) -> str:
        """Let the reviewer type a line."""
        self._take_lines()
        try:
            return str(click.prompt(wanted, default="", show_default=False))
        finally:
            self._take_keys()

    def edit(self, text: str) -> str | None:
        """Open $EDITOR on the text."""
        self._take_lines()
        try:
            edited = click.edit(text, extension=".txt")
        except click.ClickException as error:
            self.say(clean(error.message))
            return None
        finally:
            self._take_keys()
        return edited if edited is None or text.endswith("\n") else edited.removesuffix("\n")

    def _take_keys(self) -> None:
        mode = termios.tcgetattr(self.keyboard)
        mode[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
        termios.tcsetattr(self.keyboard, termios.TCSANOW, mode)

    def _take_lines(self) -> None:
        termios.tcsetattr(self.keyboard, termios.TCSANOW, self.before)


class Lines:
    """A key and the text that goes with it on each line of the standard input, for programs."""

    def __init__(self) -> None:
        self.rest = ""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""

    def show(self, text: str) -> None:
        """Print the question below the last one."""
        click.echo(text)

    def say(self, text: str) -> None:
        """Print the outcome."""
        click.echo(text)

    def key(self) -> str:
        """Take the key that begins the next line."""
        line = sys.stdin.readline()
        key, _, self.rest = line.strip().partition(" ")
        return key.lower() if line else "q"

    def ask(self, wanted: str) -> str:
        """Return the text that followed the key."""
        return self.rest.strip()

    def edit(self, text: str) -> str | None:
        """Return the text that followed the key."""
        return self.rest.strip() if self.rest.strip() not in ("", text) else None


@dataclass
class Labelling:
    """One reviewer's session over the spans of one validator."""

    database: Database
    screen: Screen
    validator: str
    reviewer: str
    lane: str | None
    most: int
    labelled: int = 0
    undone: UUID | None = None
    critique: str | None = None
    fixed: str | None = None
    leaving: bool = field(default=False)

    async def run(self) -> int:
        """Ask until nothing waits, the reviewer leaves, or enough is labelled; return how many labels were saved."""
        while not self.leaving and self.labelled < self.most:
            task = await self._next()
            if task is None:
                self.screen.say("nothing waits for you")
                break
            self.critique = self.fixed = None
            self.screen.show(shown(task, self.validator, self.labelled + 1))
            while not await self._answered(task):
                pass
        return self.labelled

    async def _next(self) -> Task | None:
        """Return the item just undone, or else the first one held."""
        held = await labels.claim(self.database, self.validator, self.reviewer, 2 if self.undone else 1, self.lane)
        again = [task for task in held if task.item_id == self.undone]
        self.undone = None
        return next(iter([*again, *held]), None)

    async def _answered(self, task: Task) -> bool:
        """Do what one key says; True when the screen is done with."""
        key = self.screen.key()
        if key in ("p", "f"):
            return await self._saved(task, key == "p")
        if key == "d":
            await labels.defer(self.database, task.item_id, self.reviewer)
            self.screen.say("deferred")
        elif key == "u":
            return await self._undone()
        elif key == "q":
            self.leaving = True
        else:
            self._note(key, task)
            return False
        return True

    def _note(self, key: str, task: Task) -> None:
        """Keep a critique or a fix until the verdict is given."""
        if key == "c":
            self.critique = self.screen.ask("why") or self.critique
            self.screen.say("the critique is saved with your verdict" if self.critique else "no critique")
        elif key == "x":
            self.fixed = self.screen.edit(task.output or "") or self.fixed
            self.screen.say("the fix is saved with your verdict" if self.fixed else "nothing was changed")
        else:
            self.screen.say(KEYS)

    async def _saved(self, task: Task, passed: bool) -> bool:
        """Save the verdict, then tell what the judge said; False when a critique is missing."""
        said = self.critique or ("" if passed else self.screen.ask("what is wrong"))
        if not passed and not said.strip():
            self.screen.say("a fail needs a critique: say in a sentence what is wrong")
            return False
        try:
            async with self.database.transaction() as session:  # the verdict and its fix, or neither
                label_id = await labels.record(session, self.validator, task, passed, self.reviewer, said or None)
                if self.fixed is not None:
                    await labels.fix(session, self.validator, task.span_id, self.fixed, self.reviewer, said or None)
        except LabelRefused as error:
            self.screen.say(clean(f"not saved: {error.message}"))
            return True
        self.labelled += 1
        self.screen.say(outcome(passed, await labels.verdicts(self.database, label_id)))
        return True

    async def _undone(self) -> bool:
        """Take the last label back and ask about its span again."""
        try:
            self.undone = (await labels.undo(self.database, self.reviewer)).item_id
        except LabelRefused as error:
            self.screen.say(clean(error.message))
            return False
        self.labelled = max(0, self.labelled - 1)
        self.screen.say("undone")
        return True


def shown(task: Task, validator: str, number: int) -> str:
    """Return the screen of one span; nothing in it can move the cursor."""
    settling = "; reviewers differ, you settle it" if task.adjudication else ""
    parts = [
        f"{validator}, number {number}, {task.lane}{settling}. Node {one_line(task.node)} of {one_line(task.project)}."
    ]
    parts += [_section("documents", to_json(task.documents))] if task.documents else []
    parts += [_section("input", task.input)]
    parts += [_section("output", task.output)] if task.target != "input" else []
    asked = [clean(task.question)]
    asked += [f"  pass: {clean(task.pass_when)}"] if task.pass_when else []
    asked += [f"  fail: {clean(task.fail_when)}"] if task.fail_when else []
    return "\n\n".join([*parts, "\n".join(asked), KEYS])


def outcome(passed: bool, verdicts: list[Verdict]) -> str:
    """Return what was saved, beside what the newest judge version said."""
    saved = f"saved: {_word(passed)}"
    if not verdicts:
        return f"{saved}; no judge has seen this span"
    judge = verdicts[0]
    told = one_line(judge.critique or judge.unscored_reason or "", 300)
    agrees = "agrees" if judge.passed == passed else f"says {_word(judge.passed)}"
    return f"{saved}; {judge.validator} v{judge.version} {agrees}{': ' if told else ''}{told}"


def _unfinished(pressed: bytes) -> bool:
    """Tell whether more bytes belong to the escape sequence of a key: ESC [ … letter, ESC O letter."""
    return pressed[:1] == b"\x1b" and (len(pressed) < 3 or pressed[-1:] in b"0123456789;")


def _word(passed: bool | None) -> str:
    return "nothing" if passed is None else "pass" if passed else "fail"


def _section(name: str, text: str | None) -> str:
    whole = clean(text) if text else "(none)"
    if len(whole) > SHOWN_CHARACTERS:
        half = SHOWN_CHARACTERS // 2
        whole = f"{whole[:half]}\n… {len(whole) - 2 * half:,} characters left out …\n{whole[-half:]}"
    body = "\n".join(f"  {line}" for line in whole.split("\n"))
    return f"{name}\n{body}"
