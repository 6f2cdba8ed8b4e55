"""Make the tables of drift tests, sentinels and the state of monitors.

Workers of earlier releases stop with exit code 4 until they are replaced. Nothing is computed here: monitors learn what
is usual from the scores there are when a worker first looks.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TESTS = [
    """
    create table flywheel.drift_tests (
      test_id uuid not null,
      tested_at timestamptz not null default now(),
      kind text not null,
      subject text not null,
      slice text not null,
      project text,
      version_id uuid,
      window_from timestamptz,
      window_until timestamptz,
      reference_from timestamptz,
      reference_until timestamptz,
      statistic double precision,
      threshold double precision,
      effect double precision,
      n_reference bigint,
      n_current bigint,
      drifted boolean,
      evidence jsonb not null default '{}',
      constraint drift_tests_pkey primary key (test_id),
      constraint drift_kind_is_known check (kind in (
        'cusum', 'psi', 'js', 'ks', 'embedding_mmd', 'domain_classifier', 'novelty', 'sentinels'))
    )
    """,
    "create index drift_tests_tested_at on flywheel.drift_tests (tested_at)",
    """
    create table flywheel._drift_turns (
      name text not null,
      taken_until timestamptz not null,
      constraint _drift_turns_pkey primary key (name)
    )
    """,
]

MONITORS = [
    """
    create table flywheel._monitors (
      monitor_id uuid not null,
      version_id uuid not null,
      project text not null,
      environment text,
      node text,
      release text,
      created_at timestamptz not null default now(),
      counted_from timestamptz not null,
      baseline_n bigint not null default 0,
      baseline_failed bigint not null default 0,
      fitted_n bigint,
      fitted_at timestamptz,
      items_per_month double precision,
      constraint _monitors_pkey primary key (monitor_id),
      constraint monitor_version foreign key (version_id) references flywheel.validator_versions,
      constraint monitor_baseline_counts check (baseline_failed between 0 and baseline_n)
    )
    """,
    """
    create table flywheel._cusums (
      monitor_id uuid not null,
      direction text not null,
      q0 double precision not null,
      q1 double precision not null,
      threshold double precision not null,
      statistic double precision not null default 0,
      seen bigint not null default 0,
      failed bigint not null default 0,
      alarmed_at timestamptz,
      stepped_at timestamptz,
      constraint _cusums_pkey primary key (monitor_id, direction),
      constraint cusum_monitor foreign key (monitor_id) references flywheel._monitors on delete cascade,
      constraint cusum_direction_is_known check (direction in ('more fails', 'fewer fails'))
    ) with (fillfactor = 50)
    """,
    """
    create table flywheel._monitor_minutes (
      monitor_id uuid not null,
      minute timestamptz not null,
      passed bigint not null,
      failed bigint not null,
      constraint _monitor_minutes_pkey primary key (monitor_id, minute),
      constraint monitor_minute_monitor foreign key (monitor_id) references flywheel._monitors on delete cascade
    )
    """,
]

WINDOWS = [
    """
    create table flywheel._references (
      reference_id uuid not null,
      feature text not null,
      version_id uuid,
      project text not null,
      node text,
      from_day date not null,
      until_day date not null,
      cuts integer[],
      counts bigint[],
      n bigint not null,
      spread double precision,
      set_by text not null default 'first days',
      set_at timestamptz not null default now(),
      constraint _references_pkey primary key (reference_id),
      constraint reference_ends_after_start check (until_day >= from_day)
    )
    """,
    """
    create table flywheel._length_days (
      day date not null,
      project text not null,
      node text not null,
      feature text not null,
      bin integer not null,
      n bigint not null,
      constraint _length_days_pkey primary key (day, project, node, feature, bin)
    )
    """,
    """
    create table flywheel._embedding_days (
      embedder_id uuid not null,
      part text not null,
      project text not null,
      node text not null,
      day date not null,
      n bigint not null,
      total public.vector not null,
      squares double precision not null,
      constraint _embedding_days_pkey primary key (day, embedder_id, part, project, node)
    )
    """,
]

NOVELTY = [
    """
    create table flywheel._novelty_points (
      project text not null,
      span_id uuid not null,
      started_at timestamptz not null,
      embedding public.halfvec not null,
      distance double precision,
      constraint _novelty_points_pkey primary key (project, span_id)
    )
    """,
    """
    create table flywheel._novelty_references (
      project text not null,
      embedder_id uuid not null,
      n bigint not null,
      distances double precision[] not null,
      fitted_at timestamptz not null default now(),
      looked_until timestamptz not null,
      constraint _novelty_references_pkey primary key (project)
    )
    """,
    """
    create table flywheel._novelties (
      day date not null,
      project text not null,
      span_id uuid not null,
      started_at timestamptz not null,
      distance double precision not null,
      percentile double precision not null,
      looked_at timestamptz not null default now(),
      constraint _novelties_pkey primary key (day, project, span_id)
    )
    """,
]

SENTINELS = [
    """
    create table flywheel.sentinels (
      sentinel_id uuid not null,
      validator_id uuid not null,
      span_id uuid not null,
      started_at timestamptz not null,
      revision integer not null,
      passed boolean not null,
      item jsonb not null,
      chosen_by text not null default session_user,
      chosen_at timestamptz not null default now(),
      retired_at timestamptz,
      constraint sentinels_pkey primary key (sentinel_id),
      constraint sentinel_validator foreign key (validator_id) references flywheel.validators,
      constraint sentinel_is_chosen_once unique (validator_id, span_id, revision)
    )
    """,
    """
    create table flywheel.sentinel_runs (
      version_id uuid not null,
      run_at timestamptz not null,
      sentinel_id uuid not null,
      passed boolean,
      value double precision,
      unscored_reason text,
      unscored_detail text,
      answered_by text,
      cost_usd double precision,
      constraint sentinel_runs_pkey primary key (version_id, run_at, sentinel_id),
      constraint sentinel_run_version foreign key (version_id) references flywheel.validator_versions,
      constraint sentinel_run_sentinel foreign key (sentinel_id) references flywheel.sentinels,
      constraint sentinel_run_has_verdict_or_reason check ((passed is null) = (unscored_reason is not null))
    )
    """,
    "create index sentinel_runs_sentinel on flywheel.sentinel_runs (sentinel_id, version_id)",
]

TABLE_COMMENTS = {
    "drift_tests": "Every test for drift, one row for each monitor and window.",
    "_drift_turns": "Internal: work on drift that one worker is at, until when nobody else begins it.",
    "_monitors": "Internal: slices of a validator version whose pass rate is watched, and what is usual there.",
    "_cusums": "Internal: the running statistics of monitors, one for each direction.",
    "_monitor_minutes": "Internal: verdicts of recent minutes that a monitor has counted.",
    "_references": "Internal: the windows that distributions and embeddings are compared with.",
    "_length_days": "Internal: how long inputs and outputs of a day were, in bins, from a hash sample.",
    "_embedding_days": "Internal: sums of the embeddings of a day.",
    "_novelty_points": "Internal: the hash sample of embeddings that an input is compared with.",
    "_novelty_references": "Internal: how far the points of a project are from their neighbours.",
    "_novelties": "Internal: how far recent embedded spans were from their neighbours.",
    "sentinels": "Labelled items whose verdicts are asked for again and again, to tell a judge that changes.",
    "sentinel_runs": "What a judge version said of each sentinel, each time.",
}
SLICE = {
    "version_id": "The validator version.",
    "project": "Project of the spans.",
    "environment": "Environment of the spans; null = all.",
    "node": "Node of the spans; null = all.",
    "release": "Release of the spans; null = all, empty = unknown.",
}
COLUMN_COMMENTS = {
    "drift_tests": {
        "test_id": "Hash of what was tested and of the window.",
        "tested_at": "When, the last time: a window that goes on is tested again.",
        "kind": "cusum, psi, js, ks, embedding_mmd, domain_classifier, novelty or sentinels.",
        "subject": "What was tested.",
        "slice": "Of which spans.",
        "project": "Their project.",
        "version_id": "The validator version; null = none is concerned.",
        "window_from": "Start of the window that was tested.",
        "window_until": "Its end.",
        "reference_from": "Start of what it was compared with.",
        "reference_until": "Its end.",
        "statistic": "The statistic of the test; null = not enough data.",
        "threshold": "From where on it says drift; null = it is shown only.",
        "effect": "Size of the difference, in units that mean something.",
        "n_reference": "Rows it was compared with.",
        "n_current": "Rows of the window.",
        "drifted": "Whether it says drift; null = not enough data, or it is shown only.",
        "evidence": "What else there is to see.",
    },
    "_drift_turns": {"name": "The work.", "taken_until": "Until when it is somebody''s."},
    "_monitors": {
        "monitor_id": "Hash of version and slice.",
        **SLICE,
        "created_at": "When it began.",
        "counted_from": "First minute it counts.",
        "baseline_n": "Verdicts it learned from.",
        "baseline_failed": "Of those, fails.",
        "fitted_n": "Verdicts its rates were fitted on; null = it still learns.",
        "fitted_at": "When its rates and limits were computed.",
        "items_per_month": "Verdicts a month, as of the last seven days.",
    },
    "_cusums": {
        "monitor_id": "The monitor.",
        "direction": "more fails or fewer fails.",
        "q0": "Usual fail rate, on the side that makes false alarms rarer.",
        "q1": "Fail rate to be noticed.",
        "threshold": "Alarm from here on.",
        "statistic": "Evidence so far, never below 0, held at the threshold.",
        "seen": "Verdicts since it was last 0.",
        "failed": "Of those, fails.",
        "alarmed_at": "Since when it alarms; null = it does not.",
        "stepped_at": "When it last moved.",
    },
    "_monitor_minutes": {
        "monitor_id": "The monitor.",
        "minute": "Minute in which the spans started.",
        "passed": "Passes counted.",
        "failed": "Fails counted.",
    },
    "_references": {
        "reference_id": "Hash of feature and slice.",
        "feature": "value, latency, input_length, output_length, embedding input or embedding output.",
        "version_id": "The validator version, of values.",
        "project": "Project of the spans.",
        "node": "Node of the spans; null = all.",
        "from_day": "First day.",
        "until_day": "Last day.",
        "cuts": "First bin of each group but the first; tenths of the reference.",
        "counts": "Rows of each group.",
        "n": "Rows.",
        "spread": "Of embeddings: what random pairs of them give.",
        "set_by": "first days, or who set it.",
        "set_at": "When.",
    },
    "_length_days": {
        "day": "UTC day.",
        "project": "Project of the spans.",
        "node": "Node of the spans.",
        "feature": "input_length or output_length.",
        "bin": "floor(4 * log2(1 + bytes)).",
        "n": "Spans of the sample.",
    },
    "_embedding_days": {
        "embedder_id": "Who embedded.",
        "part": "input or output.",
        "project": "Project of the spans.",
        "node": "Node of the spans.",
        "day": "UTC day.",
        "n": "Vectors.",
        "total": "Their sum.",
        "squares": "Sum of their squared lengths.",
    },
    "_novelty_points": {
        "project": "Project of the span.",
        "span_id": "The span.",
        "started_at": "Its start.",
        "embedding": "Its input.",
        "distance": "Cosine distance to the tenth nearest other point; null = fewer than eleven points.",
    },
    "_novelty_references": {
        "project": "The project.",
        "embedder_id": "The embedder.",
        "n": "Points.",
        "distances": "Their distances, in order.",
        "fitted_at": "When.",
        "looked_until": "Spans embedded until then were compared.",
    },
    "_novelties": {
        "day": "UTC day of the span.",
        "project": "Its project.",
        "span_id": "The span.",
        "started_at": "Its start.",
        "distance": "Cosine distance to the tenth nearest point.",
        "percentile": "Share of the points that are nearer to their own tenth.",
        "looked_at": "When it was compared.",
    },
    "sentinels": {
        "sentinel_id": "Its id.",
        "validator_id": "The question.",
        "span_id": "The span it was taken from, which may be gone.",
        "started_at": "Start of that span.",
        "revision": "The revision that was labelled.",
        "passed": "What people say.",
        "item": "All that a judge is shown of it, kept so that it never changes.",
        "chosen_by": "Login that chose it.",
        "chosen_at": "When.",
        "retired_at": "Since when it is asked no more.",
    },
    "sentinel_runs": {
        "version_id": "The judge version.",
        "run_at": "When the run began.",
        "sentinel_id": "The item.",
        "passed": "The verdict; null = none.",
        "value": "Its value; null = none.",
        "unscored_reason": "Why there is no verdict.",
        "unscored_detail": "More about that.",
        "answered_by": "Model that answered, as the endpoint names it.",
        "cost_usd": "What the calls cost; null = unknown.",
    },
}

SETTINGS = {
    "drift_false_alarms_per_month": ("2", "False alarms a month that all pass rate monitors together may give."),
    "drift_by": ("[]", "What pass rates are watched by besides project, set by watch_by()."),
    "drift_monitors": ("200", "Slices whose pass rate is watched, the largest first."),
    "drift_baseline": ("300", "Verdicts a monitor learns from before it begins to watch."),
    "drift_late_hours": ("24", "Verdicts on spans older than this are not watched."),
    "drift_reference": ("300", "Rows a reference window of distributions and embeddings needs."),
    "drift_days_kept": ("400", "Days after which drift tests are deleted."),
    "novelty_points": ("1000", "Recent inputs of a project that a new one is compared with."),
    "novelty_permille": ("990", "An input is novel above so many thousandths of the distances among recent ones."),
    "sentinel_hours": ("24", "Hours between two runs of the sentinels of a judge; none runs without sentinels."),
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
    for statement in TESTS + MONITORS + WINDOWS + NOVELTY + SENTINELS + comments() + settings():
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    for table in reversed(TABLE_COMMENTS):
        op.execute(f"drop table if exists flywheel.{table} cascade")
    op.execute(f"delete from flywheel.settings where name in ({', '.join(repr(name) for name in SETTINGS)})")


def verify() -> None:
    for table, columns in COLUMN_COMMENTS.items():
        op.execute(f"select {', '.join(columns)} from flywheel.{table} where false")
