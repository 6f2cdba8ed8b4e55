"""Groups of vectors, ids that stay, and words from hostile texts."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from pgflywheel.analysis.clusters import MOST_TEXTS, grouped, kept, named, read_vectors, words_of
from tests.sql.reference import case

HOSTILE = ["<script>alert(1)</script>", "\x1b[31mred\x1b[0m", "'; drop table x; --", "a‮b", "\x00\ud800", "%s {0} $1"]


def sent(vectors: Sequence[Sequence[float]]) -> bytes:
    """Return vectors as halfvec_send() writes them."""
    return b"".join(struct.pack(f">HH{len(vector)}e", len(vector), 0, *vector) for vector in vectors)


def test_groups_are_those_of_the_reference() -> None:
    vectors = np.asarray(case("clustering", "data")["input"]["X"])
    known = case("clustering", "hdbscan_l2_min5")
    found = grouped(vectors, known["input"]["min_cluster_size"])
    assert adjusted_rand_score(known["expected"]["labels"], found) == 1.0
    assert [group < 0 for group in found] == [group < 0 for group in known["expected"]["labels"]]


def test_vectors_of_many_dimensions_are_grouped_too() -> None:
    source = np.random.default_rng(1)
    centres = source.normal(size=(4, 384))
    rows = np.repeat(centres, 30, axis=0) + source.normal(scale=0.3, size=(120, 384))
    found = grouped(rows / np.linalg.norm(rows, axis=1, keepdims=True), 5)
    truth = np.repeat(range(4), 30)
    assert adjusted_rand_score(truth, found) == 1.0


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_vectors_are_in_no_group(count: int) -> None:
    assert grouped(np.ones((count, 8)), 5) == [-1] * count


def test_vectors_that_are_all_the_same_are_one_group() -> None:
    assert grouped(np.ones((5, 8)), 5) == [0] * 5


def test_the_program_groups_what_the_database_sends() -> None:
    vectors = case("clustering", "data")["input"]["X"]
    command = [sys.executable, "-m", "pgflywheel.analysis.clusters", "12", "5"]
    said = subprocess.run(command, input=sent(vectors), capture_output=True, check=True, timeout=120)
    assert said.stdout.decode() == str(grouped(read_vectors(sent(vectors), 12), 5))
    assert read_vectors(sent(vectors), 12) == pytest.approx(np.asarray(vectors), abs=1e-3)


def test_a_group_keeps_the_id_of_the_cluster_it_has_most_members_of() -> None:
    assert kept(["a"] * 6 + ["b"] * 4, [0] * 6 + [1] * 4) == ["a", "b"]
    assert kept(["a"] * 6 + ["b"] * 4, [1] * 6 + [0] * 4) == ["b", "a"]
    assert kept(["a"] * 5 + ["b"] * 5, [0] * 10) == ["a"]


def test_a_cluster_that_falls_apart_gives_its_id_to_one_group_only() -> None:
    assert kept(["a"] * 10, [0] * 6 + [1] * 4) == ["a", None]


def test_less_than_half_of_either_is_another_cluster() -> None:
    assert kept(["a"] * 4 + [None] * 6, [0] * 1 + [1] * 1 + [-1] * 2 + [0] * 3 + [1] * 3) == [None, None]
    assert kept([], []) == []
    assert kept(["a", None], [-1, -1]) == []


def test_ids_are_stable_when_nothing_changes() -> None:
    source = random.Random(3)
    groups = [source.randrange(-1, 9) for _ in range(500)]
    before = [f"cluster {group}" if group >= 0 else None for group in groups]
    assert kept(before, groups) == [f"cluster {group}" for group in range(9)]


def test_words_are_those_that_tell_a_cluster_from_the_others() -> None:
    cards = ["my card is lost", "I lost my card abroad", "lost card, please block it"]
    loans = ["the loan rate please", "what is the rate of a loan", "loan rate for my house"]
    assert named({"cards": cards, "loans": loans}, 2) == {"cards": "card lost", "loans": "loan rate"}


def test_clusters_without_words_have_no_name() -> None:
    assert named({"digits": ["123 456", "???"], "none": []}) == {"digits": "", "none": ""}
    assert named({}) == {}


def test_hostile_texts_give_nothing_but_letters_and_digits_and_an_end() -> None:
    said = named({"hostile": HOSTILE, "long": ["x" * 100_000] * 3, "many": [f"word{n}" for n in range(5000)]})
    assert all(character.isalnum() or character == " " for text in said.values() for character in text)
    assert max(map(len, said.values())) <= 4 * 31
    assert words_of(["loan"] * 10_000)["loan"] == MOST_TEXTS
