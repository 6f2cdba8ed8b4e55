"""Make the tables of rollups: changes as they are written, and counts by minute, hour and day.

Workers of earlier releases stop with exit code 4 until they are replaced. Days that hold scores or spans already are
noted for a recount, which workers do one day at a time; until then rollup_status shows them as waiting.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

HOT = "with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0)"
FULL = "with (fillfactor = 70)"
DIMENSIONS = """
      project text not null,
      environment text not null,
      release text,
      node text not null,
      node_kind text not null,
      root boolean not null,
      attribute_1 text,
      attribute_2 text,
      attribute_3 text,
"""

SLICES = [
    f"""
    create table flywheel._slices (
      slice_id uuid not null, {DIMENSIONS}
      constraint _slices_pkey primary key (slice_id)
    )
    """,
    """
    create table flywheel._slice_values (
      attribute smallint not null,
      value text not null,
      constraint _slice_values_pkey primary key (attribute, value)
    )
    """,
]

# Without a key: rows are appended in the writer's own statement, read together and deleted together.
CHANGES = [
    f"""
    create table flywheel._score_changes (
      span_id uuid not null,
      version_id uuid not null,
      started_at timestamptz not null,
      value double precision,
      cost_usd double precision,
      latency_ms double precision,
      revision integer not null,
      input_tokens integer,
      output_tokens integer,
      sign smallint not null,
      passed boolean,
      unscored_reason text
    ) {HOT}
    """,
    f"""
    create table flywheel._span_changes (
      span_id uuid not null,
      started_at timestamptz not null,
      revision integer not null,
      sign smallint not null, {DIMENSIONS.rstrip().rstrip(",")}
    ) {HOT}
    """,
    f"""
    create table flywheel._span_deltas (
      minute timestamptz not null, {DIMENSIONS}
      latency_bin smallint not null,
      n bigint not null,
      errors bigint not null,
      running bigint not null,
      input_tokens bigint not null,
      output_tokens bigint not null,
      metered bigint not null,
      cost_usd double precision not null,
      priced bigint not null,
      latency_ms double precision not null,
      latency_squares double precision not null,
      timed bigint not null
    ) {HOT}
    """,
    f"""
    create table flywheel._label_changes (
      span_id uuid not null,
      started_at timestamptz not null
    ) {HOT}
    """,
    *(
        f"alter table flywheel.{table} replica identity full"  # a publication of all tables would refuse the deletes
        for table in ("_score_changes", "_span_changes", "_span_deltas", "_label_changes")
    ),
    "create index _span_changes_span_id on flywheel._span_changes (span_id)",
    "create index labels_span_id on flywheel.labels (span_id)",
    # What was deleted may be inserted again, and meet scores that were folded meanwhile.
    """
    create table flywheel._lost_spans (
      span_id uuid not null,
      started_at timestamptz not null,
      constraint _lost_spans_pkey primary key (span_id, started_at)
    )
    """,
]

ROLLUPS = [
    f"""
    create table flywheel._score_rollups (
      grain text not null,
      bucket timestamptz not null,
      version_id uuid not null,
      slice_id uuid not null,
      reason text not null,
      value_bin smallint not null,
      n bigint not null,
      passed bigint not null,
      failed bigint not null,
      valued bigint not null,
      value_sum double precision not null,
      value_squares double precision not null,
      cost_usd double precision not null,
      priced bigint not null,
      input_tokens bigint not null,
      output_tokens bigint not null,
      metered bigint not null,
      latency_ms double precision not null,
      timed bigint not null,
      constraint _score_rollups_pkey primary key (grain, bucket, version_id, slice_id, reason, value_bin),
      constraint score_rollup_grain_is_known check (grain in ('minute', 'hour', 'day'))
    ) {FULL}
    """,
    f"""
    create table flywheel._span_rollups (
      grain text not null,
      bucket timestamptz not null,
      slice_id uuid not null,
      latency_bin smallint not null,
      n bigint not null,
      errors bigint not null,
      running bigint not null,
      input_tokens bigint not null,
      output_tokens bigint not null,
      metered bigint not null,
      cost_usd double precision not null,
      priced bigint not null,
      latency_ms double precision not null,
      latency_squares double precision not null,
      timed bigint not null,
      constraint _span_rollups_pkey primary key (grain, bucket, slice_id, latency_bin),
      constraint span_rollup_grain_is_known check (grain in ('minute', 'hour', 'day'))
    ) {FULL}
    """,
    f"""
    create table flywheel._cell_rollups (
      grain text not null,
      bucket timestamptz not null,
      version_id uuid not null,
      slice_id uuid not null,
      lane text not null,
      tp bigint not null,
      fp bigint not null,
      fn bigint not null,
      tn bigint not null,
      valued bigint not null,
      y_sum double precision not null,
      f_sum double precision not null,
      yf_sum double precision not null,
      ff_sum double precision not null,
      constraint _cell_rollups_pkey primary key (grain, bucket, version_id, slice_id, lane),
      constraint cell_rollup_grain_is_known check (grain in ('minute', 'hour', 'day'))
    ) {FULL}
    """,
    """
    create table flywheel._label_cells (
      span_id uuid not null,
      started_at timestamptz not null,
      revision integer not null,
      version_id uuid not null,
      slice_id uuid not null,
      lane text not null,
      judge_passed boolean not null,
      human_passed boolean not null,
      value double precision,
      constraint _label_cells_pkey primary key (span_id, started_at, revision, version_id)
    )
    """,
    """
    create table flywheel._rollup_rebuilds (
      day date not null,
      reason text not null,
      asked_at timestamptz not null default now(),
      constraint _rollup_rebuilds_pkey primary key (day)
    )
    """,
    """
    create table flywheel._fold_state (
      name text not null,
      folded_at timestamptz not null default now(),
      folded bigint not null default 0,
      constraint _fold_state_pkey primary key (name)
    ) with (fillfactor = 20)
    """,
]

# Days that hold something already: by name of their partition, and what lies in the default partitions.
REBUILDS = [
    r"""
    do $block$
    begin
      lock table flywheel.spans, flywheel.scores in share row exclusive mode;   -- who writes now is let through first
      insert into flywheel._rollup_rebuilds (day, reason)
      select day, 'recorded before there were rollups' from (
        select to_date(right(child.relname, 8), 'YYYYMMDD') as day
          from pg_catalog.pg_inherits as link
          join pg_catalog.pg_class as child on child.oid = link.inhrelid
         where link.inhparent = 'flywheel.spans'::regclass and child.relname ~ '_\d{8}$'
           and pg_catalog.pg_relation_size(child.oid) > 0
        union
        select (started_at at time zone 'UTC')::date from flywheel.spans_default
      ) as held;
    end
    $block$
    """,
]

TABLE_COMMENTS = {
    "_slices": "Internal: each combination of dimensions that occurs, under a hash of it.",
    "_slice_values": "Internal: the values of own dimensions that are counted by name; later ones count as (other).",
    "_score_changes": "Internal: scores written (sign 1) and taken away (sign -1) since the last fold.",
    "_span_changes": "Internal: spans changed or deleted since the last fold: as they were (-1), as they are (1).",
    "_span_deltas": "Internal: counts of spans to be added to the rollups by the next fold.",
    "_label_changes": "Internal: spans whose labels changed since the last fold.",
    "_lost_spans": "Internal: spans that were deleted, or had scores before they came.",
    "_score_rollups": "Internal: scores of current revisions, counted by minute, hour and day of their span.",
    "_span_rollups": "Internal: spans, counted by minute, hour and day.",
    "_cell_rollups": "Internal: labelled scores by what validator and people say, by minute, hour and day.",
    "_label_cells": "Internal: each labelled score as it is counted in _cell_rollups.",
    "_rollup_rebuilds": "Internal: days whose rollups wait to be counted anew.",
    "_fold_state": "Internal: when rollups were folded last.",
}

DIMENSION_COMMENTS = {
    "project": "Project of the span.",
    "environment": "Environment of the span.",
    "release": "Release of the span; null = unknown.",
    "node": "Node of the span.",
    "node_kind": "Kind of the node.",
    "root": "Whether it is a root span, which stands for its request.",
    "attribute_1": "First own dimension; null = the span has none.",
    "attribute_2": "Second own dimension; null = the span has none.",
    "attribute_3": "Third own dimension; null = the span has none.",
}
KEY_COMMENTS = {
    "grain": "minute, hour or day.",
    "bucket": "Start of the minute, hour or UTC day.",
    "version_id": "The validator version.",
    "slice_id": "The dimensions, see _slices.",
}
SPAN_COMMENTS = {
    "latency_bin": "floor(8 * log2(milliseconds)), so a bin is 9 percent wide; -999 = latency unknown.",
    "n": "Spans.",
    "errors": "Spans with status error.",
    "running": "Spans with status running.",
    "input_tokens": "Sum of the input tokens known.",
    "output_tokens": "Sum of the output tokens known.",
    "metered": "Spans whose tokens are known.",
    "cost_usd": "Sum of the costs known.",
    "priced": "Spans whose cost is known.",
    "latency_ms": "Sum of the latencies known.",
    "latency_squares": "Sum of their squares.",
    "timed": "Spans whose latency is known.",
}

COLUMN_COMMENTS = {
    "_slices": {"slice_id": "Hash of the dimensions.", **DIMENSION_COMMENTS},
    "_slice_values": {"attribute": "1, 2 or 3.", "value": "A value that is counted by name."},
    "_score_changes": {
        "span_id": "Span of the score.",
        "version_id": "Version that gave it.",
        "started_at": "Start of the span.",
        "value": "Its value; null = none.",
        "cost_usd": "Its cost; null = unknown or free.",
        "latency_ms": "Time it took; null = unknown.",
        "revision": "Revision it is about.",
        "input_tokens": "Tokens read for it; null = unknown.",
        "output_tokens": "Tokens written for it; null = unknown.",
        "sign": "1 written, -1 taken away.",
        "passed": "Its verdict; null = unscored.",
        "unscored_reason": "Why there is no verdict.",
    },
    "_span_changes": {
        "span_id": "The span.",
        "started_at": "Its start.",
        "revision": "Its revision then.",
        "sign": "1 as it is now, -1 as it was.",
        **DIMENSION_COMMENTS,
    },
    "_span_deltas": {"minute": "Minute in which the spans started.", **DIMENSION_COMMENTS, **SPAN_COMMENTS},
    "_label_changes": {"span_id": "The labelled span.", "started_at": "Its start."},
    "_lost_spans": {"span_id": "The span.", "started_at": "Its start."},
    "_score_rollups": {
        **KEY_COMMENTS,
        "reason": "Why unscored; empty = there is a verdict.",
        "value_bin": "Twentieth of [0, 1] the value lies in, 0 to 19; -1 = no value.",
        "n": "Scores.",
        "passed": "Scores that say pass.",
        "failed": "Scores that say fail.",
        "valued": "Scores with a value.",
        "value_sum": "Sum of the values.",
        "value_squares": "Sum of their squares.",
        "cost_usd": "Sum of the costs known.",
        "priced": "Scores whose cost is known.",
        "input_tokens": "Sum of the input tokens known.",
        "output_tokens": "Sum of the output tokens known.",
        "metered": "Scores whose tokens are known.",
        "latency_ms": "Sum of the latencies known.",
        "timed": "Scores whose latency is known.",
    },
    "_span_rollups": {**{k: v for k, v in KEY_COMMENTS.items() if k != "version_id"}, **SPAN_COMMENTS},
    "_cell_rollups": {
        **KEY_COMMENTS,
        "lane": "estimation (drawn by a rule) or triage.",
        "tp": "Validator and people say pass.",
        "fp": "The validator says pass, people say fail.",
        "fn": "The validator says fail, people say pass.",
        "tn": "Validator and people say fail.",
        "valued": "Labelled scores with a value.",
        "y_sum": "Of those, how many people pass.",
        "f_sum": "Sum of the values.",
        "yf_sum": "Sum of the values that people pass.",
        "ff_sum": "Sum of the squares of the values.",
    },
    "_label_cells": {
        "span_id": "The labelled span.",
        "started_at": "Its start.",
        "revision": "The revision that was labelled, the current one.",
        "version_id": "The version that judged it.",
        "slice_id": "Its dimensions.",
        "lane": "estimation or triage.",
        "judge_passed": "What the version says.",
        "human_passed": "What people say.",
        "value": "The value of the score.",
    },
    "_rollup_rebuilds": {"day": "UTC day.", "reason": "Why.", "asked_at": "Since when it waits."},
    "_fold_state": {"name": "What was folded.", "folded_at": "When, the last time.", "folded": "Changes folded then."},
}

SETTINGS = {
    "rollup_attributes": ("[]", "Up to three own dimensions of rollups, set by set_rollup_attributes()."),
    "rollup_attribute_values": ("200", "Values of one own dimension that are counted by name; later ones as (other)."),
    "fold_rows": ("50000", "Score changes folded in one transaction."),
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
    for statement in SLICES + CHANGES + ROLLUPS + REBUILDS + comments() + settings():
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    for table in reversed(TABLE_COMMENTS):
        op.execute(f"drop table if exists flywheel.{table} cascade")
    op.execute("drop index flywheel.labels_span_id")
    op.execute(f"delete from flywheel.settings where name in ({', '.join(repr(name) for name in SETTINGS)})")


def verify() -> None:
    for table, columns in COLUMN_COMMENTS.items():
        op.execute(f"select {', '.join(columns)} from flywheel.{table} where false")
