"""Make the tables of semantic clusters and their members.

Safe while workers run: those of earlier releases stop with exit code 4 until they are replaced. Vectors that are there
already join clusters when the SQL of this release is loaded.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = [
    """
    create table flywheel._clusters (
      cluster_id uuid not null,
      project text not null,
      embedder_id uuid not null,
      name text,
      named_by text,
      words text,
      worded_n bigint not null default 0,
      n bigint not null default 0,
      total public.vector,
      status text not null default 'open',
      merged_into uuid,
      first_seen_at timestamptz not null,
      last_seen_at timestamptz not null,
      created_at timestamptz not null default now(),
      changed_at timestamptz not null default now(),
      constraint _clusters_pkey primary key (cluster_id),
      constraint cluster_embedder foreign key (embedder_id) references flywheel.embedders,
      constraint cluster_merged_into foreign key (merged_into) references flywheel._clusters on delete set null,
      constraint cluster_status_is_known check (status in ('open', 'merged')),
      constraint cluster_sum_is_of_members check ((n = 0) = (total is null) and n >= 0)
    ) with (fillfactor = 60)
    """,
    "create index _clusters_open on flywheel._clusters (project, embedder_id) where status = 'open'",
    "create index _clusters_merged_into on flywheel._clusters (merged_into) where merged_into is not null",
    """
    create table flywheel._cluster_members (
      span_id uuid not null,
      started_at timestamptz not null,
      embedder_id uuid not null,
      project text not null,
      part text not null,
      cluster_id uuid,
      embedding public.halfvec not null,
      joined_at timestamptz not null default now(),
      constraint _cluster_members_pkey primary key (span_id, started_at, embedder_id),
      constraint cluster_member_cluster foreign key (cluster_id) references flywheel._clusters,
      constraint cluster_member_part_is_known check (part in ('item', 'input'))
    )
    """,
    "create index _cluster_members_cluster on flywheel._cluster_members (cluster_id, started_at)",
    "create index _cluster_members_project on flywheel._cluster_members (project, embedder_id, started_at)",
    """
    create table flywheel._cluster_news (
      span_id uuid not null,
      started_at timestamptz not null,
      embedder_id uuid not null,
      noted_at timestamptz not null default now(),
      constraint _cluster_news_pkey primary key (span_id, started_at, embedder_id)
    )
    """,
    "create index _cluster_news_noted_at on flywheel._cluster_news (embedder_id, noted_at)",
    """
    create table flywheel._cluster_runs (
      project text not null,
      embedder_id uuid not null,
      taken_until timestamptz,
      grouped_at timestamptz,
      sampled bigint,
      groups bigint,
      ungrouped bigint,
      note text,
      constraint _cluster_runs_pkey primary key (project, embedder_id),
      constraint cluster_run_embedder foreign key (embedder_id) references flywheel.embedders
    )
    """,
]

TABLE_COMMENTS = {
    "_clusters": "Internal: clusters of inputs, each with the sum of its vectors.",
    "_cluster_members": "Internal: the sampled spans with a vector, and the cluster of each.",
    "_cluster_news": "Internal: spans whose vector was written and that have not joined a cluster since.",
    "_cluster_runs": "Internal: when the clusters of a project were last formed anew, and what came of it.",
}
COLUMN_COMMENTS = {
    "_clusters": {
        "cluster_id": "Its id, which outlives being formed anew.",
        "project": "Project of the spans.",
        "embedder_id": "Who made the vectors.",
        "name": "The name somebody gave it; null = none did.",
        "named_by": "Who.",
        "words": "The words that tell it from other clusters; null = not looked for yet.",
        "worded_n": "How many members it had when they were looked for.",
        "n": "Members.",
        "total": "Sum of their vectors; null = no members.",
        "status": "open, or merged into another.",
        "merged_into": "The other.",
        "first_seen_at": "Start of its earliest member ever.",
        "last_seen_at": "Start of its latest member ever.",
        "created_at": "When it was made.",
        "changed_at": "When somebody named it, or it was merged.",
    },
    "_cluster_members": {
        "span_id": "The span.",
        "started_at": "Its start.",
        "embedder_id": "Who made the vector.",
        "project": "Project of the span.",
        "part": "input, or item for a span that has no input.",
        "cluster_id": "The cluster; null = it is near none.",
        "embedding": "The vector, as it is in the sum of the cluster.",
        "joined_at": "When it was first looked at.",
    },
    "_cluster_news": {
        "span_id": "The span.",
        "started_at": "Its start.",
        "embedder_id": "Who made the vector.",
        "noted_at": "When it was written.",
    },
    "_cluster_runs": {
        "project": "The project.",
        "embedder_id": "Who made the vectors.",
        "taken_until": "Until when the work is somebody''s; null = nobody''s.",
        "grouped_at": "When, the last time.",
        "sampled": "Vectors looked at.",
        "groups": "Groups found among them.",
        "ungrouped": "Vectors in no group.",
        "note": "Why there was no grouping; null = there was.",
    },
}

SETTINGS = {
    "cluster_permille": ("800", "Least cosine to its centre, in thousandths, at which a vector joins a cluster."),
    "cluster_permille_hashing": ("450", "The same for embedders of kind hashing, whose cosines are low."),
    "cluster_merge_permille": (
        "900",
        "Cosine of centres, in thousandths, above which two clusters become one at night.",
    ),
    "cluster_most": ("2000", "Clusters of a project; vectors near none of so many stay without one until night."),
    "cluster_hour": (
        "3",
        "Hour (UTC) from which clusters are formed anew once a day, 24 = midnight; above 24 = never.",
    ),
    "cluster_sample": ("10000", "Vectors of the last 30 days that are looked at then."),
    "cluster_minimum": ("5", "Vectors that make a group then."),
}


def comments() -> list[str]:
    tables = [f"comment on table flywheel.{table} is '{text}'" for table, text in TABLE_COMMENTS.items()]
    columns = [
        f"comment on column flywheel.{table}.{column} is '{text}'"
        for table, texts in COLUMN_COMMENTS.items()
        for column, text in texts.items()
    ]
    return tables + columns


def settings() -> list[str]:
    return [
        f"insert into flywheel.settings (name, value, description) values ('{name}', '{value}', '{text}')"
        for name, (value, text) in SETTINGS.items()
    ]


def upgrade() -> None:
    for statement in TABLES + comments() + settings():
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    for table in reversed(TABLE_COMMENTS):
        op.execute(f"drop table if exists flywheel.{table} cascade")
    op.execute(f"delete from flywheel.settings where name in ({', '.join(repr(name) for name in SETTINGS)})")


def verify() -> None:
    for table, columns in COLUMN_COMMENTS.items():
        op.execute(f"select {', '.join(columns)} from flywheel.{table} where false")
