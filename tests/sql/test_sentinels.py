"""Sentinels: what a new example does to votes on labelled items that were held out, and what is seen of it later."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest

from tests.sql.exampling import embed, example, label, polite, span, status, unit
from tests.sql.support import Connection, define, insert, rows, value
from tests.sql.test_embeddings import embed_all, embedder

TRAIN = """
  select array(select 'group ' || n from generate_series(1, 5000) as n
                where flywheel._split('group ' || n) = 'train' order by n limit %s)"""
PASSES, FAILS = (1, 0, 0), (0, 1, 0)


@pytest.fixture(autouse=True)
def question(connection: Connection) -> uuid.UUID:
    return polite(connection)


def advance(connection: Connection) -> int:
    return int(value(connection, "select flywheel._advance_examples()"))


def pool(connection: Connection, members: int, near: Sequence[float], passed: bool, first: int = 0) -> None:
    """Make examples that were compared already, each near a direction and in one of its own."""
    groups = value(connection, TRAIN, [first + members])[first:]
    for number, group in enumerate(groups):
        span_id = insert(connection, session_id=group, output=f"answer {first + number}")
        label(connection, span_id, passed)
    connection.execute(
        """
        insert into flywheel._example_embeddings
               (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
        select e.example_id, embedder_id, 'item', e.validator_id, true, e.content_hash,
               l2_normalize((%s::real[] || array_fill(0::real, array[place]) || 0.4::real
                             || array_fill(0::real, array[380 - place]))::halfvec)
          from (select *, row_number() over (order by created_at, example_id)::integer as place
                  from flywheel.examples where compared_at is null) as e, flywheel.embedders
        """,
        [list(near)],
    )
    connection.execute("update flywheel.examples set compared_at = now() where compared_at is null")


def sentinels(connection: Connection, count: int, passed: bool, near: Sequence[float], first: int = 0) -> None:
    """Label spans of dev, and give each a vector near a direction."""
    for number in range(first, first + count):
        span_id = span(connection, "dev", number)
        label(connection, span_id, passed)
        connection.execute(
            """insert into flywheel.span_embeddings
                      (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
               select span_id, started_at, revision, embedder_id, 'item', '', %s::real[]::halfvec
                 from flywheel.spans, flywheel.embedders where span_id = %s""",
            [unit(*near, *[0.0] * (200 + number), 0.5), span_id],
        )


@pytest.fixture
def opinions(connection: Connection) -> None:
    """Twelve passes in one direction, twelve fails in another."""
    pool(connection, 12, PASSES, True)
    pool(connection, 12, FAILS, False, first=12)


def judged(connection: Connection, passed: bool, *vector: float) -> tuple[str, str | None]:
    """Make an example with a vector, let it be compared, and return what became of it."""
    found = example(connection, 30, passed, output="the new one")
    embed(connection, found, *vector)
    assert advance(connection) == 1
    return status(connection, found)


@pytest.mark.usefixtures("opinions")
def test_an_example_that_turns_votes_on_sentinels_wrong_is_quarantined(connection: Connection) -> None:
    sentinels(connection, 4, True, (1, 0.8, 0))
    sentinels(connection, 3, False, FAILS, first=4)
    assert judged(connection, False, 1, 0.8, 0) == ("quarantined", "sentinel_flips")
    detail = value(connection, "select quarantined_detail from flywheel.examples where quarantined_reason is not null")
    assert "on 4 of 7 sentinel items" in detail
    release = "select flywheel.release_example(example_id, 'bob', 'it is right') from flywheel.examples"
    assert value(connection, f"{release} where status = 'quarantined'") == "servable"
    assert advance(connection) == 0


def test_in_a_small_pool_every_example_is_near_everything_and_nothing_is_concluded(connection: Connection) -> None:
    pool(connection, 10, PASSES, True)
    pool(connection, 10, FAILS, False, first=10)
    sentinels(connection, 4, True, (1, 0.8, 0))
    assert judged(connection, False, 1, 0.8, 0) == ("servable", None)


@pytest.mark.usefixtures("opinions")
def test_two_that_turn_votes_wrong_do_not_hide_one_another(connection: Connection) -> None:
    sentinels(connection, 4, True, (1, 0.8, 0))
    found = [example(connection, 30 + n, False, output=f"the new one {n}") for n in range(2)]
    for number, each in enumerate(found):
        embed(connection, each, 1, 0.8, 0.05 * number)
    assert advance(connection) == 2
    assert [status(connection, each) for each in found] == [("quarantined", "sentinel_flips")] * 2


@pytest.mark.usefixtures("opinions")
def test_an_example_that_turns_votes_right_is_shown(connection: Connection) -> None:
    sentinels(connection, 4, False, (1, 0.8, 0))
    assert judged(connection, False, 1, 0.8, 0) == ("servable", None)


@pytest.mark.usefixtures("opinions")
def test_an_example_that_changes_no_vote_is_shown(connection: Connection) -> None:
    sentinels(connection, 4, True, (1, 0.8, 0))
    assert judged(connection, False, 0, 1, 0.3) == ("servable", None)


@pytest.mark.usefixtures("opinions")
def test_a_single_flip_quarantines_nothing(connection: Connection) -> None:
    sentinels(connection, 1, True, (1, 0.8, 0))
    assert judged(connection, False, 1, 0.8, 0) == ("servable", None)


@pytest.mark.usefixtures("opinions")
def test_without_sentinels_nothing_is_quarantined_for_them(connection: Connection) -> None:
    assert judged(connection, False, 1, 0.8, 0) == ("servable", None)


@pytest.mark.usefixtures("opinions")
@pytest.mark.parametrize("split", ["test", "train"])
def test_only_items_of_the_dev_split_are_sentinels(connection: Connection, split: str) -> None:
    sentinels(connection, 4, True, (1, 0.8, 0))
    connection.execute("update flywheel.labels set split = %s where split = 'dev'", [split])
    assert judged(connection, False, 1, 0.8, 0) == ("servable", None)


@pytest.mark.usefixtures("opinions")
def test_what_a_person_signed_is_not_held_back_for_sentinels(connection: Connection) -> None:
    sentinels(connection, 4, True, (1, 0.8, 0))
    found = example(connection, 30, False, output="the new one")
    embed(connection, found, 1, 0.8, 0)
    connection.execute("select flywheel.sign_example(%s, 'bob')", [found])
    advance(connection)
    assert status(connection, found) == ("servable", None)


def known_vectors(connection: Connection) -> list[uuid.UUID]:
    query = "select span_id from flywheel.span_embeddings where part = 'item' order by span_id"
    return [found for (found,) in rows(connection, query)]


def test_labelled_spans_of_dev_get_vectors_and_no_others(connection: Connection) -> None:
    spans = {split: span(connection, split, 0) for split in ("train", "dev", "test")}
    for span_id in spans.values():
        label(connection, span_id)
    embed_all(connection)
    assert known_vectors(connection) == [spans["dev"]]
    label(connection, spans["dev"], by="bob")
    assert value(connection, "select count(*) from flywheel._ready where lane = 'embed'") == 0


def test_a_new_embedder_gets_the_labelled_spans_of_dev_too(connection: Connection) -> None:
    label(connection, span(connection, "dev", 0))
    embed_all(connection)
    connection.execute("select flywheel.add_embedder('wide', 'hashing', dimensions => 512)")
    embed_all(connection)
    query = "select count(*) from flywheel.span_embeddings where embedder_id = %s and part = 'item'"
    assert value(connection, query, [embedder(connection, "wide")]) == 1


def test_an_example_far_from_all_others_is_quarantined(connection: Connection) -> None:
    pool(connection, 100, (1, 0, 0), True)
    within, beyond = (example(connection, 110 + n, output=f"other {n}") for n in range(2))
    embed(connection, within, 1, 0, 0.4)
    embed(connection, beyond, 0, 0, 1)
    assert advance(connection) == 2
    assert status(connection, within) == ("servable", None)
    assert status(connection, beyond) == ("quarantined", "outlier")


def test_among_fewer_than_a_hundred_nothing_is_an_outlier(connection: Connection) -> None:
    pool(connection, 98, (1, 0, 0), True)
    beyond = example(connection, 110, output="other")
    embed(connection, beyond, 0, 0, 1)
    advance(connection)
    assert status(connection, beyond) == ("servable", None)


def score(connection: Connection, span_id: uuid.UUID, passed: bool, validator: str = "polite") -> None:
    """Insert a score of the newest version of a validator."""
    connection.execute(
        """insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
           select span_id, revision, version_id, started_at, trace_id, project, %s
             from flywheel.spans, flywheel.validator_versions join flywheel.validators using (validator_id)
            where span_id = %s and name = %s order by version desc limit 1""",
        [passed, span_id, validator],
    )


def disagreed(connection: Connection, span_id: uuid.UUID) -> bool:
    return bool(value(connection, "select disagreed from flywheel.examples where span_id = %s", [span_id]))


def test_a_judge_that_is_wrong_after_the_label_marks_the_example(connection: Connection) -> None:
    wrong, right = (span(connection, "train", n, output=f"answer {n}") for n in range(2))
    for span_id in (wrong, right):
        label(connection, span_id, False)
    score(connection, wrong, True)
    score(connection, right, False)
    assert advance(connection) == 1
    assert (disagreed(connection, wrong), disagreed(connection, right)) == (True, False)
    before = rows(connection, "select xmin from flywheel.examples order by example_id")
    assert advance(connection) == 0
    assert rows(connection, "select xmin from flywheel.examples order by example_id") == before


def test_a_newer_version_that_is_wrong_marks_the_example(connection: Connection) -> None:
    span_id = span(connection)
    label(connection, span_id, True)
    score(connection, span_id, True)
    assert advance(connection) == 0
    polite(connection, question="Is it kind?")
    score(connection, span_id, False)
    assert advance(connection) == 1
    assert disagreed(connection, span_id)


def test_checks_and_other_questions_mark_no_example(connection: Connection) -> None:
    span_id = span(connection)
    label(connection, span_id, False)
    define(connection, "brief")
    polite(connection, "kind")
    score(connection, span_id, True, "brief")
    score(connection, span_id, True, "kind")
    assert advance(connection) == 0
    assert not disagreed(connection, span_id)


def test_a_fix_of_what_a_judge_let_pass_later_is_marked(connection: Connection) -> None:
    span_id = span(connection)
    connection.execute("select flywheel.record_fix(%s, 'better', 'ada', 'polite', 'rude', 'so')", [span_id])
    score(connection, span_id, True)
    assert advance(connection) == 1
    assert disagreed(connection, span_id)
