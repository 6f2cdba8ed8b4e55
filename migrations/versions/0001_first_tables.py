"""Make the tables of the first release: spans, validators, scores and the queue between them.

Nothing runs before this revision, so workers need no care. Tables whose name begins with an
underscore are the machine room: their shape may change in any release.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TYPES = [
    """
    create type flywheel.verdict as (
      passed boolean,
      value double precision,
      critique text
    )
    """,
    """
    create type flywheel._span_key as (
      span_id uuid,
      revision integer,
      started_at timestamptz,
      trace_id uuid,
      project text
    )
    """,
    """
    create type flywheel.version_status as (
      validator text,
      version integer,
      status text
    )
    """,
    "comment on type flywheel.version_status is 'What became of a validator version.'",
    "comment on type flywheel.verdict is 'What a check says of one span: passed, perhaps a value in [0, 1], and why.'",
    "comment on type flywheel._span_key is 'Internal: what a score copies from its span.'",
]

SPANS = [
    """
    create table flywheel.spans (
      span_id uuid not null,
      trace_id uuid not null,
      parent_span_id uuid,
      project text not null default 'default',
      environment text not null default 'production',
      release text,
      session_id text,
      user_id text,
      node text not null default 'app',
      node_kind text not null default 'app',
      input text,
      output text,
      messages jsonb,
      documents jsonb,
      model text,
      provider text,
      input_tokens integer,
      output_tokens integer,
      cost_usd double precision,
      status text not null default 'ok',
      error text,
      started_at timestamptz not null default now(),
      ended_at timestamptz,
      latency_ms double precision
        generated always as (
          case when ended_at >= started_at and isfinite(ended_at) and isfinite(started_at)
               then extract(epoch from (ended_at - started_at))::double precision * 1000 end) stored,
      attributes jsonb not null default '{}',
      revision integer not null default 1,
      ingested_at timestamptz not null default now(),
      constraint spans_pkey primary key (span_id, started_at),
      constraint span_node_kind_is_known check (
        node_kind in ('app', 'classifier', 'writer', 'codegen', 'retriever', 'tool', 'agent', 'other')),
      constraint span_status_is_known check (status in ('ok', 'error', 'running')),
      constraint span_tokens_are_not_negative check (input_tokens >= 0 and output_tokens >= 0),
      constraint span_cost_is_not_negative check (cost_usd >= 0),
      constraint span_revision_is_a_count check (revision between 1 and 1000000000)
    ) partition by range (started_at)
    """,
    "create table flywheel.spans_default partition of flywheel.spans default",
    "create index spans_trace_id on flywheel.spans (trace_id)",
    "create index spans_ingested_at on flywheel.spans using brin (ingested_at) with (pages_per_range = 32)",
    "create index spans_session_id on flywheel.spans (session_id, started_at) where session_id is not null",
    """
    create table flywheel.feedback (
      feedback_id uuid not null,
      trace_id uuid,
      span_id uuid,
      project text not null default 'default',
      kind text not null,
      value double precision,
      comment text,
      user_id text,
      attributes jsonb not null default '{}',
      created_at timestamptz not null default now(),
      constraint feedback_pkey primary key (feedback_id),
      constraint feedback_names_a_trace_or_span check (trace_id is not null or span_id is not null),
      constraint feedback_kind_is_named check (kind <> '')
    )
    """,
    "create index feedback_span_id on flywheel.feedback (span_id) where span_id is not null",
    "create index feedback_trace_id on flywheel.feedback (trace_id) where trace_id is not null",
]

VALIDATORS = [
    """
    create table flywheel.validators (
      validator_id uuid not null,
      name text not null,
      created_at timestamptz not null default now(),
      constraint validators_pkey primary key (validator_id),
      constraint validator_name_is_unique unique (name),
      constraint validator_name_is_plain check (name ~ '^[a-z][a-z0-9_]{0,62}$')
    )
    """,
    """
    create table flywheel.validator_versions (
      version_id uuid not null,
      validator_id uuid not null,
      version integer not null,
      definition jsonb not null,
      content_hash text not null,
      kind text not null,
      target text not null,
      lane text not null,
      action text not null,
      severity text not null,
      sample double precision not null,
      status text not null default 'draft',
      paused_reason text,
      paused_detail text,
      created_by text not null default session_user,
      created_at timestamptz not null default now(),
      approved_by text,
      approved_at timestamptz,
      changed_at timestamptz not null default now(),
      constraint validator_versions_pkey primary key (version_id),
      constraint validator_versions_validator foreign key (validator_id) references flywheel.validators,
      constraint validator_version_is_numbered_once unique (validator_id, version),
      constraint validator_version_content_is_new unique (validator_id, content_hash),
      constraint version_kind_is_known check (kind in ('sql', 'python')),
      constraint version_target_is_known check (target in ('input', 'output', 'span')),
      constraint version_lane_is_known check (lane in ('inline', 'bulk', 'judge')),
      constraint version_lane_fits_kind check (
        (kind = 'sql' and lane <> 'judge') or (kind = 'python' and lane <> 'inline')),
      constraint version_action_is_known check (action in ('flag', 'block')),
      constraint version_blocks_only_inline check (action = 'flag' or lane = 'inline'),
      constraint version_severity_is_known check (severity in ('info', 'low', 'medium', 'high', 'critical')),
      constraint version_sample_is_a_share check (sample > 0 and sample <= 1),
      constraint version_status_is_known check (
        status in ('draft', 'approved', 'active', 'shadow', 'paused', 'retired')),
      constraint paused_version_has_reason check ((status = 'paused') = (paused_reason is not null)),
      constraint running_version_is_approved check (status in ('draft', 'retired') or approved_at is not null)
    )
    """,
    """
    create unique index validator_has_one_active_version
      on flywheel.validator_versions (validator_id) where status in ('active', 'paused')
    """,
    """
    create table flywheel._activations (
      version_id uuid not null,
      started_at timestamptz not null,
      ended_at timestamptz,
      constraint _activations_pkey primary key (version_id, started_at),
      constraint activation_version foreign key (version_id) references flywheel.validator_versions,
      constraint activation_ends_after_start check (ended_at >= started_at)
    )
    """,
    """
    create table flywheel._faults (
      fault_id uuid not null,
      version_id uuid not null,
      reason text not null,
      detail text,
      spans integer not null,
      occurred_at timestamptz not null default now(),
      constraint _faults_pkey primary key (fault_id),
      constraint fault_version foreign key (version_id) references flywheel.validator_versions
    )
    """,
    "create index _faults_recent on flywheel._faults (version_id, occurred_at)",
]

SCORES = [
    """
    create table flywheel.scores (
      span_id uuid not null,
      revision integer not null,
      version_id uuid not null,
      started_at timestamptz not null,
      trace_id uuid not null,
      project text not null,
      passed boolean,
      value double precision,
      critique text,
      unscored_reason text,
      unscored_detail text,
      annotator_kind text not null default 'code',
      scored_at timestamptz not null default now(),
      constraint scores_pkey primary key (span_id, revision, version_id, started_at),
      constraint score_has_verdict_or_reason check ((passed is null) = (unscored_reason is not null)),
      constraint score_value_is_a_share check (value >= 0 and value <= 1),
      constraint score_reason_is_known check (unscored_reason in (
        'raised', 'timed_out', 'out_of_memory', 'wrong_type', 'no_verdict', 'missing_callable', 'crashed')),
      constraint score_annotator_kind_is_known check (annotator_kind in ('code', 'judge', 'neighbours', 'human'))
    ) partition by range (started_at)
    """,
    "create table flywheel.scores_default partition of flywheel.scores default",
    """
    create table flywheel.run_log (
      run_id uuid not null,
      started_at timestamptz not null,
      finished_at timestamptz not null default clock_timestamp(),
      worker_id uuid,
      lane text not null,
      jobs integer not null,
      spans integer not null,
      scores integer not null,
      outcome text not null,
      detail text,
      constraint run_log_pkey primary key (run_id, started_at),
      constraint run_outcome_is_known check (
        outcome in ('completed', 'split', 'retried', 'buried', 'held', 'void', 'reaped', 'reconciled'))
    ) partition by range (started_at)
    """,
    "create table flywheel.run_log_default partition of flywheel.run_log default",
]

QUEUE_COLUMNS = """
      lane text not null,
      priority smallint not null,
      job_id uuid not null,
      version_ids uuid[] not null,
      span_ids uuid[] not null,
      started_from timestamptz not null,
      started_until timestamptz not null,
      attempt smallint not null default 0,
      origin text not null default 'live',
"""

QUEUE = [
    f"""
    create table flywheel._ready ({QUEUE_COLUMNS}
      constraint _ready_pkey primary key (lane, priority, job_id)
    ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0)
    """,
    f"""
    create table flywheel._running ({QUEUE_COLUMNS}
      fence uuid not null,
      worker_id uuid not null,
      claimed_at timestamptz not null default clock_timestamp(),
      constraint _running_pkey primary key (fence)
    ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0)
    """,
    f"""
    create table flywheel._later ({QUEUE_COLUMNS}
      run_at timestamptz not null,
      reason text not null,
      detail text,
      constraint _later_pkey primary key (job_id)
    )
    """,
    "create index _later_due on flywheel._later (run_at)",
    f"""
    create table flywheel._dead ({QUEUE_COLUMNS}
      reason text not null,
      detail text,
      died_at timestamptz not null default now(),
      constraint _dead_pkey primary key (job_id)
    )
    """,
    "alter table flywheel._ready alter column span_ids set storage external",
    "alter table flywheel._running alter column span_ids set storage external",
    """
    create table flywheel._workers (
      worker_id uuid not null,
      name text not null,
      lanes text[] not null,
      listening boolean not null,
      in_hand integer not null default 0,
      release text not null,
      started_at timestamptz not null default now(),
      last_seen_at timestamptz not null,
      leased_until timestamptz not null,
      constraint _workers_pkey primary key (worker_id),
      constraint worker_has_lease check (leased_until > last_seen_at)
    ) with (fillfactor = 50)
    """,
    """
    create table flywheel._lanes (
      lane text not null,
      paused_reason text,
      paused_at timestamptz,
      constraint _lanes_pkey primary key (lane),
      constraint lane_pause_has_reason check ((paused_at is null) = (paused_reason is null))
    )
    """,
    """
    create table flywheel._backfills (
      backfill_id uuid not null,
      version_id uuid not null,
      since timestamptz not null,
      until timestamptz not null,
      cursor_started_at timestamptz not null,
      cursor_span_id uuid not null,
      queued bigint not null default 0,
      skipped bigint not null default 0,
      created_at timestamptz not null default now(),
      finished_at timestamptz,
      constraint _backfills_pkey primary key (backfill_id),
      constraint backfill_version foreign key (version_id) references flywheel.validator_versions,
      constraint backfill_since_precedes_until check (since < until)
    )
    """,
    """
    create table flywheel.settings (
      name text not null,
      value jsonb not null,
      description text not null default '',
      constraint settings_pkey primary key (name)
    )
    """,
]

TABLE_COMMENTS = {
    "spans": "One step of a trace: what went into a model or tool, what came out. Insert here; a root span is a trace.",
    "spans_default": "Spans whose day has no partition yet. pgflywheel doctor warns when it is not empty.",
    "feedback": "What users did about an answer: thumb, rating, edit, correction or a kind of your own.",
    "validators": "A named yes/no question asked about inputs, outputs or spans.",
    "validator_versions": "The immutable wordings of each validator, content-hashed, with their status.",
    "_activations": "Internal: when each version was judging new spans.",
    "_faults": "Internal: statements in which a validator raised or was too slow.",
    "scores": "One verdict of one validator version on one revision of one span, or the reason why there is none.",
    "scores_default": "Scores of spans whose day has no partition yet.",
    "run_log": "What workers did: one row for each batch of jobs.",
    "run_log_default": "Runs whose day has no partition yet.",
    "_ready": "Internal: jobs that may be claimed now. Rows are inserted and deleted, never updated.",
    "_running": "Internal: jobs a worker holds, each under a fence.",
    "_later": "Internal: jobs that wait for a time, or (run_at infinity) for their validator to resume.",
    "_dead": "Internal: jobs given up, with the reason; replay_dead() queues them again.",
    "_workers": "Internal: one row for each live worker, renewed by its heartbeat.",
    "_lanes": "Internal: which lanes are paused for all workers.",
    "_backfills": "Internal: how far each backfill has come.",
    "settings": "Settings of this install.",
}

QUEUE_COLUMN_COMMENTS = {
    "lane": "Where the job runs: bulk or judge.",
    "priority": "1 live, 2 backfill; lower goes first.",
    "job_id": "Time-ordered id.",
    "version_ids": "Validator versions to run on the spans.",
    "span_ids": "The spans, at most settings.chunk_spans.",
    "started_from": "Earliest started_at of the spans, so that only their partitions are read.",
    "started_until": "Latest started_at of the spans.",
    "attempt": "How often the job was claimed.",
    "origin": "Why the job exists: live, backfill, reconcile or replay.",
}

COLUMN_COMMENTS = {
    "spans": {
        "span_id": "Id of the span. Time-ordered by default; from OpenTelemetry: 8 bytes of trace id and 8 of span id.",
        "trace_id": "Id of the request the span belongs to.",
        "parent_span_id": "The span that called this one; null for a root span. Children may arrive first.",
        "project": "Which LLM application.",
        "environment": "Where it runs: production, staging, ...",
        "release": "Which version of the application made the span; null = unknown.",
        "session_id": "The conversation the trace belongs to; null = none.",
        "user_id": "The end user; null = unknown.",
        "node": "Stable name of the step in the call graph.",
        "node_kind": "app, classifier, writer, codegen, retriever, tool, agent or other.",
        "input": "What went in, as text.",
        "output": "What came out, as text; null = nothing yet.",
        "messages": "Chat messages, as the provider's JSON.",
        "documents": "Retrieved passages: a JSON list of objects with id, text and score.",
        "model": "Model name; null for a step without a model.",
        "provider": "Who served the model.",
        "input_tokens": "Tokens read; null = unknown.",
        "output_tokens": "Tokens written; null = unknown.",
        "cost_usd": "Cost in US dollars; null = unknown, never 0.",
        "status": "ok, error or running.",
        "error": "Message of the error, where status is error.",
        "started_at": "When the step began; decides the partition.",
        "ended_at": "When the step ended; null = not yet or unknown.",
        "latency_ms": "ended_at - started_at in milliseconds; null = unknown, or the clocks disagree.",
        "attributes": "Anything else, as a JSON object.",
        "revision": "1, and one more for each update of input, output or documents. Scores belong to a revision.",
        "ingested_at": "When the row arrived here.",
    },
    "feedback": {
        "feedback_id": "Id of the feedback row.",
        "trace_id": "The trace it is about.",
        "span_id": "The span it is about; null = the whole trace.",
        "project": "Which LLM application.",
        "kind": "thumb, rating, edit, correction or a kind of your own.",
        "value": "A number: thumb 0 or 1, rating on your scale; null = none.",
        "comment": "What the user wrote.",
        "user_id": "The end user; null = unknown.",
        "attributes": "Anything else, as a JSON object.",
        "created_at": "When the user acted.",
    },
    "validators": {
        "validator_id": "Id of the validator.",
        "name": "Its name: lower-case letters, digits and underscores.",
        "created_at": "When it was first defined.",
    },
    "validator_versions": {
        "version_id": "Id of the version.",
        "validator_id": "The validator it is a version of.",
        "version": "1, 2, 3 ...",
        "definition": "The whole definition, with defaults filled in.",
        "content_hash": "SHA-256 of the definition, hexadecimal.",
        "kind": "sql or python.",
        "target": "What is judged: input, output or span.",
        "lane": "inline (in the writer's transaction), bulk (set-based, soon) or judge (one slow call a span).",
        "action": "flag (record) or block (reject the insert that fails).",
        "severity": "info, low, medium, high or critical.",
        "sample": "Share of traces judged, in (0, 1].",
        "status": "draft, approved, active, shadow (runs, decides nothing), paused or retired.",
        "paused_reason": "manual, errors or slow; null unless paused.",
        "paused_detail": "Why, in words.",
        "created_by": "Database user who defined it.",
        "created_at": "When it was defined.",
        "approved_by": "Database user who approved it; null = nobody yet.",
        "approved_at": "When it was approved.",
        "changed_at": "When its status last changed.",
    },
    "_activations": {
        "version_id": "The version.",
        "started_at": "From when it judged new spans.",
        "ended_at": "Until when; null = still.",
    },
    "_faults": {
        "fault_id": "Id of the fault.",
        "version_id": "The version that failed.",
        "reason": "raised, timed_out, slow, ...",
        "detail": "The error message or the measured time.",
        "spans": "How many spans the statement had.",
        "occurred_at": "When.",
    },
    "scores": {
        "span_id": "The span judged.",
        "revision": "The revision of the span that was judged.",
        "version_id": "The validator version that judged it.",
        "started_at": "started_at of the span; decides the partition.",
        "trace_id": "Trace of the span.",
        "project": "Project of the span.",
        "passed": "True = pass, false = fail, null = unscored.",
        "value": "Optional value in [0, 1].",
        "critique": "Why, in words.",
        "unscored_reason": "Why there is no verdict; null when there is one.",
        "unscored_detail": "The error behind it.",
        "annotator_kind": "Who judged: code, judge, neighbours or human.",
        "scored_at": "When the score was written.",
    },
    "run_log": {
        "run_id": "Id of the run.",
        "started_at": "When the worker began the batch.",
        "finished_at": "When the outcome was written.",
        "worker_id": "The worker; null = the database itself.",
        "lane": "Lane of the jobs.",
        "jobs": "How many jobs.",
        "spans": "How many spans they held.",
        "scores": "How many scores were written.",
        "outcome": "completed, split, retried, buried, held, void (lease lost, nothing written), reaped or reconciled.",
        "detail": "The error, where there was one.",
    },
    "_ready": QUEUE_COLUMN_COMMENTS,
    "_running": QUEUE_COLUMN_COMMENTS
    | {
        "fence": "Number of this claim: a write under an older fence is void.",
        "worker_id": "Who holds it; the lease is the worker's.",
        "claimed_at": "When it was claimed.",
    },
    "_later": QUEUE_COLUMN_COMMENTS
    | {
        "run_at": "Not before; infinity = when its validator resumes.",
        "reason": "Why it waits.",
        "detail": "The error behind it.",
    },
    "_dead": QUEUE_COLUMN_COMMENTS
    | {"reason": "Class of the error.", "detail": "The error.", "died_at": "When it was given up."},
    "_workers": {
        "worker_id": "Id of the worker process.",
        "name": "host:pid or the name given to it.",
        "lanes": "Lanes it serves.",
        "listening": "False = it polls, because LISTEN does not reach it.",
        "in_hand": "Jobs it holds.",
        "release": "Version of pgflywheel it runs.",
        "started_at": "When it started.",
        "last_seen_at": "Its last heartbeat.",
        "leased_until": "Until when its jobs are its own.",
    },
    "_lanes": {
        "lane": "The lane.",
        "paused_reason": "Why it is paused; null = it is not.",
        "paused_at": "Since when.",
    },
    "_backfills": {
        "backfill_id": "Id of the backfill.",
        "version_id": "The version that judges.",
        "since": "First started_at.",
        "until": "First started_at no longer included.",
        "cursor_started_at": "started_at of the last span looked at.",
        "cursor_span_id": "Id of the last span looked at.",
        "queued": "Spans queued so far.",
        "skipped": "Eligible spans that had a score already.",
        "created_at": "When it began.",
        "finished_at": "When the last span was queued; null = not yet.",
    },
    "settings": {
        "name": "Name of the setting.",
        "value": "Its value.",
        "description": "What it does, with its unit.",
    },
}

SETTINGS = {
    "chunk_spans": (1000, "Spans in one bulk job, at most."),
    "inline_limit_ms": (
        50,
        "Milliseconds one inline validator may take for one statement of up to 1,000 rows; more for more rows.",
    ),
    "faults_before_pause": (3, "Faults of a validator within faults_window_seconds that pause it."),
    "faults_window_seconds": (600, "Seconds over which faults are counted."),
    "max_attempts": (5, "Claims of one job before it is dead."),
    "premade_days": (7, "Days of partitions made ahead."),
    "reconcile_seconds": (900, "Seconds back over which spans without score or job are looked for."),
}


def comments() -> list[str]:
    tables = [f"comment on table flywheel.{table} is '{text}'" for table, text in TABLE_COMMENTS.items()]
    columns = [
        f"comment on column flywheel.{table}.{column} is '{text.replace(chr(39), chr(39) * 2)}'"
        for table, texts in COLUMN_COMMENTS.items()
        for column, text in texts.items()
    ]
    return tables + columns


def settings() -> list[str]:
    return [
        f"insert into flywheel.settings (name, value, description) values ('{name}', '{value}', '{text}')"
        for name, (value, text) in SETTINGS.items()
    ] + ["insert into flywheel._lanes (lane) values ('bulk'), ('judge')"]


def upgrade() -> None:
    for statement in TYPES + SPANS + VALIDATORS + SCORES + QUEUE + comments() + settings():
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    for table in reversed(TABLE_COMMENTS):
        if not table.endswith("_default"):
            op.execute(f"drop table if exists flywheel.{table} cascade")
    op.execute("drop type flywheel.verdict, flywheel.version_status, flywheel._span_key cascade")


def verify() -> None:
    for table, columns in COLUMN_COMMENTS.items():
        op.execute(f"select {', '.join(columns)} from flywheel.{table} where false")
