"""Distributions and embeddings: what they are compared with, and from where on a difference is drift."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.sql.drifting import cloud, days_ago, drifted, embedded, status
from tests.sql.reference import case, close
from tests.sql.support import Connection, inline, refused, rows, value


def run_tests(connection: Connection) -> int:
    return int(value(connection, "select flywheel._test_drift()"))


def spans(connection: Connection, days: int, texts: list[str], **columns: Any) -> None:
    """Insert spans of a day with these inputs."""
    names = "".join(f", {name}" for name in columns)
    places = ", %s" * len(columns)
    connection.execute(
        f"""insert into flywheel.spans (started_at{names}, input)
            select %s{places}, each from unnest(%s::text[]) as each""".encode(),
        [days_ago(days), *columns.values(), texts],
    )


def lengths(first: int, count: int, step: int = 3) -> list[str]:
    return ["x" * (first + step * number) for number in range(count)]


def test_tenths_of_a_distribution_are_those_of_the_reference(calculator: Connection) -> None:
    known = case("drift", "scores_psi_js_ks")
    given, expected = known["input"], known["expected"]
    fine = "select array_agg(floor(each * 1000)::integer), array_agg(1::bigint) from unnest(%s::float8[]) as each"
    (before, ones), (now, also) = (rows(calculator, fine, [given[name]])[0] for name in ("reference", "current"))
    cuts = value(calculator, "select flywheel._tenth_cuts(%s, %s)", [before, ones])
    counts = value(calculator, "select flywheel._grouped(%s, %s, %s)", [before, ones, cuts])
    current = value(calculator, "select flywheel._grouped(%s, %s, %s)", [now, also, cuts])
    assert counts[0] == 0
    assert sum(counts) == len(given["reference"])
    assert max(counts[1:]) - min(counts[1:]) <= 10
    found = rows(calculator, "select psi from flywheel.population_stability(%s, %s)", [counts, current])[0][0]
    assert found == pytest.approx(expected["psi_plus_half_smoothing"], rel=0.15)
    assert value(calculator, "select flywheel.ks_distance(%s, %s)", [counts, current]) == pytest.approx(
        expected["ks_stat"], abs=0.03
    )
    same = value(
        calculator,
        "select psi from flywheel.population_stability(%s, %s)",
        [expected["ref_counts"], expected["cur_counts"]],
    )
    assert same == close(expected["psi_plus_half_smoothing"])


def test_the_first_days_with_enough_rows_are_the_reference_and_are_not_tested(connection: Connection) -> None:
    spans(connection, 2, lengths(10, 200))
    run_tests(connection)
    assert value(connection, "select count(*) from flywheel._references") == 0
    spans(connection, 1, lengths(10, 200))
    run_tests(connection)
    assert rows(connection, "select feature, n, until_day - from_day from flywheel._references") == [
        ("input_length", 400, 1)
    ]
    assert value(connection, "select count(*) from flywheel.drift_tests") == 0


def test_longer_inputs_drift_and_the_same_lengths_do_not(connection: Connection) -> None:
    spans(connection, 2, lengths(10, 400), node="same")
    spans(connection, 2, lengths(10, 400), node="longer")
    spans(connection, 1, lengths(11, 200, 6), node="same")
    spans(connection, 1, lengths(400, 400), node="longer")
    run_tests(connection)
    for kind in ("psi", "js", "ks"):
        said = {where: found[0] for (_, where), found in status(connection, kind).items()}
        assert said == {'project "default", node same': False, 'project "default", node longer': True}
    assert run_tests(connection) == 6
    assert value(connection, "select count(*) from flywheel.drift_tests") == 6


def test_fewer_than_thirty_rows_are_no_test(connection: Connection) -> None:
    spans(connection, 2, lengths(10, 400))
    spans(connection, 1, lengths(4000, 29))
    run_tests(connection)
    assert status(connection, "psi") == {("input length", 'project "default", node app'): (None, None, 29, None)}


def test_a_small_day_needs_a_larger_difference(connection: Connection) -> None:
    spans(connection, 2, lengths(10, 400))
    spans(connection, 1, lengths(10, 40, 30))
    run_tests(connection)
    floor = value(connection, "select threshold from flywheel.drift_status where kind = 'psi'")
    assert floor > 0.7


def test_constant_lengths_do_not_drift_until_they_change_either_way(connection: Connection) -> None:
    for node, now in (("same", 50), ("longer", 60), ("shorter", 40)):
        spans(connection, 2, ["x" * 50] * 300, node=node)
        spans(connection, 1, ["x" * now] * 300, node=node)
    run_tests(connection)
    said = {where.rpartition(" ")[2]: found[0] for (_, where), found in status(connection, "psi").items()}
    assert said == {"same": False, "longer": True, "shorter": True}


def test_values_of_a_validator_are_compared_within_its_version(connection: Connection) -> None:
    inline(connection, "short")
    spans(connection, 2, ["a"] * 300, output="b")
    spans(connection, 1, ["a"] * 300, output="b")
    for days, low in ((2, 0.0), (1, 0.5)):
        connection.execute(
            """update flywheel.scores set value = %s + random() * 0.5
                where started_at >= %s and started_at < %s""",
            [low, days_ago(days, 0), days_ago(days - 1, 0)],
        )
    run_tests(connection)
    assert "short version 1, value" in drifted(connection, "psi")


def test_latencies_are_compared_by_node(connection: Connection) -> None:
    for days, factor in ((2, 1), (1, 4)):
        connection.execute(
            """insert into flywheel.spans (started_at, ended_at, node)
               select %s, %s + make_interval(secs => %s * (0.5 + n / 400.0)), 'slow'
                 from generate_series(1, 400) as n""",
            [days_ago(days), days_ago(days), factor],
        )
    run_tests(connection)
    assert drifted(connection, "psi") == ["latency"]


def test_a_reference_can_be_set_to_days_that_were_good(connection: Connection) -> None:
    spans(connection, 2, lengths(400, 300))
    spans(connection, 1, lengths(10, 300))
    run_tests(connection)
    assert drifted(connection, "psi") == ["input length"]
    day = days_ago(1).date()
    set_it = "select flywheel.set_reference('input_length', %s, %s, node => 'app')"
    assert value(connection, set_it, [day, day]) == 300
    assert rows(connection, "select until_day, set_by <> 'first days' from flywheel._references") == [(day, True)]
    said = refused(connection, "select flywheel.set_reference('input_length', %s, %s, node => 'none')", [day, day])
    assert said.message_primary is not None
    assert "has 0 rows" in said.message_primary
    said = refused(connection, "select flywheel.set_reference('value', %s, %s, 'nobody')", [day, day])
    assert said.message_primary == "there is no active version of validator nobody"


def days_of(connection: Connection, columns: str) -> list[tuple[Any, ...]]:
    """Return columns of the tests of embeddings, day after day."""
    of_kind = "from flywheel.drift_tests where kind = 'embedding_mmd' order by window_from"
    return rows(connection, f"select {columns} {of_kind}")


@pytest.fixture
def sampled(connection: Connection) -> uuid.UUID:
    """Let the embedder that serves have all spans in its sample."""
    connection.execute("update flywheel.embedders set span_permille = 1000")
    found: uuid.UUID = value(connection, "select embedder_id from flywheel.embedders where status = 'serving'")
    return found


def test_sums_and_the_distance_of_two_windows_are_those_of_the_reference(
    connection: Connection, sampled: uuid.UUID
) -> None:
    known = case("drift", "embedding_drift")
    for days, name in ((2, "reference"), (1, "current")):
        embedded(connection, known["input"][name], days_ago(days))
    value(connection, "select flywheel._sum_embeddings(%s, %s)", [days_ago(2).date(), days_ago(1).date()])
    query = """
      select test.statistic, test.cosine_distance
        from flywheel._vector_total(%(e)s, 'input', 'default', 'app', %(b)s, %(b)s) as before,
             flywheel._vector_total(%(e)s, 'input', 'default', 'app', %(c)s, %(c)s) as now_,
             flywheel.linear_mmd(before.n, before.total, before.squares, now_.n, now_.total, now_.squares) as test"""
    found = rows(connection, query, {"e": sampled, "b": days_ago(2).date(), "c": days_ago(1).date()})[0]
    expected = known["expected"]
    assert found[0] == pytest.approx(expected["mmd2_unbiased_linear"], abs=2e-3)  # half precision, and normalised
    assert found[1] == pytest.approx(expected["centroid_cosine_distance"], abs=2e-3)


def test_inputs_about_something_else_drift_after_two_days_of_it(connection: Connection, sampled: uuid.UUID) -> None:
    connection.execute("update flywheel.settings set value = '100' where name = 'drift_reference'")
    embedded(connection, cloud(1, 100, [1.0]), days_ago(3))
    value(connection, "select flywheel._sum_embeddings(%s, %s)", [days_ago(3).date(), days_ago(3).date()])
    value(connection, "select flywheel._set_embedding_references(%s, 10)", [days_ago(3).date()])
    embedded(connection, cloud(2, 60, [0.6, 0.8]), days_ago(2))
    embedded(connection, cloud(3, 60, [0.6, 0.8]), days_ago(1))
    run_tests(connection)
    told = days_of(connection, "drifted, evidence ->> 'far'")
    assert told == [(False, "true"), (True, "true")]


def test_inputs_about_the_same_things_do_not_drift(connection: Connection, sampled: uuid.UUID) -> None:
    connection.execute("update flywheel.settings set value = '100' where name = 'drift_reference'")
    embedded(connection, cloud(1, 120, [1.0]), days_ago(3), node="a; b")
    value(connection, "select flywheel._sum_embeddings(%s, %s)", [days_ago(3).date(), days_ago(3).date()])
    value(connection, "select flywheel._set_embedding_references(%s, 10)", [days_ago(3).date()])
    embedded(connection, cloud(2, 60, [1.0]), days_ago(2), node="a; b")
    embedded(connection, cloud(3, 29, [0.0, 1.0]), days_ago(1), node="a; b")
    run_tests(connection)
    told = days_of(connection, "drifted, n_current, slice")
    assert told == [(False, 60, 'project "default", node "a; b"'), (None, 29, 'project "default", node "a; b"')]


def test_vectors_that_are_all_the_same_are_no_drift(connection: Connection, sampled: uuid.UUID) -> None:
    connection.execute("update flywheel.settings set value = '50' where name = 'drift_reference'")
    embedded(connection, [[1.0]] * 50, days_ago(2))
    embedded(connection, [[1.0]] * 50, days_ago(1))
    run_tests(connection)
    told = rows(connection, "select drifted, effect from flywheel.drift_status where kind = 'embedding_mmd'")
    assert [said for said, _ in told] == [False]
    assert abs(told[0][1]) < 1e-6


def test_labelled_spans_that_no_sample_chose_are_left_out(connection: Connection) -> None:
    embedded(connection, [[1.0]] * 50, days_ago(1))  # the embedder samples nothing
    value(connection, "select flywheel._sum_embeddings(%s, %s)", [days_ago(2).date(), days_ago(1).date()])
    assert value(connection, "select count(*) from flywheel._embedding_days") == 0


def test_what_a_test_says_can_be_read_as_json(connection: Connection) -> None:
    spans(connection, 2, lengths(10, 300))
    spans(connection, 1, lengths(10, 300))
    run_tests(connection)
    evidence = value(connection, "select evidence from flywheel.drift_status where kind = 'psi'")
    assert sum(evidence["reference"]) == sum(evidence["current"]) == 300
    assert json.dumps(evidence)
