"""Rephrases of many requests at once: the same pairs as asking about each by itself, with each text read once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sql.reference import close
from tests.sql.support import Connection, rows, value

DAY = "'2024-05-06 00:00+00', '2024-05-07 00:00+00'"
# Ten sessions that ask anew, in the same words, in other words, and sometimes after more than three minutes.
_REQUESTS = """
insert into flywheel.spans (project, session_id, user_id, input, output, started_at)
select 'shop', 's' || n % 10, 'u' || n % 20 / 10,
       (array['Reset the sensor of door ' || n / 40, 'RESET the sensor of door ' || n / 40 || ' ',
              'please reset door sensor ' || n / 40, 'no, the batteries of ' || n, '',
              'the the ÄÖÜ ǅ 東京'])[1 + abs(hashint4(n)) % 6],
       'an answer', '2024-05-06 10:00+00'::timestamptz + n * (5 + n % 7 / 6 * 20) * interval '1 second'
  from generate_series(1, 600) as n"""
_LIKED = """
insert into flywheel.feedback (feedback_id, kind, value, project, span_id, created_at)
select gen_random_uuid(), 'thumb', 1, 'shop', span_id, started_at + interval '1 second'
  from flywheel.spans where hashtext(span_id::text) % 5 = 0"""
# What the view is by its definition: every request with the next one of its session, asked one pair at a time.
_ONE_BY_ONE = """
with turn as (
  select spans.*, lead(span_id) over ordered as next_span_id, lead(input) over ordered as next_input,
         lead(started_at) over ordered as next_at
    from flywheel.spans window ordered as (partition by project, session_id, user_id order by started_at, span_id)
)
select turn.span_id, next_span_id, asked.kind, asked.score, flywheel.trigram_similarity(input, next_input)
  from turn
 cross join lateral (select extract(epoch from next_at - started_at)::double precision) as gap (seconds)
 cross join lateral flywheel.rephrase_score(input, next_input, null, gap.seconds) as asked
 where asked.kind is not null
   and not exists (select from flywheel.feedback as liked
                    where liked.span_id = turn.span_id and liked.created_at between turn.started_at and turn.next_at)
 order by 1"""


@pytest.fixture
def asked(connection: Connection) -> Connection:
    connection.execute(_REQUESTS.encode())
    connection.execute(_LIKED)
    return connection


def test_a_day_of_pairs_is_what_each_pair_is_by_itself(asked: Connection) -> None:
    found = rows(
        asked, f"select span_id, next_span_id, kind, score, similarity from flywheel.rephrases({DAY}) order by 1"
    )
    expected = rows(asked, _ONE_BY_ONE)
    assert [pair[:3] for pair in found] == [pair[:3] for pair in expected]
    assert [pair[3:] for pair in found] == [tuple(close(number) for number in pair[3:]) for pair in expected]
    assert {kind for _, _, kind, *_ in found} == {"retry", "rephrase"}


def test_a_day_of_pairs_compares_no_text_by_itself(asked: Connection) -> None:
    asked.execute("set track_functions = 'all'")
    with asked.transaction():
        asked.execute(f"select count(*) from flywheel.rephrases({DAY})".encode())
        called = rows(asked, "select funcname from pg_stat_xact_user_functions where calls > 2")
    assert not {("trigram_similarity",), ("_trigrams",), ("rephrase_score",)} & set(called)


def test_sessions_are_sorted_once(asked: Connection) -> None:
    body = value(
        asked, "select prosrc from pg_proc where oid = 'flywheel._paced_turns(timestamptz, timestamptz)'::regprocedure"
    )
    asked.execute(
        f"prepare paced (timestamptz, timestamptz) as {body.replace('since', '$1').replace('until', '$2')}".encode()
    )
    plan = [line.strip() for (line,) in rows(asked, f"explain (costs off) execute paced ({DAY})")]
    assert sum(line.split("->")[-1].strip() == "Sort" for line in plan) == 1
    assert sum("string_to_table" in line for line in plan) == 1


TEXTS = st.text(alphabet=st.sampled_from("aAbB 1.ß\nİéÉ_-'\u0301東\u00a0"), max_size=40)


@given(a=TEXTS, b=TEXTS)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sets_of_trigrams_share_what_the_texts_share(calculator: Connection, a: str, b: str) -> None:
    query = """select case when %(a)s = %(b)s then 1 else share end
                 from flywheel._trigram_set(%(a)s) as one (a), flywheel._trigram_set(%(b)s) as other (b),
                      flywheel._shared_trigrams(one.a, other.b)"""
    pair = {"a": a, "b": b}
    assert value(calculator, query, pair) == value(calculator, "select flywheel.trigram_similarity(%(a)s, %(b)s)", pair)
