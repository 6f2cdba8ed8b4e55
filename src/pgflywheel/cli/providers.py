"""pgflywheel providers: the endpoints judges call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgflywheel.cli.files import TOML_FILE, read_toml, require_names
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.text import echo, echo_rows
from pgflywheel.errors import CheckFailed, InvalidArgument

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database

CHECK = "Answer with a JSON object with the key ok, and true."


@click.group("providers")
def providers() -> None:
    """Set, list, check and release the endpoints judges call."""


@providers.command("set")
@click.argument("files", nargs=-1, required=True, type=TOML_FILE, metavar="FILE...")
@dsn_option
@schema_option
@json_option
def set_providers(files: tuple[Path, ...], dsn: str, schema: str, as_json: bool) -> None:
    """Define the providers of TOML files, or change them; all or none.

    \b
    Example:
        pgflywheel providers set providers.toml
    """
    tables = [table for file in files for table in read_providers(file)]
    echo_rows(run_call(_set, dsn, schema, tables), as_json)


@providers.command("list")
@dsn_option
@schema_option
@json_option
def list_providers(dsn: str, schema: str, as_json: bool) -> None:
    """List providers with their limits and what keeps them from being called.

    \b
    Example:
        pgflywheel providers list
    """
    from pgflywheel.db import providers as calls

    columns = ("provider", "base_url", "key_variable", "in_flight", "max_in_flight")
    limits = ("requests_per_minute", "tokens_per_minute", "blocked_reason", "blocked_until")
    found = run_call(calls.status, dsn, schema)
    echo_rows(found, as_json, (*columns, *limits), "no provider is defined")


@providers.command("check")
@click.argument("name")
@click.option("--model", metavar="NAME", help="Which model to ask; else the first one that has a price.")
@dsn_option
@schema_option
@json_option
def check(name: str, model: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Make one tiny call to a provider, from here, with the key of this environment.

    \b
    Example:
        pgflywheel providers check openai --model gpt-4.1-mini
    """
    said = run_call(_check, dsn, schema, name, model)
    echo(said, as_json, f"{name} answers as {said['answered_by']} in {said['latency_ms']:,.0f} ms.")


@providers.command("release")
@click.argument("name")
@dsn_option
@schema_option
@json_option
def release(name: str, dsn: str, schema: str, as_json: bool) -> None:
    """Call a provider again that was blocked, as after its key or quota was mended.

    \b
    Example:
        pgflywheel providers release openai
    """
    from pgflywheel.db import providers as calls

    released = run_call(calls.release_provider, dsn, schema, name)
    text = f"{name} is called again." if released else f"{name} was not blocked."
    echo({"provider": name, "released": released}, as_json, text)


def read_providers(file: Path) -> list[dict[str, Any]]:
    """Return the [[provider]] tables of a TOML file; raises InvalidArgument."""
    document = read_toml(file)
    tables = document.pop("provider", None)
    if document or not tables:
        names = ", ".join(document) or "nothing"
        hint = "Each provider is a [[provider]] table with a name."
        raise InvalidArgument(f"{file} holds {names} instead of providers", hint=hint)
    return require_names(file, "provider", tables)


async def _set(database: Database, tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from pgflywheel.db import providers as calls

    done = []
    async with database.transaction() as session:
        for table in tables:
            definition = {key: value for key, value in table.items() if key != "name"}
            changed = await calls.set_provider(session, table["name"], definition)
            done.append({"provider": table["name"], "changed": changed})
    return done


async def _check(database: Database, name: str, model: str | None) -> dict[str, Any]:
    from pgflywheel.db import providers as calls
    from pgflywheel.judge.client import Client
    from pgflywheel.judge.failures import CallFailed

    provider = await calls.provider(database, name)
    asked = model or next(iter(sorted(provider.prices)), None)
    if asked is None:
        raise InvalidArgument(f"provider {name} has no model with a price", hint="Say which: --model NAME.")
    try:
        async with Client(provider) as client:
            reply = await client.complete(_prompt(name, asked))
    except CallFailed as failure:
        raise CheckFailed(
            f"{name} does not answer: {failure.outcome}", failure.detail, "See base_url, key_variable and the model."
        ) from failure
    return {"provider": name, "model": asked, "answered_by": reply.model or asked, "latency_ms": reply.latency_ms}


def _prompt(name: str, model: str) -> Any:
    from pgflywheel.judge.records import Prompt

    messages = [{"role": "system", "content": CHECK}, {"role": "user", "content": "{}"}]
    body = json.dumps({"model": model, "messages": messages}).encode()
    return Prompt(name, model, body, "", 0, "text", 1, (), 50, 20, 1 << 20)
