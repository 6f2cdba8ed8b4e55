"""How much of a draft was changed and whether a question was asked again, against rapidfuzz and the definitions."""

from __future__ import annotations

import random

import pytest

from tests.sql.reference import Case, cases, close
from tests.sql.support import Connection, rows, value

RATIO = "select flywheel.edit_ratio(%s, %s)"


@pytest.mark.parametrize("case", cases("edit_distance"))
def test_edit_ratios_equal_rapidfuzz(calculator: Connection, case: Case) -> None:
    a, b = case["input"]["a"], case["input"]["b"]
    expected = 1 - case["expected"]["normalized_similarity"]
    assert value(calculator, RATIO, [a, b]) == close(expected)
    assert value(calculator, RATIO, [b, a]) == close(expected)
    pieces = "select flywheel._piece_distance(%s::text[], %s::text[])"
    assert value(calculator, pieces, [a.split(), b.split()]) == case["expected"]["token_level_levenshtein"]


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize("seed", range(40))
def test_edit_ratios_equal_the_whole_matrix_at_any_length(calculator: Connection, seed: int) -> None:
    choose = random.Random(seed)
    letters = "abcdefghijklmnop"[: choose.choice([2, 4, 16])]
    a = "".join(choose.choices(letters, k=choose.choice([3, 61, 62, 63, 124, 125, 200])))
    b = "".join(choose.choices(letters, k=choose.choice([1, 62, 140])))
    if choose.random() < 0.5:
        b = "".join(one for one in a if choose.random() < 0.9) + "x"
    assert value(calculator, RATIO, [a, b]) == close(levenshtein(a, b) / max(len(a), len(b)))


def test_long_texts_are_compared_by_words(calculator: Connection) -> None:
    words = [f"word{place}" for place in range(1500)]
    changed = [word.upper() if place % 10 == 0 else word for place, word in enumerate(words)]
    found = value(calculator, RATIO, [" ".join(words), "  ".join(changed)])
    assert found == close(150 / 1500, 0.002)  # what both begin and end with may cut a word


def test_very_long_texts_are_compared_by_the_words_they_have(calculator: Connection) -> None:
    words = [f"word{place}" for place in range(9000)]
    other = [f"other{place}" for place in range(3000)]
    found = value(calculator, RATIO, [" ".join(words), " ".join([*other, *words[:6000]])])
    assert found == close(3000 / 9000, 0.002)


def test_one_change_in_a_long_text_is_exact(calculator: Connection) -> None:
    text = "lorem ipsum " * 20000
    assert value(calculator, RATIO, [text, text + "!"]) == close(1 / 240001)
    assert 0 < value(calculator, RATIO, [text, "x" + text[:-1]]) < 1e-4
    assert value(calculator, RATIO, [text, text]) == 0


def test_edits_have_the_classes_of_the_glossary(calculator: Connection) -> None:
    query = "select array(select flywheel.edit_class(r) from unnest('{0,0.001,0.1,0.11,0.4,0.41,1}'::float8[]) as r)"
    assert value(calculator, query) == ["accepted", "minor", "minor", "edited", "edited", "rewritten", "rewritten"]
    assert value(calculator, "select flywheel.edit_class(flywheel.edit_ratio('a', null))") is None


@pytest.mark.parametrize(
    ("draft", "final", "material"),
    [
        ("The total is 1,240 EUR.", "The total is 1,420 EUR.", True),
        ("The total is 1,240 EUR.", "In total: 1240 EUR", False),
        ("It arrives on 5 May.", "It arrives on 6 May.", True),
        ("It arrives on 5 May.", "It arrives on 5 June.", True),
        ("It arrives on Monday.", "It arrives monday, then.", False),
        ("Due 2026-11-21", "Due 2026-11-22", True),
        ("You can return it.", "You cannot return it.", True),
        ("You can't return it.", "You cannot return it.", False),
        ("No, we do not.", "We do not.", True),
        ("Hello there", "Hi there", False),
        ("Version 1.2", "Version 1.20", True),
        ("", "", False),
    ],
)
def test_numbers_dates_and_negations_are_material(
    calculator: Connection, draft: str, final: str, material: bool
) -> None:
    assert value(calculator, "select flywheel.material_change(%s, %s)", [draft, final]) is material


def test_trigrams_are_those_of_pg_trgm(calculator: Connection) -> None:
    query = "select flywheel.trigram_similarity(%s, %s)"
    assert value(calculator, query, ["word", "two words"]) == close(4 / 11)  # as its documentation has it
    assert value(calculator, "select flywheel._trigrams('Cat cat!')") == ["  c", " ca", "at ", "cat"]
    assert value(calculator, query, ["Same text", "same TEXT?"]) == 1
    assert value(calculator, query, ["", "?"]) == value(calculator, query, ["abc", "xyz"]) == 0


@pytest.mark.parametrize("text", ["", " ", "?!", "a word"])
def test_a_text_is_all_like_itself_whether_it_has_words_or_not(calculator: Connection, text: str) -> None:
    query = "select flywheel.trigram_similarity(%(text)s, %(text)s), flywheel.edit_ratio(%(text)s, %(text)s)"
    assert rows(calculator, query, {"text": text}) == [(1, 0)]


REPHRASED = "select kind, score from flywheel.rephrase_score(%s, %s, %s, %s)"


def test_a_question_asked_again_scores_high(calculator: Connection) -> None:
    before = "How do I cancel my order?"
    kind, score = rows(calculator, REPHRASED, [before, "No, how can I cancel an order", 0.9, 20])[0]
    assert (kind, score > 0.9) == ("rephrase", True)
    kind, score = rows(calculator, REPHRASED, [before, "Thanks! And what about refunds for it?", 0.78, 20])[0]
    assert (kind, score < 0.3) == ("rephrase", True)


def test_a_score_falls_with_time_and_rises_with_likeness(calculator: Connection) -> None:
    def score(cosine: float, gap: float) -> float:
        return float(rows(calculator, REPHRASED, ["where is my parcel", "my parcel is where", cosine, gap])[0][1])

    assert score(0.9, 5) > score(0.9, 60) > score(0.8, 60) > score(0.8, 179)


@pytest.mark.parametrize(
    ("following", "cosine", "gap", "kind"),
    [
        ("where is my parcel ", 0.9, 10, "retry"),
        ("where is it?", 0.996, 10, "retry"),
        ("where is the parcel", 0.8, 10, "rephrase"),
        ("where is the parcel", 0.74, 10, None),
        ("where is the parcel", 0.8, 181, None),
        ("where is the parcel", 0.8, -1, None),
        ("where is the parcel", 0.8, None, None),
        ("where is my parcel now", None, 10, "rephrase"),
        ("how do I pay", None, 10, None),
    ],
)
def test_a_pair_has_a_kind_only_within_its_bounds(
    calculator: Connection, following: str, cosine: float | None, gap: float | None, kind: str | None
) -> None:
    found, score = rows(calculator, REPHRASED, ["Where is my parcel", following, cosine, gap])[0]
    assert found == kind
    assert (score is None) == (kind is None)
