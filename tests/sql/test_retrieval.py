"""Retrieval: the choice equals the reference, every strategy does what it says, guards and caps hold."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.sql.exampling import (
    at,
    embed,
    example,
    example_of,
    group_of,
    label,
    polite,
    shots,
    span,
    unit,
)
from tests.sql.reference import Case, case, cases, close
from tests.sql.support import Connection, insert, refused, rows, value

STRATEGIES = ["similar", "recent", "similar_recent", "disagreement_first", "fixed_first", "any_plus_fixed", "diverse"]
PICK = """
select picked from flywheel._pick_shots(%(k)s, %(diversity)s, %(relevance)s, %(vectors)s::text[]::halfvec[], 2,
  %(verdicts)s, %(most)s, %(off)s, 0, %(off)s, 99, %(none)s, %(none)s, %(hashes)s, %(tokens)s, %(budget)s)"""


@pytest.fixture
def version_id(connection: Connection) -> uuid.UUID:
    return polite(connection)


def vectors(given: list[list[float]]) -> list[str]:
    return [str(vector) for vector in given]


def picked(connection: Connection, relevance: list[float], **given: Any) -> list[int]:
    """Return the places a greedy choice takes, counted from 0 as in the reference."""
    data = case("mmr_selection", "data")["input"]
    places = range(len(relevance))
    usual = {
        "k": 6,
        "diversity": 0,
        "relevance": relevance,
        "vectors": vectors(data["candidates"]),
        "verdicts": [bool(passed) for passed in data["label_pass"]],
        "most": 99,
        "off": [False for _ in places],
        "none": [None for _ in places],
        "hashes": [str(place) for place in places],
        "tokens": [1 for _ in places],
        "budget": 1000,
    }
    found: list[int] = value(connection, PICK, {**usual, **given})
    return [place - 1 for place in found]


def cosines(connection: Connection) -> list[float]:
    data = case("mmr_selection", "data")["input"]
    query = """select array_agg(1 - (each::vector <=> %s::text::vector) order by place)
                 from unnest(%s::text[]) with ordinality as given(each, place)"""
    found: list[float] = value(connection, query, [str(data["query"]), vectors(data["candidates"])])
    return found


@pytest.mark.parametrize("reference", cases("mmr_selection", "plain_mmr"))
def test_mmr_equals_the_reference(calculator: Connection, reference: Case) -> None:
    diversity = 1 - reference["input"]["lambda"]
    assert picked(calculator, cosines(calculator), diversity=diversity) == reference["expected"]["order"]


@pytest.mark.parametrize("reference", cases("mmr_selection", "composite_mmr"))
def test_composite_mmr_with_and_without_label_cap_equals_the_reference(calculator: Connection, reference: Case) -> None:
    relevance = case("mmr_selection", "composite_relevance")["expected"]["relevance"]
    most = reference["input"]["max_per_label"] or 99
    order = picked(calculator, relevance, diversity=1 - reference["input"]["lambda"], most=most)
    assert order == reference["expected"]["order"]
    by_relevance = sorted(order, key=lambda place: relevance[place])
    assert by_relevance == reference["expected"]["prompt_order_least_to_most_relevant"]


def test_relevance_equals_the_reference(connection: Connection, version_id: uuid.UUID) -> None:
    data = case("mmr_selection", "data")["input"]
    connection.execute("update flywheel.embedders set dimensions = 16, kind = 'hashing'")
    expected: dict[uuid.UUID, float] = {}
    for number, vector in enumerate(data["candidates"]):
        made = example(connection, number, bool(data["label_pass"][number]), output=f"answer {number}")
        connection.execute(
            """update flywheel.examples set disagreed = %s, trust = %s, created_at = now() - make_interval(days => %s)
                where example_id = %s""",
            [bool(data["disagreed"][number]), data["trust"][number], data["age_days"][number], made],
        )
        connection.execute(
            """insert into flywheel._example_embeddings
                      (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
               select example_id, embedder_id, 'item', validator_id, true, content_hash, %s::text::halfvec
                 from flywheel.examples, flywheel.embedders where example_id = %s""",
            [str(vector), made],
        )
        expected[made] = case("mmr_selection", "composite_relevance")["expected"]["relevance"][number]
    found = rows(
        connection,
        """select shot.example_id, shot.relevance from flywheel.spans, flywheel._shots_for(%s, array[span_id],
             array[started_at], %s::real[], 16) as shot where span_id = %s""",
        [version_id, data["query"], span(connection, "dev")],
    )
    assert len(found) == 6
    assert dict(found) == close({made: expected[made] for made, _ in found}, 2e-4)  # vectors of 2 bytes a number


def test_the_most_relevant_comes_last_and_is_rank_1(connection: Connection, version_id: uuid.UUID) -> None:
    for number in range(4):
        made = example(connection, number, bool(number % 2), output=f"answer {number}")
        embed(connection, made, *at(0.9 - 0.2 * number, number))
    found = rows(
        connection,
        """select shot.rank, shot.relevance, shot.similarity from flywheel.spans,
             flywheel._shots_for(%s, array[span_id], array[started_at], %s::real[], 384) as shot where span_id = %s""",
        [version_id, unit(1), span(connection, "dev")],
    )
    assert [rank for rank, *_ in found] == [4, 3, 2, 1]
    assert found == sorted(found, key=lambda shot: shot[1])
    assert found[-1][2] == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("strategy", [*STRATEGIES, "random"])
def test_the_item_its_trace_and_its_group_are_never_shown(connection: Connection, strategy: str) -> None:
    version_id = polite(connection, shots={"strategy": strategy})
    trace_id = uuid.uuid4()
    own = span(connection, "train", 0, output="one", trace_id=trace_id)
    sibling = span(connection, "train", 0, output="two")
    other = span(connection, "train", 1, output="three", trace_id=trace_id)
    free = span(connection, "train", 2, output="four")
    for each in (own, sibling, other, free):
        label(connection, each)
        embed(connection, example_of(connection, each), 1)
    assert shots(connection, version_id, own, unit(1)) == [example_of(connection, free)]


def test_a_held_out_item_is_not_shown_what_nearly_equals_it(connection: Connection, version_id: uuid.UUID) -> None:
    same, near = (example(connection, number, output=f"answer {number}") for number in range(2))
    embed(connection, same, 1, 0.1)
    embed(connection, near, 1, 0.8)
    for split, expected in (("dev", [near]), ("test", [near]), ("train", [near, same])):
        assert shots(connection, version_id, span(connection, split, 5), unit(1, 0.1)) == expected


@pytest.mark.parametrize("vector", [[], [1.0]])
def test_a_held_out_item_is_not_shown_its_own_text(
    connection: Connection, version_id: uuid.UUID, vector: list[float]
) -> None:
    same, other = (example(connection, number, output=output) for number, output in enumerate(["same", "other"]))
    for split, expected in (("dev", {other}), ("train", {other, same})):
        query = unit(*vector) if vector else None
        assert set(shots(connection, version_id, span(connection, split, 5, output="same"), query)) == expected


def test_neither_verdict_has_more_than_half(connection: Connection, version_id: uuid.UUID) -> None:
    for number in range(8):
        embed(
            connection,
            example(connection, number, number < 6, output=f"answer {number}"),
            *at(0.9 - 0.1 * number, number),
        )
    found = shots(connection, version_id, span(connection, "dev"), unit(1))
    query = "select passed, count(*) from flywheel.examples where example_id = any (%s) group by 1 order by 1"
    assert rows(connection, query, [found]) == [(False, 2), (True, 3)]


def test_at_most_half_are_corrections_of_a_judge(connection: Connection, version_id: uuid.UUID) -> None:
    for number in range(8):
        embed(
            connection,
            example(connection, number, bool(number % 2), output=f"answer {number}"),
            *at(0.9 - 0.1 * number, number),
        )
    connection.execute("update flywheel.examples set disagreed = true")
    assert len(shots(connection, version_id, span(connection, "dev"), unit(1))) == 3


@pytest.mark.parametrize("column", ["user_id", "session_id"])
def test_one_user_and_one_session_appear_once(connection: Connection, version_id: uuid.UUID, column: str) -> None:
    for number in range(3):
        embed(connection, example(connection, number, output=f"answer {number}"), *at(0.9 - 0.1 * number, number))
    connection.execute(f"update flywheel.examples set {column} = 'same'".encode())
    assert len(shots(connection, version_id, span(connection, "dev"), unit(1))) == 1


def test_near_duplicates_count_once(connection: Connection, version_id: uuid.UUID) -> None:
    for number in range(3):
        embed(connection, example(connection, number, output=f"answer {number}"), 1, 0.01 * number)
    assert len(shots(connection, version_id, span(connection, "dev"), unit(0, 1))) == 1


def test_what_does_not_fit_the_budget_is_skipped(connection: Connection) -> None:
    version_id = polite(connection, shots={"token_budget": 100})
    large = example(connection, 0, output="long " * 200)
    small = example(connection, 1, output="short")
    embed(connection, large, 1)
    embed(connection, small, 1, 1)
    assert shots(connection, version_id, span(connection, "dev"), unit(1, 0.4)) == [small]


def test_an_example_without_a_vector_counts_as_the_median(connection: Connection, version_id: uuid.UUID) -> None:
    for number in range(3):
        embed(connection, example(connection, number, output=f"answer {number}"), *at(0.9 - 0.1 * number, number))
    fresh = example(connection, 3, False, output="new")
    query = """select shot.similarity, shot.relevance from flywheel.spans,
                 flywheel._shots_for(%s, array[span_id], array[started_at], %s::real[], 384) as shot
                where span_id = %s and shot.example_id = %s"""
    similarity, relevance = rows(connection, query, [version_id, unit(1), span(connection, "dev"), fresh])[0]
    assert similarity is None
    assert relevance == pytest.approx(0.6 * (1 + 0.8) / 2 + 0.15 + 0.1 * 0.5, abs=1e-3)


def test_without_a_vector_the_newest_are_chosen_from(connection: Connection, version_id: uuid.UUID) -> None:
    found = [example(connection, number, bool(number % 2), output=f"answer {number}") for number in range(4)]
    assert set(shots(connection, version_id, span(connection, "dev"))) == set(found)


def pool(connection: Connection) -> list[uuid.UUID]:
    """Label six spans: the later the newer, the earlier the nearer to unit(1)."""
    made = [example(connection, number, bool(number % 2), output=f"answer {number}") for number in range(6)]
    for number, each in enumerate(made):
        embed(connection, each, *at(0.9 - 0.1 * number, number))
        connection.execute(
            "update flywheel.examples set created_at = now() - make_interval(days => %s) where example_id = %s",
            [100 - 10 * number, each],
        )
    return made


def test_strategies_choose_what_they_say(connection: Connection) -> None:
    polite(connection)
    made = pool(connection)
    target = span(connection, "dev")

    def chosen(strategy: str, count: int = 2) -> set[uuid.UUID]:
        polite(connection, shots={"strategy": strategy, "count": count})
        newest = value(connection, "select version_id from flywheel.validator_versions order by version desc limit 1")
        return set(shots(connection, newest, target, unit(1)))

    assert chosen("recent") == {made[5], made[4]}
    assert chosen("similar", 1) == {made[0]}
    connection.execute("update flywheel.examples set disagreed = true where example_id = %s", [made[2]])
    assert chosen("disagreement_first") >= {made[2]}
    assert chosen("none") == set()
    assert chosen("random", 2) == chosen("random", 2)
    assert len(chosen("random", 2)) == 2


def retrieve(connection: Connection, *given: Any, **named: Any) -> list[tuple[Any, ...]]:
    names = "".join(f", {name} => %s" for name in named)
    query = f"select example_id, passed, output, corrected_output from flywheel.retrieve_examples(%s, %s, %s{names})"
    return rows(connection, query, [*given, *named.values()])


def test_an_application_gets_fixes_as_corrected_and_passes_as_they_are(connection: Connection) -> None:
    polite(connection)
    good = example(connection, 0, True, output="please", node="answer")
    bad = example(connection, 1, False, output="no", node="answer")
    elsewhere = example(connection, 2, True, output="hello", node="greet")
    query = (
        "select flywheel.record_fix(span_id, 'no, thank you', 'ada', null) from flywheel.examples where example_id = %s"
    )
    connection.execute(query, [bad])
    fixed = value(connection, "select example_id from flywheel.examples where kind = 'fix'")
    found = retrieve(connection, "default", "answer", "hello?", strategy="recent")
    assert {(row[0], row[2], row[3]) for row in found} == {(good, "please", None), (fixed, "no", "no, thank you")}
    assert elsewhere not in {row[0] for row in found}


@pytest.mark.parametrize(("strategy", "fixes"), [("similar", 0), ("fixed_first", 2), ("any_plus_fixed", 1)])
def test_fixes_come_first_where_the_strategy_says_so(connection: Connection, strategy: str, fixes: int) -> None:
    polite(connection)
    for number in range(4):
        embed(connection, example(connection, number, output=f"answer {number}", node="answer"), *at(0.9, number))
    for number in range(4, 6):
        span_id = span(connection, "train", number, node="answer", output=f"answer {number}")
        connection.execute("select flywheel.record_fix(%s, 'better', 'ada', 'polite')", [span_id])
        embed(connection, example_of(connection, span_id), *at(0.2, number))
    found = retrieve(connection, "default", "answer", "x", k=2, strategy=strategy, embedding=unit(1), diversity=0)
    assert len([row for row in found if row[3] == "better"]) == fixes


def test_a_fix_is_found_on_the_statement_after_its_commit(connection: Connection) -> None:
    span_id = span(connection, node="answer", output="no")
    connection.execute("select flywheel.record_fix(%s, 'no, thank you', 'ada')", [span_id])
    found = retrieve(connection, "default", "answer", "hello?", embedding=unit(1))
    assert [row[3] for row in found] == ["no, thank you"]


def test_an_output_somebody_failed_is_no_model_answer(connection: Connection) -> None:
    polite(connection)
    polite(connection, "honest")
    span_id = span(connection, node="answer")
    label(connection, span_id, True)
    assert len(retrieve(connection, "default", "answer", "x", strategy="recent")) == 1
    label(connection, span_id, False, validator="honest")
    assert retrieve(connection, "default", "answer", "x", strategy="recent") == []


def test_an_application_can_leave_out_the_conversation_it_is_in(connection: Connection) -> None:
    polite(connection)
    example(connection, 0, node="answer")
    own = group_of(connection, "train", 0)
    assert retrieve(connection, "default", "answer", "x", strategy="recent", group_key=own) == []


@pytest.mark.parametrize("strategy", ["similar", "diverse", "fixed_first"])
def test_similarity_without_a_vector_says_so(connection: Connection, strategy: str) -> None:
    query = "select * from flywheel.retrieve_examples('p', 'n', 'x', 6, %s)"
    said = refused(connection, query, [strategy])
    assert said.sqlstate == "WF009"
    assert "recent" in str(said.message_hint)


@pytest.mark.parametrize("given", ["6, 'best'", "-1, 'recent'", "6, null", "null, 'recent'"])
def test_arguments_out_of_range_are_refused(connection: Connection, given: str) -> None:
    assert refused(connection, f"select * from flywheel.retrieve_examples('p', 'n', 'x', {given})").sqlstate == "WF009"


def test_a_span_s_stored_vector_stands_in_for_one_given(connection: Connection) -> None:
    polite(connection)
    near = example(connection, 0, output="near", node="answer")
    embed(connection, near, 1)
    target = insert(connection, node="answer")
    connection.execute(
        """insert into flywheel.span_embeddings
                  (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
           select span_id, started_at, revision, embedder_id, 'input', 'x', %s::real[]::halfvec
             from flywheel.spans, flywheel.embedders where span_id = %s""",
        [unit(1), target],
    )
    assert retrieve(connection, "default", "answer", "x", span_id=target)[0][0] == near


def test_a_question_with_an_index_finds_what_comparing_all_finds(connection: Connection, version_id: uuid.UUID) -> None:
    ids = [example(connection, number, bool(number % 2), output=f"answer {number}") for number in range(12)]
    for number, each in enumerate(ids):
        embed(connection, each, *at(0.9 - 0.07 * number, number))
    before = shots(connection, version_id, span(connection, "dev"), unit(1))
    assert len(before) == 6
    made = """
      select format('create index on flywheel._example_embeddings using hnsw'
                    ' ((embedding::halfvec(384)) halfvec_cosine_ops)'
                    ' where embedder_id = %L and validator_id = %L and part = ''item'' and servable',
                    embedder_id, validator_id)
        from flywheel.embedders, flywheel.validators"""
    connection.execute(value(connection, made).encode())
    for other_way in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
        connection.execute(f"set {other_way} = off".encode())
    assert shots(connection, version_id, span(connection, "dev", 1), unit(1)) == before
