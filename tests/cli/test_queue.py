"""pgflywheel queue, backfill and scores: what waits, what is dead, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from psycopg.conninfo import make_conninfo

from .conftest import CommandLine, Connection

Write = Callable[[str], Path]
DEFINITIONS = """
[[validator]]
name = "short"
kind = "sql"
expression = "length(span.output) < 10"
description = "Answers are brief."
"""


@pytest.fixture
def judged(pgflywheel: CommandLine, definitions: Write) -> CommandLine:
    """An install with one active bulk validator."""
    pgflywheel("validators", "apply", definitions(DEFINITIONS), "--activate")
    return pgflywheel


def insert(connection: Connection, *outputs: str) -> list[Any]:
    query = "insert into flywheel.spans (output, node) select unnest(%s::text[]), 'answer' returning span_id"
    return [row[0] for row in connection.execute(query, [list(outputs)])]


def kill_every_job(connection: Connection) -> None:
    """Bury what is ready, as a worker does after the last attempt."""
    connection.execute("""
        with gone as (delete from flywheel._ready returning *)
        insert into flywheel._dead
               (lane, priority, job_id, version_ids, span_ids, started_from, started_until, reason, detail)
        select lane, priority, job_id, version_ids, span_ids, started_from, started_until, 'crashed', 'out of luck'
          from gone
    """)


def test_status_counts_what_waits_in_each_lane(judged: CommandLine, connection: Connection) -> None:
    insert(connection, "brief", "not brief at all")
    lanes = {lane["lane"]: lane for lane in judged.json("queue", "status")}
    assert (lanes["bulk"]["ready_jobs"], lanes["bulk"]["ready_spans"]) == (1, 2)
    assert lanes["judge"]["ready_spans"] == 0
    assert "bulk" in judged("queue", "status").stdout


def test_a_paused_lane_says_why_until_it_is_resumed(judged: CommandLine) -> None:
    judged("queue", "pause", "bulk", "--reason", "deploy")
    assert {lane["lane"]: lane["paused_reason"] for lane in judged.json("queue", "status")}["bulk"] == "deploy"
    judged("queue", "resume", "bulk")
    assert not any(lane["paused"] for lane in judged.json("queue", "status"))
    judged("queue", "pause", "inline", "--reason", "x", exit_code=2)


def test_a_dead_job_is_listed_and_replayed(judged: CommandLine, connection: Connection) -> None:
    insert(connection, "brief")
    kill_every_job(connection)
    (job,) = judged.json("queue", "dead")
    assert (job["validators"], job["spans"], job["reason"], job["detail"]) == ("short", 1, "crashed", "out of luck")
    assert "crashed: out of luck" in judged("queue", "dead").stdout
    assert judged.json("queue", "replay", job["job_id"]) == {"replayed": 1}
    assert judged("queue", "dead").stdout == "no dead jobs\n"


def test_all_dead_jobs_are_replayed_at_once(judged: CommandLine, connection: Connection) -> None:
    for _ in range(3):
        insert(connection, "brief")
    kill_every_job(connection)
    assert judged.json("queue", "replay", "--all") == {"replayed": 3}
    assert judged.json("queue", "replay", "--all") == {"replayed": 0}


def test_replay_needs_a_job_that_is_dead_or_all(judged: CommandLine) -> None:
    judged("queue", "replay", exit_code=2)
    judged("queue", "replay", uuid4(), "--all", exit_code=2)
    assert "there is no dead job" in judged("queue", "replay", uuid4(), exit_code=1).stderr


def test_a_backfill_queues_what_has_no_score_and_goes_on_after_the_last_span(
    pgflywheel: CommandLine, definitions: Write, connection: Connection
) -> None:
    insert(connection, *["brief"] * 30)
    pgflywheel("validators", "apply", definitions(DEFINITIONS), "--activate")
    times = ("--since", "2h", "--until", "now")
    assert pgflywheel.json("backfill", "short", *times, "--dry-run") == {
        "eligible": 30,
        "already_scored": 0,
        "to_judge": 30,
    }
    done = pgflywheel.json("backfill", "short", *times)
    assert (done["done"], done["queued"], done["skipped"]) == (True, 30, 0)
    pgflywheel("worker", "run", "--until-idle")
    assert pgflywheel.json("backfill", "short", *times, "--dry-run")["to_judge"] == 0
    again = pgflywheel("backfill", "short", *times)
    assert "0 spans are queued for short; 30 had a score already." in again.stdout


def test_a_backfill_cut_short_goes_on_where_it_stopped(judged: CommandLine, connection: Connection) -> None:
    connection.execute("alter table flywheel.spans disable trigger dispatch_insert")
    insert(connection, *["brief"] * 10)
    since, until = connection.execute("select now() - interval '1 hour', now() + interval '1 hour'").fetchone() or ()
    backfill = connection.execute("select flywheel.start_backfill('short', %s, %s)", [since, until]).fetchone()
    assert backfill is not None
    connection.execute("select flywheel.advance_backfill(%s, 4)", [backfill[0]])
    done = judged.json("backfill", "short", "--since", since.isoformat(), "--until", until.isoformat())
    assert done["queued"] == 10
    spans = connection.execute("select sum(cardinality(span_ids)) from flywheel._ready").fetchone()
    assert spans == (10,)


def test_a_backfill_of_a_draft_is_refused(pgflywheel: CommandLine, definitions: Write) -> None:
    pgflywheel("validators", "apply", definitions(DEFINITIONS))
    assert "cannot be backfilled" in pgflywheel("backfill", "short", "--since", "1d", exit_code=1).stderr


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "-1d", "99999999999d", "999999999w"])
def test_a_time_that_is_none_is_wrong_use(judged: CommandLine, since: str) -> None:
    assert "is not a time" in judged("backfill", "short", "--since", since, exit_code=2).stderr


def test_why_and_show_follow_a_span_from_queued_to_scored(judged: CommandLine, connection: Connection) -> None:
    (span,) = insert(connection, "not brief at all")
    assert [(row["validator"], row["state"]) for row in judged.json("why", span)] == [("short", "queued")]
    judged("worker", "run", "--until-idle")
    assert "scored" in judged("scores", "why", span).stdout
    (score,) = judged.json("scores", "show", "--span", span, "--verdict", "fail")
    assert (score["validator"], score["passed"], score["node"]) == ("short", False, "answer")
    assert judged.json("scores", "show", "--verdict", "pass") == []
    assert judged("scores", "show", "--verdict", "unscored").stdout == "no scores\n"


def test_rates_and_accounts_add_up(judged: CommandLine, connection: Connection) -> None:
    insert(connection, "brief", "brief", "not brief at all", "brief")
    judged("worker", "run", "--until-idle")
    (rate,) = judged.json("scores", "rates", "--validator", "short", "--since", "1h")
    assert (rate["node"], rate["judged"], rate["passed"], rate["pass_rate"]) == ("answer", 4, 3, 0.75)
    (account,) = judged.json("scores", "accounts")
    assert (account["eligible"], account["scored"], account["missing"], account["balanced"]) == (4, 4, 0, True)


def test_why_of_no_span_is_an_error(judged: CommandLine) -> None:
    assert "there is no span" in judged("why", uuid4(), exit_code=1).stderr
    judged("why", "not-an-id", exit_code=2)


def test_times_are_in_utc_wherever_the_server_is(judged: CommandLine, connection: Connection, dsn: str) -> None:
    query = "insert into flywheel.spans (output, started_at) values ('x', '2026-03-01 23:30:00+00') returning span_id"
    (span_id,) = connection.execute(query).fetchone() or (None,)
    judged("worker", "run", "--lanes", "bulk", "--until-idle")
    there = CommandLine(make_conninfo(dsn, options="-ctimezone=Asia/Tokyo"))
    for words in (("scores", "show"), ("scores", "why", span_id), ("worker", "status"), ("traces", "list")):
        assert there(*words).stdout == judged(*words).stdout
    assert "2026-03-01 23:30:00" in there("scores", "show").stdout


def test_a_small_cap_is_shown_as_it_is(pgflywheel: CommandLine) -> None:
    assert "may cost 0.001 USD a day." in pgflywheel("budgets", "set", "project:shop", "day", "0.001").stdout
    assert "may cost 1,234.50 USD a month." in pgflywheel("budgets", "set", "project:shop", "month", "1234.5").stdout
