"""The classifier that tells weeks apart: it says so where they differ, names the rows, and not by chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgflywheel.analysis.domain import _kernel, _mmd, compare

REFERENCE = Path(__file__).parents[1] / "reference" / "drift.json"


def cloud(seed: int, count: int, shift: float = 0.0) -> list[list[float]]:
    source = np.random.default_rng(seed)
    rows = source.normal(size=(count, 20))
    rows[:, 0] += shift
    return [[float(number) for number in row] for row in rows]


def known() -> dict[str, Any]:
    found = json.loads(REFERENCE.read_text())["cases"]
    return next(each for each in found if each["name"] == "embedding_drift")


def test_sets_that_differ_are_told_apart_by_the_rows_that_are_new() -> None:
    found = compare(cloud(1, 100), [*cloud(2, 75), *cloud(3, 25, shift=6.0)])
    assert found.drifted
    assert all(place >= 75 for place in found.telling)
    assert len(found.telling) == 10


@pytest.mark.parametrize("seed", [21, 22])
def test_sets_of_one_kind_are_not_told_apart(seed: int) -> None:
    found = compare(cloud(seed, 100), cloud(seed + 10, 100))
    assert not found.drifted
    assert 0.35 < found.auc < 0.65


def test_rows_that_are_all_the_same_tell_nothing() -> None:
    found = compare([[1.0, 0.0]] * 40, [[1.0, 0.0]] * 40)
    assert (found.auc, found.drifted, found.mmd_p) == (0.5, False, 1.0)


def test_the_same_rows_and_seed_give_the_same_numbers() -> None:
    assert compare(cloud(4, 60), cloud(5, 60), seed=7) == compare(cloud(4, 60), cloud(5, 60), seed=7)


def test_the_numbers_are_near_those_of_scikit_learn_on_the_reference() -> None:
    given, expected = known()["input"], known()["expected"]
    found = compare(given["reference"], given["current"])
    assert found.auc == pytest.approx(expected["domain_classifier_cv_auc_approx"], abs=0.08)
    assert found.mmd_p < 0.01
    assert found.drifted


def test_the_distance_under_a_kernel_is_that_of_its_definition() -> None:
    given, expected = known()["input"], known()["expected"]
    rows = np.asarray([*given["reference"], *given["current"]])
    apart = ((rows[:, None, :] - rows[None, :, :]) ** 2).sum(axis=2)
    kernel = np.exp(-apart)
    np.fill_diagonal(kernel, 0.0)
    labels = np.repeat([0, 1], [len(given["reference"]), len(given["current"])])
    assert _mmd(kernel, labels) == pytest.approx(expected["mmd2_unbiased_rbf_gamma1"], abs=1e-9)
    width = float(np.median(apart[np.triu_indices(len(rows), 1)]))
    widened = np.exp(-apart / width) - np.eye(len(rows))
    assert _kernel(rows) == pytest.approx(widened, abs=1e-9)
