"""pgflywheel judges: try them, see what they are shown, and how far they may be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from pgflywheel.cli.alignment import align, calibrate, compare, tune
from pgflywheel.cli.definitions import Question, read
from pgflywheel.cli.judge_name import JudgeName
from pgflywheel.cli.judge_trial import Case, Trial, Wanted, ask, built, prepare
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.text import clean, echo_rows, echo_table, one_line, to_json
from pgflywheel.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from pgflywheel.judge.records import Judgement, Prompt

Command = Callable[..., None]


@click.group("judges")
def judges() -> None:
    """Try judges, see what they are shown, and how far they may be trusted."""


@judges.command("list")
@dsn_option
@schema_option
@json_option
def list_judges(dsn: str, schema: str, as_json: bool) -> None:
    """List judges and votes of neighbours with the version that runs, or else the newest.

    \b
    Example:
        pgflywheel judges list
    """
    from pgflywheel.db import judge_trials

    found = run_call(judge_trials.judges, dsn, schema)
    if as_json:
        echo_rows(found, as_json)
        return
    lines = [
        {
            "judge": row.validator,
            "version": row.version,
            "status": row.status,
            "model": f"{row.provider}: {row.model}" if row.model else "none (neighbours)",
            "votes": row.votes,
            "shots": row.shots,
            "decides": f"no: {row.reason}" if row.provisional else "yes",
            "question": one_line(row.question, 60),
        }
        for row in found
    ]
    echo_rows(lines, as_json, empty="no judge is defined")


def _about(command: Command) -> Command:
    """Add what says which judge is meant, and what it is asked about."""
    for option in (
        click.option("--output", "output_text", metavar="TEXT", help="Ask about this output instead of a span."),
        click.option("--input", "input_text", metavar="TEXT", help="Ask about this input instead of a span."),
        click.argument("span_id", type=click.UUID, metavar="[SPAN]", required=False),
        click.argument("judge", metavar="JUDGE"),
    ):
        command = option(command)
    return command


@judges.command("prompt")
@_about
@dsn_option
@schema_option
@json_option
def prompt(
    judge: str,
    span_id: UUID | None,
    input_text: str | None,
    output_text: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Print the exact prompt a judge would be given for a span, without calling anything.

    JUDGE is NAME, NAME@VERSION, FILE, or FILE#NAME. With --json it is the request as it would be sent.

    \b
    Example:
        pgflywheel judges prompt polite 018f6b5e-7c1a-7d3e-9f00-000000000001
        pgflywheel judges prompt judges.toml#polite --output "Read the manual."
    """
    from pgflywheel.judge.ladder import Ladder

    question = _question(span_id, input_text, output_text)
    case = run_call(prepare, dsn, schema, _wanted(judge, schema), question)
    made = built(case, tuple(case.shots), Ladder())
    if as_json:
        click.echo(to_json(made.request))
        return
    _echo_prompt(made)


@judges.command("test")
@_about
@dsn_option
@schema_option
@json_option
def test(
    judge: str,
    span_id: UUID | None,
    input_text: str | None,
    output_text: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Ask a judge about a span or a text: its prompt, its examples, its reply, what it cost.

    The calls are recorded and count in budgets; no score is written. Exit code 1 when the answer is not pass.
    JUDGE is NAME, NAME@VERSION, FILE, or FILE#NAME.

    \b
    Example:
        pgflywheel judges test polite 018f6b5e-7c1a-7d3e-9f00-000000000001
        pgflywheel judges test judges.toml --input "It is broken" --output "Read the manual."
    """
    question = _question(span_id, input_text, output_text)
    trial = run_call(ask, dsn, schema, _wanted(judge, schema), question)
    if as_json:
        click.echo(to_json(_as_dict(trial)))
    else:
        _echo_trial(trial)
    if trial.judgement.passed is not True:
        click.get_current_context().exit(CheckFailed.exit_code)


for command in (align, compare, calibrate, tune):
    judges.add_command(command)


def _question(span_id: UUID | None, input_text: str | None, output_text: str | None) -> Question:
    if (span_id is None) == (input_text is None and output_text is None):
        raise UsageError("name either a span, or --input and --output", hint="One of the two texts is enough.")
    return Question(span_id, input_text, output_text)


def _wanted(judge: str, schema: str) -> Wanted:
    """Read NAME, NAME@VERSION, FILE or FILE#NAME."""
    file, _, name = judge.partition("#")
    if "#" in judge or Path(file).is_file():
        if not Path(file).is_file():
            raise UsageError(f"there is no file {file}", hint="Write FILE#NAME for a judge of a file.")
        return Wanted(name, None, read(Path(file), schema))
    return Wanted(*JudgeName().convert(judge, None, click.get_current_context()), None)


def _echo_trial(trial: Trial) -> None:
    case = trial.case
    _echo_prompt(trial.calls[0].prompt)
    _echo_shots(case)
    for number, call in enumerate(trial.calls, start=1):
        kind = "repair" if call.prompt.repair else f"vote {call.prompt.vote} of {case.definition.votes}"
        by = call.reply.model or call.prompt.model
        click.echo(clean(f"\n── reply {number} ({kind}; {by}, {call.prompt.rung}, {call.reply.latency_ms:,.0f} ms)"))
        click.echo(clean(call.reply.text or call.reply.refusal or f"(nothing: {call.reading.judgement.detail})"))
    click.echo(f"\n── {case.judge.validator}")
    click.echo(clean("\n".join(_told(trial.judgement))))
    tokens = f"{_known(trial.total('input_tokens'))} read ({_known(trial.total('cached_tokens'))} of them cached)"
    cost = trial.total("cost_usd")
    dollars = "unknown" if cost is None else f"{cost:.6f} USD"
    click.echo(f"tokens: {tokens}, {_known(trial.total('output_tokens'))} written; cost: {dollars}")


def _echo_prompt(made: Prompt) -> None:
    for message in made.messages:
        click.echo(clean(f"── {message['role']}\n{message['content']}\n"))


def _echo_shots(case: Case) -> None:
    if not case.shots:
        click.echo("── examples: none")
        return
    scores = ("similarity", "recency", "disagreement", "trust", "relevance")
    click.echo("── examples, the most relevant last")
    echo_table(
        ("example", "verdict", *scores, "tokens", "input"),
        [
            (
                str(shot.example_id),
                "fixed" if shot.corrected_output is not None else "pass" if shot.passed else "fail",
                *(getattr(shot, score) for score in scores),
                shot.tokens,
                one_line(shot.input, 40),
            )
            for shot in case.shots
        ],
    )


def _told(judgement: Judgement) -> list[str]:
    verdict = "no verdict" if judgement.passed is None else "pass" if judgement.passed else "fail"
    lines = [f"verdict: {verdict}"]
    for label, number in (("value", judgement.value), ("confidence", judgement.confidence)):
        if number is not None:
            lines.append(f"{label}: {number:.3g}")
    for label, text in (("why", judgement.critique), ("unscored", judgement.reason), ("detail", judgement.detail)):
        if text:
            lines.append(f"{label}: {text}")
    return lines


def _known(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _as_dict(trial: Trial) -> dict[str, Any]:
    case = trial.case
    return {
        "judge": case.judge.validator,
        "version": case.judge.version,
        "provider": case.provider.name,
        "shots": [asdict(shot) for shot in case.shots],
        "calls": [
            {
                "vote": call.prompt.vote,
                "repair": call.prompt.repair,
                "rung": call.prompt.rung,
                "request": call.prompt.request,
                "request_hash": call.prompt.request_hash,
                "reply": asdict(call.reply),
                "outcome": call.reading.outcome,
                "cost_usd": call.cost_usd,
            }
            for call in trial.calls
        ],
        "judgement": asdict(trial.judgement),
        "cost_usd": trial.total("cost_usd"),
    }
