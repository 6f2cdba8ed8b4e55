-- Tuning: which examples a judge should be shown, asked of the labels of dev alone.

-- _tuning: what is tuned and on what. The examples are those of train, so no label is judged by itself.
create or replace function flywheel._tuning(version_id uuid, out policy jsonb, out embedder text, out span_ids uuid[], out started_ats timestamptz[], out texts text[], out passes boolean[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions;
begin
  select * into chosen from flywheel.validator_versions as versions where versions.version_id = _tuning.version_id;
  policy := case chosen.kind when 'neighbours' then flywheel._neighbours_policy(chosen.definition -> 'shots') else flywheel._shot_policy(chosen.definition -> 'shots') end;
  policy := policy - array['token_budget', 'shot_set', 'embedder'];
  embedder := chosen.definition #>> '{shots,embedder}';
  select array_agg(span.span_id order by span.span_id), array_agg(span.started_at order by span.span_id),
         array_agg(flywheel._item_text(chosen.target, span.input, span.output) order by span.span_id), array_agg(gold.passed order by span.span_id)
    into span_ids, started_ats, texts, passes
    from flywheel.gold_labels as gold
    join flywheel.spans as span on (span.span_id, span.started_at, span.revision) = (gold.span_id, gold.started_at, gold.revision)
   where gold.validator_id = flywheel._question_of(chosen) and gold.split = 'dev' and gold.passed is not null;
end
$function$;
comment on function flywheel._tuning is 'Internal: the policy of shots a version has, and the labelled spans of dev.';

-- _try_shots: a policy is tried as a version of its own that is gone when it has voted: variables outlive what is rolled back.
create or replace function flywheel._try_shots(version_id uuid, policy jsonb, span_ids uuid[], started_ats timestamptz[], embeddings real[], dimensions integer)
returns boolean[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen record;
  trial text := 'tuning_' || replace(gen_random_uuid()::text, '-', '');
  votes boolean[];
begin
  select versions.definition, questions.name as question into chosen
    from flywheel.validator_versions as versions
    join flywheel.validators as questions on questions.validator_id = flywheel._question_of(versions)
   where versions.version_id = _try_shots.version_id;
  begin
    perform flywheel.define_validator(trial, jsonb_build_object('kind', 'neighbours', 'lane', 'bulk', 'target', chosen.definition ->> 'target',
      'labels_of', chosen.question, 'shots', _try_shots.policy));
    select array_agg(vote.passed order by vote.place) into votes
      from flywheel._vote_neighbours((flywheel._find_version(trial, 1)).version_id, _try_shots.span_ids, _try_shots.started_ats, _try_shots.embeddings, _try_shots.dimensions) as vote;
    raise exception using errcode = 'WF000', message = 'the trial is over';
  exception when sqlstate 'WF000' then           -- of its own: a deadlock is not an answer
    return votes;
  end;
end
$function$;
comment on function flywheel._try_shots is 'Internal: how the examples a policy finds would vote on spans; null = they are too few. Nothing is kept.';

select flywheel._grant('flywheel_admin', 'execute on function flywheel._tuning(uuid), flywheel._try_shots(uuid, jsonb, uuid[], timestamptz[], real[], integer)');
