"""What each role can do when it acts, and what it is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from tests.sql.acting import SPACES, acting
from tests.sql.support import (
    Connection,
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
    worker,
)


def attempts(connection: Connection) -> list[str]:
    """Return reads of all tables and views, writes to all tables, a call of each function that runs for nulls."""
    tables = [
        name
        for (name,) in rows(
            connection,
            (
                f"select oid::regclass::text from pg_class where relnamespace "
                f"in {SPACES} and relkind in ('r', 'p', 'v') order by 1"
            ),
        )
    ]
    functions = rows(
        connection,
        f"""select oid::regproc::text, array(select 'null::' || format_type(type, null) from
                unnest(proargtypes) as type)
              from pg_proc where pronamespace in {SPACES} and prorettype <> 'trigger'::regtype and not
                  proisstrict order by 1""",
    )
    reads = [f"select * from {name} limit 1" for name in tables]
    kept = [
        name
        for name in tables
        if value(connection, "select relkind in ('r', 'p') from pg_class where oid = %s::regclass", [name])
    ]
    writes = [f"{act} {name}" for name in kept for act in ("delete from", "truncate")]
    calls = [f"select {name}({', '.join(types)})" for name, types in functions]
    return reads + writes + calls


def done_by(connection: Connection, role: str) -> set[str]:
    """Return the statements that were not refused for want of a privilege."""
    statements = attempts(connection)
    done = set()
    with acting(connection, role):
        for statement in statements:
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            except psycopg.Error:
                pass
            done.add(statement.split(" limit ")[0].removeprefix("select ").split("(")[0])
    return done


def test_a_writer_can_ask_before_it_writes_and_read_nothing(connection: Connection) -> None:
    insert(connection)
    done = done_by(connection, "flywheel_writer")
    asked = {"flywheel.guard", "flywheel.retrieve_examples", "flywheel.novelty", "flywheel.is_novel"}
    assert done == asked | {"flywheel.new_id"}


def changing(connection: Connection, names: set[str]) -> set[str]:
    """Return those of the functions that may change something."""
    query = "select distinct oid::regproc::text from pg_proc where provolatile = 'v'"
    return names & {name for (name,) in rows(connection, query)}


def tables_read(connection: Connection, names: set[str]) -> set[str]:
    """Return the tables, not views, among what was read."""
    query = f"select '* from ' || oid::regclass from pg_class where relkind in ('r', 'p') and relnamespace in {SPACES}"
    return names & {name for (name,) in rows(connection, query)}


def test_an_analyst_can_read_views_and_the_log_and_nothing_else(connection: Connection) -> None:
    insert(connection)
    activate(connection, "short")
    names = ("accounts", "label_stats", "queue_status", "trace_summary", "worker_status")
    flat = ("spans", "scores", "traces", "score_history", "current_labels", "gold_labels", "dead_jobs", "run_log")
    readable = {f"* from flywheel.{name}" for name in names} | {f"* from flywheel_bi.{name}" for name in flat}
    done = done_by(connection, "flywheel_analyst")
    assert done >= readable | {"flywheel.why"}
    assert not {name for name in done if name.startswith(("delete", "truncate"))}
    assert changing(connection, done) == set()
    assert tables_read(connection, done) == {"* from flywheel.alert_rules"}


def test_an_analyst_reads_what_calls_cost_and_not_what_they_said(connection: Connection) -> None:
    with acting(connection, "flywheel_analyst"):
        connection.execute("select outcome, cost_usd, input_tokens, latency_ms from flywheel.calls")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select reply from flywheel.calls")


def test_a_reviewer_can_label_fix_sign_and_read_labels_and_nothing_else(connection: Connection) -> None:
    insert(connection)
    activate(connection, "short")
    acts = {
        f"flywheel.{name}"
        for name in (
            "acknowledge_alert",
            "claim_labels",
            "confirm_label",
            "defer_label",
            "new_id",
            "overturn_label",
            "propose_labels",
            "queue_triage",
            "record_fix",
            "record_label",
            "relabel",
            "sign_example",
            "snooze_alert",
            "undo_label",
            "withdraw_label",
        )
    }
    views = {"current_labels", "gold_labels", "label_agreement", "label_stats", "reviewer_agreement"}
    texts_and_verdicts = {"spans", "traces", "scores", "current_scores", "score_history", "calls", "labels", "fixes"}
    done = done_by(connection, "flywheel_reviewer")
    assert changing(connection, done) == acts
    read = {name.removeprefix("* from flywheel.") for name in done if name.startswith("* from")}
    assert read >= views
    assert not {name for name in read if name.startswith("quality_")} | (read & {"lowest_scores_today", "examples"})
    connection.execute("set role flywheel_reviewer")
    connection.execute("select example_id, passed, critique from flywheel.examples")
    connection.execute("reset role")
    assert not {name for name in read if name.startswith("_")} | (read & texts_and_verdicts)
    assert not {name for name in done if name.startswith(("delete", "truncate"))}


def test_a_writer_writes_in_every_way(connection: Connection) -> None:
    inline(connection, "short")
    activate(connection, "queued")
    activate(connection, "judged", kind="python", callable="a:b", lane="judge")
    inline(connection, "no_secrets", action="block", expression="span.output !~ 'secret'")
    span_id, started_at = uuid.uuid4(), "2026-01-02 03:04:05+00"
    with acting(connection, "flywheel_writer"):
        connection.execute("insert into flywheel.spans (input, output) values ('q', 'a')")
        for _ in range(2):
            replay = "insert into flywheel.spans (span_id, started_at) values (%s, %s) on conflict do nothing"
            connection.execute(replay, [span_id, started_at])
        with connection.cursor().copy("copy flywheel.spans (input, output) from stdin") as copy:
            for _ in range(1_500):
                copy.write_row(["q", "a"])
        connection.execute("insert into flywheel.traces (input, output) values ('q', 'a')")
        connection.execute("insert into flywheel.feedback (span_id, kind) values (%s, 'thumb')", [span_id])
        guarded = rows(connection, "select validator, passed from flywheel.guard('p', 'n', 'output', 'a secret')")
        assert guarded == [("no_secrets", False), ("short", True)]
        assert refused(connection, "insert into flywheel.spans (output) values ('a secret')").sqlstate == "WF001"
        for statement in (
            "select * from flywheel.spans",
            "update flywheel.spans set output = 'x'",
            "delete from flywheel.feedback",
            "insert into flywheel.spans (output) values ('x') returning output",
            "insert into flywheel.scores default values",
            "select flywheel.purge(now())",
        ):
            assert refused(connection, statement).sqlstate == "42501", statement
    assert value(connection, "select count(*) from flywheel.spans") == 1_503
    assert len(scores(connection)) == 3_004


def test_a_writers_insert_may_pause_a_validator_it_may_not_touch(connection: Connection) -> None:
    inline(connection, "raising", expression="1 / (length(span.output) - 3) > -9")
    with acting(connection, "flywheel_writer"):
        for _ in range(4):
            connection.execute("insert into flywheel.spans (output) values ('abc')")
        assert refused(connection, "update flywheel.validator_versions set status = 'retired'").sqlstate == "42501"
    assert status_of(connection, "raising") == "paused"


def test_an_analyst_sees_why(connection: Connection) -> None:
    inline(connection, "short")
    span_id = insert(connection)
    with acting(connection, "flywheel_analyst"):
        assert rows(connection, "select validator, state from flywheel.why(%s)", [span_id]) == [("short", "scored")]
        assert rows(connection, "select balanced from flywheel.accounts") == [(True,)]
        assert rows(connection, "select pass, validator from flywheel_bi.scores") == [(1.0, "short")]


def test_an_analyst_is_told_no_critique_and_no_error_by_why(connection: Connection) -> None:
    connection.execute("create function public.says(output text) returns flywheel.verdict language sql immutable"
                       " return row(false, null, 'it quotes ' || output)::flywheel.verdict")  # fmt: skip
    inline(connection, "says", function="public.says")
    inline(connection, "raising", expression="span.output::integer > 0")
    span_id = insert(connection, output="a secret")
    asked = "select validator, detail from flywheel.why(%s)"
    told = rows(connection, asked, [span_id])
    assert all("a secret" in detail for _, detail in told)
    with acting(connection, "flywheel_admin"):
        assert rows(connection, asked, [span_id]) == told
    with acting(connection, "flywheel_analyst"):
        assert rows(connection, asked, [span_id]) == [("raising", "raised"), ("says", "fail")]
        assert refused(connection, "select * from flywheel._explain_span(gen_random_uuid())").sqlstate == "42501"


def test_an_admin_defines_switches_and_repairs(connection: Connection) -> None:
    with acting(connection, "flywheel_admin"):
        define(connection, "short", lane="inline", expression="flywheel._id_time(span.span_id) is not null")
        connection.execute("select flywheel.activate_validator('short')")
        query = "update flywheel.validator_versions set status = 'paused', paused_detail = 'x'"
        connection.execute(query)
        connection.execute("update flywheel.validator_versions set status = 'active'")
        connection.execute("update flywheel.settings set value = '60' where name = 'inline_limit_ms'")
        connection.execute("select flywheel.reconcile(now() - interval '1 hour')")
        definition = Jsonb({"kind": "sql", "expression": "true"})
        assert rows(connection, "select passed from flywheel.test_validator(%s, 'q', 'a')", [definition]) == [(True,)]
        assert refused(connection, "update flywheel.validator_versions set definition = '{}'").sqlstate == "42501"
        assert refused(connection, "insert into flywheel.spans default values").sqlstate == "42501"
    insert(connection)
    assert scores(connection) == [("short", True, None)]


def test_a_worker_can_do_its_whole_round(connection: Connection) -> None:
    chosen = activate(connection, "short")
    judged = activate(connection, "polite", kind="python", callable="a:b", lane="judge")
    insert(connection, "abc")
    connection.execute("set role flywheel_worker")
    worker_id = worker(connection)
    calls: list[tuple[str, list[Any]]] = [
        ("_heartbeat(%s, 'w', '{bulk}', 60, true, 0, '0', false)", [worker_id]),
        ("_maintain_partitions()", []),
        ("_reconcile_recent()", []),
        ("_promote_later()", []),
        ("_reap()", []),
    ]
    for call, given in calls:
        connection.execute(f"select flywheel.{call}".encode(), given)
    claimed = rows(
        connection, "select fence, version_ids from flywheel._claim('bulk', 1::smallint, %s, 5, null)", [worker_id]
    )
    query = "select jobs, scores from flywheel._complete(%s, %s, %s, now())"
    assert rows(connection, query, [worker_id, [claimed[0][0]], claimed[0][1]]) == [(1, 1)]
    calls_claimed = rows(connection, "select fence from flywheel._claim_calls(1::smallint, %s, 5, null)", [worker_id])
    fences = [row[0] for row in calls_claimed]
    assert value(connection, "select flywheel._lock_fences(%s, %s)", [worker_id, fences]) == fences
    read = "select flywheel._write_scores(%s, keys, '{true}') from flywheel._read_spans(%s, %s, '{output}')"
    assert value(connection, read, [judged, fences, judged]) == 1
    assert value(connection, "select flywheel._finish(%s, %s)", [worker_id, fences]) == 1
    connection.execute("select flywheel._record_fault(%s, 'timed_out', 'x', 1)", [chosen])
    connection.execute("select flywheel._log_run(%s, 'judge', 1, 1, 1, now(), 'completed', null)", [worker_id])
    connection.execute("select flywheel._leave(%s)", [worker_id])
    for statement in (
        "select * from flywheel.spans",
        "delete from flywheel._ready",
        "insert into flywheel.spans default values",
        "select flywheel.activate_validator('short')",
    ):
        assert refused(connection, statement).sqlstate == "42501", statement
    connection.execute("reset role")
    assert len(scores(connection)) == 2


CHECKS = """
def short(text):
    return len(text) < 10
async def polite(text):
    return "please" in text
"""


def test_the_worker_process_needs_no_more_than_its_role(connection: Connection, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "shop_checks.py").write_text(CHECKS)
    activate(connection, "in_sql")
    activate(connection, "in_python", kind="python", callable="shop_checks:short")
    activate(connection, "called", kind="python", callable="shop_checks:polite", lane="judge")
    activate(connection, "raising", expression="1 / (length(span.output) - 3) > -9")
    insert_many(connection, 20, "case n when 7 then 'abc' else 'please' end")
    command = [sys.executable, "-m", "pgflywheel", "worker", "run", "--until-idle"]
    environment = {
        **os.environ,
        "PGFLYWHEEL_DSN": make_conninfo(dsn, options="-c role=flywheel_worker"),
        "PYTHONPATH": str(tmp_path),
    }
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "permission denied" not in ran.stderr
    query = (
        "select validator, passed, unscored_reason, count(*) from "
        "flywheel.current_scores group by 1, 2, 3 order by 1, 2"
    )
    assert rows(connection, query) == [
        ("called", False, None, 1),
        ("called", True, None, 19),
        ("in_python", True, None, 20),
        ("in_sql", True, None, 20),
        ("raising", True, None, 19),
        ("raising", None, "raised", 1),
    ]
