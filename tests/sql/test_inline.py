"""Checks in the writer's own transaction: verdicts, blocks, faults that cost the application nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.sql.support import (
    Connection,
    accounts,
    activate,
    define,
    inline,
    insert,
    insert_many,
    refused,
    rows,
    scores,
    status_of,
    value,
    version_id,
    work_off,
)

FOUND = "select passed, value, critique, unscored_reason, unscored_detail from flywheel.current_scores"
RAISING = "1 / (length(span.output) - 3) > -9"  # raises for texts of three characters


@pytest.mark.parametrize(
    ("expression", "row"),
    [
        ("true", (True, None, None, None, None)),
        ("false", (False, None, None, None, None)),
        ("null::boolean", (None, None, None, "no_verdict", None)),
        ("span.user_id = 'x'", (None, None, None, "no_verdict", None)),
        ("row(true, 0.5, 'fine')::flywheel.verdict", (True, 0.5, "fine", None, None)),
        ("row(false, 0, null)::flywheel.verdict", (False, 0.0, None, None, None)),
        ("row(null, 0.5, 'unsure')::flywheel.verdict", (None, 0.5, "unsure", "no_verdict", None)),
        ("null::flywheel.verdict", (None, None, None, "no_verdict", None)),
        ("row(true, 2, 'odd')::flywheel.verdict", (None, None, "odd", "wrong_type", "value is 2, not in [0, 1]")),
        ("row(true, -0.1, 'x')::flywheel.verdict", (None, None, "x", "wrong_type", "value is -0.1, not in [0, 1]")),
        ("row(true, 'NaN', 'x')::flywheel.verdict", (None, None, "x", "wrong_type", "value is NaN, not in [0, 1]")),
        ("1 / (length(span.output) - 5) > 0", (None, None, None, "raised", "division by zero")),
    ],
)
@pytest.mark.parametrize("lane", ["inline", "bulk"])
def test_what_a_check_says_is_what_is_stored(
    connection: Connection, lane: str, expression: str, row: tuple[Any, ...]
) -> None:
    activate(connection, "asked", lane=lane, expression=expression)
    insert(connection, "1 2 3")
    if lane == "bulk" and row[3] == "raised":
        with pytest.raises(psycopg.errors.DivisionByZero):  # the worker then splits the job to find the span
            work_off(connection)
        return
    work_off(connection)
    assert rows(connection, FOUND) == [row]


def test_spans_that_a_definition_leaves_out_have_no_score(connection: Connection) -> None:
    inline(
        connection,
        "short",
        filter={"node": ["writer", "codegen"], "environment": "production"},
        where="span.input <> 'skip'",
    )
    insert(connection, node="writer")
    for left_out in ({"node": "app"}, {"environment": "test"}, {"input": "skip"}, {"output": None}, {"input": None}):
        insert(connection, **{"node": "writer", **left_out})
    assert len(scores(connection)) == 1


@pytest.mark.parametrize("column", ["project", "environment", "release", "node", "node_kind"])
def test_each_part_of_a_filter_works_alone(connection: Connection, column: str) -> None:
    meant = "writer" if column == "node_kind" else 'it\'s "50 %" $1'
    inline(connection, "one", filter={column: meant})
    activate(connection, "other", filter={column: [meant, "tool"]})
    insert(connection, **{column: meant})
    insert(connection, **{column: "agent"})
    work_off(connection)
    assert [name for name, *_ in scores(connection)] == ["one", "other"]


@pytest.mark.parametrize(
    "expression",
    [
        "true -- and a comment",
        "true /* and ' a $$ comment $code$ */",
        "span.output not like '%50\\%%' and 7 % 4 = 3",
        "span.output <> 'it''s'",
        "span.output <> $$quoted %s %1$s %% $$ and span.output <> $x$%I$x$",
        "span.output <> E'\\n\\\\ \\u00e9'",
        "span.output !~ '\\mdelve\\M' -- @install@",
        'span."output" is not null',
        "not exists (select from unnest(array[1, 2]) as place where place > 5)",
        "not exists (select from jsonb_each_text(span.attributes) where value = 'x' or key = 'passed')",
        "(select count(*) from (values (1, 2)) as keys(version, detail) where version < detail) = 1",
        "length(output) > 1 and node = 'app'",
        "case when span.output = 'x' then false else true end",
        "span.started_at <= now() and span.latency_ms is null and span.attributes = '{}'",
    ],
)
def test_any_expression_means_the_same_everywhere(connection: Connection, expression: str) -> None:
    """Generated code has variables and quotes of its own, which an author cannot know."""
    for action in ("flag", "block"):
        inline(connection, f"inline_{action}", action=action, expression=expression, where=expression)
    activate(connection, "bulk", expression=expression, where=expression)
    insert(connection, "some text")
    work_off(connection)
    assert scores(connection) == [(name, True, None) for name in ("bulk", "inline_block", "inline_flag")]
    guarded = (
        "select validator, passed, unscored_reason, detail from flywheel.guard('default', 'app', 'output', 'some text')"
    )
    assert rows(connection, guarded) == [(name, True, None, None) for name in ("inline_block", "inline_flag")]


def test_a_block_rejects_the_statement_and_names_the_validator(connection: Connection) -> None:
    inline(connection, "no_secrets", action="block", expression="span.output !~ 'secret'")
    said = refused(connection, "insert into flywheel.spans (output) values ('fine'), ('a secret')")
    assert said.sqlstate == "WF001"
    assert said.constraint_name == "no_secrets"
    assert (said.message_primary or "").endswith("is blocked by validator no_secrets")
    assert "guard" in (said.message_hint or "")
    assert value(connection, "select count(*) from flywheel.spans") == 0
    insert(connection, "fine")
    assert scores(connection) == [("no_secrets", True, None)]


def test_a_block_with_a_verdict_says_why(connection: Connection) -> None:
    inline(
        connection,
        "graded",
        action="block",
        expression="row(span.output <> 'bad', 0.5, 'the word bad')::flywheel.verdict",
    )
    said = refused(connection, "insert into flywheel.spans (output) values ('fine'), ('bad')")
    assert (said.sqlstate, said.constraint_name) == ("WF001", "graded")
    assert "the word bad" in (said.message_detail or "")


@pytest.mark.parametrize(
    "expression",
    [
        "null::boolean",
        "1 / 0 * length(span.output) > 0",
        "row(false, 7, 'out of range')::flywheel.verdict",
        "row(null, 0, 'unsure')::flywheel.verdict",
        "null::flywheel.verdict",
    ],
)
def test_only_a_fail_blocks(connection: Connection, expression: str) -> None:
    expression = expression.replace("1 / 0 * length(span.output)", "1 / (length(span.output) - 4)")
    inline(connection, "unsure", action="block", expression=expression)
    insert(connection, "fine")
    guarded = rows(connection, "select passed, unscored_reason from flywheel.guard('default', 'app', 'output', 'fine')")
    assert guarded == [(None, reason) for _, _, reason in scores(connection)]


def test_an_update_that_makes_a_span_bad_is_blocked(connection: Connection) -> None:
    inline(connection, "no_secrets", action="block", expression="span.output !~ 'secret'")
    insert(connection)
    said = refused(connection, "update flywheel.spans set output = 'secret'")
    assert (said.sqlstate, said.constraint_name) == ("WF001", "no_secrets")
    assert rows(connection, "select output, revision from flywheel.spans") == [("fine", 1)]


def test_a_shadow_never_blocks(connection: Connection) -> None:
    define(connection, "no_secrets", lane="inline", action="block", expression="span.output !~ 'secret'")
    connection.execute("select flywheel.shadow_validator('no_secrets')")
    insert(connection, "secret")
    assert rows(connection, "select passed from flywheel.score_history") == [(False,)]
    assert scores(connection) == []


def copy_in(connection: Connection, outputs: list[str]) -> None:
    with connection.cursor().copy("copy flywheel.spans (output) from stdin") as copy:
        for output in outputs:
            copy.write_row([output])


def test_one_bad_row_of_a_thousand_ends_the_whole_copy(connection: Connection) -> None:
    inline(connection, "no_secrets", action="block", expression="span.output !~ 'secret'")
    with pytest.raises(psycopg.Error) as caught:
        copy_in(connection, ["secret" if place == 700 else f"answer {place}" for place in range(1_000)])
    assert (caught.value.diag.sqlstate, caught.value.diag.constraint_name) == ("WF001", "no_secrets")
    counts = "select (select count(*) from flywheel.spans), (select count(*) from flywheel.scores)"
    assert rows(connection, counts) == [(0, 0)]


def test_a_check_that_raises_costs_neither_the_insert_nor_the_others_their_verdicts(connection: Connection) -> None:
    inline(connection, "good", expression="row(true, 1, null)::flywheel.verdict")
    inline(connection, "raising", expression=RAISING)
    activate(connection, "queued")
    with connection.cursor().copy("copy flywheel.spans (output) from stdin") as copy:
        for place in range(1_000):
            copy.write_row(["abc" if place == 700 else "fine"])
    query = (
        "select validator, passed, unscored_reason, unscored_detail, count(*) "
        "from flywheel.current_scores group by 1, 2, 3, 4 order by 1"
    )
    assert rows(connection, query) == [
        ("good", True, None, None, 1_000),
        ("raising", None, "raised", "division by zero", 1_000),
    ]
    assert work_off(connection) == 1_000
    assert rows(connection, "select reason, detail, spans from flywheel._faults") == [
        ("raised", "division by zero", 1_000)
    ]
    assert accounts(connection, "raising") == {"eligible": 1_000, "unscored": 1_000}


def test_a_where_that_raises_is_no_fault_of_the_insert_either(connection: Connection) -> None:
    inline(connection, "raising", expression="true", where=RAISING)
    inline(connection, "good", expression="true")
    insert(connection, "abc")
    insert(connection, "fine")
    query = "select validator, passed, unscored_reason from flywheel.current_scores order by 1, 2 nulls first"
    assert rows(connection, query) == [("good", True, None)] * 2 + [
        ("raising", None, "raised"),
        ("raising", True, None),
    ]


def test_a_failed_assertion_is_a_raise_like_any_other(connection: Connection) -> None:
    connection.execute(
        """create function public.sure(text) returns boolean language plpgsql as
           $$begin assert $1 <> 'abc', 'not sure'; return true; end$$"""
    )
    inline(connection, "sure", function="public.sure")
    insert(connection, "abc")
    assert rows(connection, FOUND) == [(None, None, None, "raised", "not sure")]
    guarded = rows(connection, "select unscored_reason, detail from flywheel.guard('default', 'app', 'output', 'abc')")
    assert guarded == [("raised", "not sure")]


@pytest.mark.parametrize("target", ["output", "span"])
def test_dropping_the_function_of_an_active_check_stops_nothing(connection: Connection, target: str) -> None:
    taken = "text" if target == "output" else "flywheel.spans"
    connection.execute(f"create function public.gone({taken}) returns boolean language sql return true")
    inline(connection, "gone", function="public.gone", target=target)
    activate(connection, "gone_too", function="public.gone", target=target)
    inline(connection, "good", expression="true")
    connection.execute(f"drop function public.gone({taken})")
    for _ in range(4):
        insert(connection)
    assert [row for row in scores(connection) if row[0] == "gone"] == [("gone", None, "raised")] * 3
    assert status_of(connection, "gone") == "paused"
    assert "gone" in value(connection, "select paused_detail from flywheel.validator_status where validator = 'gone'")
    assert value(connection, "select count(*) from flywheel.current_scores where validator = 'good' and passed") == 4
    connection.execute("select flywheel.pause_validator('gone_too', 'its function is gone')")
    connection.execute("select flywheel.retire_validator('gone')")


def test_repeated_errors_pause_a_validator_with_the_reason(connection: Connection) -> None:
    inline(connection, "raising", expression=RAISING)
    inline(connection, "good", expression="true")
    for _ in range(5):
        insert(connection, "abc")
    query = "select status, paused_reason, paused_detail from flywheel.validator_status where validator = 'raising'"
    assert rows(connection, query) == [("paused", "errors", "3 faults, the last: division by zero")]
    assert len(scores(connection)) == 3 + 5
    connection.execute("select flywheel.activate_validator('raising')")
    insert(connection, "abc")
    assert status_of(connection, "raising") == "active"  # resuming begins a new count


def test_a_shadow_that_keeps_raising_is_retired(connection: Connection) -> None:
    define(connection, "raising", lane="inline", expression=RAISING)
    connection.execute("select flywheel.shadow_validator('raising')")
    for _ in range(4):
        insert(connection, "abc")
    assert status_of(connection, "raising") == "retired"


def test_pausing_a_faulty_validator_waits_for_nobody(connection: Connection, connect: Callable[[], Connection]) -> None:
    """An admin in the middle of changing the same validator must not stop the application."""
    raising = inline(connection, "raising", expression=RAISING)
    writer = connect()
    writer.execute("set lock_timeout = '1 s'")
    with connection.transaction():
        connection.execute("select from flywheel.validator_versions where version_id = %s for no key update", [raising])
        for _ in range(2):
            insert(writer, "abc")
    for _ in range(2):
        insert(writer, "abc")
    assert status_of(connection, "raising") == "paused"


def test_faults_in_a_repeatable_read_transaction_never_fail_it(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    inline(connection, "raising", expression=RAISING)
    writer = connect()
    writer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with writer.transaction():
        insert(writer, "fine")
        activate(connection, "other")
        for _ in range(4):
            insert(writer, "abc")
    assert value(connection, "select count(*) from flywheel.spans") == 5
    insert(connection, "abc")
    assert status_of(connection, "raising") == "paused"


def test_two_hundred_validators_at_once(connection: Connection) -> None:
    longest = "v" * 63
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")  # compile once, not two hundred times
        for place in range(199):
            answer = "true" if place % 2 else "row(true, 0.5, 'fine')::flywheel.verdict"
            define(connection, f"check_{place}", lane="inline" if place % 4 < 2 else "bulk", expression=answer)
        define(connection, longest, lane="inline", action="block", expression="span.output <> 'bad'")
        connection.execute("update flywheel.validator_versions set status = 'active', approved_at = now()")
        connection.execute(
            "insert into flywheel._activations (version_id, started_at) "
            "select version_id, now() from flywheel.validator_versions"
        )
    connection.execute("select flywheel.compile_dispatch()")
    insert_many(connection, 3)
    work_off(connection)
    assert value(connection, "select count(*) from flywheel.current_scores where passed") == 600
    assert refused(connection, "insert into flywheel.spans (output) values ('bad')").constraint_name == longest
    assert value(connection, "select count(*) from flywheel.guard('default', 'app', 'output', 'fine')") == 101


def test_an_inline_check_is_asked_once_for_each_row_it_means(connection: Connection) -> None:
    """Checks that are not wanted for a row must not run on it."""
    connection.execute("create sequence public.asked")
    inline(connection, "counted", expression="nextval('public.asked') > 0", filter={"node": "writer"})
    began = value(connection, "select nextval('public.asked')")
    with connection.cursor().copy("copy flywheel.spans (output, node) from stdin") as copy:
        for place in range(100):
            copy.write_row(["a", "writer" if place < 10 else "app"])
    assert value(connection, "select nextval('public.asked')") == began + 11


def test_scores_copy_what_they_need_from_the_span(connection: Connection) -> None:
    version = inline(connection, "short")
    span_id = insert(connection, project="shop", started_at="2024-01-02 03:04:05.678901+00")
    assert version == version_id(connection, "short")
    query = """select scores.span_id, scores.version_id, scores.project, scores.annotator_kind,
                      (scores.trace_id, scores.started_at, scores.revision) = (spans.trace_id,
                          spans.started_at, spans.revision)
                 from flywheel.scores join flywheel.spans using (span_id)"""
    assert rows(connection, query) == [(span_id, version, "shop", "code", True)]
