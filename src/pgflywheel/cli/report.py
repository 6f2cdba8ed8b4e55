"""pgflywheel report: one page of HTML that opens anywhere, without a network."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgflywheel.cli.files import write_text
from pgflywheel.cli.options import dsn_option, run_call, schema_option
from pgflywheel.cli.text import note
from pgflywheel.cli.times import since_option, until_option

if TYPE_CHECKING:
    from pgflywheel.cli.report_sections import Gathered
    from pgflywheel.db.connect import Database
    from pgflywheel.db.metrics import LowScore
    from pgflywheel.db.monitoring import ClusterExample, ClusterQuality, LowVerdict

WINDOW = timedelta(days=30)
LOWEST = 15
CLUSTERS = 8
EXAMPLES = 2
LEAST_JUDGED = 5


@click.command("report")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("pgflywheel-report.html"),
    show_default=True,
    help="The file to write; - is stdout.",
)
@since_option("Spans from this time on (default: 30d).")
@until_option("Spans before it (default: now).")
@click.option("--project", metavar="NAME", help="Only of this project.")
@dsn_option
@schema_option
def report(
    output: Path, since: datetime | None, until: datetime | None, project: str | None, dsn: str, schema: str
) -> None:
    """Write one page of HTML with plots of quality, judges, cost and what is worst.

    It needs no network and runs no script. Texts of spans are in it only where your role may read them.

    \b
    Example:
        pgflywheel report -o report.html --since 7d
    """
    from pgflywheel.cli.report_sections import page
    from pgflywheel.report.page import render

    end = until or datetime.now(UTC)
    read = run_call(gather, dsn, schema, since or end - WINDOW, end, project)
    document = render(page(read))
    if str(output) == "-":
        click.echo(document, nl=False)
        return
    write_text(output, document)
    note(f"{output} is written.")


async def gather(database: Database, since: datetime, until: datetime, project: str | None) -> Gathered:
    """Read what the report shows."""
    from pgflywheel.cli.metric_lines import Asked, lines, series
    from pgflywheel.cli.report_sections import Gathered
    from pgflywheel.db import metrics, monitoring, operations

    clusters = await monitoring.worst_clusters(database, project, LEAST_JUDGED, CLUSTERS)
    return Gathered(
        since,
        until,
        project,
        quality=await lines(database, Asked(None, since, until, project=project)),
        series=await series(database, Asked(None, since, until, grain="day", project=project)),
        alignment=[
            row for row in await metrics.alignment_by_week(database) if since - row.time <= WINDOW and row.time < until
        ],
        cost=[row for row in await operations.cost(database, since, project) if row.time < until],
        judging=[row for row in await operations.validation_cost(database, since) if row.time < until],
        latency=await operations.latency(database, since, until, step="day", project=project),
        clusters=clusters,
        examples=await monitoring.where_permitted(_examples(database, clusters)),
        lowest=await _lowest(database, since, until, project),
        monitors=await monitoring.monitors(database, project),
        judges=await monitoring.judge_drift(database),
        alerts=await monitoring.open_alerts(database),
    )


async def _examples(database: Database, clusters: list[ClusterQuality]) -> list[tuple[str, list[ClusterExample]]]:
    from pgflywheel.db import monitoring

    named = {each.cluster_id: f"{each.cluster} ({each.project})" for each in clusters if each.cluster_id is not None}
    return [(name, await monitoring.cluster_examples(database, one, EXAMPLES)) for one, name in named.items()]


async def _lowest(
    database: Database, since: datetime, until: datetime, project: str | None
) -> list[LowScore] | list[LowVerdict]:
    """Return the lowest scores, without critiques where the role may not read them."""
    from pgflywheel.db import metrics, monitoring

    asked = metrics.lowest_scores(database, None, since, until, LOWEST, project)
    found = await monitoring.where_permitted(asked)
    if found is not None:
        return found
    return await monitoring.low_verdicts(database, None, since, until, LOWEST, project)
