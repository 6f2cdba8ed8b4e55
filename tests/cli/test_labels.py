"""pgflywheel labels: one question per screen, by keys in a terminal and by lines in a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import CommandLine, Connection

POLITE = """
[[validator]]
name = "polite"
kind = "sql"
expression = "span.output !~ 'idiot'"
description = "Is the answer polite?"
"""
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202epolite\x9b31m"


@pytest.fixture
def spans(pgflywheel: CommandLine, connection: Connection, definitions: Callable[[str], Path]) -> list[uuid.UUID]:
    """Three drawn spans of a validator, in the order in which they are asked about."""
    pgflywheel("validators", "apply", definitions(POLITE), "--activate")
    for number in range(3):
        connection.execute(
            "insert into flywheel.spans (input, output, project) values (%s, %s, 'shop')",
            [f"question {number}", f"answer {number}"],
        )
    pgflywheel("labels", "draw", "polite", "-n", 3)
    order = """select span_id from flywheel.spans, flywheel.validators
                order by flywheel.hash01(span_id, validator_id::text)"""
    return [span_id for (span_id,) in connection.execute(order.encode()).fetchall()]


def judge(connection: Connection) -> None:
    """Let a judge's verdict on every span be there."""
    connection.execute("""
        insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, critique,
               annotator_kind)
        select span_id, revision, version_id, started_at, trace_id, project, false, 'the judge frowns', 'judge'
          from flywheel.spans cross join flywheel.validator_versions""")


def said(connection: Connection) -> list[tuple[Any, ...]]:
    query = "select span_id, passed, critique from flywheel.current_labels order by labelled_at"
    return connection.execute(query.encode()).fetchall()


def test_a_line_is_a_key_and_what_goes_with_it(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    lines = "p\nf It calls names.\nc only just\np\n"
    result = pgflywheel("labels", "next", "polite", "--reviewer", "ada", input=lines)
    first, second, third = spans
    assert said(connection) == [(first, True, None), (second, False, "It calls names."), (third, True, "only just")]
    assert result.stdout.count("Is the answer polite?") == 3
    assert "nothing waits for you" in result.stdout
    assert result.stdout.endswith("3 saved\n")
    assert connection.execute("select distinct annotator, lane, blind from flywheel.labels").fetchall() == [
        ("ada", "estimation", True)
    ]


def test_a_fail_without_a_critique_is_asked_again(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    result = pgflywheel("labels", "next", "polite", input="f\n?\nf rude\nq\n")
    assert said(connection) == [(spans[0], False, "rude")]
    assert "a fail needs a critique" in result.stdout
    assert "p pass   f fail" in result.stdout


def test_what_the_judge_said_is_told_only_after_the_answer_is_saved(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    judge(connection)
    asked = pgflywheel("labels", "next", "polite", input="q\n").stdout
    assert "frowns" not in asked
    told = pgflywheel("labels", "next", "polite", "-n", 1, input="p\n").stdout
    assert "saved: pass; polite v1 says fail: the judge frowns" in told
    assert told.index("Is the answer polite?") < told.index("frowns")
    assert "polite v1 agrees" in pgflywheel("labels", "next", "polite", "-n", 1, input="f rude\n").stdout
    assert len(spans) == 3


def test_undo_asks_about_the_same_span_again(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    result = pgflywheel("labels", "next", "polite", input="u\np\nu\nf rude\nq\n")
    assert said(connection) == [(spans[0], False, "rude")]
    assert "has labelled nothing in the last hour" in result.stdout
    assert "undone" in result.stdout


def test_a_deferred_span_is_passed_over(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    pgflywheel("labels", "next", "polite", input="d\np\np\np\n")
    assert [row[0] for row in said(connection)] == spans[1:]


def test_a_fix_is_saved_with_the_verdict(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    pgflywheel("labels", "next", "polite", "--reviewer", "ada", input="x Dear customer.\nf curt\nx\np\nq\n")
    fixes = connection.execute("select span_id, output, wrong, annotator from flywheel.fixes").fetchall()
    assert fixes == [(spans[0], "Dear customer.", "curt", "ada")]
    assert [row[:2] for row in said(connection)] == [(spans[0], False), (spans[1], True)]


def test_a_lost_lease_is_told_and_the_next_span_shown(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    """The span changes while the reviewer looks at it."""
    process = start_lines(pgflywheel, "next", "polite", "-n", "1")
    assert process.stdout is not None
    while "quit" not in process.stdout.readline():
        pass
    connection.execute("update flywheel.spans set output = 'changed' where span_id = %s", [spans[0]])
    out, _ = process.communicate("p\np\n", timeout=60)
    assert f"not saved: span {spans[0]} has changed since it was claimed" in out
    assert [row[0] for row in said(connection)] == [spans[1]]


def start_lines(pgflywheel: CommandLine, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "pgflywheel", "labels", *arguments]
    environment = {**os.environ, "PGFLYWHEEL_DSN": pgflywheel.dsn}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


# In a terminal


class Keyboard:
    """What a person at a terminal does: wait until something is shown, then press keys."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal
        self.seen = ""
        self.shown = ""

    def wait(self, pattern: str) -> None:
        """Read until the pattern is on the screen after the last one waited for."""
        while not (found := re.search(pattern, self.shown)):
            ready, _, _ = select.select([self.terminal], [], [], 60)
            assert ready, f"{pattern} is not in {self.shown}"
            self.read()
        self.shown = self.shown[found.end() :]

    def press(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def read(self) -> None:
        """Take what is there; a terminal whose program ended reads as an error."""
        text = os.read(self.terminal, 65536).decode()
        self.shown += text
        self.seen += text


@contextmanager
def at_the_keyboard(
    pgflywheel: CommandLine, *arguments: str, exit_code: int = 0, **environment: str
) -> Iterator[Keyboard]:
    """Run pgflywheel labels on a real terminal; it must end by itself."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pgflywheel", "labels", *arguments],
        env={**os.environ, "PGFLYWHEEL_DSN": pgflywheel.dsn, "TERM": "xterm", **environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    keyboard = Keyboard(controller)
    before = termios.tcgetattr(terminal)
    try:
        yield keyboard
        keyboard.wait(r"\d+ saved|interrupted")
        assert process.wait(timeout=60) == exit_code
        assert termios.tcgetattr(terminal) == before
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(controller)


def test_single_keys_label_in_a_terminal(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID], tmp_path: Path
) -> None:
    judge(connection)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf 'Dear customer.\\n' > \"$1\"\n")
    editor.chmod(0o755)
    with at_the_keyboard(pgflywheel, "next", "polite", "--reviewer", "ada", EDITOR=str(editor)) as keyboard:
        keyboard.wait("quit")
        keyboard.press("p")
        keyboard.wait("saved: pass; polite v1 says fail: the judge frowns")
        keyboard.wait("quit")
        keyboard.press("u")
        keyboard.wait("quit")
        keyboard.press("x")
        keyboard.wait("the fix is saved")
        keyboard.press("f")
        keyboard.wait("what is wrong: ")
        keyboard.press("\r")
        keyboard.wait("a fail needs a critique")
        keyboard.press("f")
        keyboard.wait("what is wrong: ")
        keyboard.press("curt\r")
        keyboard.wait("polite v1 agrees")
        keyboard.wait("quit")
        keyboard.press("c")
        keyboard.wait("why: ")
        keyboard.press("only just\r")
        keyboard.wait("the critique is saved")
        keyboard.press("p")
        keyboard.wait("number 3")
        keyboard.wait("quit")
        keyboard.press("q")
    assert said(connection) == [(spans[0], False, "curt"), (spans[1], True, "only just")]
    assert connection.execute("select span_id, output from flywheel.fixes").fetchall() == [(spans[0], "Dear customer.")]


@pytest.mark.usefixtures("spans")
def test_a_fix_that_is_refused_leaves_no_label_behind(
    pgflywheel: CommandLine, connection: Connection, tmp_path: Path
) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf '  \\n  \\n' > \"$1\"\n")
    editor.chmod(0o755)
    with at_the_keyboard(pgflywheel, "next", "polite", EDITOR=str(editor)) as keyboard:
        keyboard.wait("quit")
        keyboard.press("x")
        keyboard.wait("the fix is saved")
        keyboard.press("p")
        keyboard.wait("not saved: a fix has no output")
        keyboard.wait("quit")
        keyboard.press("q")
    assert said(connection) == []


@pytest.mark.usefixtures("spans")
def test_hostile_text_cannot_move_the_cursor(pgflywheel: CommandLine, connection: Connection) -> None:
    documents = json.dumps([{"text": HOSTILE}])
    change = "update flywheel.spans set input = %s, output = %s, documents = %s"
    connection.execute(change.encode(), [HOSTILE, HOSTILE, documents])
    connection.execute("update flywheel._label_items set revision = 2")
    connection.execute("""
        insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, critique,
               annotator_kind)
        select span_id, revision, version_id, started_at, trace_id, project, false, output, 'judge'
          from flywheel.spans cross join flywheel.validator_versions""")
    with at_the_keyboard(pgflywheel, "next", "polite") as keyboard:
        keyboard.wait("quit")
        keyboard.press("p")
        keyboard.wait("says fail")
        keyboard.wait("quit")
        keyboard.press("q")
    screens = keyboard.seen.replace("\x1b[H\x1b[2J", "").replace("\x1b[2J\x1b[1;1H", "").replace("\x1b[3J", "")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", screens)
    assert screens.count(r"\x1b[2J") >= 5


def test_ctrl_c_leaves_with_what_was_saved(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    with at_the_keyboard(pgflywheel, "next", "polite", exit_code=130) as keyboard:
        keyboard.wait("quit")
        keyboard.press("p")
        keyboard.wait("number 2")
        keyboard.wait("quit")
        keyboard.press("\x03")
    assert said(connection) == [(spans[0], True, None)]


def test_what_is_typed_ahead_is_not_lost(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    with at_the_keyboard(pgflywheel, "next", "polite") as keyboard:
        keyboard.wait("quit")
        keyboard.press("p\x1b[Ap")
        keyboard.wait("number 3")
        keyboard.press("q")
    assert [row[0] for row in said(connection)] == spans[:2]


# Draws, triage, proposals


def test_a_draw_says_what_it_drew_and_with_what_probability(pgflywheel: CommandLine, spans: list[uuid.UUID]) -> None:
    told = pgflywheel("labels", "draw", "polite", "--number", 3, "--stratified", "--reviewers", 2).stdout
    assert told == "3 spans are drawn. unjudged: 3 spans, each with probability 1\n"
    made = pgflywheel.json("labels", "draw", "polite", "--number", 3, "--since", "1d")
    assert (made["method"], made["wanted"], made["drawn"]) == ("random", 3, 3)
    nothing = pgflywheel("labels", "draw", "polite", "--before", "7d").stdout
    assert nothing == "There are no spans to draw from.\n"
    assert len(spans) == 3


def test_triage_queues_what_nobody_was_asked_about(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    assert pgflywheel.json("labels", "triage", "polite") == {"queued": 0}
    connection.execute("delete from flywheel._label_items where span_id = %s", [spans[0]])
    assert pgflywheel("labels", "triage", "polite", "-n", 5).stdout == "1 spans are queued.\n"


def test_people_confirm_and_overturn_what_a_judge_proposes(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]
) -> None:
    judge(connection)
    assert pgflywheel.json("labels", "propose", "polite", "-n", 2) == {"proposed": 2}
    first, second = pgflywheel.json("labels", "list", "polite", "--provisional")
    assert pgflywheel.json("labels", "list") == []
    assert "the judge frowns" in pgflywheel("labels", "list", "--provisional").stdout
    pgflywheel("labels", "confirm", first["label_id"], "--reviewer", "ada")
    pgflywheel("labels", "overturn", second["label_id"], "--reviewer", "ada")
    again = pgflywheel("labels", "overturn", second["label_id"], exit_code=1)
    assert "was decided already" in again.stderr
    assert sorted(row["passed"] for row in pgflywheel.json("labels", "list")) == [False, True]
    assert len(spans) == 3


def test_stats_count_people_only(pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID]) -> None:
    pgflywheel("labels", "next", "polite", input="p\nf rude\nq\n")
    judge(connection)
    pgflywheel("labels", "propose", "polite")
    [found] = pgflywheel.json("labels", "stats")
    counts = {name: found[name] for name in ("labelled", "passed", "failed", "estimation", "triage", "provisional")}
    assert counts == {"labelled": 2, "passed": 1, "failed": 1, "estimation": 2, "triage": 0, "provisional": 1}
    assert found["waiting_estimation"] == 1
    assert "polite" in pgflywheel("labels", "stats").stdout
    assert len(spans) == 3


# Files


def test_an_export_goes_back_in_as_it_was(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID], tmp_path: Path
) -> None:
    pgflywheel("labels", "next", "polite", "--reviewer", "ada", input="p\nf It calls “names”.\u202e\nq\n")
    pgflywheel("labels", "export", "labels.jsonl")
    before = pgflywheel.json("labels", "list")
    unchanged = pgflywheel.json("labels", "import", "labels.jsonl")
    assert unchanged == {"imported": 0, "already_there": 2}
    connection.execute("truncate flywheel.labels cascade")
    assert pgflywheel.json("labels", "import", "labels.jsonl") == {"imported": 2, "already_there": 0}
    assert pgflywheel.json("labels", "list") == before
    assert (tmp_path / "labels.jsonl").read_text().isascii()
    assert (
        "there is no validator other" in pgflywheel("labels", "export", "-", "--validator", "other", exit_code=1).stderr
    )
    assert len(spans) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2: the line is not JSON"),
        ("[" * 100_000, "line 2: the line is nested too deeply"),
        ("[1]", "line 2: the line is a JSON list, not an object"),
        ('{"span_id": "00000000-0000-0000-0000-000000000001"}', "line 2 has no validator"),
        (
            '{"span_id": "00000000-0000-0000-0000-000000000001", "validator": "polite", "passed": true,'
            ' "annotator": "ada"}',
            "line 2: there is no span 00000000-0000-0000-0000-000000000001",
        ),
    ],
)
def test_a_file_with_one_bad_line_records_nothing(
    pgflywheel: CommandLine, connection: Connection, spans: list[uuid.UUID], tmp_path: Path, line: str, message: str
) -> None:
    good = json.dumps({"span_id": str(spans[0]), "validator": "polite", "passed": True, "annotator": "ada"})
    (tmp_path / "labels.jsonl").write_text(f"{good}\n{line}\n")
    result = pgflywheel("labels", "import", "labels.jsonl", exit_code=1)
    assert message in result.stderr
    assert said(connection) == []
