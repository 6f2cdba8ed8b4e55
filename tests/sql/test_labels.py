"""Labels and fixes: what people say, kept as they said it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.support import Connection, activate, define, insert, refused, rows, value

RECORD = "select flywheel.record_label(%s, %s, %s, %s, %s)"


def label(
    connection: Connection, span_id: uuid.UUID, passed: bool = True, annotator: str = "ada", critique: str | None = None
) -> uuid.UUID:
    """Label a span under validator polite; a fail gets a critique."""
    said = critique or (None if passed else "rude")
    made: uuid.UUID = value(connection, RECORD, [span_id, "polite", passed, annotator, said])
    return made


def gold(connection: Connection, span_id: uuid.UUID) -> list[tuple[Any, ...]]:
    query = (
        "select passed, critique, reviewers, disputed from flywheel.gold_labels where span_id = %s order by revision"
    )
    return rows(connection, query, [span_id])


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A validator to label for; returns the id of its version."""
    return activate(connection, "polite", expression="span.output !~ 'idiot'", description="Is the answer polite?")


def test_a_label_copies_what_it_needs_of_its_span(connection: Connection, polite: uuid.UUID) -> None:
    span_id = insert(connection, project="shop", session_id="s1", trace_id=uuid.UUID(int=7))
    label_id = label(connection, span_id, passed=False, critique=" calls names ")
    query = """select span_id, revision, trace_id, project, version_id, annotator, annotator_kind, passed
                 from flywheel.labels where label_id = %s"""
    assert rows(connection, query, [label_id]) == [
        (span_id, 1, uuid.UUID(int=7), "shop", polite, "ada", "human", False)
    ]
    said = """select critique, blind, lane, incl_prob, group_key, split = flywheel._split('s1'), recorded_by
                from flywheel.labels"""
    assert rows(connection, said) == [("calls names", True, "triage", None, "s1", True, "postgres")]


@pytest.mark.usefixtures("polite")
@pytest.mark.parametrize("critique", [None, "", "  \n"])
def test_a_fail_without_a_critique_is_refused(connection: Connection, critique: str | None) -> None:
    said = refused(connection, RECORD, [insert(connection), "polite", False, "ada", critique])
    assert (said.sqlstate, said.message_primary) == ("WF011", "a label that says fail has no critique")
    assert (said.message_detail, bool(said.message_hint)) == (None, True)
    assert value(connection, "select count(*) from flywheel.labels") == 0


@pytest.mark.usefixtures("polite")
def test_a_label_needs_a_verdict_a_name_a_validator_and_a_span(connection: Connection) -> None:
    span_id = insert(connection)
    for given, sqlstate in (
        ([span_id, "polite", None, "ada", "x"], "WF011"),
        ([span_id, "polite", True, " ", "x"], "WF011"),
        ([span_id, "polite", True, None, "x"], "WF011"),
        ([span_id, "unknown", True, "ada", "x"], "WF002"),
        ([uuid.uuid4(), "polite", True, "ada", "x"], "WF010"),
    ):
        assert refused(connection, RECORD, given).sqlstate == sqlstate


@pytest.mark.usefixtures("polite")
def test_who_labels_again_replaces_their_own_label_and_nobody_elses(connection: Connection) -> None:
    span_id = insert(connection)
    first, other = label(connection, span_id), label(connection, span_id, annotator="bob")
    second = label(connection, span_id, passed=False)
    assert rows(connection, "select label_id, supersedes from flywheel.labels order by label_id") == [
        (first, None),
        (other, None),
        (second, first),
    ]
    current = "select annotator, passed from flywheel.current_labels order by annotator"
    assert rows(connection, current) == [("ada", False), ("bob", True)]


@pytest.mark.usefixtures("polite")
def test_gold_is_unanimous_or_disputed_until_somebody_settles_it(connection: Connection) -> None:
    span_id = insert(connection)
    label(connection, span_id)
    assert gold(connection, span_id) == [(True, None, 1, False)]
    label(connection, span_id, passed=False, annotator="bob")
    assert gold(connection, span_id) == [(None, None, 2, True)]
    label(connection, span_id, passed=False, critique="calls names")
    assert gold(connection, span_id) == [(False, "calls names", 2, False)]


@pytest.mark.usefixtures("polite")
def test_a_new_revision_has_no_label_and_the_old_one_keeps_its_own(connection: Connection) -> None:
    span_id = insert(connection)
    label(connection, span_id)
    connection.execute("update flywheel.spans set output = 'other' where span_id = %s", [span_id])
    label(connection, span_id, passed=False)
    assert gold(connection, span_id) == [(True, None, 1, False), (False, "rude", 1, False)]


@pytest.mark.usefixtures("polite")
def test_a_label_is_changed_and_withdrawn_by_its_annotator_only(connection: Connection) -> None:
    span_id = insert(connection)
    label_id = label(connection, span_id)
    relabel = "select flywheel.relabel(%s, false, %s, %s)"
    assert refused(connection, relabel, [label_id, "bob", "rude"]).message_primary == (
        f"label {label_id} is by ada, not by bob"
    )
    assert refused(connection, relabel, [label_id, "ada", None]).sqlstate == "WF011"
    assert refused(connection, relabel, [uuid.uuid4(), "ada", "rude"]).sqlstate == "WF011"
    second = value(connection, relabel, [label_id, "ada", "rude"])
    assert refused(connection, relabel, [label_id, "ada", "rude"]).message_primary == (
        f"label {label_id} was replaced or withdrawn already"
    )
    withdraw = "select flywheel.withdraw_label(%s, %s)"
    assert refused(connection, withdraw, [second, "bob"]).sqlstate == "WF011"
    connection.execute(withdraw, [second, "ada"])
    assert rows(connection, "select * from flywheel.current_labels") == []
    assert gold(connection, span_id) == []
    assert value(connection, "select count(*) from flywheel.labels") == 3
    label(connection, span_id)
    assert gold(connection, span_id) == [(True, None, 1, False)]


@pytest.mark.usefixtures("polite")
def test_labels_and_fixes_outlive_their_span(connection: Connection) -> None:
    span_id = insert(connection, started_at="2024-05-05 12:00+00")
    label_id = label(connection, span_id, passed=False)
    connection.execute("select flywheel.record_fix(%s, 'better', 'ada', 'polite')", [span_id])
    connection.execute("select flywheel.purge('2024-06-01')")
    assert value(connection, "select count(*) from flywheel.spans") == 0
    assert gold(connection, span_id) == [(False, "rude", 1, False)]
    assert value(connection, "select output from flywheel.fixes") == "better"
    second = value(connection, "select flywheel.relabel(%s, true, 'ada')", [label_id])
    assert gold(connection, span_id) == [(True, None, 1, False)]
    connection.execute("select flywheel.withdraw_label(%s, 'ada')", [second])
    assert gold(connection, span_id) == []
    assert refused(connection, RECORD, [span_id, "polite", True, "ada", None]).sqlstate == "WF010"


@pytest.mark.usefixtures("polite")
def test_a_fix_says_what_the_output_should_have_been(connection: Connection) -> None:
    span_id = insert(connection, "You idiot.", session_id="s1")
    record = "select flywheel.record_fix(%s, %s, %s, %s, %s, %s)"
    connection.execute(record, [span_id, "Dear customer.", "ada", "polite", "calls names", "policy 3"])
    connection.execute(record, [span_id, "Hello.", "bob", None, None, None])
    query = """select validators.name, fixes.annotator, fixes.output, wrong, why, group_key,
                      split = flywheel._split('s1')
                 from flywheel.fixes left join flywheel.validators using (validator_id) order by fix_id"""
    assert rows(connection, query) == [
        ("polite", "ada", "Dear customer.", "calls names", "policy 3", "s1", True),
        (None, "bob", "Hello.", None, None, "s1", True),
    ]
    for output, annotator, validator, sqlstate in (
        ("You idiot.", "ada", None, "WF011"),
        ("", "ada", None, "WF011"),
        (None, "ada", None, "WF011"),
        ("x", "", None, "WF011"),
        ("x", "ada", "unknown", "WF002"),
    ):
        assert refused(connection, record, [span_id, output, annotator, validator, None, None]).sqlstate == sqlstate


def test_labels_of_a_cascades_tier_are_those_of_its_question(connection: Connection, polite: uuid.UUID) -> None:
    connection.execute("""insert into flywheel.providers (provider, base_url) values ('fake', 'http://localhost/v1')""")
    asked = {"question": "Is it polite?", "pass_when": "polite", "fail_when": "rude", "provider": "fake", "model": "m"}
    define(connection, "polite_strong", kind="judge", labels_of="polite", **asked)
    span_id = insert(connection)
    connection.execute(RECORD.encode(), [span_id, "polite_strong", True, "ada", None])
    query = "select validator, version_id <> %s from flywheel.current_labels"
    assert rows(connection, query, [polite]) == [("polite", True)]


def test_splits_are_of_groups_and_have_their_shares(connection: Connection) -> None:
    query = """select flywheel._split('group ' || n), count(*) from generate_series(1, 20000) as n group by 1"""
    shares = {split: count / 20_000 for split, count in rows(connection, query)}
    expected = {"train": 0.2, "dev": 0.4, "test": 0.4}
    assert shares.keys() == expected.keys()
    assert all(abs(shares[split] - share) < 0.02 for split, share in expected.items())
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    assert value(connection, "select flywheel._split('group 1')") == "train"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, "00000000-0000-0000-0000-000000000009"),
        ({"session_id": "s1"}, "s1"),
        ({"session_id": ""}, "00000000-0000-0000-0000-000000000009"),
        ({"session_id": "s1", "attributes": '{"group_key": "cluster 4"}'}, "cluster 4"),
    ],
)
def test_the_group_is_named_or_the_conversation_or_the_trace(
    connection: Connection, columns: dict[str, str], expected: str
) -> None:
    insert(connection, trace_id=uuid.UUID(int=9), **columns)
    assert value(connection, "select flywheel._group_key(spans) from flywheel.spans") == expected


def test_an_items_text_is_what_is_judged(connection: Connection) -> None:
    query = """select flywheel._item_text(target, 'q', output)
                 from (values ('input', 'a'), ('output', 'a'), ('span', null)) as given(target, output)"""
    assert rows(connection, query) == [("q",), ("q\n\na",), ("q",)]


@pytest.mark.usefixtures("polite")
def test_two_labels_of_one_person_at_once_leave_one_current(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    span_id = insert(connection)
    other = connect()
    with other.transaction():
        label(other, span_id)
        connection.execute("set lock_timeout = '100ms'")
        assert refused(connection, RECORD, [span_id, "polite", False, "ada", "rude"]).sqlstate == "55P03"
    connection.execute("set lock_timeout = 0")
    label(connection, span_id, passed=False)
    assert rows(connection, "select passed from flywheel.current_labels") == [(False,)]


@pytest.mark.usefixtures("polite")
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_label_in_an_old_snapshot_is_refused(connection: Connection, level: str) -> None:
    span_id = insert(connection)
    with connection.transaction():
        connection.execute(f"set transaction isolation level {level}".encode())
        assert refused(connection, RECORD, [span_id, "polite", True, "ada", None]).sqlstate == "WF011"
    assert gold(connection, span_id) == []


def test_of_two_fixes_at_once_one_waits_for_the_other(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    span_id = insert(connection)
    other = connect()
    with other.transaction():
        other.execute("select flywheel.record_fix(%s, 'better', 'ada')", [span_id])
        connection.execute("set lock_timeout = '100ms'")
        fix = "select flywheel.record_fix(%s, 'best', 'bob')"
        assert refused(connection, fix, [span_id]).sqlstate == "55P03"


@pytest.mark.usefixtures("polite")
def test_an_imported_label_has_neither_an_absurd_weight_nor_the_last_word_for_ever(connection: Connection) -> None:
    line = {"span_id": str(insert(connection)), "validator": "polite", "passed": True, "annotator": "ada"}
    read = "select flywheel.import_label(%s)"
    absurd = {**line, "lane": "estimation", "incl_prob": 1e-300}
    assert refused(connection, read, [Jsonb(absurd)]).sqlstate == "WF011"
    connection.execute(read, [Jsonb({**line, "labelled_at": "infinity"})])
    assert value(connection, "select labelled_at <= now() from flywheel.labels") is True


def overlap(connection: Connection, verdicts: dict[str, str]) -> None:
    """Let each reviewer label the same spans: p, f, or - for none."""
    spans = [insert(connection) for _ in next(iter(verdicts.values()))]
    for annotator, given in verdicts.items():
        for span_id, verdict in zip(spans, given, strict=True):
            if verdict != "-":
                label(connection, span_id, verdict == "p", annotator)


@pytest.mark.usefixtures("polite")
def test_agreement_of_people_is_that_of_the_public_formulas(connection: Connection) -> None:
    """By hand: ada and bob agree on 6 of 8, by chance on (5*5 + 3*3)/64; alpha over 10 labelled twice or more."""
    overlap(connection, {"ada": "ppppfffp--", "bob": "pppffpfppf", "cyd": "--------pf"})
    pairs = "select first_reviewer, second_reviewer, items, agreed, agreement, kappa from flywheel.reviewer_agreement"
    kappa = (6 / 8 - 34 / 64) / (1 - 34 / 64)
    assert rows(connection, pairs + " order by 1, 2") == [
        ("ada", "bob", 8, 6, 0.75, pytest.approx(kappa)),
        ("bob", "cyd", 2, 2, 1.0, 1.0),
    ]
    total = "select reviewers, items, agreed, agreement, alpha from flywheel.label_agreement"
    passes, fails, split = 12, 8, 2
    alpha = 1 - (passes + fails - 1) * split / (passes * fails)
    assert rows(connection, total) == [(3, 10, 8, 0.8, pytest.approx(alpha))]


@pytest.mark.usefixtures("polite")
def test_labels_that_saw_a_verdict_or_settled_one_do_not_count_as_agreement(connection: Connection) -> None:
    overlap(connection, {"ada": "p", "bob": "f"})
    [span_id] = rows(connection, "select span_id from flywheel.claim_labels('polite', 'cyd')")[0]
    label(connection, span_id, annotator="cyd")
    seen = "select flywheel.record_label(%s, 'polite', true, 'dan', null, false)"
    connection.execute(seen.encode(), [span_id])
    assert rows(connection, "select first_reviewer, second_reviewer from flywheel.reviewer_agreement") == [
        ("ada", "bob")
    ]
    assert rows(connection, "select reviewers, items, agreed, alpha from flywheel.label_agreement") == [(2, 1, 0, 0.0)]


@pytest.mark.usefixtures("polite")
def test_beliefs_need_enough_people_and_weigh_them_by_how_they_agree(connection: Connection) -> None:
    beliefs = "select reviewers, round(p_pass::numeric, 2) from flywheel.label_beliefs('polite') order by 1, 2"
    good, random = "ppf" * 20, "pf" * 30
    overlap(connection, {"ada": good, "bob": good})
    assert rows(connection, beliefs) == []
    spans = rows(connection, "select span_id from flywheel.current_labels where annotator = 'ada' order by label_id")
    for (span_id,), verdict in zip(spans, random, strict=True):
        label(connection, span_id, verdict == "p", "cyd")
    found = rows(connection, beliefs)
    assert len(found) == 60
    assert sum(p_pass > 0.5 for _, p_pass in found) == 40


@pytest.mark.usefixtures("polite")
def test_a_file_of_labels_is_recorded_once_and_keeps_what_it_says(connection: Connection) -> None:
    known, gone = insert(connection), uuid.uuid4()
    line = {"span_id": str(known), "validator": "polite", "passed": False, "annotator": "ada", "critique": "rude"}
    read = "select flywheel.import_label(%s)"
    assert [value(connection, read, [Jsonb(line)]) for _ in range(2)] == [True, False]
    drawn = {**line, "lane": "estimation", "incl_prob": 0.25, "stratum": "fail", "annotator": "bob", "blind": False}
    assert value(connection, read, [Jsonb(drawn)]) is True
    assert refused(connection, read, [Jsonb({**line, "span_id": str(gone)})]).sqlstate == "WF010"
    about = {"started_at": "2024-05-05T00:00:00Z", "trace_id": str(gone), "project": "shop", "group_key": "g"}
    assert value(connection, read, [Jsonb({**line, **about, "span_id": str(gone)})]) is True
    for broken, sqlstate in (({"critique": " "}, "WF011"), ({"validator": "x"}, "WF002"), ({"passed": None}, "WF011")):
        assert refused(connection, read, [Jsonb({**line, "annotator": "eve", **broken})]).sqlstate == sqlstate
    said = """select annotator, span_id, lane, incl_prob, stratum, blind from flywheel.current_labels
               order by annotator, span_id = %s"""
    assert rows(connection, said, [gone]) == [
        ("ada", known, "triage", None, None, True),
        ("ada", gone, "triage", None, None, True),
        ("bob", known, "estimation", 0.25, "fail", False),
    ]


@pytest.fixture
def reviewer(connection: Connection, dsn: str) -> Iterator[Connection]:
    """A login with the role flywheel_reviewer and nothing else."""
    name = f"reviewer_{uuid.uuid4().hex[:12]}"
    connection.execute(f"create role {name} login password 'secret' in role flywheel_reviewer".encode())
    with psycopg.connect(dsn, user=name, password="secret", autocommit=True) as session:
        yield session
    connection.execute(f"drop role {name}".encode())


def test_a_login_of_the_role_reviewer_can_do_all_of_it(connection: Connection, reviewer: Connection) -> None:
    activate(connection, "polite", expression="true")
    spans = [insert(connection, f"answer {n}") for n in range(8)]
    connection.execute("select flywheel.draw_labels('polite', 8, '-infinity', 'infinity')")
    connection.execute("""
        insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed,
               annotator_kind)
        select span_id, revision, version_id, started_at, trace_id, project, true, 'judge'
          from flywheel.spans cross join flywheel.validator_versions""")
    held = rows(reviewer, "select item_id, span_id from flywheel.claim_labels('polite', 'ada', 4)")
    assert len(held) == 4
    answer = "select flywheel.record_label(%s, 'polite', false, 'ada', 'rude', true, %s)"
    label_id = value(reviewer, answer, [held[0][1], held[0][0]])
    assert len(rows(reviewer, "select * from flywheel.label_verdicts(%s)", [label_id])) == 1
    reviewer.execute("select flywheel.relabel(%s, true, 'ada')", [label_id])
    reviewer.execute("select flywheel.undo_label('ada')")
    reviewer.execute("select flywheel.defer_label(%s, 'ada')", [held[1][0]])
    reviewer.execute("select flywheel.record_fix(%s, 'better', 'ada', 'polite')", [spans[0]])
    second = label(reviewer, held[2][1])
    reviewer.execute("select flywheel.withdraw_label(%s, 'ada')", [second])
    reviewer.execute("select flywheel.queue_triage('polite')")
    assert value(reviewer, "select flywheel.propose_labels('polite')") > 2
    proposed = rows(connection, "select label_id from flywheel.current_labels where annotator_kind = 'judge'")
    reviewer.execute("select flywheel.confirm_label(%s, 'ada')", proposed[0])
    reviewer.execute("select flywheel.overturn_label(%s, 'ada', 'rude')", proposed[1])
    for view in ("current_labels", "gold_labels", "label_stats", "reviewer_agreement", "label_agreement"):
        reviewer.execute(f"select * from flywheel.{view}".encode())
    reviewer.execute("select * from flywheel.label_beliefs('polite')")
    query = "select distinct recorded_by like 'reviewer_%' from flywheel.labels"
    assert rows(connection, query) == [(True,)]


@pytest.mark.usefixtures("polite")
@pytest.mark.parametrize(
    "statement",
    [
        "select * from flywheel.spans",
        "select * from flywheel.labels",
        "select * from flywheel.current_scores",
        "select * from flywheel._label_items",
        "insert into flywheel.labels default values",
        "update flywheel.labels set passed = true",
        "delete from flywheel.fixes",
        "update flywheel._label_claims set reviewer = 'eve'",
        "select flywheel.draw_labels('polite', 5, '-infinity')",
        "select flywheel._release_labels()",
        "select flywheel.activate_validator('polite')",
        "update flywheel.settings set value = '0'",
    ],
)
def test_a_login_of_the_role_reviewer_can_do_nothing_else(reviewer: Connection, statement: str) -> None:
    assert refused(reviewer, statement).sqlstate == "42501"


SECRET = "the-judge-says-so"


@pytest.fixture
def judged_span(connection: Connection) -> uuid.UUID:
    """A span that a judge fails, that was drawn by that verdict, proposed, and labelled by somebody else."""
    rubric = {"kind": "neighbours", "question": "q", "pass_when": "p", "fail_when": "f", "lane": "bulk"}
    activate(connection, "judged", **rubric)
    span_id = insert(connection, "a quiet answer")
    connection.execute(
        """insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, critique,
                                        annotator_kind)
           select span_id, revision, version_id, started_at, trace_id, project, false, %s, 'judge'
             from flywheel.spans cross join flywheel.validator_versions""",
        [SECRET],
    )
    connection.execute("select flywheel.propose_labels('judged')")
    connection.execute("select flywheel.draw_labels('judged', 1, '-infinity', 'infinity', 'stratified')")
    item_id = value(connection, "select item_id from flywheel.claim_labels('judged', 'bob')")
    connection.execute("select flywheel.record_label(%s, 'judged', true, 'bob', null, true, %s)", [span_id, item_id])
    connection.execute("select flywheel._advance_examples()")
    connection.execute("update flywheel.examples set disagreed = true")
    return span_id


def told_by(session: Connection, span_id: uuid.UUID) -> set[str]:
    """Return what a login can read that tells the judge's verdict on the span."""
    readable = """select oid::regclass::text, string_agg(quote_ident(attname), ', ' order by attnum)
                    from pg_class join pg_attribute on attrelid = oid
                   where relnamespace in (select oid from pg_namespace where nspname like 'flywheel%')
                     and relkind in ('r', 'p', 'v') and relname !~ '_[0-9]{8}$' and attnum > 0 and not attisdropped
                     and has_schema_privilege(relnamespace, 'usage') and has_column_privilege(oid, attnum, 'select')
                   group by oid"""
    told = set()
    for name, columns in rows(session, readable):
        for row in rows(session, f"select to_jsonb(seen) from (select {columns} from {name}) as seen"):
            told |= {name for key in ("stratum", "disagreed", "judge_passed") if row[0].get(key) is not None}
            told |= {
                name for key in ("failed", "pass_rate", "n_fail") if name.startswith("flywheel.q") and key in row[0]
            }
            told |= {name for key in row[0] if row[0][key] in (SECRET, "judge")}
    return told


def test_a_reviewer_finds_no_verdict_on_a_span_the_login_has_not_labelled(
    connection: Connection, reviewer: Connection, judged_span: uuid.UUID
) -> None:
    assert told_by(connection, judged_span) >= {"flywheel.current_labels", "flywheel.lowest_scores_today"}
    assert told_by(reviewer, judged_span) == set()
    others = value(connection, "select label_id from flywheel.current_labels where annotator = 'bob'")
    assert rows(reviewer, "select * from flywheel.label_verdicts(%s)", [others]) == []
    own = value(reviewer, RECORD, [judged_span, "judged", True, "ada", None])
    assert rows(reviewer, "select passed, critique from flywheel.label_verdicts(%s)", [own]) == [(False, SECRET)]
    assert rows(reviewer, "select judge_passed from flywheel.judged_labels") == [(False,)]


def test_a_reviewer_who_is_an_analyst_sees_verdicts(
    connection: Connection, reviewer: Connection, judged_span: uuid.UUID
) -> None:
    connection.execute(f"grant flywheel_analyst to {reviewer.info.user}".encode())
    told = told_by(reviewer, judged_span)
    assert told >= {"flywheel.current_labels", "flywheel.judged_labels", "flywheel.judge_disagreements"}
    others = value(connection, "select label_id from flywheel.current_labels where annotator = 'bob'")
    assert len(rows(reviewer, "select * from flywheel.label_verdicts(%s)", [others])) == 1
    reviewer.execute("set role flywheel_reviewer")
    assert rows(reviewer, "select * from flywheel.judged_labels") == []
    assert rows(reviewer, "select * from flywheel.label_verdicts(%s)", [others]) == []
