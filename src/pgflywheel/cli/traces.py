"""pgflywheel traces: import, list, show and purge."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click
from click.core import ParameterSource

from pgflywheel.cli.options import confirm, dsn_option, json_option, run, run_call, schema_option, yes_option
from pgflywheel.cli.text import at, clean, echo, echo_rows, note, one_line, to_json
from pgflywheel.cli.times import TIME, since_option, until_option
from pgflywheel.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from pgflywheel.db.importing import ImportCounts, ToSpans
    from pgflywheel.db.spans import StoredSpan
    from pgflywheel.importer.mapping import ColumnMap
    from pgflywheel.importer.reading import RejectFile

Command = TypeVar("Command", bound=Callable[..., Any])

MAPPED = {
    "input": "what went in",
    "output": "what came out",
    "started_at": "when it began: ISO 8601, or seconds, ms, µs or ns since 1970; else the time of the import",
    "ended_at": "when it ended",
    "session": "the conversation",
    "user": "the end user",
    "project": "the LLM application",
    "environment": "where it runs",
    "release": "version of the application",
    "node": "name of the step",
    "node_kind": "app, classifier, writer, codegen, retriever, tool, agent or other",
    "model": "model name",
    "provider": "who served the model",
    "messages": "chat messages; with --format openai-messages the list to read (default: messages)",
    "documents": "retrieved passages",
    "input_tokens": "tokens read",
    "output_tokens": "tokens written",
    "cost_usd": "cost in US dollars",
    "status": "ok, error or running",
    "error": "error message",
    "trace_id": "id of the request; else derived from the line",
    "span_id": "id of the step; else derived from the line",
    "parent": "id of the step that called this one",
}
ALIASES = {"session": "session_id", "user": "user_id", "parent": "parent_span_id"}
OF_STEPS = ("steps", "step_node", "step_output", "step_input", "tools")
REASONS_SHOWN = 5
MOST_INDENTED = 20


@click.group("traces")
def traces() -> None:
    """Import traces, look at them, and drop old days."""


def mapping_options(command: Command) -> Command:
    """Give a command one option for each column that a path can fill."""
    for name, meaning in reversed(MAPPED.items()):
        text = f"{meaning[0].upper()}{meaning[1:]}."
        option = click.option(f"--{name.replace('_', '-')}", name, metavar="PATH", help=text)
        command = option(command)
    return command


@traces.command("import")
@click.argument("file", metavar="FILE")
@mapping_options
@click.option("--set", "constants", multiple=True, metavar="COLUMN=VALUE", help="Value where no path has one.")
@click.option("--attribute", "attributes", multiple=True, metavar="PATH", help="Keep this in attributes.")
@click.option("--rest/--no-rest", default=True, help="Keep small members no path reads in attributes (default: yes).")
@click.option(
    "--format",
    "line_format",
    type=click.Choice(["spans", "openai-messages", "steps"]),
    default="spans",
    show_default=True,
    help="What a line is: a span, a run of chat messages, or a run with a list of steps.",
)
@click.option("--steps", metavar="PATH", default="steps", show_default=True, help="List of steps of a run.")
@click.option("--step-node", metavar="PATH", default="name", show_default=True, help="In a step: who acted.")
@click.option("--step-output", metavar="PATH", default="content", show_default=True, help="In a step: what came out.")
@click.option("--step-input", metavar="PATH", help="In a step: what went in; else the output of the step before.")
@click.option("--tool", "tools", multiple=True, metavar="NODE", help="Steps of this name are tool calls.")
@click.option("--reject", metavar="FILE", help="Where rejected lines go (default: NAME.rejected.jsonl, here).")
@click.option("--strict", is_flag=True, help="Exit with 1 when a line was rejected.")
@dsn_option
@schema_option
@json_option
def import_traces(
    file: str, reject: str | None, strict: bool, dsn: str, schema: str, as_json: bool, **mapping: Any
) -> None:
    """Load a file of JSON lines, plain or gzip; - is standard input.

    A path names members with dots, and items of lists by number: input.prompt, choices[0].message.content.
    Lines that cannot be loaded go to the reject file with their number and the reason.
    Importing the same file again with the same mapping changes nothing.

    \b
    Example:
        pgflywheel traces import log.jsonl.gz --input input.prompt --output output \\
            --started-at ts --session conversation --set project=support
    """
    from pgflywheel.db.importing import ImportCounts
    from pgflywheel.importer.reading import RejectFile

    to_spans = _converter(mapping)
    rejects, counts = RejectFile(_reject_path(file, reject)), ImportCounts()
    try:
        run(_import(file, to_spans, rejects, counts, dsn, schema))
    except BaseException:
        if counts.lines:
            note(f"{_summary(counts, file)} Then it ended; import it again: what is loaded stays as it is.")
        raise
    finally:
        rejects.close()
    echo(counts, as_json, _summary(counts, file))
    _report_rejects(rejects, counts, file, strict)


@traces.command("list")
@click.option("--project", metavar="NAME", help="Only of this project.")
@since_option("Only from this time on: ISO 8601, or 2h, 7d ago.")
@until_option("Only before this time.", "before")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@dsn_option
@schema_option
@json_option
def list_traces(
    project: str | None,
    since: datetime | None,
    before: datetime | None,
    limit: int,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """List the newest traces.

    \b
    Example:
        pgflywheel traces list --project support --since 2h
    """
    from pgflywheel.db import spans

    found = run_call(spans.traces, dsn, schema, project, since, before, limit)
    if as_json:
        click.echo(to_json(found))
        return
    lines = [
        {
            "trace_id": line.trace_id,
            "started_at": at(line.started_at),
            "project": line.project,
            "node": line.node,
            "spans": line.spans,
            "input": one_line(line.input, 40),
            "output": one_line(line.output, 40),
        }
        for line in found
    ]
    echo_rows(lines, as_json=False, empty="no traces")


@traces.command("show")
@click.argument("trace_or_span_id", type=click.UUID)
@click.option("--full", is_flag=True, help="Print inputs and outputs whole.")
@dsn_option
@schema_option
@json_option
def show_trace(trace_or_span_id: UUID, full: bool, dsn: str, schema: str, as_json: bool) -> None:
    """Show the spans of a trace, given its id or the id of one of its spans.

    \b
    Example:
        pgflywheel traces show 0198f2c4-8a00-7000-8000-000000000001
    """
    from pgflywheel.db import spans

    found = run_call(spans.trace, dsn, schema, trace_or_span_id)
    if as_json:
        click.echo(to_json(found))
        return
    click.echo(f"trace {found[0].trace_id}, {len(found)} spans")
    depths = _depths(found)
    for span in found:
        _print_span(span, "  " * min(depths[span.span_id], MOST_INDENTED), full)


@traces.command("purge")
@click.option(
    "--before", type=TIME, required=True, metavar="TIME", help="Days that ended before: ISO 8601, or 90d ago."
)
@yes_option
@dsn_option
@schema_option
@json_option
def purge(before: datetime, yes: bool, dsn: str, schema: str, as_json: bool) -> None:
    """Drop whole days of spans, scores and runs that ended before a time.

    \b
    Example:
        pgflywheel traces purge --before 90d --yes
    """
    from pgflywheel.db import spans

    if not yes:
        days = {dropped.day for dropped in run_call(spans.purgeable, dsn, schema, before)}
        confirm(yes, f"{len(days)} days before {at(before)} would be dropped, with their spans and scores.")
    dropped = run_call(spans.purge, dsn, schema, before)
    echo_rows(dropped, as_json, empty=f"no day ended before {at(before)}")


def _converter(mapping: dict[str, Any]) -> ToSpans:
    from pgflywheel.importer.mapping import SpanPerLine
    from pgflywheel.importer.paths import Path as JsonPath
    from pgflywheel.importer.runs import MessagesRun, StepsRun

    _refuse_unused(mapping)
    columns, now = _column_map(mapping), datetime.now(UTC)
    if mapping["line_format"] == "openai-messages":
        return MessagesRun(columns, now, messages=JsonPath.parse(mapping["messages"] or "messages"))
    if mapping["line_format"] == "steps":
        return StepsRun(
            columns,
            now,
            step_list=JsonPath.parse(mapping["steps"]),
            step_node=JsonPath.parse(mapping["step_node"]),
            step_output=JsonPath.parse(mapping["step_output"]),
            step_input=JsonPath.parse(mapping["step_input"]) if mapping["step_input"] else None,
            tools=frozenset(mapping["tools"]),
        )
    return SpanPerLine(columns, now)


def _refuse_unused(mapping: dict[str, Any]) -> None:
    """Raise UsageError for an option that only another format reads."""
    if mapping["line_format"] == "steps":
        return
    context = click.get_current_context()
    for option in context.command.params:
        name = str(option.name)
        if name in OF_STEPS and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{option.opts[0]} is of --format steps", hint="Give that too, or leave it out.")


def _column_map(mapping: dict[str, Any]) -> ColumnMap:
    from pgflywheel.importer.mapping import ColumnMap
    from pgflywheel.importer.paths import Path as JsonPath

    given = {ALIASES.get(name, name): mapping[name] for name in MAPPED if mapping[name] is not None}
    paths = {column: JsonPath.parse(path) for column, path in given.items()}
    if mapping["line_format"] == "spans" and not paths:
        raise UsageError(
            "no path is given",
            "The importer does not guess which member is what.",
            "Give at least --input or --output.",
        )
    return ColumnMap(
        paths,
        dict(_constant(text) for text in mapping["constants"]),
        tuple(JsonPath.parse(path) for path in mapping["attributes"]),
        mapping["rest"],
    )


def _constant(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f'--set {text} has no "="', hint="Write --set project=support.")
    return ALIASES.get(column, column), value


async def _import(
    file: str, to_spans: ToSpans, rejects: RejectFile, counts: ImportCounts, dsn: str, schema: str
) -> None:
    from pgflywheel.cli.progress import progress_bar
    from pgflywheel.db.connect import open_database
    from pgflywheel.db.importing import Import
    from pgflywheel.db.version import require_current
    from pgflywheel.importer.reading import opened

    with opened(file) as source:
        async with open_database(dsn, schema) as database:
            await require_current(database)
            with progress_bar("importing", source.size) as update:
                await Import(database, to_spans, rejects.add, counts).run(
                    source.lines(), lambda counts: update(source.position(), f"{counts.loaded:,} spans")
                )


def _reject_path(file: str, given: str | None) -> Path:
    """Return where rejected lines go; raises UsageError for the file that is read."""
    if given is None:
        name = "stdin" if file == "-" else Path(file).name
        return Path(name.removesuffix(".gz").removesuffix(".jsonl") + ".rejected.jsonl")
    if Path(given).exists() and Path(file).exists() and Path(given).samefile(file):
        raise UsageError(f"--reject {given} is the file that is read", hint="Name another file.")
    return Path(given)


def _summary(counts: ImportCounts, file: str) -> str:
    return (
        f"Loaded {counts.loaded:,} spans from {counts.lines:,} lines of {file}; "
        f"{counts.already_there:,} spans were there already, {counts.rejected:,} lines were rejected."
    )


def _report_rejects(rejects: RejectFile, counts: ImportCounts, file: str, strict: bool) -> None:
    """Say why lines were rejected; raises CheckFailed when all were, or when one is enough."""
    if not rejects.count:
        return
    most = sorted(rejects.reasons.items(), key=lambda item: -item[1])
    for reason, count in most[:REASONS_SHOWN]:
        note(f"{count:,} × {one_line(reason, 200)}")
    if len(most) > REASONS_SHOWN:
        note(f"... and {len(most) - REASONS_SHOWN:,} other reasons")
    note(f"The rejected lines are in {rejects.path}.")
    if not counts.loaded and not counts.already_there:
        hint = "A line is one JSON object, and paths name its members; of a JSON list make lines with: jq -c '.[]'."
        raise CheckFailed(f"no line of {file} could be loaded", hint=hint)
    if strict:
        raise CheckFailed(
            f"{rejects.count:,} lines were rejected", hint="Mend them and import the file again: the others are there."
        )


def _depths(spans: list[StoredSpan]) -> dict[UUID, int]:
    """Return how deep each span lies; a parent that is missing, or a circle of parents, counts as the top."""
    parents = {span.span_id: span.parent_span_id for span in spans}
    depths: dict[UUID, int] = {}
    for span_id in parents:
        chain: dict[UUID, None] = {}  # a set that keeps its order: from the span up to one whose depth is known
        above: UUID | None = span_id
        while above in parents and above not in depths and above not in chain:
            chain[above] = None
            above = parents[above]
        if above in chain:
            depths |= dict.fromkeys(chain, 0)
            continue
        top = depths.get(above, -1) if above else -1
        depths |= {each: top + steps for steps, each in enumerate(reversed(chain), start=1)}
    return depths


def _print_span(span: StoredSpan, indent: str, full: bool) -> None:
    latency = "" if span.latency_ms is None else f", {span.latency_ms:,.0f} ms"
    state = "" if span.status == "ok" else f", {span.status}: {one_line(span.error)}"
    heading = f"{span.node} ({span.node_kind}) {at(span.started_at)}{latency}{state}  {span.span_id}"
    click.echo(indent + one_line(heading, 400))
    for name, text in (("in ", span.input), ("out", span.output)):
        if text is not None:
            shown = clean(text).replace("\n", f"\n{indent}       ") if full else one_line(text, 100)
            click.echo(f"{indent}  {name}: {shown}")
