-- Comments on the columns of views: those of the tables behind them, and our own where a view says something else.

-- A later source wins over an earlier one.
do $block$
declare
  known record;
begin
  for known in
    select format('comment on column %s.%I is %L', shown.attrelid::regclass, shown.attname,
             pg_catalog.col_description(held.attrelid, held.attnum)) as statement
      from (values
        (1, 'flywheel.traces', 'flywheel.spans'), (1, 'flywheel.trace_summary', 'flywheel.spans'),
        (1, 'flywheel.score_history', 'flywheel.validator_versions'), (2, 'flywheel.score_history', 'flywheel.scores'),
        (1, 'flywheel.current_scores', 'flywheel.validator_versions'), (2, 'flywheel.current_scores', 'flywheel.spans'),
        (3, 'flywheel.current_scores', 'flywheel.scores'),
        (1, 'flywheel.dead_jobs', 'flywheel._dead'), (1, 'flywheel.worker_status', 'flywheel._workers'),
        (1, 'flywheel.validator_status', 'flywheel.validator_versions'),
        (1, 'flywheel.accounts', 'flywheel.validator_versions'), (1, 'flywheel.queue_status', 'flywheel._lanes'),
        (1, 'flywheel_bi.spans', 'flywheel.spans'),
        (1, 'flywheel_bi.scores', 'flywheel.validator_versions'), (2, 'flywheel_bi.scores', 'flywheel.spans'),
        (3, 'flywheel_bi.scores', 'flywheel.scores'),
        (1, 'flywheel_bi.content_spans', 'flywheel.spans'), (1, 'flywheel_bi.content_scores', 'flywheel.spans'), (2, 'flywheel_bi.content_scores', 'flywheel.scores'),
        (1, 'flywheel_bi.content_labels', 'flywheel.labels'), (1, 'flywheel_bi.content_fixes', 'flywheel.fixes'),
        (1, 'flywheel_bi.content_feedback', 'flywheel.feedback')) as source(place, shown_by, held_by)
      join pg_catalog.pg_attribute as shown on shown.attrelid = source.shown_by::regclass
      join pg_catalog.pg_attribute as held on held.attrelid = source.held_by::regclass and held.attname = shown.attname
     where shown.attnum > 0 and not held.attisdropped
     order by source.place
  loop
    execute known.statement;
  end loop;
end
$block$;

do $block$
declare
  said record;
begin
  for said in
    select own.view, own.name, own.meaning from (values
      ('flywheel.trace_summary', 'started_at', 'When the first span began.'),
      ('flywheel.trace_summary', 'ended_at', 'When the last span ended; null = none has ended, or it is unknown.'),
      ('flywheel.trace_summary', 'duration_ms', 'From the first start to the last end, in milliseconds.'),
      ('flywheel.trace_summary', 'spans', 'How many spans the trace has.'),
      ('flywheel.trace_summary', 'errors', 'How many of them have status error.'),
      ('flywheel.trace_summary', 'input_tokens', 'Tokens read, where known; null = nowhere known.'),
      ('flywheel.trace_summary', 'output_tokens', 'Tokens written, where known; null = nowhere known.'),
      ('flywheel.trace_summary', 'cost_usd', 'Cost in US dollars, where known; null = nowhere known.'),
      ('flywheel.trace_summary', 'has_root', 'Whether the root span has arrived.'),
      ('flywheel.score_history', 'validator', 'Name of the validator.'),
      ('flywheel.score_history', 'version', 'Which version of it judged.'),
      ('flywheel.score_history', 'version_status', 'What that version is now; a shadow decides nothing.'),
      ('flywheel.current_scores', 'validator', 'Name of the validator.'),
      ('flywheel.current_scores', 'version', 'Which version of it judged.'),
      ('flywheel.current_scores', 'provisional', 'Whether a judge said it that labels do not let decide yet; false for code.'),
      ('flywheel.accounts', 'validator', 'Name of the validator.'),
      ('flywheel.accounts', 'eligible', 'Spans it had, has or will have to judge.'),
      ('flywheel.accounts', 'scored', 'Those with a verdict.'),
      ('flywheel.accounts', 'unscored', 'Those without a verdict, with a reason.'),
      ('flywheel.accounts', 'queued', 'Those whose job may be claimed.'),
      ('flywheel.accounts', 'running', 'Those a worker has.'),
      ('flywheel.accounts', 'later', 'Those that wait for a retry, or for a paused validator.'),
      ('flywheel.accounts', 'dead', 'Those whose job was given up.'),
      ('flywheel.accounts', 'missing', 'Those that came past the triggers and are not queued yet.'),
      ('flywheel.accounts', 'balanced', 'Whether eligible is the sum of the others, without missing.'),
      ('flywheel.queue_status', 'ready_jobs', 'Jobs that may be claimed now.'),
      ('flywheel.queue_status', 'ready_spans', 'Their spans.'),
      ('flywheel.queue_status', 'running_spans', 'Spans workers have.'),
      ('flywheel.queue_status', 'later_spans', 'Spans that wait for a retry, or for a paused validator.'),
      ('flywheel.queue_status', 'dead_spans', 'Spans of jobs that were given up.'),
      ('flywheel.queue_status', 'oldest_ready_seconds', 'How long the oldest ready job has waited; null = none waits.'),
      ('flywheel.queue_status', 'paused', 'Whether workers leave the lane alone.'),
      ('flywheel.queue_status', 'retrying_jobs', 'Jobs that wait for a retry.'),
      ('flywheel.queue_status', 'running_jobs', 'Jobs workers have.'),
      ('flywheel.dead_jobs', 'validators', 'Names of the validators it was for.'),
      ('flywheel.dead_jobs', 'spans', 'How many spans it holds.'),
      ('flywheel.dead_jobs', 'attempts', 'How often it was claimed.'),
      ('flywheel.validator_status', 'validator', 'Name of the validator.'),
      ('flywheel.validator_status', 'description', 'What it asks, for people.'),
      ('flywheel.worker_status', 'alive', 'Whether its lease runs.'),
      ('flywheel_bi.spans', 'time', 'When the step began.'),
      ('flywheel_bi.scores', 'time', 'When the step began that was judged.'),
      ('flywheel_bi.scores', 'validator', 'Name of the validator.'),
      ('flywheel_bi.scores', 'version', 'Which version of it judged.'),
      ('flywheel_bi.scores', 'provisional', 'Whether a judge said it that labels do not let decide yet; false for code.'),
      ('flywheel_bi.content_spans', 'time', 'When the step began.'),
      ('flywheel_bi.content_scores', 'time', 'When the step began that was judged.'),
      ('flywheel_bi.content_scores', 'validator', 'Name of the validator.'),
      ('flywheel_bi.content_scores', 'version', 'Which version of it judged.'),
      ('flywheel_bi.content_labels', 'time', 'When the label was given.'),
      ('flywheel_bi.content_labels', 'validator', 'Name of the validator whose question it answers.'),
      ('flywheel_bi.content_fixes', 'time', 'When the fix was given.'),
      ('flywheel_bi.content_fixes', 'validator', 'Name of the validator whose question it answers; null = no particular one.'),
      ('flywheel_bi.content_feedback', 'time', 'When the user did it.'),
      ('flywheel_bi.scores', 'pass', '1 = pass, 0 = fail, null = unscored; its average is the pass rate.')) as own(view, name, meaning)
  loop
    execute format('comment on column %s.%I is %L', said.view::regclass, said.name, said.meaning);
  end loop;
end
$block$;
