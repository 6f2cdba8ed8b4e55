"""Checks of plain text."""

from __future__ import annotations

import pytest

from pgflywheel.checks import text


@pytest.mark.parametrize("example", ["", " ", "\n\t \r\f\v"])
def test_white_space_is_blank(example: str) -> None:
    assert text.is_blank(example)
    assert text.word_count(example) == 0


@pytest.mark.parametrize(("example", "words"), [("x", 1), (" one  two\nthree ", 3), ("a\u00a0b", 1), ("—", 1)])
def test_words_are_runs_without_white_space(example: str, words: int) -> None:
    assert not text.is_blank(example)
    assert text.word_count(example) == words


@pytest.mark.parametrize(
    "example",
    ["delve", "We DELVE into", "to delve, then", "(delve)", "a—delve—b", "delve🚀", "“delve”", "no\ndelve"],
)
def test_a_word_is_found_whole_in_any_case(example: str) -> None:
    assert text.contains_any_word(example, ["tapestry", "delve"])


@pytest.mark.parametrize("example", ["delved", "undelve", "delve_it", "delveé", "дdelve", "del ve", ""])
def test_a_part_of_a_word_is_not_found(example: str) -> None:
    assert not text.contains_any_word(example, ["delve"])


@pytest.mark.parametrize(("example", "word"), [("a C++ b", "c++"), ("1.5", "1.5"), ("(x|y)", "x|y"), ("why?", "why?")])
def test_a_word_is_plain_text_and_no_pattern(example: str, word: str) -> None:
    assert text.contains_any_word(example, [word])
    assert not text.contains_any_word("abc 125 xy whyy", [word])


@pytest.mark.parametrize("words", [[], [""], ["\x1f"]])
def test_no_words_are_found_nowhere(words: list[str]) -> None:
    assert not text.contains_any_word("anything at all", words)


@pytest.mark.parametrize(
    "example",
    [
        "I can't help with that.",
        "I’m unable to assist with this request.",
        "I'm sorry, but I cannot provide that.",
        "As an AI language model, I have no opinions.",
        "Sorry, that goes against my guidelines.",
        "I must respectfully decline.",
        "I won't be able to share that.",
    ],
)
def test_a_refusal_is_recognised(example: str) -> None:
    assert text.is_refusal(example)


@pytest.mark.parametrize(
    "example",
    [
        "I can help with that.",
        "Opened tea cannot be returned.",
        "As an aid to memory, write it down.",
        "You can't share a gift card.",
        "x" * 400 + " I can't help with that.",
        "",
    ],
)
def test_an_answer_is_no_refusal(example: str) -> None:
    assert not text.is_refusal(example)
