"""pgflywheel worker: run one, and see the ones that run."""

from __future__ import annotations

import click

from pgflywheel.cli.numbers import FiniteRange
from pgflywheel.cli.options import dsn_option, json_option, run, run_call, schema_option
from pgflywheel.cli.text import at, echo_rows
from pgflywheel.errors import UsageError

LANES = ("bulk", "judge", "embed", "batch")


def _lanes(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    lanes = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in lanes if name not in LANES]
    if unknown or not lanes:
        raise click.BadParameter(f'"{value}" is no list of lanes, as {",".join(LANES)}')
    return lanes


@click.group("worker")
def worker() -> None:
    """Run a worker, and see the ones that run."""


@worker.command("run")
@click.option("--lanes", default=",".join(LANES), show_default=True, callback=_lanes, help="Lanes to serve.")
@click.option(
    "--concurrency", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Judge calls at once."
)
@click.option("--until-idle", is_flag=True, help="End when nothing is queued, running or due within a minute.")
@click.option("--metrics-port", type=click.IntRange(1, 65_535), help="Serve /metrics and /health on 127.0.0.1.")
@click.option("--name", help="Name in worker status; else host:pid.")
@click.option("--lease-seconds", type=FiniteRange(3, 3600), default=30, show_default=True, help="Length of the lease.")
@click.option("--grace-seconds", type=FiniteRange(0, 3600), default=30, show_default=True, help="Time to finish in.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="On stderr.")
@click.option("--verbose", "-v", is_flag=True, help="Log every batch.")
@dsn_option
@schema_option
def run_worker_command(
    lanes: tuple[str, ...],
    concurrency: int,
    until_idle: bool,
    metrics_port: int | None,
    name: str | None,
    lease_seconds: float,
    grace_seconds: float,
    log_format: str,
    verbose: bool,
    dsn: str,
    schema: str,
) -> None:
    """Claim jobs, run their checks and write the scores, until stopped.

    SIGTERM or Ctrl-C: claims nothing more, finishes what is in hand, and leaves.

    \b
    Example:
        pgflywheel worker run --lanes bulk --until-idle
    """
    import logging
    from functools import partial

    from pgflywheel.worker import logs
    from pgflywheel.worker.leaving import and_leave
    from pgflywheel.worker.loop import run_worker
    from pgflywheel.worker.site import Options, default_name

    logs.set_up(log_format, logging.DEBUG if verbose else logging.INFO)
    options = Options(
        lanes=lanes,
        concurrency=concurrency,
        until_idle=until_idle,
        metrics_port=metrics_port,
        name=name or default_name(),
        lease_seconds=lease_seconds,
        grace_seconds=grace_seconds,
    )
    try:
        run(and_leave(partial(run_worker, dsn, schema, options)))
    except OSError as error:
        if metrics_port is None:
            raise
        raise UsageError(f"port {metrics_port} cannot be served", str(error)) from error


@worker.command("status")
@dsn_option
@schema_option
@json_option
def status(dsn: str, schema: str, as_json: bool) -> None:
    """List the workers and when they were last seen.

    \b
    Example:
        pgflywheel worker status --json
    """
    from pgflywheel.db import queue

    found = run_call(queue.worker_status, dsn, schema)
    if as_json:
        echo_rows(found, as_json)
        return
    lines = [
        {
            "name": one.name,
            "lanes": ", ".join(one.lanes),
            "wakes by": "notify" if one.listening else "poll",
            "in hand": one.in_hand,
            "release": one.release,
            "last seen": at(one.last_seen_at),
            "alive": "yes" if one.alive else "no",
        }
        for one in found
    ]
    echo_rows(lines, as_json, empty="no workers")
