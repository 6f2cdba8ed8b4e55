"""pgflywheel examples: look at what judges are shown, sign it, take it back, freeze it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from pgflywheel.cli.numbers import COUNT
from pgflywheel.cli.options import dsn_option, json_option, reason_option, run_call, run_list, schema_option
from pgflywheel.cli.people import person, person_option
from pgflywheel.cli.text import echo, echo_rows, one_line

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database
    from pgflywheel.db.examples import Example, Shot, Use

STATUS = click.Choice(["candidate", "approved", "servable", "quarantined", "revoked"])
STRATEGY = click.Choice(
    ["similar", "recent", "similar_recent", "disagreement_first", "fixed_first", "any_plus_fixed", "diverse", "random"]
)
signer_option = person_option("--by", "Who does so")


@click.group("examples")
def examples() -> None:
    """See, sign, release, revoke and freeze the examples judges are shown."""


@examples.command("list")
@click.option("--validator", metavar="NAME", help="Only those of this question.")
@click.option("--project", metavar="NAME", help="Only those of this project.")
@click.option("--status", type=STATUS, help="Only those with this status.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many.")
@dsn_option
@schema_option
@json_option
def list_(
    validator: str | None, project: str | None, status: str | None, limit: int, dsn: str, schema: str, as_json: bool
) -> None:
    """List examples, the newest first.

    \b
    Example:
        pgflywheel examples list --status quarantined
    """
    from pgflywheel.db import examples as calls

    found = run_list(calls.find, dsn, schema, validator, validator, project, status, limit)
    echo_rows(found if as_json else [_line(each) for each in found], as_json, empty="no examples")


@examples.command("show")
@click.argument("example_id", type=click.UUID)
@dsn_option
@schema_option
@json_option
def show(example_id: UUID, dsn: str, schema: str, as_json: bool) -> None:
    """Show one example, and the scores it was shown for.

    \b
    Example:
        pgflywheel examples show 01a1fb90-085a-7214-aa45-80f790772ab3
    """
    from pgflywheel.db import examples as calls

    async def look(database: Database) -> tuple[Example, list[Use]]:
        return await calls.one(database, example_id), await calls.uses(database, example_id)

    found, uses = run_call(look, dsn, schema)
    echo({"example": found, "uses": uses}, as_json, _page(found, len(uses)))


@examples.command("sign")
@click.argument("example_id", type=click.UUID)
@signer_option
@click.option("--note", "text", metavar="TEXT", help="What the signer notes.")
@dsn_option
@schema_option
@json_option
def sign(example_id: UUID, by: str | None, text: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Sign an example of a project that wants signatures.

    \b
    Example:
        pgflywheel examples sign 01a1fb90-085a-7214-aa45-80f790772ab3 --by ada
    """

    async def act(database: Database) -> str:
        from pgflywheel.db import examples as calls

        return await calls.sign(database, example_id, await person(database, by), text)

    status = run_call(act, dsn, schema)
    echo({"example_id": example_id, "status": status}, as_json, f"Example {example_id} is {status}.")


@examples.command("release")
@click.argument("example_id", type=click.UUID)
@signer_option
@reason_option("Why it is harmless.", "note")
@dsn_option
@schema_option
@json_option
def release(example_id: UUID, by: str | None, reason: str, dsn: str, schema: str, as_json: bool) -> None:
    """Let an example out of quarantine.

    \b
    Example:
        pgflywheel examples release 01a1fb90-085a-7214-aa45-80f790772ab3 --by ada --note "quotes a manual"
    """

    async def act(database: Database) -> str:
        from pgflywheel.db import examples as calls

        return await calls.release(database, example_id, await person(database, by), reason)

    status = run_call(act, dsn, schema)
    echo({"example_id": example_id, "status": status}, as_json, f"Example {example_id} is {status}.")


@examples.command("revoke")
@click.argument("example_id", type=click.UUID)
@reason_option("Why.")
@click.option("--requeue", is_flag=True, help="Judge again every span it was shown for.")
@dsn_option
@schema_option
@json_option
def revoke(example_id: UUID, reason: str, requeue: bool, dsn: str, schema: str, as_json: bool) -> None:
    """Never show an example again.

    \b
    Example:
        pgflywheel examples revoke 01a1fb90-085a-7214-aa45-80f790772ab3 --reason "wrong label" --requeue
    """
    from pgflywheel.db import examples as calls

    touched = run_call(calls.revoke, dsn, schema, example_id, reason, requeue=requeue)
    again = ", and they are judged again" if requeue else ""
    text = f"Example {example_id} is revoked; {touched} scores were made with it{again}."
    echo({"example_id": example_id, "scores": touched, "requeued": requeue}, as_json, text)


@examples.command("policy")
@click.argument("project")
@click.option("--sign-off", type=click.Choice(["auto", "one", "two"]), required=True, help="People besides the author.")
@click.option("--max-per-user", type=COUNT, default=20, show_default=True, help="Examples of one end user.")
@dsn_option
@schema_option
@json_option
def policy(project: str, sign_off: str, max_per_user: int, dsn: str, schema: str, as_json: bool) -> None:
    """Say how many people sign an example of a project before it is shown.

    \b
    Example:
        pgflywheel examples policy support --sign-off one
    """
    from pgflywheel.db import examples as calls

    served = run_call(calls.set_policy, dsn, schema, project, sign_off, max_per_user)
    echo({"project": project, "sign_off": sign_off, "served": served}, as_json, f"{served} examples became servable.")


@examples.command("freeze")
@click.argument("name")
@click.argument("validator")
@click.argument("example_ids", type=click.UUID, nargs=-1, required=True)
@signer_option
@click.option("--note", "text", metavar="TEXT", help="What the signer notes.")
@dsn_option
@schema_option
@json_option
def freeze(
    name: str,
    validator: str,
    example_ids: tuple[UUID, ...],
    by: str | None,
    text: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Sign a set of examples, in the order they are shown, that a judge can be pinned to.

    \b
    Example:
        pgflywheel examples freeze polite_2026 polite EXAMPLE_ID EXAMPLE_ID --by ada
    """

    async def act(database: Database) -> str:
        from pgflywheel.db import examples as calls

        return await calls.freeze(database, name, validator, example_ids, await person(database, by), text)

    content = run_call(act, dsn, schema)
    echo({"shot_set": name, "content_hash": content}, as_json, f"Shot set {name} is frozen: {content}")


@examples.command("retrieve")
@click.argument("project")
@click.argument("node")
@click.argument("text", metavar="INPUT")
@click.option("-k", type=click.IntRange(1, 50), default=6, show_default=True, help="How many.")
@click.option("--strategy", type=STRATEGY, default="similar", show_default=True, help="How they are chosen.")
@click.option("--validator", metavar="NAME", help="Only those of this question.")
@dsn_option
@schema_option
@json_option
def retrieve(
    project: str,
    node: str,
    text: str,
    k: int,
    strategy: str,
    validator: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Print the examples an application would be given for an input, the most relevant last.

    \b
    Example:
        pgflywheel examples retrieve support answer "Where is my parcel?"
    """
    shots = run_list(_retrieved, dsn, schema, validator, project, node, text, k, strategy, validator)
    echo_rows(shots if as_json else [_shot_line(each) for each in shots], as_json, empty="no examples")


async def _retrieved(
    db: Database, project: str, node: str, text: str, k: int, strategy: str, validator: str | None
) -> list[Shot]:
    """Embed the input with the embedder that serves, and retrieve."""
    from pgflywheel.db import examples as calls
    from pgflywheel.db.judgements import shot_embedder
    from pgflywheel.judge.embed import make
    from pgflywheel.worker.endpoints import Endpoints

    vector = None
    if strategy not in ("recent", "random") and (row := await shot_embedder(db, None)):
        endpoints = Endpoints(db)
        try:
            endpoint = await endpoints.of(row.provider) if row.provider else None
            embedder = make(row, endpoint.provider, endpoint.client) if endpoint else make(row)
            (vector,) = await embedder.embed([text])
        finally:
            await endpoints.close()
    return await calls.retrieve(db, project, node, text, k=k, strategy=strategy, validator=validator, vector=vector)


def _line(example: Example) -> dict[str, object]:
    verdict = "fixed" if example.kind == "fix" else "pass" if example.passed else "fail"
    return {
        "example_id": example.example_id,
        "status": example.status,
        "validator": example.validator,
        "verdict": verdict,
        "author": example.author,
        "input": one_line(example.input, 40),
        "output": one_line(example.corrected_output or example.output, 40),
        "reason": example.reason,
    }


def _shot_line(shot: Shot) -> dict[str, object]:
    return {
        "rank": shot.rank,
        "similarity": shot.similarity,
        "recency": shot.recency,
        "disagreement": shot.disagreement,
        "trust": shot.trust,
        "relevance": shot.relevance,
        "penalty": shot.penalty,
        "input": one_line(shot.input, 40),
        "output": one_line(shot.corrected_output or shot.output, 40),
    }


def _page(example: Example, uses: int) -> str:
    """Return an example as a person reads it."""
    verdict = "fixed" if example.kind == "fix" else "pass" if example.passed else "fail"
    held = f" ({example.reason}{': ' + example.detail if example.detail else ''})" if example.reason else ""
    parts = {
        "status": example.status + held,
        "question": example.validator or "(none)",
        "verdict": f"{verdict}, by {example.author}",
        "signed by": ", ".join(example.signers) or "nobody",
        "shown for": f"{uses} scores",
        "input": example.input or "",
        "output": example.output or "",
        "corrected": example.corrected_output,
        "critique": example.critique,
    }
    return "\n".join(f"{name + ':':11} {text}" for name, text in parts.items() if text is not None)
