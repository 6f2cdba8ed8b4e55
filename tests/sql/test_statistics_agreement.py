"""Agreement, against scikit-learn, krippendorff and crowd-kit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sql.reference import Case, case, cases, close
from tests.sql.support import Connection, rows, value

Labels = list[tuple[str, str, bool]]


def metrics(calculator: Connection, tp: int, fp: int, fn: int, tn: int) -> dict[str, Any]:
    found = value(
        calculator, "select to_jsonb(m) from flywheel.confusion_metrics(%s, %s, %s, %s) as m", [tp, fp, fn, tn]
    )
    return dict(found)


def p_pass(calculator: Connection, labels: Labels, **options: float) -> dict[str, float]:
    columns: list[Any] = [list(column) for column in zip(*labels, strict=True)]
    named = "".join(f", {name} => %s" for name in options)
    query = f"select * from flywheel.dawid_skene(%s, %s, %s{named})"
    return dict(rows(calculator, query, [*columns, *options.values()]))


def reference_labels() -> Labels:
    given = case("dawid_skene", "binary")["input"]["rows_task_worker_label"]
    return [(item, annotator, bool(label)) for item, annotator, label in given]


@pytest.mark.parametrize("case", [one for one in cases("agreement") if "tp" in one.values[0]["input"]])
def test_confusion_metrics_equal_scikit_learn(calculator: Connection, case: Case) -> None:
    cells, expected = case["input"], case["expected"]
    found = metrics(calculator, **cells)
    assert found["n_pass"] == cells["tp"] + cells["fn"]
    assert found["n_fail"] == cells["tn"] + cells["fp"]
    for ours, theirs in {
        "accuracy": "accuracy",
        "tpr": "tpr",
        "tnr": "tnr",
        "fail_precision": "precision_fail",
        "kappa": "cohen_kappa",
    }.items():
        assert found[ours] == close(expected[theirs]), ours
    one_sided = 0 in (cells["tp"] + cells["fp"], cells["tn"] + cells["fn"], found["n_pass"], found["n_fail"])
    assert found["mcc"] == close(None if one_sided else expected["mcc"])  # scikit-learn says 0 where it is undefined


def test_rates_have_wilson_intervals(calculator: Connection) -> None:
    found = metrics(calculator, tp=90, fp=0, fn=10, tn=0)
    low, high = rows(calculator, "select * from flywheel.wilson_interval(90, 100)")[0]
    assert (found["tpr_low"], found["tpr_high"]) == (low, high)
    assert (found["tnr"], found["tnr_low"], found["tnr_high"]) == (None, 0, 1)


def test_nothing_labelled_has_no_agreement(calculator: Connection) -> None:
    found = metrics(calculator, 0, 0, 0, 0)
    assert {found[name] for name in ("accuracy", "tpr", "tnr", "fail_precision", "mcc", "kappa")} == {None}


def test_kappa_of_two_people_leaves_out_what_one_did_not_label(calculator: Connection) -> None:
    cells = {"tp": 70, "fp": 8, "fn": 4, "tn": 18}
    first = [True] * 78 + [False] * 22 + [None, True]
    second = [True] * 70 + [False] * 8 + [True] * 4 + [False] * 18 + [True, None]
    found = value(calculator, "select flywheel.cohen_kappa(%s, %s)", [first, second])
    assert (
        found == metrics(calculator, **cells)["kappa"] == close(case("agreement", "typical")["expected"]["cohen_kappa"])
    )


@pytest.mark.parametrize(
    ("name", "key"), [("krippendorff_nominal_missing", "alpha"), ("fleiss_complete", "krippendorff")]
)
def test_alpha_equals_the_krippendorff_package(calculator: Connection, name: str, key: str) -> None:
    known = case("agreement", name)
    table = next(iter(known["input"].values()))
    by_item = list(zip(*table, strict=True)) if "raters_by_items" in known["input"] else table
    labels = [(f"item {item}", None if v is None else bool(v)) for item, row in enumerate(by_item) for v in row]
    items, verdicts = zip(*labels, strict=True)
    found = value(calculator, "select flywheel.krippendorff_alpha(%s, %s)", [list(items), list(verdicts)])
    assert found == close(known["expected"][key])


def test_alpha_needs_two_labels_of_an_item_and_both_verdicts(calculator: Connection) -> None:
    query = "select flywheel.krippendorff_alpha(%s, %s)"
    assert value(calculator, query, [["a", "b"], [True, False]]) is None
    assert value(calculator, query, [["a", "a"], [True, True]]) is None
    assert value(calculator, query, [["a", "a", "b", "b", "c"], [True, True, False, False, True]]) == 1


def test_dawid_skene_equals_crowd_kit(calculator: Connection) -> None:
    found = p_pass(calculator, reference_labels(), smoothing=0, minimum_labels=0)
    assert found == close(case("dawid_skene", "binary")["expected"]["dawid_skene"], 1e-4)


def test_people_with_few_labels_get_one_accuracy_as_in_crowd_kit(calculator: Connection) -> None:
    found = p_pass(calculator, reference_labels(), smoothing=0, minimum_labels=1000, iterations=4)  # as many as it made
    assert found == close(case("dawid_skene", "binary")["expected"]["one_coin"], 1e-4)


def test_dawid_skene_follows_the_reliable_against_the_contrary(calculator: Connection) -> None:
    truth = {f"item {n}": n % 3 > 0 for n in range(60)}
    labels = [(item, who, passed) for item, passed in truth.items() for who in ("ann", "bob")]
    labels += [(item, "contrary", passed == (n % 2 == 0)) for n, (item, passed) in enumerate(truth.items())]
    found = p_pass(calculator, labels)
    assert {item: p > 0.5 for item, p in found.items()} == truth


def test_dawid_skene_of_nothing_is_nothing(calculator: Connection) -> None:
    assert rows(calculator, "select * from flywheel.dawid_skene('{}', '{}', '{}')") == []
    assert rows(calculator, "select * from flywheel.dawid_skene('{a}', '{ann}', '{null}')") == []
