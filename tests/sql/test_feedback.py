"""What users did: thumbs, ratings, edits, and asking the same again."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.plans.test_plans import days, reads
from tests.sql.days import noon, today
from tests.sql.support import Connection, insert, rows, value

ASKED = "How do I reset the door sensor?"
AGAIN = "how can I reset the door sensor"
OTHER = "Which batteries does the remote control take?"


def feedback(connection: Connection, kind: str, number: float | None = None, **columns: Any) -> None:
    given = {
        "feedback_id": uuid.uuid4(),
        "kind": kind,
        "value": number,
        "project": "shop",
        "created_at": noon(),
        **columns,
    }
    if not {"span_id", "trace_id"} & given.keys():
        given["span_id"] = uuid.uuid4()
    names, places = ", ".join(given), ", ".join(["%s"] * len(given))
    connection.execute(f"insert into flywheel.feedback ({names}) values ({places})".encode(), list(given.values()))


def edit(connection: Connection, draft: str | None, kept: str | None, **columns: Any) -> None:
    span = insert(connection, draft, started_at=noon())
    feedback(connection, "edit", span_id=span, **{"comment": kept, **columns})


def ask(connection: Connection, seconds: float, text: str = ASKED, **columns: Any) -> uuid.UUID:
    """Insert a request of session s so many seconds after noon of yesterday."""
    usual = {"input": text, "session_id": "s", "user_id": "u", "started_at": noon() + timedelta(seconds=seconds)}
    return insert(connection, "an answer", **{**usual, **columns})


def pairs(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, "select kind, span_id, next_span_id from flywheel.rephrases order by time")


def test_thumbs_have_a_rate_with_an_interval_and_ratings_a_mean(connection: Connection) -> None:
    for number in (1, 1, 1, 0, -1, None, float("nan"), float("inf")):
        feedback(connection, "thumb", number)
    for number in (2, 5, None):
        feedback(connection, "rating", number)
    for kind in ("restart", "correction", "correction", "shared on the wall"):
        feedback(connection, kind)
    ((time, thumbs, up, rate, low, high, ratings, mean, restarts, corrections, others),) = rows(
        connection,
        """select time, thumbs, thumbs_up, thumb_rate, thumb_low, thumb_high, ratings, mean_rating,
                  restarts, corrections, others from flywheel.feedback_by_day""",
    )
    assert (time, thumbs, up, ratings, restarts, corrections, others) == (today() - timedelta(days=1), 5, 3, 2, 1, 2, 1)
    assert (rate, mean) == (pytest.approx(0.6), pytest.approx(3.5))
    assert 0 < low < rate < high < 1


def test_nothing_said_is_no_rate(connection: Connection) -> None:
    assert rows(connection, "select * from flywheel.feedback_by_day") == []
    feedback(connection, "restart")
    columns = "thumb_rate, thumb_low, thumb_high, mean_rating, mean_edit_ratio"
    assert rows(connection, f"select {columns} from flywheel.feedback_by_day") == [(None, 0, 1, None, None)]


def test_edits_are_measured_against_what_was_served(connection: Connection) -> None:
    edit(connection, "0123456789", "0123456789")
    edit(connection, "0123456789" * 2, "0123456789" * 2 + "!")
    edit(connection, "0123456789", "01234567ab")
    edit(connection, "0123456789", "something else")
    edit(connection, "0123456789", "why", attributes=Jsonb({"final": "0123456789"}))
    edit(connection, "0123456789", None)
    edit(connection, None, "text")
    feedback(connection, "edit", comment="a span nobody knows")
    ((*counts, ratio),) = rows(
        connection,
        "select edits, measured, accepted, minor, edited, rewritten, mean_edit_ratio from flywheel.feedback_by_day",
    )
    assert counts == [8, 5, 2, 1, 1, 1]
    assert ratio == pytest.approx((0 + 1 / 21 + 0.2 + 1.0 + 0) / 5, abs=0.02)


def test_an_edit_of_a_trace_is_one_of_its_root_span(connection: Connection) -> None:
    trace = uuid.uuid4()
    root = insert(connection, "the answer", trace_id=trace, started_at=noon())
    insert(connection, "a step", trace_id=trace, parent_span_id=root, started_at=noon())
    feedback(connection, "edit", trace_id=trace, comment="the answer")
    assert rows(connection, "select edits, measured, accepted from flywheel.feedback_by_day") == [(1, 1, 1)]


def test_a_day_of_feedback_is_found_by_its_index_and_only_its_edits_are_measured(connection: Connection) -> None:
    connection.execute(
        """insert into flywheel.feedback (feedback_id, span_id, kind, comment, created_at)
           select gen_random_uuid(), gen_random_uuid(), case when mod(n, 100) = 0 then 'edit' else 'thumb' end, 'text',
                  %s - n * interval '5 minutes' from generate_series(1, 20000) as n""",
        [today()],
    )
    connection.execute("analyze flywheel.feedback")
    plan = "\n".join(
        line
        for (line,) in rows(
            connection,
            """explain (analyze, costs off, timing off, summary off, buffers off)
               select * from flywheel.feedback_by_day where time >= %s""",
            [today() - timedelta(days=1)],
        )
    )
    assert "feedback_day" in plan
    assert "Seq Scan on feedback" not in plan
    ((read,),) = rows(
        connection, "select count(*) from flywheel.feedback where created_at >= %s", [today() - timedelta(days=1)]
    )
    assert f"rows={read}" in plan.replace(".00", "")


def test_feedback_dated_at_the_ends_of_time_is_counted(connection: Connection) -> None:
    for when in ("-infinity", "infinity", "0044-03-15 BC"):
        feedback(connection, "edit", comment="text", created_at=when)
    assert value(connection, "select sum(edits) from flywheel.feedback_by_day") == 3


def test_asking_again_in_other_words_is_a_rephrase_and_in_the_same_a_retry(connection: Connection) -> None:
    first, second, third, last = (
        ask(connection, 0), ask(connection, 20, AGAIN), ask(connection, 40, AGAIN.upper()), ask(connection, 60, OTHER)
    )  # fmt: skip
    assert pairs(connection) == [("rephrase", first, second), ("retry", second, third)]
    ((score, similarity, by, gap),) = rows(
        connection,
        "select score, similarity, similar_by, gap_seconds from flywheel.rephrases where kind = 'rephrase'",
    )
    assert 0 < score < 1
    assert (by, gap) == ("trigrams", 20)
    assert similarity == pytest.approx(value(connection, "select flywheel.trigram_similarity(%s, %s)", [ASKED, AGAIN]))
    topics = rows(connection, "select topic, turns, rephrased, retried, rephrase_rate from flywheel.rephrases_by_topic")
    assert topics == [("app", 4, 1, 1, 0.25)]
    assert last


@pytest.mark.parametrize(
    "other",
    [
        {"session_id": "another"},
        {"user_id": "another"},
        {"project": "another"},
        {"started_at": noon() + timedelta(seconds=181)},
        {"parent_span_id": uuid.UUID(int=1)},
        {"input": OTHER},
        {"input": None},
    ],
    ids=lambda other: next(iter(other)) + str(next(iter(other.values())))[:8],
)
def test_what_another_asks_or_much_later_or_something_else_is_no_rephrase(
    connection: Connection, other: dict[str, Any]
) -> None:
    ask(connection, 0)
    ask(connection, 20, **{"input": AGAIN, **other})
    assert pairs(connection) == []


@pytest.mark.parametrize(
    ("kind", "number", "counts"), [("thumb", 1, 0), ("copy", None, 0), ("accept", None, 0), ("thumb", 0, 1)]
)
def test_an_answer_that_was_liked_was_not_rephrased(
    connection: Connection, kind: str, number: float | None, counts: int
) -> None:
    first = ask(connection, 0)
    feedback(connection, kind, number, span_id=first, created_at=noon() + timedelta(seconds=5))
    feedback(connection, "thumb", 1, span_id=first, created_at=noon() + timedelta(seconds=50))
    ask(connection, 20, AGAIN)
    assert len(pairs(connection)) == counts


def test_sessions_no_person_could_have_are_left_out(connection: Connection) -> None:
    for turn in range(21):
        ask(connection, turn * 2, AGAIN + " please" * (turn % 2), session_id="bot")
        ask(connection, turn * 4, AGAIN + " please" * (turn % 2), session_id="eager")
    assert rows(connection, "select distinct session_id from flywheel.rephrases") == [("eager",)]
    assert rows(connection, "select turns from flywheel.rephrases_by_topic") == [(21,)]


def embed(connection: Connection, kind: str, vectors: dict[uuid.UUID, list[float]]) -> None:
    """Give spans vectors of their input, by a serving embedder of that kind."""
    connection.execute("update flywheel.embedders set status = 'retired' where status = 'serving'")
    embedder = value(
        connection,
        """insert into flywheel.embedders (embedder_id, name, kind, model, dimensions, status)
           values (gen_random_uuid(), %s, %s, 'm', 8, 'serving') returning embedder_id""",
        [kind + "-test", kind],
    )
    for span_id, vector in vectors.items():
        connection.execute(
            """insert into flywheel.span_embeddings
                      (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
               select span_id, started_at, revision, %s, 'input', '', %s::text::public.halfvec
                 from flywheel.spans where span_id = %s""",
            [embedder, str(vector + [0.0] * (8 - len(vector))), span_id],
        )


@pytest.mark.parametrize(
    ("kind", "vector", "expected"),
    [
        ("sentence_transformers", [0.9, 0.435], [("rephrase", "embedding", 0.9)]),
        ("sentence_transformers", [0.5, 0.866], []),
        ("sentence_transformers", [1.0, 0.001], [("retry", "embedding", 1.0)]),
        ("hashing", [0.9, 0.435], []),
    ],
)
def test_vectors_that_know_meaning_decide_where_there_are_any(
    connection: Connection, kind: str, vector: list[float], expected: list[tuple[str, str, float]]
) -> None:
    first, second = ask(connection, 0), ask(connection, 20, OTHER)
    embed(connection, kind, {first: [1.0], second: vector})
    found = rows(connection, "select kind, similar_by, similarity from flywheel.rephrases")
    assert found == [(*known, pytest.approx(cosine, abs=0.01)) for *known, cosine in expected]


def test_a_pair_across_the_end_of_a_window_belongs_to_its_first_request(connection: Connection) -> None:
    ask(connection, -10)
    ask(connection, 10, AGAIN)
    count = "select count(*) from flywheel.rephrases(%s, %s)"
    hour = timedelta(hours=1)
    assert [value(connection, count, given) for given in ([noon() - hour, noon()], [noon(), noon() + hour])] == [1, 0]


def test_hostile_and_endless_texts_only_make_pairs(connection: Connection) -> None:
    evil = "'; drop table flywheel.spans; -- <script>alert(1)</script> \\ %s {} \u202e"
    for seconds, text in enumerate([evil, evil + "?", "a" * 500_000, "a" * 500_000 + "b", "", "   ", "\U0001f600"]):
        ask(connection, seconds * 10, text, session_id=evil, node=evil)
    assert len(pairs(connection)) >= 2
    assert rows(connection, "select topic, turns from flywheel.rephrases_by_topic") == [(evil, 7)]


def test_a_window_of_requests_leaves_other_days_unread(connection: Connection) -> None:
    connection.execute(
        "select flywheel.ensure_partitions(%s, %s)", [today().date() - timedelta(days=9), today().date()]
    )
    for ago in range(5):
        ask(connection, -86400 * ago)
        ask(connection, -86400 * ago + 20, AGAIN)
    found = reads(connection, "select count(*) from flywheel.rephrases(%s, %s)", [noon(), today()])
    assert days(found, "spans") == {f"spans_{noon():%Y%m%d}"}
