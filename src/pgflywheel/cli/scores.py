"""pgflywheel scores: read scores, and why a span has or has none."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import click

from pgflywheel.cli.options import dsn_option, json_option, run_call, run_list, schema_option
from pgflywheel.cli.text import at, echo_rows, one_line
from pgflywheel.cli.times import since_option, until_option

validator_filter = click.option("--validator", metavar="NAME", help="Only of this validator.")
project_filter = click.option("--project", metavar="NAME", help="Only of this project.")
node_filter = click.option("--node", metavar="NAME", help="Only of this step.")
since_filter = since_option("Only of spans from this time on, or 2h, 7d ago.")
before_filter = until_option("Only of spans before this time.", "before")


@click.group("scores")
def scores() -> None:
    """Read scores, and why a span has or has none."""


@scores.command("show")
@click.option("--span", "span_id", type=click.UUID, metavar="ID", help="Only of this span.")
@click.option("--verdict", type=click.Choice(["pass", "fail", "unscored"]), help="Only with this outcome.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many.")
@validator_filter
@project_filter
@node_filter
@since_filter
@before_filter
@dsn_option
@schema_option
@json_option
def show(limit: int, dsn: str, schema: str, as_json: bool, **meant: Any) -> None:
    """Show current scores, those of the newest spans first.

    \b
    Example:
        pgflywheel scores show --validator no_email --verdict fail
    """
    from pgflywheel.db import explain

    found = run_list(explain.scores, dsn, schema, meant["validator"], explain.ScoreFilter(**meant), limit)
    if as_json:
        echo_rows(found, as_json)
        return
    lines = [
        {
            "span_id": score.span_id,
            "started_at": at(score.started_at),
            "node": score.node,
            "validator": f"{score.validator} v{score.version}",
            "verdict": _verdict(score.passed, score.provisional),
            "why": one_line(_why(score.critique, score.unscored_reason, score.unscored_detail), 80),
        }
        for score in found
    ]
    echo_rows(lines, as_json, empty="no scores")


@scores.command("rates")
@validator_filter
@project_filter
@node_filter
@since_filter
@before_filter
@dsn_option
@schema_option
@json_option
def rates(
    validator: str | None,
    project: str | None,
    node: str | None,
    since: datetime | None,
    before: datetime | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Show the pass rate of each validator on each node; unscored spans and provisional judges stand apart.

    \b
    Example:
        pgflywheel scores rates --since 7d
    """
    from pgflywheel.db import explain

    meant = explain.ScoreFilter(validator, project, node, since=since, before=before)
    echo_rows(run_list(explain.pass_rates, dsn, schema, validator, meant), as_json, empty="no scores")


@scores.command("why")
@click.argument("span_id", type=click.UUID)
@dsn_option
@schema_option
@json_option
def why(span_id: UUID, dsn: str, schema: str, as_json: bool) -> None:
    """Tell for each validator why a span has a score or has none.

    \b
    Example:
        pgflywheel why 0198f2c4-8a00-7000-8000-000000000001
        pgflywheel scores why 0198f2c4-8a00-7000-8000-000000000001
    """
    from pgflywheel.db import explain

    found = run_call(explain.why, dsn, schema, span_id)
    if as_json:
        echo_rows(found, as_json)
        return
    lines = [
        {
            "validator": f"{reason.validator} v{reason.version}",
            "state": reason.state,
            "since": at(reason.since),
            "detail": one_line(reason.detail, 110),
        }
        for reason in found
    ]
    echo_rows(lines, as_json, empty="no validator is defined")


@scores.command("accounts")
@dsn_option
@schema_option
@json_option
def accounts(dsn: str, schema: str, as_json: bool) -> None:
    """Show that every eligible span is scored, unscored or waiting, for each validator version.

    \b
    Example:
        pgflywheel scores accounts
    """
    from pgflywheel.db import explain

    echo_rows(run_call(explain.accounts, dsn, schema), as_json, empty="no validator was ever active")


def _verdict(passed: bool | None, provisional: bool) -> str:
    word = "unscored" if passed is None else "pass" if passed else "fail"
    return f"{word} (provisional)" if provisional and passed is not None else word


def _why(critique: str | None, reason: str | None, detail: str | None) -> str:
    if reason is None:
        return critique or ""
    return f"{reason}: {detail}" if detail else reason
