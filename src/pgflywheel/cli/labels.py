"""pgflywheel labels: answer, draw, queue, propose, import and export."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from pgflywheel.cli.files import write_text
from pgflywheel.cli.numbers import COUNT
from pgflywheel.cli.options import dsn_option, json_option, run_call, run_list, schema_option
from pgflywheel.cli.people import person, person_option
from pgflywheel.cli.text import clean, echo, echo_rows, one_line
from pgflywheel.cli.times import now, since_option, until_option
from pgflywheel.errors import FlywheelError, InvalidArgument

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database

Command = TypeVar("Command", bound=Callable[..., Any])

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
NONE_WRITTEN = "Mend the line and import again: no label was recorded."
NEEDED = ("span_id", "validator", "passed", "annotator")


reviewer_option = person_option("--reviewer", "Who says it")


def number_option(default: int, text: str) -> Callable[[Command], Command]:
    """Make the option that says how many."""
    return click.option("-n", "--number", "number", type=COUNT, default=default, show_default=True, help=text)


@click.group("labels")
def labels() -> None:
    """Label spans, draw and queue them, and move labels in and out."""


@labels.command("next")
@click.argument("validator")
@reviewer_option
@click.option(
    "--lane", type=click.Choice(["estimation", "triage"]), help="Only this lane (default: draws, then triage)."
)
@click.option("-n", "--number", type=COUNT, metavar="N", help="Stop after so many labels.")
@dsn_option
@schema_option
def next_label(
    validator: str, reviewer: str | None, lane: str | None, number: int | None, dsn: str, schema: str
) -> None:
    """Answer one question per screen: p pass, f fail, c critique, x fix, d defer, u undo, q quit.

    A fail needs a critique. What the judge said is told once the answer is saved.
    Where the input is no terminal, each line is a key and the text that goes with it.

    \b
    Example:
        pgflywheel labels next polite
        printf 'p\\nf It calls the customer names.\\n' | pgflywheel labels next polite
    """
    from pgflywheel.cli.labelling import Labelling, Lines, Terminal

    async def answer(database: Database) -> int:
        who = await person(database, reviewer)
        with Terminal() if sys.stdin.isatty() and sys.stdout.isatty() else Lines() as screen:
            return await Labelling(database, screen, validator, who, lane, number or sys.maxsize).run()

    saved = run_call(answer, dsn, schema)
    click.echo(f"{saved} saved")


@labels.command("stats")
@dsn_option
@schema_option
@json_option
def stats(dsn: str, schema: str, as_json: bool) -> None:
    """Show for each question what is labelled, and what waits.

    \b
    Example:
        pgflywheel labels stats
    """
    from pgflywheel.db import labels as calls

    found = run_call(calls.stats, dsn, schema)
    columns = ["validator", "labelled", "passed", "failed", "disputed", "estimation", "triage", "train", "dev", "test"]
    columns += ["provisional", "fixes", "waiting_estimation", "waiting_triage"]
    echo_rows(found, as_json, columns, empty="nothing is labelled")


@labels.command("draw")
@click.argument("validator")
@number_option(100, "About how many spans; those drawn before count.")
@since_option("Only spans from this time on.", default=BEGINNING)
@until_option("Only spans before it.", "before", default=now)
@click.option("--stratified", is_flag=True, help="By verdict: more where it errs more often.")
@click.option(
    "--reviewers", type=click.IntRange(1, 100), help="People for each span (default: settings.reviews_wanted)."
)
@dsn_option
@schema_option
@json_option
def draw(
    validator: str,
    number: int,
    since: datetime,
    before: datetime,
    stratified: bool,
    reviewers: int | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Draw spans by chance, for labels that estimate rates; a larger draw adds to a smaller one.

    \b
    Example:
        pgflywheel labels draw polite --number 100 --since 7d --stratified
    """
    from pgflywheel.db import labels as calls

    method = "stratified" if stratified else "random"
    made = run_call(calls.draw, dsn, schema, validator, number, since, before, method, reviewers)
    strata = "; ".join(
        f"{each['stratum']}: {each['size']:,} spans, each with probability {each['probability']:.4g}"
        for each in made.strata
    )
    echo(made, as_json, f"{made.drawn} spans are drawn. {strata}" if strata else "There are no spans to draw from.")


@labels.command("triage")
@click.argument("validator")
@number_option(50, "How many spans at most.")
@dsn_option
@schema_option
@json_option
def triage(validator: str, number: int, dsn: str, schema: str, as_json: bool) -> None:
    """Queue the spans whose labels would teach most; never counted in estimates.

    \b
    Example:
        pgflywheel labels triage polite --number 50
    """
    from pgflywheel.db import labels as calls

    queued = run_call(calls.triage, dsn, schema, validator, number)
    echo({"queued": queued}, as_json, f"{queued} spans are queued.")


@labels.command("propose")
@click.argument("validator")
@number_option(20, "How many spans at most.")
@dsn_option
@schema_option
@json_option
def propose(validator: str, number: int, dsn: str, schema: str, as_json: bool) -> None:
    """Put a judge's newest verdicts before people as provisional labels, which no number counts.

    \b
    Example:
        pgflywheel labels propose polite
    """
    from pgflywheel.db import labels as calls

    made = run_call(calls.propose, dsn, schema, validator, number)
    echo({"proposed": made}, as_json, f"{made} labels are proposed; see them: pgflywheel labels list --provisional")


@labels.command("list")
@click.argument("validator", required=False)
@click.option("--provisional", is_flag=True, help="Those judges proposed, to confirm or overturn.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many.")
@dsn_option
@schema_option
@json_option
def list_labels(validator: str | None, provisional: bool, limit: int, dsn: str, schema: str, as_json: bool) -> None:
    """List current labels, the oldest first.

    \b
    Example:
        pgflywheel labels list polite --provisional
    """
    from pgflywheel.db import labels as calls

    kind = "judge" if provisional else "human"
    found = run_list(calls.current, dsn, schema, validator, validator, kind, limit)
    if as_json:
        echo_rows(found, as_json)
        return
    lines = [
        {
            "label_id": label.label_id,
            "span_id": label.span_id,
            "validator": label.validator,
            "annotator": one_line(label.annotator, 30),
            "verdict": "pass" if label.passed else "fail",
            "lane": label.lane,
            "split": label.split,
            "critique": one_line(label.critique, 60),
        }
        for label in found
    ]
    echo_rows(lines, as_json, empty="no labels")


def _decision(verb: str, agrees: bool, help_text: str, done: str) -> Callable[..., None]:
    """Make the command that decides on a provisional label."""
    example = "" if agrees else ' --critique "It calls names."'
    example = f"pgflywheel labels {verb} 0198f2c4-8a00-7000-8000-000000000001{example}"

    @labels.command(verb, help=f"{help_text}\n\n\b\nExample:\n    {example}")
    @click.argument("label_id", type=click.UUID)
    @click.option("--critique", metavar="TEXT", help="Why; a fail needs one.")
    @reviewer_option
    @dsn_option
    @schema_option
    @json_option
    def command(
        label_id: UUID, critique: str | None, reviewer: str | None, dsn: str, schema: str, as_json: bool
    ) -> None:
        async def decide(database: Database) -> UUID:
            from pgflywheel.db import labels as calls

            return await calls.decide(database, label_id, await person(database, reviewer), agrees, critique)

        made = run_call(decide, dsn, schema)
        echo({"label_id": made}, as_json, f"The label is {done}.")

    return command


confirm = _decision("confirm", True, "Say that a provisional label is right.", "confirmed")
overturn = _decision("overturn", False, "Say that a provisional label is wrong.", "overturned")


@labels.command("export")
@click.argument("file")
@click.option("--validator", metavar="NAME", help="Only labels of this validator.")
@dsn_option
@schema_option
def export_labels(file: str, validator: str | None, dsn: str, schema: str) -> None:
    """Write every current label by people to a file of JSON lines; - is standard output.

    \b
    Example:
        pgflywheel labels export labels.jsonl
    """
    from pgflywheel.db import labels as calls

    found = run_list(calls.current, dsn, schema, validator, validator, "human")
    text = "".join(json.dumps(dataclasses.asdict(label), default=_plain, ensure_ascii=True) + "\n" for label in found)
    if file == "-":
        click.echo(text, nl=False)
        return
    write_text(Path(file), text)
    click.echo(clean(f"{len(found):,} labels are in {file}."))


@labels.command("import")
@click.argument("file")
@dsn_option
@schema_option
@json_option
def import_labels(file: str, dsn: str, schema: str, as_json: bool) -> None:
    """Record the labels of a file of JSON lines, plain or gzip; all of them or none.

    A line needs span_id, validator, passed and annotator, a fail its critique; what an export says besides is kept.
    Importing the same file again changes nothing.

    \b
    Example:
        pgflywheel labels import labels.jsonl
    """
    counts = run_call(_import, dsn, schema, file)
    echo(counts, as_json, "{imported} labels are recorded, {already_there} were there already.".format(**counts))


async def _import(database: Database, file: str) -> dict[str, int]:
    from pgflywheel.db import labels as calls

    counts = {"imported": 0, "already_there": 0}
    async with database.transaction() as whole:
        for number, label in _lines(file):
            try:
                new = await calls.import_line(whole, label)
            except FlywheelError as error:
                raise type(error)(
                    f"line {number}: {error.message}", error.detail, error.hint or NONE_WRITTEN
                ) from error
            counts["imported" if new else "already_there"] += 1
    return counts


def _lines(file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each label with the number of its line; raises InvalidArgument."""
    from pgflywheel.importer.mapping import parse_line
    from pgflywheel.importer.reading import opened
    from pgflywheel.importer.values import Rejected

    with opened(file) as source:
        for number, line in source.lines():
            try:
                label = parse_line(number, line).item
            except Rejected as error:
                raise InvalidArgument(f"line {number}: {error}", None, NONE_WRITTEN) from error
            missing = [name for name in NEEDED if label.get(name) is None]
            if missing:
                raise InvalidArgument(f"line {number} has no {missing[0]}", None, NONE_WRITTEN)
            yield number, label


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
