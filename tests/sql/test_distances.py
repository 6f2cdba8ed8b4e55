"""Distances of distributions and of vectors, against scipy and the definitions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import psycopg
import pytest

from tests.sql.reference import case, close
from tests.sql.support import Connection, rows, value

HISTOGRAMS = "%s::bigint[], %s::bigint[]"


def histograms() -> tuple[list[int], list[int]]:
    expected = case("drift", "scores_psi_js_ks")["expected"]
    return expected["ref_counts"], expected["cur_counts"]


def test_distances_of_histograms_equal_scipys(calculator: Connection) -> None:
    expected = case("drift", "scores_psi_js_ks")["expected"]
    found = rows(calculator, f"select * from flywheel.population_stability({HISTOGRAMS})", histograms())[0]
    assert found == (close(expected["psi_plus_half_smoothing"]), close(27 * (1 / 500 + 1 / 300)), True)
    js = value(calculator, f"select flywheel.js_distance({HISTOGRAMS})", histograms())
    assert js == close(expected["js_distance_base2"])


def test_the_distance_of_cumulated_bins_is_at_most_that_of_the_values(calculator: Connection) -> None:
    reference, current = (np.cumsum(counts) / sum(counts) for counts in histograms())
    found = value(calculator, f"select flywheel.ks_distance({HISTOGRAMS})", histograms())
    assert found == close(float(np.abs(reference - current).max()))
    assert found <= case("drift", "scores_psi_js_ks")["expected"]["ks_stat"]


def test_bins_may_be_made_of_values_in_sql(calculator: Connection) -> None:
    given = case("drift", "scores_psi_js_ks")["input"]
    query = """
      select array_agg(n order by bin) from (
        select bin, count(x) from generate_series(0, cardinality(%s::float8[])) as bin
          left join unnest(%s::float8[]) as x on width_bucket(x, %s::float8[]) = bin
         group by bin) as counted (bin, n)"""
    edges = given["inner_edges"]
    assert value(calculator, query, [edges, given["reference"], edges]) == histograms()[0]


def test_the_same_distribution_is_at_no_distance(calculator: Connection) -> None:
    same = [[40, 30, 30], [40, 30, 30]]
    assert rows(calculator, f"select psi, alarmed from flywheel.population_stability({HISTOGRAMS})", same) == [
        (0, False)
    ]
    for distance in ("js_distance", "ks_distance"):
        assert value(calculator, f"select flywheel.{distance}({HISTOGRAMS})", same) == 0


def test_noise_of_few_rows_gives_no_alarm(calculator: Connection) -> None:
    query = f"select psi > 0.25, alarmed from flywheel.population_stability({HISTOGRAMS})"
    assert rows(calculator, query, [[200] * 10, [8, 1, 6, 1, 3, 6, 1, 1, 4, 1]]) == [(True, False)]
    assert rows(calculator, query, [[200] * 10, [9, 0, 0, 1, 0, 5, 0, 1, 4, 0]]) == [(True, None)]  # below 30 rows


def test_an_empty_histogram_is_at_no_known_distance(calculator: Connection) -> None:
    empty: list[list[list[int]]] = [[[1, 2], [0, 0]], [[], []]]
    for given in empty:
        assert rows(calculator, f"select * from flywheel.population_stability({HISTOGRAMS})", given) == [(None,) * 3]
        for distance in ("js_distance", "ks_distance"):
            assert value(calculator, f"select flywheel.{distance}({HISTOGRAMS})", given) is None


@pytest.mark.parametrize("given", [([1, 2], [1, 2, 3]), ([1, -1], [1, 2])])
def test_counts_of_other_bins_are_refused(calculator: Connection, given: tuple[list[int], list[int]]) -> None:
    for distance in ("population_stability", "js_distance", "ks_distance"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="same bins"):
            calculator.execute(f"select flywheel.{distance}({HISTOGRAMS})".encode(), given)


def vectors(side: str) -> np.ndarray:
    return np.array(case("drift", "embedding_drift")["input"][side])


def sums(side: str) -> list[object]:
    given = vectors(side)
    return [len(given), given.sum(axis=0).tolist(), float((given**2).sum())]


def test_the_distance_of_means_equals_the_unbiased_one(calculator: Connection) -> None:
    query = "select statistic, cosine_distance, z from flywheel.linear_mmd(%s, %s::real[], %s, %s, %s::real[], %s)"
    expected = case("drift", "embedding_drift")["expected"]
    statistic, cosine, z = rows(calculator, query, [*sums("reference"), *sums("current")])[0]
    assert statistic == close(expected["mmd2_unbiased_linear"], 1e-6)  # sums are single precision
    assert cosine == close(expected["centroid_cosine_distance"], 1e-6)
    assert z is None


def test_z_tells_a_change_from_noise(calculator: Connection) -> None:
    spread = value(calculator, "select flywheel.mmd_spread(%s::real[], 8)", [vectors("reference").ravel().tolist()])
    query = "select z from flywheel.linear_mmd(%s, %s::real[], %s, %s, %s::real[], %s, %s)"
    assert value(calculator, query, [*sums("reference"), *sums("current"), spread]) > 4
    half = vectors("reference")[::2], vectors("reference")[1::2]
    parts = [part for given in half for part in (len(given), given.sum(axis=0).tolist(), float((given**2).sum()))]
    assert abs(value(calculator, query, [*parts, spread])) < 3


def test_the_spread_is_the_mean_over_pairs_of_different_vectors(calculator: Connection) -> None:
    given = vectors("reference")[:7]
    centred = given - given.mean(axis=0)
    products = (centred @ centred.T) ** 2
    everything = (products.sum() - np.trace(products)) / (7 * 6)
    query = "select flywheel.mmd_spread(%s::real[], 8, 42)"  # as many pairs as there are
    assert value(calculator, query, [given.ravel().tolist()]) == close(everything, 1e-6)
    assert value(calculator, query, [given[0].tolist()]) is None
    pair = "select flywheel.mmd_pair(%s::real[], %s::real[], %s::real[])"
    found = value(calculator, pair, [given[0].tolist(), given[3].tolist(), given.mean(axis=0).tolist()])
    assert found == close(products[0, 3], 1e-6)


def test_one_vector_is_at_no_known_distance(calculator: Connection) -> None:
    query = "select * from flywheel.linear_mmd(1, '{1,0}', 1, 9, '{3,4}', 9)"
    assert rows(calculator, query) == [(None, None, close(0.4))]
    assert rows(calculator, "select * from flywheel.linear_mmd(0, null, null, 9, '{3,4}', 9)") == [(None,) * 3]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="vectors of 2 and 3 numbers"):
        calculator.execute("select flywheel.linear_mmd(2, '{1,0}', 2, 2, '{1,0,0}', 2)")


def test_consistency_of_answers_equals_the_reference(calculator: Connection) -> None:
    known = case("consistency", "pairwise_consistency")
    expected = known["expected"]["per_cluster_n_consistency"]
    answers = list(zip(known["input"]["cluster"], known["input"]["answer_class"], strict=True))
    for cluster, (_, consistency) in expected.items():
        counts = list(Counter(answer for of, answer in answers if of == int(cluster)).values())
        found = value(calculator, "select flywheel.answer_consistency(%s::bigint[])", [counts])
        assert found == close(consistency)


def test_cohesion_is_the_mean_cosine_of_all_pairs(calculator: Connection) -> None:
    given = np.array(case("consistency", "data")["input"]["X"])[:15]
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    cosines = unit @ unit.T
    expected = (cosines.sum() - 15) / (15 * 14)
    found = value(calculator, "select flywheel.cohesion(15, %s::real[])", [unit.sum(axis=0).tolist()])
    assert found == close(float(expected), 1e-6)
    assert value(calculator, "select flywheel.cohesion(1, '{1,0}')") is None
