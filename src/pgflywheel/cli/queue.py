"""pgflywheel queue: what waits, what is dead, and pausing a lane."""

from __future__ import annotations

from uuid import UUID

import click

from pgflywheel.cli.options import dsn_option, json_option, reason_option, run_call, schema_option
from pgflywheel.cli.text import at, echo, echo_rows, one_line
from pgflywheel.errors import UsageError

LANE = click.Choice(["bulk", "judge", "embed", "batch"])


@click.group("queue")
def queue() -> None:
    """See the queue, its dead jobs, and pause a lane."""


@queue.command("status")
@dsn_option
@schema_option
@json_option
def status(dsn: str, schema: str, as_json: bool) -> None:
    """Show how much work waits in each lane.

    \b
    Example:
        pgflywheel queue status --json
    """
    from pgflywheel.db import jobs

    echo_rows(run_call(jobs.status, dsn, schema), as_json)


@queue.command("dead")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many.")
@dsn_option
@schema_option
@json_option
def dead(limit: int, dsn: str, schema: str, as_json: bool) -> None:
    """List the jobs that were given up, with the reason.

    \b
    Example:
        pgflywheel queue dead
    """
    from pgflywheel.db import jobs

    found = run_call(jobs.dead, dsn, schema, limit)
    if as_json:
        echo_rows(found, as_json)
        return
    lines = [
        {
            "job_id": job.job_id,
            "lane": job.lane,
            "validators": job.validators,
            "spans": job.spans,
            "attempts": job.attempts,
            "died_at": at(job.died_at),
            "reason": one_line(f"{job.reason}: {job.detail}" if job.detail else job.reason),
        }
        for job in found
    ]
    echo_rows(lines, as_json, empty="no dead jobs")


@queue.command("replay")
@click.argument("job_id", type=click.UUID, required=False)
@click.option("--all", "everything", is_flag=True, help="Every dead job.")
@dsn_option
@schema_option
@json_option
def replay(job_id: UUID | None, everything: bool, dsn: str, schema: str, as_json: bool) -> None:
    """Queue a dead job again, with fresh attempts.

    \b
    Example:
        pgflywheel queue replay --all
    """
    from pgflywheel.db import jobs

    if (job_id is None) != everything:
        raise UsageError("name either a job or --all", hint="List dead jobs: pgflywheel queue dead.")
    replayed = run_call(jobs.replay, dsn, schema, job_id)
    echo({"replayed": replayed}, as_json, f"{replayed:,} jobs are queued again.")


@queue.command("pause")
@click.argument("lane", type=LANE)
@reason_option("Why; others will read it in the queue's status.")
@dsn_option
@schema_option
@json_option
def pause(lane: str, reason: str, dsn: str, schema: str, as_json: bool) -> None:
    """Stop workers from claiming jobs of a lane; new jobs keep being queued.

    \b
    Example:
        pgflywheel queue pause judge --reason "provider is down"
    """
    from pgflywheel.db import jobs

    run_call(jobs.pause_lane, dsn, schema, lane, reason)
    echo({"lane": lane, "paused": True, "reason": reason}, as_json, f"Lane {lane} is paused: {reason}")


@queue.command("resume")
@click.argument("lane", type=LANE)
@dsn_option
@schema_option
@json_option
def resume(lane: str, dsn: str, schema: str, as_json: bool) -> None:
    """Let workers claim jobs of a paused lane again.

    \b
    Example:
        pgflywheel queue resume judge
    """
    from pgflywheel.db import jobs

    run_call(jobs.resume_lane, dsn, schema, lane)
    echo({"lane": lane, "paused": False}, as_json, f"Lane {lane} runs.")
