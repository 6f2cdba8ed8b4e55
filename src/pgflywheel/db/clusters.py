"""Clusters: what is there, what is due, the vectors that are looked at, and what they are grouped into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgflywheel.db.connect import Database, columns_of


@dataclass(frozen=True, slots=True)
class Cluster:
    """A row of flywheel.clusters."""

    cluster_id: UUID
    project: str
    name: str
    words: str | None
    n: int
    share: float | None
    first_seen_at: datetime
    last_seen_at: datetime
    status: str
    merged_into: UUID | None
    named_by: str | None
    embedder: str


@dataclass(frozen=True, slots=True)
class Quality:
    """What a validator says of one cluster."""

    validator: str
    version: int
    n: int
    judged: int
    pass_rate: float | None
    pass_low: float
    pass_high: float


@dataclass(frozen=True, slots=True)
class Consistency:
    """How alike the inputs of a cluster are, and its outputs."""

    n: int
    answers: int
    input_cohesion: float | None
    output_cohesion: float | None
    measured_by: str | None
    inconsistent: bool | None


@dataclass(frozen=True, slots=True)
class Example:
    """A span near the centre of a cluster."""

    span_id: UUID
    started_at: datetime
    similarity: float
    node: str
    input: str | None
    output: str | None


@dataclass(frozen=True, slots=True)
class Due:
    """A project whose clusters are to be formed anew."""

    project: str
    embedder_id: UUID
    kind: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """A member, its cluster, and its vector as halfvec_send() writes it."""

    span_id: UUID
    started_at: datetime
    cluster_id: UUID | None
    embedding: bytes


@dataclass(frozen=True, slots=True)
class Texts:
    """Some texts of a cluster."""

    cluster_id: UUID
    n: int
    texts: list[str]


async def clusters(db: Database, project: str | None = None, *, all_of_them: bool = False) -> list[Cluster]:
    """Return open clusters that have members, the largest first; ``all_of_them``: merged and former ones, too."""
    columns = columns_of(Cluster)
    query = f"""select {columns} from flywheel.clusters
                 where (%s::text is null or project = %s) and (%s or status = 'open' and n > 0)
                 order by status <> 'open', n desc, cluster_id"""
    return await db.rows(Cluster, query, [project, project, all_of_them])


async def matching(db: Database, text: str) -> list[Cluster]:
    """Return the clusters a name, an id or the end of one may mean; open ones only, if any is."""
    columns = columns_of(Cluster)
    query = f"""select {columns} from flywheel.clusters
                 where name = %s or char_length(%s) >= 4 and right(cluster_id::text, char_length(%s)) = lower(%s)
                 order by status <> 'open', n desc, cluster_id limit 10"""
    found = await db.rows(Cluster, query, [text] * 4)
    return [cluster for cluster in found if cluster.status == "open"] or found


async def quality(db: Database, cluster_id: UUID) -> list[Quality]:
    """Return what validators say of a cluster, the worst first."""
    columns = columns_of(Quality)
    query = f"""select {columns} from flywheel.quality_by_cluster where cluster_id = %s
                 order by pass_high, validator, version"""
    return await db.rows(Quality, query, [cluster_id])


async def consistency(db: Database, cluster_id: UUID) -> Consistency | None:
    """Return how alike inputs and outputs of a cluster are; None when it has no recent members."""
    columns = columns_of(Consistency)
    return await db.row(
        Consistency, f"select {columns} from flywheel.cluster_consistency where cluster_id = %s", [cluster_id]
    )


async def examples(db: Database, cluster_id: UUID, count: int) -> list[Example]:
    """Return the spans nearest to the centre of a cluster, with their texts."""
    columns = columns_of(Example)
    return await db.rows(Example, f"select {columns} from flywheel.cluster_examples(%s, %s)", [cluster_id, count])


async def rename(db: Database, cluster_id: UUID, name: str | None, by: str) -> None:
    """Give a cluster a name that stays; None = its words again."""
    await db.execute("select flywheel.rename_cluster(%s, %s, %s)", [cluster_id, name, by])


async def assign(db: Database) -> int:
    """Let spans whose vector is new join clusters; return how many were looked at."""
    looked: int = await db.value("select flywheel._assign_clusters()")
    return looked


async def due(db: Database, *, forced: bool = False) -> list[Due]:
    """Return the projects whose clusters are to be formed anew; ``forced``: now, whatever the hour."""
    return await db.rows(Due, "select project, embedder_id, kind from flywheel._clusters_due(%s)", [forced])


async def take(db: Database, of: Due, seconds: float) -> bool:
    """Tell whether this worker may form the clusters of a project; nobody else does for so many seconds."""
    query = "select flywheel._take_cluster_run(%s, %s, %s)"
    return bool(await db.value(query, [of.project, of.embedder_id, seconds]))


async def sample(db: Database, of: Due) -> list[Sampled]:
    """Return the vectors to look at."""
    query = "select span_id, started_at, cluster_id, embedding from flywheel._cluster_sample(%s, %s)"
    return await db.rows(Sampled, query, [of.project, of.embedder_id])


async def minimum(db: Database) -> int:
    """Return how many vectors make a group."""
    return int(await db.value("select flywheel._setting('cluster_minimum')"))


async def regroup(
    db: Database, of: Due, sampled: Sequence[Sampled], groups: Sequence[int], kept: Sequence[UUID | None]
) -> int:
    """Let members go to the groups they were found in; return how many groups."""
    query = "select flywheel._regroup_clusters(%s, %s, %s::uuid[], %s::timestamptz[], %s::integer[], %s::uuid[])"
    ids, times = [each.span_id for each in sampled], [each.started_at for each in sampled]
    made: int = await db.value(query, [of.project, of.embedder_id, ids, times, list(groups), list(kept)])
    return made


async def tidy(db: Database, of: Due) -> int:
    """Merge near clusters and let go of small old ones; return how many were merged."""
    merged: int = await db.value("select flywheel._tidy_clusters(%s, %s)", [of.project, of.embedder_id])
    return merged


async def note_run(db: Database, of: Due, sampled: int, groups: int, ungrouped: int, note: str | None) -> None:
    """Note that clusters were formed anew, or why not, and give them back."""
    query = "select flywheel._note_cluster_run(%s, %s, %s, %s, %s, %s)"
    await db.execute(query, [of.project, of.embedder_id, sampled, groups, ungrouped, note])


async def projects(db: Database) -> list[Due]:
    """Return every project that has clusters."""
    query = """select distinct clusters.project, embedders.embedder_id, embedders.kind
                 from flywheel.clusters join flywheel.embedders on embedders.name = clusters.embedder
                where clusters.status = 'open' and clusters.n > 0 order by 1"""
    return await db.rows(Due, query)


async def texts(db: Database, of: Due) -> list[Texts]:
    """Return texts of the clusters of a project, when some have to get their words."""
    query = "select cluster_id, n, texts from flywheel._cluster_texts(%s, %s)"
    return await db.rows(Texts, query, [of.project, of.embedder_id])


async def write_words(db: Database, of: Sequence[Texts], words: Mapping[UUID, str]) -> int:
    """Write the words of clusters; return how many."""
    query = "select flywheel._word_clusters(%s::uuid[], %s::bigint[], %s::text[])"
    given = [[each.cluster_id for each in of], [each.n for each in of], [words[each.cluster_id] for each in of]]
    written: int = await db.value(query, given)
    return written
