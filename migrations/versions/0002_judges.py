"""Make the tables of judges that learn from people: providers, budgets, calls, labels, examples, embeddings.

Workers of the first release stop with exit code 4 until they are replaced. Two constraints of scores are
remade, which reads the table once.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PROVIDERS = [
    """
    create table flywheel.providers (
      provider text not null,
      base_url text not null,
      key_variable text,
      abilities jsonb not null default '{}',
      max_in_flight integer not null default 16,
      requests_per_minute integer,
      tokens_per_minute integer,
      time_limit_ms integer not null default 60000,
      changed_at timestamptz not null default now(),
      constraint providers_pkey primary key (provider),
      constraint provider_name_is_plain check (provider ~ '^[a-z][a-z0-9_-]{0,62}$'),
      constraint provider_key_variable_is_a_name check (key_variable ~ '^[A-Za-z_][A-Za-z0-9_]*$'),
      constraint provider_limits_are_positive check (
        max_in_flight > 0 and requests_per_minute > 0 and tokens_per_minute > 0 and time_limit_ms > 0)
    )
    """,
    """
    create table flywheel.provider_models (
      provider text not null,
      model text not null,
      input_usd double precision,
      cached_input_usd double precision,
      output_usd double precision,
      batch_share double precision not null default 0.5,
      constraint provider_models_pkey primary key (provider, model),
      constraint provider_model_provider foreign key (provider) references flywheel.providers on delete cascade,
      constraint provider_model_prices_are_not_negative check (
        input_usd >= 0 and cached_input_usd >= 0 and output_usd >= 0 and batch_share >= 0)
    )
    """,
    """
    create table flywheel._provider_states (
      provider text not null,
      requests double precision not null default 0,
      tokens double precision not null default 0,
      levelled_at timestamptz not null default now(),
      blocked_until timestamptz,
      blocked_reason text,
      blocked_detail text,
      refusals integer not null default 0,
      saving_until timestamptz,
      constraint _provider_states_pkey primary key (provider),
      constraint provider_state_provider foreign key (provider) references flywheel.providers on delete cascade
    ) with (fillfactor = 50)
    """,
]

MONEY = [
    """
    create table flywheel.budgets (
      budget_id uuid not null,
      scope text not null,
      name text not null,
      period text not null,
      cap_usd double precision not null,
      changed_at timestamptz not null default now(),
      constraint budgets_pkey primary key (budget_id),
      constraint budget_is_set_once unique (scope, name, period),
      constraint budget_scope_is_known check (scope in ('validator', 'provider', 'project')),
      constraint budget_period_is_known check (period in ('day', 'month')),
      constraint budget_cap_is_not_negative check (cap_usd >= 0)
    )
    """,
    """
    create table flywheel._budget_periods (
      budget_id uuid not null,
      started_on date not null,
      spent_usd double precision not null default 0,
      reserved_usd double precision not null default 0,
      refused_usd double precision,
      constraint _budget_periods_pkey primary key (budget_id, started_on),
      constraint budget_period_budget foreign key (budget_id) references flywheel.budgets on delete cascade
    ) with (fillfactor = 50)
    """,
    """
    create table flywheel._reservations (
      call_id uuid not null,
      fence uuid,
      worker_id uuid not null,
      version_id uuid,
      provider text not null,
      purpose text not null,
      vote smallint not null,
      request_hash text not null,
      tokens integer not null,
      usd double precision,
      budget_ids uuid[] not null,
      call jsonb not null,
      reserved_at timestamptz not null default clock_timestamp(),
      constraint _reservations_pkey primary key (call_id)
    ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0)
    """,
    "create index _reservations_provider on flywheel._reservations (provider, reserved_at) where purpose <> 'batch'",
    "create index _reservations_request_hash on flywheel._reservations (request_hash)",
    """
    create table flywheel.calls (
      call_id uuid not null,
      started_at timestamptz not null default now(),
      purpose text not null default 'score',
      version_id uuid,
      span_id uuid,
      revision integer,
      trace_id uuid,
      project text,
      vote smallint not null default 1,
      attempt smallint not null default 1,
      repair boolean not null default false,
      provider text not null,
      model text not null,
      answered_by text,
      rung text,
      request_hash text not null,
      shots uuid[],
      outcome text not null,
      http_status smallint,
      detail text,
      reply jsonb,
      input_tokens integer,
      cached_tokens integer,
      output_tokens integer,
      cost_usd double precision,
      latency_ms double precision,
      constraint calls_pkey primary key (call_id, started_at),
      constraint call_purpose_is_known check (purpose in ('score', 'test', 'batch', 'embed')),
      constraint call_outcome_is_known check (outcome in (
        'answered', 'refused', 'length_stop', 'content_filter', 'empty_reply', 'unreadable', 'rate_limited',
        'quota_exhausted', 'server_error', 'connection_lost', 'timed_out', 'rejected', 'expired', 'lost')),
      constraint call_rung_is_known check (rung in ('json_schema', 'json_object', 'text'))
    ) partition by range (started_at)
    """,
    "create table flywheel.calls_default partition of flywheel.calls default",
    "create index calls_request_hash on flywheel.calls using hash (request_hash)",
    "create index calls_span_id on flywheel.calls (span_id) where span_id is not null",
    """
    create table flywheel._batches (
      batch_id uuid not null,
      provider text not null,
      model text not null,
      remote_id text,
      status text not null default 'submitting',
      lines integer not null default 0,
      answered integer not null default 0,
      detail text,
      worker_id uuid,
      submitted_at timestamptz not null default now(),
      polled_at timestamptz,
      next_poll_at timestamptz,
      closed_at timestamptz,
      constraint _batches_pkey primary key (batch_id),
      constraint batch_provider foreign key (provider) references flywheel.providers,
      constraint batch_status_is_known check (status in (
        'submitting', 'validating', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelled', 'failed'))
    )
    """,
    """
    create table flywheel._batch_lines (
      call_id uuid not null,
      batch_id uuid not null,
      version_id uuid not null,
      span_id uuid not null,
      revision integer not null,
      started_at timestamptz not null,
      vote smallint not null default 1,
      attempt smallint not null,
      origin text not null,
      request_hash text not null,
      rung text not null,
      shots uuid[],
      model text not null,
      degraded text,
      answer jsonb,
      constraint _batch_lines_pkey primary key (call_id),
      constraint batch_line_batch foreign key (batch_id) references flywheel._batches on delete cascade
    )
    """,
    "create index _batch_lines_version on flywheel._batch_lines (version_id, span_id)",
    "create index _batch_lines_batch on flywheel._batch_lines (batch_id, version_id, span_id)",
    "create index _batches_open on flywheel._batches (next_poll_at) where closed_at is null",
]

LABELS = [
    """
    create table flywheel.labels (
      label_id uuid not null,
      validator_id uuid not null,
      version_id uuid,
      span_id uuid not null,
      started_at timestamptz not null,
      revision integer not null,
      trace_id uuid not null,
      project text not null,
      annotator text not null,
      annotator_kind text not null default 'human',
      passed boolean not null,
      critique text,
      blind boolean not null default true,
      adjudicated boolean not null default false,
      lane text not null default 'triage',
      incl_prob double precision,
      stratum text,
      group_key text not null,
      split text not null,
      supersedes uuid,
      withdrawn boolean not null default false,
      recorded_by text not null default session_user,
      labelled_at timestamptz not null default now(),
      constraint labels_pkey primary key (label_id),
      constraint label_validator foreign key (validator_id) references flywheel.validators,
      constraint label_annotator_is_named check (annotator <> ''),
      constraint label_annotator_kind_is_known check (annotator_kind in ('human', 'judge')),
      constraint label_lane_is_known check (lane in ('estimation', 'triage')),
      constraint label_split_is_known check (split in ('train', 'dev', 'test')),
      constraint estimation_label_has_probability check (
        (lane = 'estimation') = (incl_prob is not null) and (incl_prob > 0 and incl_prob <= 1)),
      constraint judge_label_is_provisional check (annotator_kind = 'human' or (lane = 'triage' and not adjudicated))
    )
    """,
    "create index labels_subject on flywheel.labels (validator_id, span_id, revision)",
    "create unique index label_is_superseded_once on flywheel.labels (supersedes)",
    """
    create table flywheel.fixes (
      fix_id uuid not null,
      validator_id uuid,
      span_id uuid not null,
      started_at timestamptz not null,
      revision integer not null,
      trace_id uuid not null,
      project text not null,
      annotator text not null,
      output text not null,
      wrong text,
      why text,
      group_key text not null,
      split text not null,
      recorded_by text not null default session_user,
      fixed_at timestamptz not null default now(),
      constraint fixes_pkey primary key (fix_id),
      constraint fix_validator foreign key (validator_id) references flywheel.validators,
      constraint fix_annotator_is_named check (annotator <> ''),
      constraint fix_split_is_known check (split in ('train', 'dev', 'test'))
    )
    """,
    "create index fixes_span_id on flywheel.fixes (span_id)",
    """
    create table flywheel.label_draws (
      draw_id uuid not null,
      validator_id uuid not null,
      method text not null,
      since timestamptz not null,
      until timestamptz not null,
      wanted integer not null,
      strata jsonb not null default '[]',
      drawn integer not null default 0,
      drawn_by text not null default session_user,
      drawn_at timestamptz not null default now(),
      constraint label_draws_pkey primary key (draw_id),
      constraint label_draw_validator foreign key (validator_id) references flywheel.validators,
      constraint label_draw_method_is_known check (method in ('random', 'stratified'))
    )
    """,
    """
    create table flywheel._label_items (
      item_id uuid not null,
      validator_id uuid not null,
      span_id uuid not null,
      started_at timestamptz not null,
      revision integer not null,
      lane text not null,
      draw_id uuid,
      stratum text,
      incl_prob double precision,
      priority double precision not null default 0,
      components jsonb,
      wanted smallint not null default 1,
      adjudication boolean not null default false,
      added_at timestamptz not null default now(),
      closed_at timestamptz,
      constraint _label_items_pkey primary key (item_id),
      constraint label_item_is_queued_once unique (validator_id, span_id, revision, started_at, lane),
      constraint label_item_lane_is_known check (lane in ('estimation', 'triage')),
      constraint estimation_item_has_probability check ((lane = 'estimation') = (incl_prob is not null))
    )
    """,
    """
    create index _label_items_open on flywheel._label_items (validator_id, lane, priority desc, item_id)
      where closed_at is null
    """,
    """
    create table flywheel._label_claims (
      item_id uuid not null,
      reviewer text not null,
      state text not null,
      leased_until timestamptz,
      changed_at timestamptz not null default now(),
      constraint _label_claims_pkey primary key (item_id, reviewer),
      constraint label_claim_item foreign key (item_id) references flywheel._label_items on delete cascade,
      constraint label_claim_state_is_known check (state in ('leased', 'deferred', 'done')),
      constraint leased_claim_ends check ((state = 'leased') = (leased_until is not null))
    )
    """,
]

EXAMPLES = [
    """
    create type flywheel.shot as (
      example_id uuid, rank integer, kind text, input text, output text, corrected_output text, passed boolean,
      critique text,
      similarity double precision, recency double precision, disagreement double precision, trust double precision,
      relevance double precision, penalty double precision, tokens integer
    )
    """,
    "comment on type flywheel.shot is 'An example as it is shown, with all components of its rank (1 = first).'",
    """
    create table flywheel.example_policies (
      project text not null,
      sign_off text not null default 'auto',
      max_per_user integer not null default 20,
      changed_at timestamptz not null default now(),
      constraint example_policies_pkey primary key (project),
      constraint sign_off_is_known check (sign_off in ('auto', 'one', 'two')),
      constraint max_per_user_is_positive check (max_per_user > 0)
    )
    """,
    """
    create table flywheel.examples (
      example_id uuid not null,
      kind text not null,
      validator_id uuid,
      label_id uuid,
      fix_id uuid,
      span_id uuid not null,
      started_at timestamptz not null,
      revision integer not null,
      trace_id uuid not null,
      project text not null,
      node text not null,
      session_id text,
      user_id text,
      group_key text not null,
      input text,
      output text,
      corrected_output text,
      passed boolean,
      critique text,
      author text not null,
      trust double precision not null default 0.8,
      disagreed boolean not null default false,
      tokens integer not null,
      content_hash text not null,
      status text not null default 'candidate',
      quarantined_reason text,
      quarantined_detail text,
      revoked_reason text,
      created_at timestamptz not null default now(),
      changed_at timestamptz not null default now(),
      compared_at timestamptz,
      constraint examples_pkey primary key (example_id),
      constraint example_validator foreign key (validator_id) references flywheel.validators,
      constraint example_label foreign key (label_id) references flywheel.labels,
      constraint example_fix foreign key (fix_id) references flywheel.fixes,
      constraint example_comes_from_label_or_fix check (
        (kind = 'label' and label_id is not null and passed is not null and validator_id is not null)
        or (kind = 'fix' and fix_id is not null and corrected_output is not null)),
      constraint example_trust_is_a_share check (trust >= 0 and trust <= 1),
      constraint example_status_is_known check (
        status in ('candidate', 'approved', 'servable', 'quarantined', 'revoked')),
      constraint quarantined_example_has_reason check (status <> 'quarantined' or quarantined_reason is not null),
      constraint revoked_example_has_reason check (status <> 'revoked' or revoked_reason is not null)
    )
    """,
    "create unique index example_of_label on flywheel.examples (label_id) where label_id is not null",
    "create unique index example_of_fix on flywheel.examples (fix_id) where fix_id is not null",
    "create index examples_servable on flywheel.examples (validator_id, created_at) where status = 'servable'",
    "create index examples_project on flywheel.examples (project, node, created_at) where status = 'servable'",
    "create index examples_span_id on flywheel.examples (span_id)",
    "create index examples_content_hash on flywheel.examples (content_hash)",
    "create index examples_user_id on flywheel.examples (project, user_id) where user_id is not null",
    """
    create index examples_to_compare on flywheel.examples (created_at)
      where compared_at is null and status in ('candidate', 'servable')
    """,
    """
    create table flywheel.sign_offs (
      example_id uuid not null,
      signer text not null,
      note text,
      recorded_by text not null default session_user,
      signed_at timestamptz not null default now(),
      constraint sign_offs_pkey primary key (example_id, signer),
      constraint sign_off_example foreign key (example_id) references flywheel.examples
    )
    """,
    """
    create table flywheel.shot_sets (
      shot_set text not null,
      validator_id uuid not null,
      example_ids uuid[] not null,
      content_hash text not null,
      note text,
      signed_by text not null,
      signed_at timestamptz not null default now(),
      constraint shot_sets_pkey primary key (shot_set),
      constraint shot_set_validator foreign key (validator_id) references flywheel.validators
    )
    """,
    """
    create table flywheel.embedders (
      embedder_id uuid not null,
      name text not null,
      kind text not null,
      model text,
      provider text,
      dimensions integer not null,
      parameters jsonb not null default '{}',
      span_permille integer not null default 0,
      status text not null default 'filling',
      created_at timestamptz not null default now(),
      changed_at timestamptz not null default now(),
      checked_at timestamptz not null default now(),
      constraint embedders_pkey primary key (embedder_id),
      constraint embedder_name_is_unique unique (name),
      constraint embedder_kind_is_known check (kind in ('hashing', 'openai', 'sentence_transformers')),
      constraint embedder_provider foreign key (provider) references flywheel.providers,
      constraint openai_embedder_has_provider check ((kind = 'openai') = (provider is not null)),
      constraint embedder_dimensions_fit check (dimensions between 8 and 4000),
      constraint embedder_sample_is_permille check (span_permille between 0 and 1000),
      constraint embedder_status_is_known check (status in ('filling', 'serving', 'retired'))
    )
    """,
    "create unique index one_embedder_serves on flywheel.embedders ((true)) where status = 'serving'",
    """
    create table flywheel._example_embeddings (
      example_id uuid not null,
      embedder_id uuid not null,
      part text not null,
      validator_id uuid,
      servable boolean not null,
      content_hash text not null,
      embedding public.halfvec not null,
      embedded_at timestamptz not null default now(),
      constraint _example_embeddings_pkey primary key (example_id, embedder_id, part),
      constraint example_embedding_example foreign key (example_id) references flywheel.examples on delete cascade,
      constraint example_embedding_embedder foreign key (embedder_id) references flywheel.embedders,
      constraint example_embedding_part_is_known check (part in ('item', 'input'))
    )
    """,
    """
    create index _example_embeddings_servable
      on flywheel._example_embeddings (embedder_id, validator_id, part) where servable
    """,
    """
    create table flywheel.span_embeddings (
      span_id uuid not null,
      started_at timestamptz not null,
      revision integer not null,
      embedder_id uuid not null,
      part text not null,
      content_hash text not null,
      embedding public.halfvec not null,
      embedded_at timestamptz not null default now(),
      constraint span_embeddings_pkey primary key (span_id, embedder_id, part, started_at),
      constraint span_embedding_part_is_known check (part in ('item', 'input', 'output'))
    ) partition by range (started_at)
    """,
    "create table flywheel.span_embeddings_default partition of flywheel.span_embeddings default",
]

ALIGNMENT = [
    """
    create table flywheel.calibrations (
      version_id uuid not null,
      method text not null,
      parameters jsonb not null,
      labels integer not null,
      brier double precision,
      calibration_error double precision,
      threshold double precision,
      alpha double precision not null,
      delta double precision not null,
      fitted_at timestamptz not null default now(),
      constraint calibrations_pkey primary key (version_id),
      constraint calibration_version foreign key (version_id) references flywheel.validator_versions,
      constraint calibration_method_is_known check (method in ('isotonic', 'platt', 'beta'))
    )
    """,
    """
    create table flywheel._standings (
      version_id uuid not null,
      provisional boolean not null,
      reason text not null,
      n_pass integer not null,
      n_fail integer not null,
      tpr double precision,
      tnr double precision,
      refreshed_at timestamptz not null default now(),
      constraint _standings_pkey primary key (version_id),
      constraint standing_version foreign key (version_id) references flywheel.validator_versions
    )
    """,
    """
    create table flywheel.test_reads (
      version_id uuid not null,
      read_number integer not null,
      labels integer not null,
      read_by text not null default session_user,
      read_at timestamptz not null default now(),
      constraint test_reads_pkey primary key (version_id, read_number),
      constraint test_read_version foreign key (version_id) references flywheel.validator_versions
    )
    """,
    """
    create table flywheel._escalations (
      validator_id uuid not null,
      span_id uuid not null,
      revision integer not null,
      started_at timestamptz not null,
      from_version_id uuid not null,
      confidence double precision,
      escalated_at timestamptz not null default now(),
      constraint _escalations_pkey primary key (validator_id, span_id, revision, started_at),
      constraint escalation_validator foreign key (validator_id) references flywheel.validators
    )
    """,
]

CHANGES = [
    "alter table flywheel.validator_versions drop constraint version_kind_is_known",
    "alter table flywheel.validator_versions drop constraint version_lane_fits_kind",
    """
    alter table flywheel.validator_versions add constraint version_kind_is_known
      check (kind in ('sql', 'python', 'judge', 'neighbours'))
    """,
    """
    alter table flywheel.validator_versions add constraint version_lane_fits_kind check (
      case kind when 'sql' then lane <> 'judge' when 'python' then lane <> 'inline'
                when 'judge' then lane = 'judge' else lane = 'bulk' end)
    """,
    "alter table flywheel.scores drop constraint score_reason_is_known",
    """
    alter table flywheel.scores add constraint score_reason_is_known check (unscored_reason in (
      'raised', 'timed_out', 'out_of_memory', 'wrong_type', 'no_verdict', 'missing_callable', 'crashed',
      'refused', 'length_stop', 'content_filter', 'empty_reply', 'unreadable', 'too_long', 'rejected', 'no_examples'))
    """,
    """
    alter table flywheel.scores
      add column confidence double precision,
      add column latency_ms double precision,
      add column input_tokens integer,
      add column cached_tokens integer,
      add column output_tokens integer,
      add column cost_usd double precision,
      add column votes smallint,
      add column shots uuid[],
      add column request_hash text,
      add column degraded text,
      add constraint score_confidence_is_a_share check (confidence >= 0 and confidence <= 1)
    """,
    "create index scores_shots on flywheel.scores using gin (shots) where shots is not null",
    "insert into flywheel._lanes (lane) values ('embed'), ('batch')",
    "alter table flywheel._backfills add column lane text",
]

TABLE_COMMENTS = {
    "providers": "Endpoints that speak the OpenAI API, with their limits. Keys stay in environment variables.",
    "provider_models": "Prices of the models of a provider, in US dollars for a million tokens.",
    "_provider_states": "Internal: the clock and levels all workers share for a provider.",
    "budgets": "Hard caps on what judging may cost, for a validator, a provider or a project, by day or month.",
    "_budget_periods": "Internal: what was spent and is reserved in one period of a budget.",
    "_reservations": "Internal: calls on their way, with the money and tokens set aside for them.",
    "calls": "Every call to a model: what it was asked (as a hash), what it said, what it cost.",
    "calls_default": "Calls whose day has no partition yet.",
    "_batches": "Internal: files of requests handed to a batch endpoint.",
    "_batch_lines": "Internal: the requests in those files; each stands for a span that waits for its verdict.",
    "labels": "What people say of a span under a validator; never changed: a correction is a new label.",
    "fixes": "Corrected outputs, with what was wrong and why.",
    "label_draws": "Random draws of spans to label, with the probability each span had.",
    "_label_items": "Internal: spans that wait for a label.",
    "_label_claims": "Internal: which reviewer holds, deferred or finished an item.",
    "example_policies": "For each project, how many people sign an example before it is shown. No row: auto.",
    "examples": "Labelled or fixed spans of the train split that judges and applications may be shown.",
    "sign_offs": "Who signed which example.",
    "shot_sets": "Frozen sets of examples, signed, that a judge can be pinned to.",
    "embedders": "Models that turn texts into vectors; one serves, others may be filling.",
    "_example_embeddings": "Internal: vectors of examples by embedder.",
    "span_embeddings": "Vectors of sampled spans by embedder.",
    "span_embeddings_default": "Vectors of spans whose day has no partition yet.",
    "calibrations": "How the confidence of a judge version becomes a probability, and from where on it is trusted.",
    "_standings": "Internal: whether the labels let a judge version decide.",
    "test_reads": "Every reading of the test split by a judge version.",
    "_escalations": "Internal: spans one tier of a cascade handed to the next.",
}

COLUMN_COMMENTS = {
    "providers": {
        "provider": "Its name.",
        "base_url": "Address of the API, up to and with /v1.",
        "key_variable": "Environment variable of the worker that holds the key; null = no key.",
        "abilities": "What the endpoint knows (json_schema, json_object, logprobs, ...), true or false each.",
        "max_in_flight": "Calls at a time, of all workers together.",
        "requests_per_minute": "Calls in any minute, of all workers together; null = no limit.",
        "tokens_per_minute": "Tokens in any minute, as reserved before the calls; null = no limit.",
        "time_limit_ms": "Milliseconds one call may take.",
        "changed_at": "When it was last changed.",
    },
    "provider_models": {
        "provider": "The provider.",
        "model": "The model.",
        "input_usd": "A million input tokens; null = unknown.",
        "cached_input_usd": "A million input tokens the endpoint had cached; null = as input.",
        "output_usd": "A million output tokens; null = unknown.",
        "batch_share": "Share of these prices that the batch endpoint takes.",
    },
    "_provider_states": {
        "provider": "The provider.",
        "requests": "Level of the bucket of requests at levelled_at.",
        "tokens": "Level of the bucket of tokens at levelled_at.",
        "levelled_at": "When the levels were last counted.",
        "blocked_until": "No calls before; null = none were refused lately.",
        "blocked_reason": "rate_limited, quota_exhausted or unauthorized.",
        "blocked_detail": "What the endpoint said.",
        "refusals": "Refusals in a row that named no time to wait; each doubles the next block.",
        "saving_until": "Until then small calls leave tokens for one larger than the bucket; null = none waits.",
    },
    "budgets": {
        "budget_id": "Id of the budget.",
        "scope": "What it caps: validator, provider or project.",
        "name": "Which one.",
        "period": "day or month, in UTC.",
        "cap_usd": "The cap in US dollars.",
        "changed_at": "When it was last changed.",
    },
    "_budget_periods": {
        "budget_id": "The budget.",
        "started_on": "First day of the period.",
        "spent_usd": "What settled calls cost.",
        "reserved_usd": "What calls on their way may cost.",
        "refused_usd": "Cost of the smallest call refused in it; null = none was.",
    },
    "_reservations": {
        "call_id": "The call.",
        "fence": "Claim of the job it is made for; null = a test from the terminal, or texts of many jobs.",
        "worker_id": "Who makes it.",
        "version_id": "The judge version; null for a definition under test, and for vectors no version asked for.",
        "provider": "The provider.",
        "purpose": "score, test, batch or embed; lines of a batch take no place in flight.",
        "vote": "1, 2 ...: which of several votes.",
        "request_hash": "What is asked.",
        "tokens": "Tokens set aside.",
        "usd": "Dollars set aside; null = the price is unknown.",
        "budget_ids": "The budgets they were taken from.",
        "call": "The call as the worker announced it.",
        "reserved_at": "When; its UTC day and month say which periods of the budgets pay.",
    },
    "calls": {
        "call_id": "Id of the call.",
        "started_at": "When it began; decides the partition.",
        "purpose": "score, test (from the terminal), batch or embed (texts become vectors).",
        "version_id": "The judge version; null for a definition under test, and for vectors no version asked for.",
        "span_id": "The span judged; null for a text under test, and for vectors.",
        "revision": "Revision of the span.",
        "trace_id": "Trace of the span.",
        "project": "Project of the span.",
        "vote": "1, 2 ...: which of several votes.",
        "attempt": "1, 2 ...: which attempt of the job.",
        "repair": "Whether it asked for an unreadable reply again.",
        "provider": "The provider.",
        "model": "The model asked for.",
        "answered_by": "The model that says it answered.",
        "rung": "How the form of the reply was asked for: json_schema, json_object or text.",
        "request_hash": "SHA-256 of everything that was sent and decides the reply.",
        "shots": "Examples shown, in order.",
        "outcome": "answered, or what went wrong.",
        "http_status": "Status of the response; null = there was none.",
        "detail": "The error, where there was one.",
        "reply": "The reply as it came, cut at 64 KiB of text.",
        "input_tokens": "Tokens read; null = not said.",
        "cached_tokens": "Of these, tokens the endpoint had cached.",
        "output_tokens": "Tokens written; null = not said.",
        "cost_usd": "From tokens and prices; null = unknown, never 0.",
        "latency_ms": "From sending to the end of the reply.",
    },
    "_batches": {
        "batch_id": "Id of the batch.",
        "provider": "The provider.",
        "model": "The model asked for.",
        "remote_id": "The endpoint's id of it.",
        "status": "As the endpoint says.",
        "lines": "Requests in it.",
        "answered": "Requests that came back.",
        "detail": "The error, where there was one.",
        "worker_id": "The worker that hands it in or reads it now; null = none.",
        "submitted_at": "When it was made.",
        "polled_at": "When the endpoint was last asked.",
        "next_poll_at": "When it is to be asked again.",
        "closed_at": "When everything in it was accounted for.",
    },
    "_batch_lines": {
        "call_id": "Id of the call, and of its line in the file.",
        "batch_id": "The batch.",
        "version_id": "The judge version.",
        "span_id": "The span.",
        "revision": "Revision of the span.",
        "started_at": "started_at of the span.",
        "vote": "1, 2 ... of the votes on a span.",
        "attempt": "How often the span was tried.",
        "origin": "Why its job existed.",
        "request_hash": "What is asked.",
        "rung": "How the form of the reply is asked for.",
        "shots": "Examples shown, in order.",
        "model": "The model asked for.",
        "degraded": "What a budget made smaller; null = nothing.",
        "answer": "The end of the call, as in calls; null = it is not there yet.",
    },
    "labels": {
        "label_id": "Id of the label.",
        "validator_id": "The question it answers.",
        "version_id": "The wording the reviewer saw; null = unknown.",
        "span_id": "The span.",
        "started_at": "started_at of the span.",
        "revision": "Revision of the span.",
        "trace_id": "Trace of the span.",
        "project": "Project of the span.",
        "annotator": "Who says it.",
        "annotator_kind": "human, or judge for a provisional label, which no number counts.",
        "passed": "True = pass, false = fail.",
        "critique": "Why, in words.",
        "blind": "Whether the reviewer had not seen a judge's verdict.",
        "adjudicated": "Whether it settles a disagreement between reviewers.",
        "lane": "estimation (drawn at random, counts in estimates) or triage.",
        "incl_prob": "Probability with which the span was drawn; null in triage.",
        "stratum": "Stratum of the draw; null = none.",
        "group_key": "What splits are cut by: conversation, or trace.",
        "split": "train, dev or test, by a hash of the group.",
        "supersedes": "The label this one replaces; null = none.",
        "withdrawn": "True = the label it supersedes was taken back and nothing put in its place.",
        "recorded_by": "Database user who wrote it.",
        "labelled_at": "When.",
    },
    "fixes": {
        "fix_id": "Id of the fix.",
        "validator_id": "The question the output failed; null = none in particular.",
        "span_id": "The span.",
        "started_at": "started_at of the span.",
        "revision": "Revision of the span.",
        "trace_id": "Trace of the span.",
        "project": "Project of the span.",
        "annotator": "Who fixed it.",
        "output": "What the output should have been.",
        "wrong": "What was wrong.",
        "why": "Why it is wrong.",
        "group_key": "What splits are cut by.",
        "split": "train, dev or test.",
        "recorded_by": "Database user who wrote it.",
        "fixed_at": "When.",
    },
    "label_draws": {
        "draw_id": "Id of the draw.",
        "validator_id": "The validator whose spans were drawn.",
        "method": "random or stratified (by verdict).",
        "since": "First started_at.",
        "until": "First started_at no longer included.",
        "wanted": "How many labels were asked for.",
        "strata": "For each stratum: name, size, probability.",
        "drawn": "How many spans were drawn.",
        "drawn_by": "Database user.",
        "drawn_at": "When.",
    },
    "_label_items": {
        "item_id": "Id of the item.",
        "validator_id": "The question.",
        "span_id": "The span.",
        "started_at": "started_at of the span.",
        "revision": "Revision of the span.",
        "lane": "estimation or triage.",
        "draw_id": "The draw it came from; null in triage.",
        "stratum": "Stratum of the draw.",
        "incl_prob": "Probability with which it was drawn; null in triage.",
        "priority": "Highest first.",
        "components": "What the priority is made of.",
        "wanted": "How many reviewers are to label it.",
        "adjudication": "Whether reviewers disagreed and one more is to settle it.",
        "added_at": "When it was queued.",
        "closed_at": "When it had all its labels; null = open.",
    },
    "_label_claims": {
        "item_id": "The item.",
        "reviewer": "The reviewer.",
        "state": "leased, deferred or done.",
        "leased_until": "Until when the reviewer has it.",
        "changed_at": "When the state changed.",
    },
    "example_policies": {
        "project": "The project.",
        "sign_off": "auto (the label is enough), one or two people besides the author.",
        "max_per_user": "Servable examples from one end user, at most; further ones are quarantined.",
        "changed_at": "When it was last changed.",
    },
    "examples": {
        "example_id": "Id of the example.",
        "kind": "label or fix.",
        "validator_id": "The question it answers; null = a fix for none in particular.",
        "label_id": "The label it comes from.",
        "fix_id": "The fix it comes from.",
        "span_id": "The span it shows.",
        "started_at": "started_at of the span.",
        "revision": "Revision of the span.",
        "trace_id": "Trace of the span.",
        "project": "Project of the span.",
        "node": "Node of the span.",
        "session_id": "Conversation of the span.",
        "user_id": "End user of the span.",
        "group_key": "Never shown to a span of the same group.",
        "input": "Input of the span.",
        "output": "Output of the span.",
        "corrected_output": "What the output should have been; null unless kind is fix.",
        "passed": "The verdict of the label; null for a fix.",
        "critique": "Why, in words.",
        "author": "Who labelled or fixed it.",
        "trust": "In [0, 1]: expert 1, reviewed 0.8, other 0.5.",
        "disagreed": "Whether a judge was wrong on it.",
        "tokens": "Estimated tokens in a prompt.",
        "content_hash": "SHA-256 of what is embedded.",
        "status": "candidate, approved, servable, quarantined or revoked.",
        "quarantined_reason": "Why it was held back.",
        "quarantined_detail": "What was found.",
        "revoked_reason": "Why it was taken back.",
        "created_at": "When it became a candidate.",
        "changed_at": "When its status last changed.",
        "compared_at": "When its vector was compared with the others; null = not yet.",
    },
    "sign_offs": {
        "example_id": "The example.",
        "signer": "Who signed.",
        "note": "What they noted.",
        "recorded_by": "Database user who wrote it.",
        "signed_at": "When.",
    },
    "shot_sets": {
        "shot_set": "Its name.",
        "validator_id": "The question.",
        "example_ids": "The examples, in the order they are shown.",
        "content_hash": "SHA-256 of their content when they were signed.",
        "note": "What the signer noted.",
        "signed_by": "Who signed.",
        "signed_at": "When.",
    },
    "embedders": {
        "embedder_id": "Id of the embedder.",
        "name": "Its name.",
        "kind": "hashing, openai or sentence_transformers.",
        "model": "Model name or directory; null for hashing.",
        "provider": "Provider of kind openai.",
        "dimensions": "Length of its vectors.",
        "parameters": "Further parameters of its kind; switch = true: it serves as soon as it is complete.",
        "span_permille": "Traces of a thousand whose spans are embedded, too; 0 = none.",
        "status": "serving, filling (vectors are being made) or retired.",
        "created_at": "When it was added.",
        "changed_at": "When its status last changed.",
        "checked_at": "When it was last looked for texts without a vector.",
    },
    "_example_embeddings": {
        "example_id": "The example.",
        "embedder_id": "The embedder.",
        "part": "item (what is judged) or input.",
        "validator_id": "The question of the example.",
        "servable": "Whether the example is servable.",
        "content_hash": "SHA-256 of the text.",
        "embedding": "Unit vector.",
        "embedded_at": "When.",
    },
    "span_embeddings": {
        "span_id": "The span.",
        "started_at": "started_at of the span; decides the partition.",
        "revision": "Revision of the span.",
        "embedder_id": "The embedder.",
        "part": "item, input or output.",
        "content_hash": "SHA-256 of the text.",
        "embedding": "Unit vector.",
        "embedded_at": "When.",
    },
    "calibrations": {
        "version_id": "The judge version.",
        "method": "isotonic (from 200 labels), platt (from 50) or beta.",
        "parameters": "What the method fitted.",
        "labels": "Labels it was fitted on.",
        "brier": "Brier score on them.",
        "calibration_error": "Expected calibration error on them, ten bins.",
        "threshold": "Confidence from which the verdict is trusted; null = never.",
        "alpha": "Share of trusted verdicts that may be wrong.",
        "delta": "Probability that the share is passed.",
        "fitted_at": "When.",
    },
    "_standings": {
        "version_id": "The judge version.",
        "provisional": "True = its verdicts are shown apart and decide nothing.",
        "reason": "Why, in words.",
        "n_pass": "Labels that say pass.",
        "n_fail": "Labels that say fail.",
        "tpr": "Share of them it passes; null = none.",
        "tnr": "Share of them it fails; null = none.",
        "refreshed_at": "When.",
    },
    "test_reads": {
        "version_id": "The judge version.",
        "read_number": "1, 2 ...",
        "labels": "Labels in the test split then.",
        "read_by": "Database user.",
        "read_at": "When.",
    },
    "_escalations": {
        "validator_id": "The validator that is to judge next.",
        "span_id": "The span.",
        "revision": "Its revision.",
        "started_at": "started_at of the span.",
        "from_version_id": "The version that was not sure enough.",
        "confidence": "How sure it was; null = it gave no verdict.",
        "escalated_at": "When.",
    },
    "validator_versions": {"kind": "sql, python, judge or neighbours."},
    "_backfills": {"lane": "batch = its jobs go to the batch endpoint; null = the lane of the version."},
    "scores": {
        "confidence": "How sure the judge was of its verdict, in [0.5, 1] for one of two; null = not known.",
        "latency_ms": "Milliseconds its calls took in all.",
        "input_tokens": "Tokens its calls read.",
        "cached_tokens": "Of these, tokens the endpoint had cached.",
        "output_tokens": "Tokens its calls wrote.",
        "cost_usd": "What its calls cost; null = unknown or nothing was called.",
        "votes": "Votes it was made of; null for code.",
        "shots": "Examples the judge was shown.",
        "request_hash": "Hash of its (first) request, as in calls.",
        "degraded": "What a budget made smaller: votes, model or both; null = nothing.",
    },
}

SETTINGS = {
    "split_salt": (2026, "Number that cuts the splits; another one cuts them anew for labels to come."),
    "split_train_percent": (20, "Percent of groups whose labels become examples."),
    "split_dev_percent": (40, "Percent of groups judges are tuned on; the rest is the test split."),
    "label_lease_seconds": (900, "Seconds a reviewer keeps what claim_labels() gave."),
    "reviews_wanted": (1, "Reviewers for one span, unless a draw says otherwise."),
    "call_cache_days": (7, "Days in which the same request to the same judge is answered from calls."),
    "index_examples_from": (2000, "Servable examples of one question from which they get an index of their own."),
    "quota_probe_seconds": (600, "Seconds between attempts when a provider says that its quota is used up."),
}

DROPPED_ON_DOWNGRADE = [
    "drop type if exists flywheel.shot cascade",
    "drop index flywheel.scores_shots",
    *(
        f"delete from flywheel.{table} where lane in ('embed', 'batch')"
        for table in ("_ready", "_running", "_later", "_dead", "_lanes")
    ),
    """
    update flywheel.validator_versions set status = 'retired', paused_reason = null, paused_detail = null
     where kind in ('judge', 'neighbours') and status <> 'retired'
    """,
    f"delete from flywheel.settings where name in ({', '.join(repr(name) for name in SETTINGS)})",
    """
    alter table flywheel.scores
      drop constraint score_confidence_is_a_share, drop constraint score_reason_is_known,
      drop column confidence, drop column latency_ms, drop column input_tokens, drop column cached_tokens,
      drop column output_tokens, drop column cost_usd, drop column votes, drop column shots,
      drop column request_hash, drop column degraded cascade
    """,
    """
    alter table flywheel.scores add constraint score_reason_is_known check (unscored_reason in (
      'raised', 'timed_out', 'out_of_memory', 'wrong_type', 'no_verdict', 'missing_callable', 'crashed')) not valid
    """,
    "alter table flywheel._backfills drop column lane",
    "alter table flywheel.validator_versions drop constraint version_kind_is_known",
    "alter table flywheel.validator_versions drop constraint version_lane_fits_kind",
    """
    alter table flywheel.validator_versions add constraint version_kind_is_known
      check (kind in ('sql', 'python')) not valid
    """,
    """
    alter table flywheel.validator_versions add constraint version_lane_fits_kind check (
      (kind = 'sql' and lane <> 'judge') or (kind = 'python' and lane <> 'inline')) not valid
    """,
]


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
    ]


def upgrade() -> None:
    for statement in PROVIDERS + MONEY + LABELS + EXAMPLES + ALIGNMENT + CHANGES + comments() + settings():
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    for table in reversed(TABLE_COMMENTS):
        if not table.endswith("_default"):
            op.execute(f"drop table if exists flywheel.{table} cascade")
    for statement in DROPPED_ON_DOWNGRADE:
        op.execute(statement)


def verify() -> None:
    for table, columns in COLUMN_COMMENTS.items():
        op.execute(f"select {', '.join(columns)} from flywheel.{table} where false")
