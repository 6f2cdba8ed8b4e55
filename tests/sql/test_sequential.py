"""What stays right while rows keep coming in: against scipy's solutions, river-style streams and simulation."""

from __future__ import annotations

import math

import numpy as np
import psycopg
import pytest

from tests.sql.reference import Case, case, cases, close
from tests.sql.support import Connection, rows, value


@pytest.mark.parametrize("case", cases("sequential", "bb_centred"))
def test_the_centred_sequence_equals_its_definition_solved_by_scipy(calculator: Connection, case: Case) -> None:
    query = "select low, high from flywheel.centred_confidence_sequence(%s, %s, weight => %s)"
    found = rows(calculator, query, [case["input"]["k"], case["input"]["n"], case["input"]["r"]])[0]
    assert list(found) == close(case["expected"]["cs95"])


def test_the_centred_sequence_of_nothing_leaves_every_rate_possible(calculator: Connection) -> None:
    assert rows(calculator, "select * from flywheel.centred_confidence_sequence(0, 0)") == [(0, 1)]
    assert value(calculator, "select low from flywheel.centred_confidence_sequence(0, 9)") == 0
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="11 of 10"):
        calculator.execute("select flywheel.centred_confidence_sequence(11, 10)")


def test_the_corrected_sequence_spans_what_its_three_sequences_allow(calculator: Connection) -> None:
    third = 1 - 0.05 / 3
    query = "select low, high from flywheel.confidence_sequence(%s, %s, %s)"
    parts = [rows(calculator, query, [*counts, third])[0] for counts in [(1800, 2000), (46, 50), (10, 50)]]
    allowed = [q * p1 + (1 - q) * p0 for q in parts[0] for p1 in parts[1] for p0 in parts[2]]
    found = rows(calculator, "select * from flywheel.corrected_sequence(46, 4, 10, 40, 1800, 2000)")[0]
    assert found == close((0.848, min(allowed), max(allowed)))
    fixed = rows(calculator, "select low, high from flywheel.corrected_rate(46, 4, 10, 40, 1800, 2000)")[0]
    assert found[1] < fixed[0] < fixed[1] < found[2]


def test_the_corrected_sequence_knows_nothing_without_labels(calculator: Connection) -> None:
    assert rows(calculator, "select * from flywheel.corrected_sequence(0, 0, 0, 0, 900, 1000)") == [(None, 0, 1)]
    rate, low, high = rows(calculator, "select * from flywheel.corrected_sequence(30, 5, 0, 0, 900, 1000)")[0]
    assert low < 0.9 * 5 / 7 < rate < high  # the verdict without labels may hide anything


@pytest.mark.parametrize("case", cases("sequential", "block_e"))
def test_evidence_after_each_block_equals_the_reference(calculator: Connection, case: Case) -> None:
    given = case["input"]
    outcomes = [[bool(one) for one in given[side]] for side in ("baseline_pass_in_order", "candidate_pass_in_order")]
    arguments = [*outcomes, given["n_a"], given["n_b"], given["prior_a"], given["prior_b"]]
    query = "select flywheel.block_e(%s, %s, %s, %s, %s::double precision[], %s::double precision[])"
    evidence = value(calculator, query, arguments)
    assert evidence == close(case["expected"]["log_e_after_block"])
    above = [place for place, log_e in enumerate(evidence) if log_e >= math.log(20)]
    assert (above[0] if above else None) == case["expected"]["first_block_index_with_e_ge_20"]


def test_a_row_that_keeps_the_state_says_what_the_whole_history_says(calculator: Connection) -> None:
    baseline, candidate = [True] * 7 + [False] * 2, [True, False, False]
    whole = value(calculator, "select flywheel.block_e(%s, %s, 3, 1)", [baseline, candidate])
    log_e, seen = 0.0, [0, 0, 0, 0]
    for block in range(3):
        passes = [sum(baseline[3 * block : 3 * block + 3]), sum(candidate[block : block + 1])]
        query = "select flywheel.block_e_step(%s, %s, %s, %s, %s, %s, 3, %s, 1)"
        log_e = value(calculator, query, [log_e, *seen, *passes])
        assert log_e == close(whole[block])
        seen = [seen[0] + passes[0], seen[1] + 3, seen[2] + passes[1], seen[3] + 1]


def test_a_block_that_is_not_complete_says_nothing_yet(calculator: Connection) -> None:
    assert value(calculator, "select flywheel.block_e('{t,t,t,t}', '{f}', 9, 1)") == []
    assert len(value(calculator, "select flywheel.block_e('{t,t,t}', '{f,f}', 1, 1)")) == 2
    assert value(calculator, "select flywheel.block_e('{}', '{}')") == []


@pytest.mark.parametrize(
    "call",
    [
        "block_e_step(0, 0, 0, 0, 0, 4, 3, 1, 1)",
        "block_e_step(0, 0, 0, 0, 0, 1, 1, 0, 0)",
        "block_e('{t}', '{t}', 0, 1)",
    ],
)
def test_blocks_that_cannot_be_are_refused(calculator: Connection, call: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="a block cannot"):
        calculator.execute(f"select flywheel.{call}".encode())


WALK = """
with recursive walk(place, statistic) as (
  select 0, 0::double precision
  union all
  select place + 1, step.statistic
    from walk, flywheel.cusum_step(case when walk.statistic >= %(h)s then 0 else walk.statistic end, (%(stream)s::boolean[])[place + 1 : place + 1], %(q0)s, %(q1)s) as step
   where place < cardinality(%(stream)s::boolean[])
)
select array_agg(place - 1 order by place) from walk where statistic >= %(h)s
"""  # noqa: E501


@pytest.mark.parametrize("case", [one for one in cases("drift") if "stream_pass" in one.values[0]["input"]])
def test_alarms_of_a_stream_come_where_the_reference_has_them(calculator: Connection, case: Case) -> None:
    spec = case["expected"]["bernoulli_cusum_spec"]
    stream = [bool(one) for one in case["input"]["stream_pass"]]
    found = value(calculator, WALK, {"stream": stream, "h": spec["h"], "q0": spec["q0"], "q1": spec["q1"]})
    assert found == spec["alarms_with_reset"]


def test_the_peak_of_a_batch_remembers_what_passes_took_back(calculator: Connection) -> None:
    query = "select statistic, peak from flywheel.cusum_step(1, %s, 0.1, 0.2)"
    up, down = math.log(2), math.log(0.8 / 0.9)
    assert rows(calculator, query, [[True, False, False, True]])[0] == close((1 + 2 * up + 2 * down, 1 + 2 * up + down))
    assert rows(calculator, query, [[True] * 20])[0] == (0, 1)
    assert rows(calculator, query, [[None, None]])[0] == (1, 1)
    assert rows(calculator, query, [[]])[0] == (1, 1)


def test_counts_never_say_more_than_rows_in_any_order(calculator: Connection) -> None:
    query = "select flywheel.cusum_step(0.5, %s, %s, 0.1, 0.2)"
    ordered = "select statistic from flywheel.cusum_step(0.5, %s, 0.1, 0.2)"
    for fails, passes in [(0, 0), (1, 30), (4, 10), (6, 2)]:
        of_counts = value(calculator, query, [fails, passes])
        first = value(calculator, ordered, [[False] * fails + [True] * passes])
        last = value(calculator, ordered, [[True] * passes + [False] * fails])
        assert of_counts == close(first)
        assert of_counts <= last


def test_improvement_is_watched_by_a_lower_rate(calculator: Connection) -> None:
    query = "select statistic from flywheel.cusum_step(0, %s, 0.2, 0.1)"
    assert value(calculator, query, [[True] * 10]) == close(10 * math.log(0.9 / 0.8))
    assert value(calculator, query, [[True, False]]) == 0


@pytest.mark.parametrize(("q0", "q1"), [(0, 0.1), (0.1, 1), (0.1, 0.1), (-0.1, 0.2)])
def test_fail_rates_that_cannot_be_told_apart_are_refused(calculator: Connection, q0: float, q1: float) -> None:
    for call in ("cusum_step(0, '{t}', %s, %s)", "cusum_step(0, 1, 1, %s, %s)", "cusum_arl(%s, %s, 4)"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot be told apart"):
            calculator.execute(f"select flywheel.{call}".encode(), [q0, q1])


def simulated_run_length(q0: float, q1: float, h: float, q: float, runs: int = 3000) -> float:
    """Return the mean number of rows until alarm of many streams."""
    chance = np.random.default_rng(5)
    up, down = math.log(q1 / q0), math.log((1 - q1) / (1 - q0))
    statistics, total = np.zeros(runs), 0
    while len(statistics):
        total += len(statistics)
        statistics = np.maximum(0, statistics + np.where(chance.random(len(statistics)) < q, up, down))
        statistics = statistics[statistics < h]
    return total / runs


@pytest.mark.parametrize(
    ("q0", "q1", "h", "least"),
    [
        (0.05, 0.1, 3.0, 0.9),
        (0.1, 0.2, 4.0, 0.9),
        (0.1, 0.2, 4.37, 0.9),
        (0.2, 0.1, 3.0, 0.85),
        (0.2, 0.35, 4.0, 0.75),
        (0.1, 0.3, 3.0, 0.75),
        (0.5, 0.95, 4.0, 0.55),
    ],
)
def test_run_lengths_equal_simulated_ones_or_err_to_early_alarms(
    calculator: Connection, q0: float, q1: float, h: float, least: float
) -> None:
    query = "select flywheel.cusum_arl(%s, %s, %s), flywheel.cusum_arl(%s, %s, %s, %s)"
    in_control, after = rows(calculator, query, [q0, q1, h, q0, q1, h, q1])[0]
    assert least < in_control / simulated_run_length(q0, q1, h, q0) < 1.06
    assert math.sqrt(least) - 0.05 < after / simulated_run_length(q0, q1, h, q1) < 1.06


@pytest.mark.parametrize("name", ["cusum_arl_0.05_0.1", "cusum_arl_0.1_0.2"])
def test_detection_takes_as_long_as_the_reference_says(calculator: Connection, name: str) -> None:
    known = case("sequential", name)
    q0, q1 = known["input"].values()
    for h, expected in known["expected"].items():  # its lattice rounds the two steps to a whole ratio
        query = "select flywheel.cusum_arl(%s, %s, %s), flywheel.cusum_arl(%s, %s, %s, %s)"
        in_control, after = rows(calculator, query, [q0, q1, float(h), q0, q1, float(h), q1])[0]
        assert after == pytest.approx(expected["arl1"], rel=0.06)
        assert in_control == pytest.approx(expected["arl0"], rel=0.3)


@pytest.mark.parametrize(("q0", "q1"), [(0.1, 0.2), (0.02, 0.04), (0.3, 0.15)])
def test_a_limit_spends_the_budget_of_false_alarms_and_not_more(calculator: Connection, q0: float, q1: float) -> None:
    limit = value(calculator, "select flywheel.cusum_limit(%s, %s, 20000, 5, 2)", [q0, q1])
    between = value(calculator, "select flywheel.cusum_arl(%s, %s, %s)", [q0, q1, limit])
    assert 20000 * 5 / between == pytest.approx(2, rel=0.05)
    assert 20000 * 5 / between <= 2


def test_a_limit_grows_with_rows_and_monitors_and_is_never_small(calculator: Connection) -> None:
    limits = [
        value(calculator, "select flywheel.cusum_limit(0.1, 0.2, %s, %s)", [rows_, monitors])
        for rows_, monitors in [(1, 1), (5000, 1), (50000, 1), (50000, 20)]
    ]
    assert limits[0] == 2
    assert limits == sorted(set(limits))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="make no limit"):
        calculator.execute("select flywheel.cusum_limit(0.1, 0.2, 1000, 0)")
