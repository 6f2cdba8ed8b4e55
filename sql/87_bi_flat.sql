-- A flat view of every public view, and of the public tables that are read like one: new ones get theirs by being there.

do $block$
declare
  wanted record;
begin
  for wanted in
    select relations.oid::regclass as source, coalesce((
             select attname::text from pg_catalog.pg_attribute where attrelid = relations.oid and attname = 'time'), dated.at) as at
      from pg_catalog.pg_class as relations
      left join (values                                            -- the rows of views that are not listed are of now
        ('traces', 'started_at'), ('trace_summary', 'started_at'), ('score_history', 'started_at'), ('question_verdicts', 'started_at'),
        ('judge_disagreements', 'started_at'), ('judged_labels', 'started_at'), ('current_labels', 'labelled_at'), ('gold_labels', 'labelled_at'),
        ('batch_status', 'submitted_at'), ('budget_status', 'started_on'), ('dead_jobs', 'died_at'),
        ('run_log', 'started_at'), ('calls', 'started_at'), ('drift_tests', 'tested_at'), ('drift_status', 'tested_at'), ('sentinel_runs', 'run_at'),
        ('judge_drift', 'run_at'), ('sentinel_status', 'chosen_at'), ('sentinel_history', 'run_at'), ('novel_spans', 'started_at'),
        ('alerts', 'opened_at'), ('open_alerts', 'opened_at'), ('clusters', 'first_seen_at'), ('cluster_members', 'started_at'))
        as dated(name, at) on dated.name = relations.relname
     where relations.relnamespace = 'flywheel'::regnamespace and relations.relname !~ '^_' and relations.relname <> 'current_scores'  -- flywheel_bi.scores
       and (relations.relkind = 'v' or relations.relname in ('run_log', 'calls', 'drift_tests', 'alerts', 'sentinel_runs'))
  loop
    perform flywheel._flatten(wanted.source, wanted.at);
  end loop;
end
$block$;
