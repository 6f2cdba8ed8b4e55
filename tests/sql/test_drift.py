"""The watch on pass rates: what it learns, when it alarms, and that it counts every verdict once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.sql.drifting import BAD, advance, coins, drifted, judged, minutes_ago, status, watch
from tests.sql.reference import Case, cases
from tests.sql.support import Connection, define, inline, refused, rows, value

MORE, FEWER = "short version 1, more fails", "short version 1, fewer fails"


@pytest.fixture(autouse=True)
def short(connection: Connection) -> None:
    inline(connection, "short")


def counted(connection: Connection) -> tuple[int, int]:
    query = "select coalesce(sum(passed), 0)::integer, coalesce(sum(failed), 0)::integer from flywheel._monitor_minutes"
    passed, failed = rows(connection, query)[0]
    return passed, failed


def statistic(connection: Connection, direction: str = "more fails") -> float:
    return float(value(connection, "select statistic from flywheel._cusums where direction = %s", [direction]))


def test_nothing_alarms_while_the_rate_stays(connection: Connection) -> None:
    watch(connection)
    judged(connection, minutes_ago(600), coins(2, 0.95, 4000), minutes=590)
    advance(connection)
    assert drifted(connection) == []
    assert set(status(connection)) == {(MORE, 'project "default"'), (FEWER, 'project "default"')}


def test_a_drop_from_95_to_85_percent_alarms_and_says_how_large_it_is(connection: Connection) -> None:
    watch(connection)
    judged(connection, minutes_ago(600), coins(3, 0.95, 1000), minutes=300)
    advance(connection)
    assert drifted(connection) == []
    judged(connection, minutes_ago(290), coins(4, 0.85, 500), minutes=280)
    advance(connection)
    assert drifted(connection) == [MORE]
    _, effect, n, _ = status(connection)[MORE, 'project "default"']
    assert 0.06 < effect < 0.14
    assert n >= 30


def test_a_validator_that_suddenly_passes_everything_alarms_too(connection: Connection) -> None:
    watch(connection, rate=0.8)
    judged(connection, minutes_ago(500), [True] * 500, minutes=400)
    advance(connection)
    assert drifted(connection) == [FEWER]


def test_an_alarm_ends_when_the_rate_has_come_back(connection: Connection) -> None:
    watch(connection)
    judged(connection, minutes_ago(600), coins(5, 0.7, 400), minutes=200)
    advance(connection)
    assert drifted(connection) == [MORE]
    judged(connection, minutes_ago(300), coins(6, 0.95, 2000), minutes=250)
    advance(connection)
    assert drifted(connection) == []
    assert value(connection, "select alarmed_at from flywheel._cusums where direction = 'more fails'") is None


def test_a_verdict_that_comes_late_counts_in_the_next_step_and_once(connection: Connection) -> None:
    watch(connection)
    judged(connection, minutes_ago(60), [True] * 10)
    advance(connection)
    assert counted(connection) == (10, 0)
    judged(connection, minutes_ago(60), [False] * 3)  # the same minute, which was closed
    advance(connection)
    assert counted(connection) == (10, 3)
    before = statistic(connection)
    assert before > 0
    assert advance(connection) == 0
    assert (counted(connection), statistic(connection)) == ((10, 3), before)


def test_a_fold_before_or_between_changes_nothing(connection: Connection) -> None:
    watch(connection)
    judged(connection, minutes_ago(60), coins(11, 0.9, 200), minutes=20)
    advance(connection)
    before = counted(connection), statistic(connection)
    connection.execute("select flywheel._fold()")
    assert advance(connection) == 0
    assert (counted(connection), statistic(connection)) == before
    judged(connection, minutes_ago(60), [False] * 4, minutes=20)
    connection.execute("select flywheel._fold()")
    advance(connection)
    assert counted(connection) == (before[0][0], before[0][1] + 4)
    assert statistic(connection) > before[1]


def test_the_minute_that_goes_on_the_future_and_last_year_are_not_counted(connection: Connection) -> None:
    watch(connection)
    for minutes in (0, -600, 60 * 24 * 365):
        judged(connection, minutes_ago(minutes), [False] * 50)
    advance(connection)
    assert counted(connection) == (0, 0)
    assert drifted(connection) == []


def test_verdicts_taken_away_are_forgotten_without_evidence(connection: Connection) -> None:
    watch(connection)
    judged(connection, minutes_ago(60), [False] * 5, user_id="gone")
    advance(connection)
    before = statistic(connection)
    connection.execute(
        "delete from flywheel.scores where span_id in (select span_id from flywheel.spans where user_id = 'gone')"
    )
    advance(connection)
    assert (counted(connection), statistic(connection)) == ((0, 0), before)


def test_two_workers_at_once_count_every_verdict_once(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    watch(connection)
    judged(connection, minutes_ago(300), coins(7, 0.9, 1000), minutes=200)
    sessions = [connect() for _ in range(4)]
    threads = [threading.Thread(target=advance, args=(each,)) for each in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    advance(connection)
    assert sum(counted(connection)) == 1000
    whole = value(
        connection,
        "select sum(greatest(0, least(baseline_n, 3000))) from flywheel._monitors",
    )
    assert whole == 3000


def test_a_version_that_replaces_another_learns_anew(connection: Connection) -> None:
    watch(connection)
    _, version, *_ = define(connection, "short", lane="inline", expression="length(span.output) < 11")
    connection.execute("select flywheel.activate_validator('short', %s)", [version])
    judged(connection, minutes_ago(5), [False] * 100)
    advance(connection)
    known = rows(connection, "select baseline_n, baseline_failed, fitted_n from flywheel._monitors")
    assert known == [(100, 100, None)]
    assert status(connection) == {}


def test_few_verdicts_are_learned_from_and_alarm_nobody(connection: Connection) -> None:
    judged(connection, minutes_ago(60 * 24), [True] * 200)
    advance(connection)
    judged(connection, minutes_ago(5), [False] * 99)
    connection.execute("update flywheel._monitors set counted_from = counted_from - interval '12 hours'")
    advance(connection)
    assert rows(connection, "select baseline_n, fitted_n from flywheel._monitors") == [(299, None)]
    assert status(connection) == {}


def test_where_nothing_ever_failed_one_fail_is_no_alarm(connection: Connection) -> None:
    watch(connection, rate=1.0, count=1000)
    assert rows(connection, "select direction, q0 >= 0.005 from flywheel._cusums") == [("more fails", True)]
    judged(connection, minutes_ago(60), [True] * 99 + [False])
    advance(connection)
    assert drifted(connection) == []
    judged(connection, minutes_ago(30), [True, False] * 10)
    advance(connection)
    assert drifted(connection) == [MORE]


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_a_constant_or_even_rate_is_watched_without_error(connection: Connection, rate: float) -> None:
    watch(connection, rate=rate, count=500)
    judged(connection, minutes_ago(60), coins(8, rate, 500), minutes=50)
    advance(connection)
    assert drifted(connection) == []


def test_slices_are_watched_apart_and_their_names_are_only_names(connection: Connection) -> None:
    connection.execute("select flywheel.watch_by('{node,release}')")
    hostile = "'; drop table flywheel.spans; --\n\x1b[31m<script>"
    watch(connection, node=hostile, count=500)
    watch(connection, node="calm", count=500)
    judged(connection, minutes_ago(300), coins(9, 0.6, 300), minutes=200, node=hostile)
    judged(connection, minutes_ago(300), coins(9, 0.95, 300), minutes=200, node="calm")
    advance(connection)
    alarms = [where for (_, where), said in status(connection).items() if said[0]]
    assert alarms == [f'project "default", node "{hostile}", release ""']


def test_only_what_a_verdict_has_can_be_watched_by(connection: Connection) -> None:
    refusals = {
        "{node,user_id}": "pass rates cannot be watched by 'user_id'",
        "{node,null}": "pass rates cannot be watched by null",
        "{{node,release},{release,node}}": "pass rates cannot be watched by lists of lists",
        None: "pass rates cannot be watched by null",
    }
    for wanted, problem in refusals.items():
        said = refused(connection, "select flywheel.watch_by(%s::text[])", [wanted])
        assert (said.sqlstate, (said.message_primary or "").startswith(problem)) == ("22023", True)
    connection.execute("select flywheel.watch_by('{}')")


def test_thousands_of_values_make_no_more_monitors_than_are_wanted(connection: Connection) -> None:
    connection.execute("select flywheel.watch_by('{node}')")
    connection.execute("update flywheel.settings set value = '20' where name = 'drift_monitors'")
    connection.execute(
        "insert into flywheel.spans (node, output)"
        " select 'node ' || least(n, 2000), 'a' from generate_series(1, 2050) as n"
    )
    advance(connection)
    assert value(connection, "select count(*) from flywheel._monitors") == 20
    assert value(connection, "select count(*) from flywheel._monitors where node = 'node 2000'") == 1


def test_limits_share_the_budget_of_false_alarms(connection: Connection) -> None:
    watch(connection, rate=0.9)
    spent = """
      select sum(items_per_month / flywheel.cusum_arl(q0, q1, threshold))
        from flywheel._cusums join flywheel._monitors using (monitor_id)"""
    assert 1.0 < value(connection, spent) <= 2.0  # the default
    connection.execute("update flywheel.settings set value = '200' where name = 'drift_false_alarms_per_month'")
    connection.execute("update flywheel._monitors set fitted_at = now() - interval '2 days'")
    advance(connection)
    assert 2.0 < value(connection, spent) <= 200


@pytest.mark.parametrize("case", cases("drift"))
def test_verdict_by_verdict_the_watch_first_alarms_where_the_reference_does(calculator: Connection, case: Case) -> None:
    if "stream_pass" not in case["input"]:
        return
    stream, expected = case["input"]["stream_pass"], case["expected"]["bernoulli_cusum_spec"]
    first = expected["alarms_with_reset"][0]
    query = """
      select (flywheel._run_cusum(
               row(gen_random_uuid(), 'more fails', %s, %s, %s, 0, 0, 0, null, null)::flywheel._cusums,
               %s::bigint[], %s::bigint[])).alarmed_at is not null"""

    def alarmed(verdicts: list[int]) -> bool:
        fails = [1 - each for each in verdicts]
        return bool(value(calculator, query, [expected["q0"], expected["q1"], expected["h"], verdicts, fails]))

    assert alarmed(stream[: first + 1])
    assert not alarmed(stream[:first])


def test_names_of_any_length_do_not_stop_the_watch(connection: Connection) -> None:
    watch(connection)
    judged(connection, minutes_ago(60), [False] * 40, environment="x" * 10_000)
    assert advance(connection) >= 1
    assert len(BAD) > 10
