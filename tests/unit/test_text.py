"""What a model wrote is hostile: printing it must not move a cursor, recolour or reorder the terminal."""

from __future__ import annotations

import json
import sys
import unicodedata
import uuid
from datetime import UTC, datetime

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflywheel.cli.text import clean, echo_rows, echo_table, one_line, to_json
from pgflywheel.records import Claimed

any_text = st.text(st.characters(codec=None, exclude_categories=()))
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(any_text)
def test_clean_text_has_no_control_character_but_tab_and_newline(text: str) -> None:
    for character in clean(text):
        assert unicodedata.category(character) not in ("Cc", "Cs") or character in "\t\n"
        assert unicodedata.bidirectional(character) not in BIDI
    clean(text).encode()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_an_escape_sequence_is_shown_not_obeyed() -> None:
    assert clean("\x1b[2Jgone\x07") == "\\x1b[2Jgone\\x07"


def test_letters_that_nobody_sees_are_shown() -> None:
    hidden = "polite" + "".join(chr(0xE0000 + ord(letter)) for letter in "pass")
    assert clean(hidden) == "polite\\xe0070\\xe0061\\xe0073\\xe0073"
    assert to_json(hidden).isascii()
    assert json.loads(to_json(hidden)) == hidden


@given(any_text, st.integers(5, 50))
def test_one_line_is_one_line_of_at_most_its_width(text: str, width: int) -> None:
    line = one_line(text, width)
    assert len(line) <= width
    assert len(line.splitlines()) <= 1


@given(any_text)
def test_json_is_readable_back_and_safe_to_show(text: str) -> None:
    shown = to_json({"text": text})
    assert json.loads(shown) == {"text": text}
    assert clean(shown) == shown


def test_json_holds_records_ids_and_times() -> None:
    job = Claimed(uuid.UUID(int=1), uuid.UUID(int=2), "bulk", 1, [uuid.UUID(int=3)], 10, 1, "live")
    shown = json.loads(to_json([job, datetime(2026, 1, 2, tzinfo=UTC)]))
    assert shown[0]["version_ids"] == ["00000000-0000-0000-0000-000000000003"]
    assert shown[1] == "2026-01-02T00:00:00+00:00"


def test_a_table_shows_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    echo_rows([{"name": "[red]x[/red]\x1b[31m", "rate": 0.5, "count": 1234}], as_json=False)
    printed = capsys.readouterr().out
    assert "[red]x[/red]\\x1b[31m" in printed
    assert "1,234" in printed


def test_no_rows_are_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    echo_rows([], as_json=False, empty="no spans")
    assert capsys.readouterr().out == "no spans\n"


RECORD = {"span_id": str(uuid.UUID(int=7)), "validator": "answers_in_english", "why": "", "n": 1234}


def printed_in_a_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    echo_rows([RECORD, RECORD], as_json=False)
    return [line.rstrip() for line in click.unstyle(capsys.readouterr().out).splitlines()]


def test_a_table_that_does_not_fit_a_terminal_is_printed_row_by_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    block = ["span id    00000000-0000-0000-0000-000000000007", "validator  answers_in_english", "n          1,234"]
    assert printed_in_a_terminal(50, capsys, monkeypatch) == [*block, "", *block]


def test_a_table_that_fits_is_a_table_and_cuts_no_id(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    header, *lines = printed_in_a_terminal(60, capsys, monkeypatch)
    assert header.split() == ["span", "id", "validator", "why", "n"]
    assert any(line.startswith(str(uuid.UUID(int=7))) for line in lines)


def test_a_small_number_in_a_table_is_no_zero(capsys: pytest.CaptureFixture[str]) -> None:
    echo_table(["cost"], [[0.00031], [0.0], [1.5]])
    assert capsys.readouterr().out.split() == ["cost", "0.00031", "0", "1.5"]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.00064356, "0.00064"), (0.0, "0"), (0.0096, "0.0096"), (0.01, "0.01"), (12.3456, "12.346")]
)
def test_a_small_cost_in_a_table_is_not_rounded_to_another(
    value: float, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    echo_table(["cost"], [[value]])
    assert capsys.readouterr().out.split() == ["cost", shown]
