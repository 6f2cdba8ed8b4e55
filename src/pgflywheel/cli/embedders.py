"""pgflywheel embedders: which models make the vectors, and which one serves."""

from __future__ import annotations

import click

from pgflywheel.cli.options import confirm, dsn_option, json_option, run_call, schema_option, yes_option
from pgflywheel.cli.text import echo, echo_rows

KINDS = {"hashing": "hashing", "openai": "openai", "sentence-transformers": "sentence_transformers"}
_LISTED = ("name", "kind", "model", "provider", "dimensions", "status", "examples", "embedded", "waiting", "dead")


@click.group("embedders")
def embedders() -> None:
    """Add, serve and retire the models that turn texts into vectors."""


@embedders.command("list")
@dsn_option
@schema_option
@json_option
def list_embedders(dsn: str, schema: str, as_json: bool) -> None:
    """List embedders, and how many examples have a vector of each.

    \b
    Example:
        pgflywheel embedders list
    """
    from pgflywheel.db import embedders as calls

    echo_rows(run_call(calls.status, dsn, schema), as_json, _LISTED, empty="there is no embedder")


@embedders.command("add")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), required=True, help="How it embeds.")
@click.option("--model", metavar="NAME", help="Model of the endpoint, or a model's name or directory.")
@click.option("--provider", metavar="NAME", help="Provider of kind openai.")
@click.option("--dimensions", type=click.IntRange(8, 4000), default=384, show_default=True, help="Length of a vector.")
@click.option("--switch", is_flag=True, help="Let it serve as soon as every example has its vector.")
@click.option("--fixed-length", is_flag=True, help="Do not ask the endpoint for a length: its model has only one.")
@click.option("--spans", "permille", type=click.IntRange(0, 1000), default=0, help="Embed spans of so many in 1,000.")
@dsn_option
@schema_option
@json_option
def add(
    name: str,
    kind: str,
    model: str | None,
    provider: str | None,
    dimensions: int,
    switch: bool,
    fixed_length: bool,
    permille: int,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Add an embedder; workers make its vectors while another one serves.

    \b
    Example:
        pgflywheel embedders add small --kind openai --provider openai --model text-embedding-3-small --dimensions 512
    """
    from pgflywheel.db import embedders as calls

    parameters = ({"switch": True} if switch else {}) | ({"ask_dimensions": False} if fixed_length else {})
    made = run_call(calls.add, dsn, schema, name, KINDS[kind], model, provider, dimensions, parameters, permille)
    then = "it serves once complete" if switch else f"then: pgflywheel embedders serve {name}"
    text = f"Embedder {name} is added; workers with lane embed make its vectors, {then}."
    echo({"name": name, "embedder_id": made}, as_json, text)


@embedders.command("serve")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also while examples have no vector of it.")
@dsn_option
@schema_option
@json_option
def serve(name: str, force: bool, dsn: str, schema: str, as_json: bool) -> None:
    """Let retrieval use an embedder; the one before stays up to date until it is retired.

    \b
    Example:
        pgflywheel embedders serve small
    """
    from pgflywheel.db import embedders as calls

    run_call(calls.serve, dsn, schema, name, force=force)
    echo({"name": name, "status": "serving"}, as_json, f"Embedder {name} serves.")


@embedders.command("sample")
@click.argument("name")
@click.argument("permille", type=click.IntRange(0, 1000))
@dsn_option
@schema_option
@json_option
def sample(name: str, permille: int, dsn: str, schema: str, as_json: bool) -> None:
    """Embed also the spans of PERMILLE traces of 1,000, of those that come from now on.

    \b
    Example:
        pgflywheel embedders sample hashing 10
    """
    from pgflywheel.db import embedders as calls

    run_call(calls.sample, dsn, schema, name, permille)
    text = f"Embedder {name} embeds the spans of {permille} traces of 1,000."
    echo({"name": name, "span_permille": permille}, as_json, text)


@embedders.command("retire")
@click.argument("name")
@yes_option
@dsn_option
@schema_option
@json_option
def retire(name: str, yes: bool, dsn: str, schema: str, as_json: bool) -> None:
    """End an embedder and delete its vectors of examples.

    \b
    Example:
        pgflywheel embedders retire small --yes
    """
    from pgflywheel.db import embedders as calls

    confirm(yes, f"Delete every vector of {name}?")
    deleted = run_call(calls.retire, dsn, schema, name)
    echo({"name": name, "deleted": deleted}, as_json, f"Embedder {name} is retired; {deleted:,} vectors are deleted.")


@embedders.command("index")
@dsn_option
@schema_option
@json_option
def index(dsn: str, schema: str, as_json: bool) -> None:
    """Build, rebuild and drop indexes of vectors now, as workers do that own the tables.

    \b
    Example:
        pgflywheel embedders index
    """
    from pgflywheel.worker.index_upkeep import keep_indexes

    done = run_call(keep_indexes, dsn, schema)
    lines = [{"action": work.action, "index_name": work.index_name} for work in done]
    echo_rows(lines, as_json, empty="nothing to do: no question has so many examples that an index pays")
