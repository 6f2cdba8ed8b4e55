"""Sentinels of judges: which items are chosen, when they are due, and what a change of their verdicts means."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.exampling import label, span
from tests.sql.paying import judge, provider
from tests.sql.support import Connection, define, refused, rows, value


@pytest.fixture(autouse=True)
def version(connection: Connection) -> uuid.UUID:
    provider(connection)
    return judge(connection)


def labelled(connection: Connection, passes: int, fails: int, split: str = "dev", first: int = 0) -> None:
    for number in range(passes + fails):
        span_id = span(connection, split, first + number, output=f"answer {number}", node="'; <b>\x1b[31m")
        label(connection, span_id, number < passes)


def choose(connection: Connection, n: int = 40) -> int:
    return int(value(connection, "select flywheel.choose_sentinels('polite', %s)", [n]))


@pytest.fixture
def chosen(connection: Connection) -> list[tuple[uuid.UUID, bool]]:
    """Forty sentinels with their labels."""
    labelled(connection, 20, 20)
    assert choose(connection) == 40
    return [
        (row[0], row[1]) for row in rows(connection, "select sentinel_id, passed from flywheel.sentinels order by 1")
    ]


def run(connection: Connection, version: uuid.UUID, day: int, verdicts: Mapping[uuid.UUID, bool | None]) -> None:
    said = [
        {"sentinel_id": str(each), "passed": passed, "reason": "refused" if passed is None else None}
        for each, passed in verdicts.items()
    ]
    at = datetime.now(UTC) - timedelta(days=10 - day)
    value(connection, "select flywheel._write_sentinel_run(%s, %s, %s)", [version, at, Jsonb(said)])


def drift(connection: Connection) -> tuple[Any, ...]:
    query = "select verdict, n, agreement, usual_agreement, identical_share, judge_changed from flywheel.judge_drift"
    found = rows(connection, query)
    assert len(found) == 1
    return found[0]


def test_half_of_each_verdict_is_chosen_of_dev_alone(connection: Connection) -> None:
    labelled(connection, 12, 5)
    labelled(connection, 5, 5, split="train")
    labelled(connection, 5, 5, split="test")
    assert choose(connection, 20) == 15
    found = rows(connection, "select passed, count(*) from flywheel.sentinels group by 1 order by 1")
    assert found == [(False, 5), (True, 10)]
    before = rows(connection, "select sentinel_id from flywheel.sentinels order by 1")
    assert choose(connection, 20) == 15
    assert rows(connection, "select sentinel_id from flywheel.sentinels order by 1") == before


def test_there_is_nothing_to_choose_without_labels_and_nothing_of_nobody(connection: Connection) -> None:
    assert choose(connection) == 0
    said = refused(connection, "select flywheel.choose_sentinels('nobody')").message_primary
    assert said == "there is no judge nobody"
    assert refused(connection, "select flywheel.choose_sentinels('polite', 1)").sqlstate == "22023"


def test_a_sentinel_stays_as_it_was_when_its_span_changes_or_goes(connection: Connection) -> None:
    labelled(connection, 1, 1)
    choose(connection)
    connection.execute("update flywheel.spans set output = 'changed'")
    connection.execute("delete from flywheel.spans")
    items = rows(
        connection,
        "select output, node from flywheel._sentinel_items((select version_id from flywheel.validator_versions))",
    )
    assert sorted(items) == [("answer 0", "'; <b>\x1b[31m"), ("answer 1", "'; <b>\x1b[31m")]


def test_judges_are_due_once_a_day_while_they_are_active_and_have_sentinels(
    connection: Connection, version: uuid.UUID
) -> None:
    due = "select array_agg(version_id) from flywheel._sentinels_due()"
    assert value(connection, due) is None
    labelled(connection, 2, 2)
    choose(connection)
    assert value(connection, due) == [version]
    only = rows(connection, "select sentinel_id from flywheel.sentinels")[0][0]
    run(connection, version, 8, {only: True})
    assert value(connection, due) == [version]
    run(connection, version, 10, {only: True})
    assert value(connection, due) is None
    connection.execute("update flywheel.settings set value = '1' where name = 'sentinel_hours'")
    connection.execute("delete from flywheel.sentinel_runs")
    assert value(connection, due) == [version]
    assert value(connection, "select flywheel.retire_sentinels('polite')") == 4
    assert value(connection, due) is None


def test_the_first_run_has_nothing_to_be_compared_with(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    run(connection, version, 1, dict(chosen))
    assert drift(connection) == ("not enough data", 0, 1.0, None, None, False)
    assert value(connection, "select drifted from flywheel.drift_tests where kind = 'sentinels'") is None


def test_the_same_verdicts_again_are_no_change(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    for day in (1, 2, 3):
        run(connection, version, day, dict(chosen))
    assert drift(connection) == ("nothing changed", 40, 1.0, 1.0, 1.0, False)
    assert value(connection, "select bool_or(drifted) from flywheel.drift_tests") is False


def test_a_judge_that_suddenly_passes_what_it_failed_has_changed(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    for day in (1, 2, 3):
        run(connection, version, day, dict(chosen))
    run(connection, version, 4, dict.fromkeys([each for each, _ in chosen], True))
    assert drift(connection) == ("the judge changed", 40, 0.5, 1.0, 0.5, True)
    drifted = "select slice, version, effect from flywheel.drift_status where kind = 'sentinels' and drifted"
    assert rows(connection, drifted) == [("sentinels", 1, -0.5)]


def test_verdicts_that_turn_both_ways_are_a_change_too(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    wrong = {each: (place % 2 == 0) for place, (each, _) in enumerate(chosen)}
    turned = {each: (place % 2 == 1) for place, (each, _) in enumerate(chosen)}
    run(connection, version, 1, wrong)
    run(connection, version, 2, turned)
    assert drift(connection)[0] == "the judge changed"


def test_a_judge_that_always_wavers_has_not_changed(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    for day in range(1, 7):
        wavering = {each: passed if (place + day) % 5 else not passed for place, (each, passed) in enumerate(chosen)}
        run(connection, version, day, wavering)
    assert drift(connection)[0] == "nothing changed"


def test_an_alarm_while_the_sentinels_stay_is_the_applications(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    for day in (1, 2):
        run(connection, version, day, dict(chosen))
    alarm(connection, "cusum", version)
    assert drift(connection)[0] == "the application changed"
    run(connection, version, 3, dict.fromkeys([each for each, _ in chosen], True))
    assert drift(connection)[0] == "the judge changed"  # which explains the alarm
    connection.execute(
        """insert into flywheel._monitors (monitor_id, version_id, project, counted_from)
           values (gen_random_uuid(), %s, 'default', now())""",
        [version],
    )
    alarm(connection, "embedding_mmd", None)
    assert drift(connection)[0] == "both"


def alarm(connection: Connection, kind: str, version: uuid.UUID | None) -> None:
    """Write a test that gives alarm."""
    connection.execute(
        """insert into flywheel.drift_tests (test_id, kind, subject, slice, project, version_id, drifted)
           values (gen_random_uuid(), %s, 'something', 'project default', 'default', %s, true)""",
        [kind, version],
    )


def test_fewer_than_thirty_items_are_not_enough(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    few = dict(chosen[:29])
    run(connection, version, 1, few)
    run(connection, version, 2, {each: not passed for each, passed in few.items()})
    assert drift(connection)[0] == "not enough data"


def test_what_got_no_verdict_counts_neither_way(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    run(connection, version, 1, dict(chosen))
    run(connection, version, 2, {each: None if place < 5 else passed for place, (each, passed) in enumerate(chosen)})
    assert drift(connection)[:3] == ("nothing changed", 35, 1.0)
    run(connection, version, 3, dict.fromkeys([each for each, _ in chosen]))
    assert drift(connection)[:3] == ("not enough data", 0, None)


def test_another_version_is_compared_with_itself_only(
    connection: Connection, version: uuid.UUID, chosen: list[tuple[uuid.UUID, bool]]
) -> None:
    run(connection, version, 1, dict(chosen))
    define(
        connection, "polite", kind="judge", question="?", pass_when="a", fail_when="b", model="small", provider="fake"
    )
    connection.execute("select flywheel.activate_validator('polite', 2)")
    newer = value(
        connection, "select version_id from flywheel.validator_status where validator = 'polite' and version = 2"
    )
    run(connection, newer, 2, {each: not passed for each, passed in chosen})
    assert drift(connection)[:2] == ("not enough data", 0)
