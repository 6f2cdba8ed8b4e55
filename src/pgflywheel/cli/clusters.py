"""pgflywheel clusters: what users ask about, what validators say of it, names for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pgflywheel.cli.numbers import COUNT
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.people import person, person_option
from pgflywheel.cli.text import at, clean, echo, echo_rows, echo_table, one_line, to_json
from pgflywheel.errors import InvalidArgument

if TYPE_CHECKING:
    from pgflywheel.db.clusters import Cluster, Consistency, Example, Quality
    from pgflywheel.db.connect import Database

SHORT = 8
COLUMNS = ("id", "project", "name", "n", "share", "first seen", "last seen", "status")
project_option = click.option("--project", metavar="NAME", help="Of this project only.")


@click.group("clusters")
def clusters() -> None:
    """See what users ask about, and give it names."""


@clusters.command("list")
@project_option
@click.option("--all", "all_of_them", is_flag=True, help="Merged ones too, and those of former embedders.")
@click.option("--limit", type=COUNT, default=50, show_default=True, help="So many, the largest.")
@dsn_option
@schema_option
@json_option
def list_clusters(project: str | None, all_of_them: bool, limit: int, dsn: str, schema: str, as_json: bool) -> None:
    """List clusters, the largest first.

    \b
    Example:
        pgflywheel clusters list
    """
    from pgflywheel.db import clusters as calls

    found = run_call(calls.clusters, dsn, schema, project, all_of_them=all_of_them)[:limit]
    if as_json or not found:
        echo_rows(found, as_json, empty="there is no cluster: pgflywheel embedders sample says how spans get vectors")
    else:
        echo_table(COLUMNS, (_line(cluster) for cluster in found))


@clusters.command("show")
@click.argument("cluster")
@click.option("--examples", "count", type=click.IntRange(0, 100), default=5, show_default=True, help="So many spans.")
@dsn_option
@schema_option
@json_option
def show(cluster: str, count: int, dsn: str, schema: str, as_json: bool) -> None:
    """Show a cluster: what validators say of it, how alike its answers are, and examples.

    CLUSTER is a name, an id, or the end of one.

    \b
    Example:
        pgflywheel clusters show "lost card"
    """
    one, quality, consistency, examples = run_call(_look, dsn, schema, cluster, count)
    if as_json:
        said = {"cluster": one, "quality": quality, "consistency": consistency, "examples": examples}
        click.echo(to_json(said))
        return
    click.echo(f"{clean(one.name)} ({one.cluster_id}): {one.n:,} spans of project {clean(one.project)}, {one.status}")
    if one.words and one.words != one.name:
        click.echo(f"words: {clean(one.words)}")
    if consistency:
        click.echo(_sameness(consistency))
    if quality:
        told = ([q.validator, q.version, q.n, q.judged, q.pass_rate, q.pass_low, q.pass_high] for q in quality)
        echo_table(("validator", "version", "n", "judged", "pass rate", "low", "high"), told)
    if examples:
        near = ([e.span_id, e.similarity, e.node, _text(e.input), _text(e.output)] for e in examples)
        echo_table(("span", "cosine", "node", "input", "output"), near)


@clusters.command("rename")
@click.argument("cluster")
@click.argument("name", required=False)
@person_option("--by", "Who names it")
@dsn_option
@schema_option
@json_option
def rename(cluster: str, name: str | None, by: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Give a cluster a NAME that stays; without one it is called by its words again.

    \b
    Example:
        pgflywheel clusters rename 3d1f52ac "lost card"
    """

    async def say(database: Database) -> Cluster:
        from pgflywheel.db import clusters as calls

        one = await _one(database, cluster)
        await calls.rename(database, one.cluster_id, name, await person(database, by))
        return await _one(database, str(one.cluster_id))

    renamed = run_call(say, dsn, schema)
    echo(renamed, as_json, f"Cluster {renamed.cluster_id} is called {one_line(renamed.name)}.")


@clusters.command("recluster")
@project_option
@dsn_option
@schema_option
@json_option
def recluster(project: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Form clusters anew now, as workers do at night; ids and names stay where most members do.

    \b
    Example:
        pgflywheel clusters recluster
    """
    formed, note = run_call(_recluster, dsn, schema, project)
    text = f"The clusters of {formed} {'project' if formed == 1 else 'projects'} are formed anew."
    echo({"projects": formed, "note": note}, as_json, f"{text} But {note}." if note else text)


async def _recluster(database: Database, project: str | None) -> tuple[int, str | None]:
    """Let all that waits join first, then group, then look for words."""
    from pgflywheel.db import clusters as calls
    from pgflywheel.worker import clusters as work

    while await calls.assign(database):
        pass
    formed = await work.recluster(database, forced=True, project=project)
    await work.word(database)
    return formed, None if work.installed() else work.MISSING


async def _look(
    database: Database, text: str, count: int
) -> tuple[Cluster, list[Quality], Consistency | None, list[Example]]:
    from pgflywheel.db import clusters as calls

    one = await _one(database, text)
    quality = await calls.quality(database, one.cluster_id)
    same = await calls.consistency(database, one.cluster_id)
    return one, quality, same, await calls.examples(database, one.cluster_id, count) if count else []


async def _one(database: Database, text: str) -> Cluster:
    """Return the cluster a text means; raises InvalidArgument."""
    from pgflywheel.db import clusters as calls

    found = await calls.matching(database, text.strip())
    if len(found) > 1:
        raise InvalidArgument(f"more than one cluster is called {text}", hint="Give the id of one.")
    if not found:
        raise InvalidArgument(f"there is no cluster {text}", hint="List them: pgflywheel clusters list.")
    return found[0]


def _line(cluster: Cluster) -> list[object]:
    seen = (at(time)[:10] for time in (cluster.first_seen_at, cluster.last_seen_at))
    name = one_line(cluster.name, 60)
    return [str(cluster.cluster_id)[-SHORT:], cluster.project, name, cluster.n, cluster.share, *seen, cluster.status]


def _sameness(said: Consistency) -> str:
    if said.input_cohesion is None or said.output_cohesion is None:
        return "too few answers to compare"
    text = f"inputs are alike by {said.input_cohesion:.2f}, answers by {said.output_cohesion:.2f} ({said.measured_by})"
    return f"{text}: same question, different answers" if said.inconsistent else text


def _text(text: str | None) -> str:
    return one_line(text, 80)
