"""Labels of unlike chance: each counts for as many spans as it stands for."""

from __future__ import annotations

import random
import uuid
from datetime import timedelta

import pytest

from tests.sql.measured import YESTERDAY, Spot, judge
from tests.sql.reference import close
from tests.sql.support import Connection, rows

BEFORE = Spot(YESTERDAY - timedelta(days=7))
AFTER = Spot(YESTERDAY)
SAID = (
    "labels were drawn with unlike chances, so each counts for as many spans as it stands for: worth {} of equal ones"
)
COPY_SCORES = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
select span_id, revision, %s, started_at, trace_id, project, true from flywheel.scores where version_id = %s"""


def worth(connection: Connection, labels: list[tuple[float, bool]]) -> tuple[float, float]:
    """Return how many passes and fails of equal labels these, weight and whether passed, are worth."""
    passing = [weight for weight, passed in labels if passed]
    every = [weight for weight, _ in labels]
    sums = [sum(weight**power for weight in weights) for power in (1, 2) for weights in (every, passing)]
    found: tuple[float, float] = rows(connection, "select pass, fail from flywheel._worth(%s, %s, %s, %s)", sums)[0]
    return found


def drawn_twice(connection: Connection) -> uuid.UUID:
    """Have 1,000 spans judged and 400 of them labelled pass, then 4,000 and 100 of them labelled fail."""
    version = judge(connection)
    BEFORE.score(connection, version, 1000, True, value=0.9)
    AFTER.score(connection, version, 4000, True, value=0.6)
    BEFORE.label(connection, version, 400, 0, 0, 0, chance=0.4)
    AFTER.label(connection, version, 0, 100, 0, 0, chance=0.025)
    return version


def test_labels_of_equal_weight_are_worth_their_number(calculator: Connection) -> None:
    for weight in (1.0, 20.0, 1 / 0.3):
        for passes, fails in ((18, 2), (20, 0), (0, 20), (1, 0)):
            labels = [(weight, True)] * passes + [(weight, False)] * fails
            assert worth(calculator, labels) == (close(passes), close(fails))
    assert worth(calculator, []) == (0, 0)


def test_unlike_labels_are_worth_what_their_spread_tells(calculator: Connection) -> None:
    chance = random.Random(3)
    for share in (0.3, 0.8, 1.0):
        labels = [(chance.choice((2.0, 30.0)), chance.random() < share) for _ in range(60)]
        whole = sum(weight for weight, _ in labels)
        rate = sum(weight for weight, passed in labels if passed) / whole
        spread = sum((weight * (passed - rate)) ** 2 for weight, passed in labels) / whole**2
        size = whole**2 / sum(weight**2 for weight, _ in labels)
        if spread:
            size = min(size, rate * (1 - rate) / spread)
        assert worth(calculator, labels) == (close(size * rate), close(size * (1 - rate)))


def test_labels_of_two_draws_count_for_the_spans_these_were_from(connection: Connection) -> None:
    drawn_twice(connection)
    size = (400 * 2.5 + 100 * 40) ** 2 / (400 * 2.5**2 + 100 * 40**2)
    interval = "select low, high from flywheel._corrected(%s, %s, 0, 0, 5000, 5000, 0.95)"
    ((low, high),) = rows(connection, interval, [size * 0.2, size * 0.8])
    query = "select labels, corrected_rate, corrected_low, corrected_high, note from flywheel.corrected_pass_rates"
    for _ in range(2):
        assert rows(connection, query) == [(500, close(0.2), close(low), close(high), SAID.format(round(size)))]
        connection.execute("select flywheel._fold()")


def test_values_do_not_sharpen_a_rate_of_unlike_labels(connection: Connection) -> None:
    drawn_twice(connection)
    methods = "select method, corrected_rate from flywheel.corrected_by_week order by 2"
    assert rows(connection, "select method from flywheel.corrected_pass_rates") == [("post_stratified",)]
    assert rows(connection, methods) == [("post_stratified", close(0.0)), ("post_stratified", close(1.0))]


def test_labels_drawn_by_what_one_version_said_hold_for_another(connection: Connection) -> None:
    version = judge(connection)
    AFTER.score(connection, version, 900, True)
    AFTER.score(connection, version, 100, False)
    AFTER.label(connection, version, 45, 0, 0, 0, stratified=True, chance=0.05)
    AFTER.label(connection, version, 0, 0, 0, 50, stratified=True, chance=0.5)
    lenient = judge(connection, pass_when="it is an answer")
    connection.execute(COPY_SCORES, [lenient, version])
    query = "select raw_rate, corrected_rate, note from flywheel.corrected_pass_rates order by version"
    (raw, corrected, note), (other_raw, other_corrected, other_note) = rows(connection, query)
    assert (raw, corrected, note) == (close(0.9), close(0.9), None)
    assert (other_raw, other_corrected) == (1, close(0.9))
    assert other_note.startswith("labels were drawn with unlike chances")


@pytest.mark.parametrize("chances", [(0.4, 0.025), (0.5, 0.05), (0.9, 0.1)])
def test_the_interval_of_unlike_labels_holds_the_truth(calculator: Connection, chances: tuple[float, float]) -> None:
    source = random.Random(11)
    draws = [(1 / chances[0], 0.95), (1 / chances[1], 0.85)]
    truth = sum(weight * rate for weight, rate in draws) / sum(weight for weight, _ in draws)
    held = 0
    for _ in range(400):
        drawn = [(weight, source.random() < rate) for weight, rate in draws for _ in range(80)]
        passes, fails = worth(calculator, drawn)
        interval = "select low <= %s and %s <= high from flywheel._wilson(%s, %s, 0.95)"
        held += rows(calculator, interval, [truth, truth, passes, passes + fails])[0][0]
    assert held / 400 >= 0.93
