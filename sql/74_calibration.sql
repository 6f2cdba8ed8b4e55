-- Calibration of judges: what their verdicts are worth as probabilities, from where on they are trusted, and which of two is better.

-- _pass_value: how much a verdict speaks for pass, in [0, 1]. The confidence goes first: it never contradicts the verdict.
create or replace function flywheel._pass_value(passed boolean, value double precision, confidence double precision)
returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select case when passed is null then null
              when confidence is not null then case when passed then confidence else 1 - confidence end
              else coalesce(value, passed::integer) end;
end;
comment on function flywheel._pass_value is 'Internal: how much a verdict speaks for pass, in [0, 1]; null where there is none.';

create or replace view flywheel.judge_calibration as
  select validators.name as validator, versions.version, versions.status, known.method, known.labels, known.brier, known.calibration_error,
         known.threshold, known.alpha, known.delta, (known.parameters ->> 'trusted')::integer as trusted, (known.parameters ->> 'errors')::integer as errors,
         known.parameters ->> 'basis' as basis, known.fitted_at, known.fitted_at < now() - interval '30 days' as stale
    from flywheel.calibrations as known
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id);
comment on view flywheel.judge_calibration is
  'How the confidence of each judge version became a probability, and from which confidence on its verdicts are trusted. Made by calibrate_judge().';

create or replace function flywheel._fit(method text, judge_values double precision[], passes boolean[]) returns jsonb
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case method
    when 'isotonic' then (select jsonb_build_object('values', jsonb_agg(fit.value order by fit.value), 'probabilities', jsonb_agg(fit.probability order by fit.value))
                            from flywheel.isotonic_fit(judge_values, passes) as fit)
    when 'platt' then (select to_jsonb(fit) from flywheel.platt_fit(judge_values, passes) as fit)
    else (select to_jsonb(fit) from flywheel.beta_fit(judge_values, passes) as fit)
  end
$function$;
comment on function flywheel._fit is 'Internal: the parameters apply_calibration() takes for a method.';

-- _trust: from labels drawn for estimation, of any split that may be seen; others were picked because they are hard, or easy,
-- and promise nothing about the rest. Labels drawn with different probabilities promise it for the labelled only.
create or replace function flywheel._trust(version_id uuid, alpha double precision, delta double precision, any_lane boolean,
  out threshold double precision, out evidence jsonb)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  given record;
  trusted record;
begin
  select array_agg(judged.confidence) as confidences, array_agg(judged.judge_passed = judged.human_passed) as correct, count(*) as n,
         count(distinct judged.incl_prob) > 1 as uneven
    into given
    from flywheel._judged_labels as judged
   where judged.version_id = _trust.version_id and judged.visible and judged.judge_passed is not null and judged.confidence is not null
     and (judged.lane = 'estimation' or any_lane);
  select * into trusted from flywheel.selective_threshold(given.confidences, given.correct, _trust.alpha, _trust.delta);
  threshold := trusted.threshold;
  evidence := jsonb_build_object('trusted', trusted.n, 'errors', trusted.errors, 'basis', concat_ws('; ',
    format('%s %slabels with a confidence', given.n, case when any_lane then '' else 'drawn ' end),
    case when given.n < 30 then '30 are needed' when threshold is null then format('errors may pass %s at every threshold', alpha) end,
    case when any_lane then 'of any lane: no guarantee' when given.uneven then 'drawn unevenly: holds for the labelled' end));
end
$function$;
comment on function flywheel._trust is 'Internal: from which confidence on a judge version is trusted, with how many labels said so.';

create or replace function flywheel.calibrate_judge(validator text, version integer default null, alpha double precision default null,
  delta double precision default null, any_lane boolean default false)
returns setof flywheel.judge_calibration
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(calibrate_judge.validator, calibrate_judge.version);
  asked_alpha double precision := coalesce(alpha, (chosen.definition #>> '{selective,alpha}')::double precision, 0.10);
  asked_delta double precision := coalesce(delta, (chosen.definition #>> '{selective,delta}')::double precision, 0.10);
  given record;
  fitted jsonb;
  method_ text;
  probabilities double precision[];
  trust record;
begin
  select array_agg(flywheel._pass_value(judge_passed, judged.value, confidence)) as judge_values, array_agg(human_passed) as passes, count(*)::integer as n
    into given
    from flywheel._judged_labels as judged
   where judged.version_id = chosen.version_id and judge_passed is not null and (few or split = 'dev');
  if given.n = 0 then
    raise exception using errcode = 'WF009',
      message = format('version %s of %s has judged no labelled span', chosen.version, calibrate_judge.validator),
      hint = format('Let it: pgflywheel judges align %s.', calibrate_judge.validator);
  end if;
  method_ := case when given.n >= 200 then 'isotonic' when given.n >= 50 then 'platt' else 'beta' end;
  fitted := flywheel._fit(method_, given.judge_values, given.passes);
  select array_agg(flywheel.apply_calibration(method_, fitted, judged.judge_value) order by judged.place) into probabilities
    from unnest(given.judge_values) with ordinality as judged(judge_value, place);
  trust := flywheel._trust(chosen.version_id, asked_alpha, asked_delta, any_lane);
  insert into flywheel.calibrations as known (version_id, method, parameters, labels, brier, calibration_error, threshold, alpha, delta)
  values (chosen.version_id, method_, fitted || trust.evidence, given.n, flywheel.brier_score(probabilities, given.passes),
          flywheel.calibration_error(probabilities, given.passes), trust.threshold, asked_alpha, asked_delta)
  on conflict (version_id) do update
     set (method, parameters, labels, brier, calibration_error, threshold, alpha, delta, fitted_at)
       = (excluded.method, excluded.parameters, excluded.labels, excluded.brier, excluded.calibration_error,
          excluded.threshold, excluded.alpha, excluded.delta, now());
  return query select * from flywheel.judge_calibration as shown
                where shown.validator = calibrate_judge.validator and shown.version = chosen.version;
end
$function$;
comment on function flywheel.calibrate_judge is
  'Fit what the verdicts of a judge version (default: the newest) are worth: isotonic from 200 labels of dev, Platt from 50, else per verdict; and from which confidence on at most alpha of them are wrong, surely but for delta. any_lane also takes labels that were not drawn at random, and loses the guarantee.';

create or replace function flywheel.judge_probability(version_id uuid, passed boolean, value double precision, confidence double precision)
returns double precision
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce((select flywheel.apply_calibration(known.method, known.parameters, flywheel._pass_value(passed, judge_probability.value, confidence))
                     from flywheel.calibrations as known where known.version_id = judge_probability.version_id),
                  flywheel.apply_calibration('none', '{}', flywheel._pass_value(passed, judge_probability.value, confidence)))
$function$;
comment on function flywheel.judge_probability is
  'Probability that a person says pass, given a judge''s verdict: calibrated where the version was, else as the judge puts it; within [0.01, 0.99].';

-- _paired: only spans both judged, so that the easier half of the labels flatters neither. Grouped, not joined with itself: the
-- planner expects a row or two, and would try all pairs.
create or replace function flywheel._paired(first_id uuid, second_id uuid, split text)
returns table (human_passed boolean, right_a boolean, right_b boolean, cost_a double precision, cost_b double precision,
               latency_a double precision, latency_b double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select bool_and(judged.human_passed),
         bool_and(judged.judge_passed = judged.human_passed) filter (where judged.version_id = first_id),
         bool_and(judged.judge_passed = judged.human_passed) filter (where judged.version_id = second_id),
         max(judged.cost_usd) filter (where judged.version_id = first_id), max(judged.cost_usd) filter (where judged.version_id = second_id),
         max(judged.latency_ms) filter (where judged.version_id = first_id), max(judged.latency_ms) filter (where judged.version_id = second_id)
    from flywheel._judged_labels as judged
   where judged.version_id in (first_id, second_id) and judged.judge_passed is not null and judged.visible and _paired.split in (judged.split, 'all')
   group by judged.span_id, judged.revision, judged.started_at
  having bool_or(judged.version_id = first_id) and bool_or(judged.version_id = second_id)
$function$;
comment on function flywheel._paired is 'Internal: one row for each labelled span two judge versions judged: what is true, who was right, what it took.';

create or replace function flywheel.compare_judges(validator text, version_a integer, version_b integer, split text default 'dev', validator_b text default null)
returns table (labels bigint, both_right bigint, only_a_right bigint, only_b_right bigint, both_wrong bigint, mcnemar_p double precision, log_e double precision,
               tpr_a double precision, tpr_b double precision, tnr_a double precision, tnr_b double precision,
               cost_usd_a double precision, cost_usd_b double precision, latency_ms_a double precision, latency_ms_b double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  first flywheel.validator_versions := flywheel._find_version(compare_judges.validator, version_a);
  second flywheel.validator_versions := flywheel._find_version(coalesce(validator_b, compare_judges.validator), version_b);
begin
  if coalesce(compare_judges.split, '') not in ('train', 'dev', 'all') then
    raise exception using errcode = 'WF009', message = format('split is %s, not one of train, dev, all', compare_judges.split),
      hint = 'The test split is read once a version: flywheel.read_test_split().';
  elsif flywheel._question_of(first) <> flywheel._question_of(second) then
    raise exception using errcode = 'WF009', message = format('%s and %s answer different questions', compare_judges.validator, validator_b),
      hint = 'Only judges with the same labels can be compared: see labels_of in their definitions.';
  end if;
  return query
    select counted.*, flywheel.mcnemar_exact(counted.only_a, counted.only_b), flywheel.paired_log_e(counted.only_a, counted.only_b), rated.*
      from (select count(*), count(*) filter (where right_a and right_b), count(*) filter (where right_a and not right_b) as only_a,
                   count(*) filter (where not right_a and right_b) as only_b, count(*) filter (where not right_a and not right_b)
              from flywheel._paired(first.version_id, second.version_id, compare_judges.split)) as counted,
           (select avg(right_a::integer) filter (where human_passed)::double precision, avg(right_b::integer) filter (where human_passed)::double precision,
                   avg(right_a::integer) filter (where not human_passed)::double precision, avg(right_b::integer) filter (where not human_passed)::double precision,
                   avg(cost_a), avg(cost_b), percentile_cont(0.5) within group (order by latency_a), percentile_cont(0.5) within group (order by latency_b)
              from flywheel._paired(first.version_id, second.version_id, compare_judges.split)) as rated;
end
$function$;
comment on function flywheel.compare_judges is
  'Two judge versions on the same labelled spans: who was right where, exact McNemar p, logarithm of the paired e-value (above 3.0 is evidence whenever one looks), mean cost and median latency of each. validator_b: where b is a version of another validator of the same question.';

do $block$
declare
  said record;
begin
  for said in
    select own.name, own.meaning from (values
      ('validator', 'Name of the validator.'), ('version', 'Which version of it.'), ('status', 'What that version is now.'),
      ('method', 'isotonic (from 200 labels), platt (from 50) or beta.'), ('labels', 'Labels it was fitted on.'), ('brier', 'Brier score on them: 0 is perfect.'),
      ('calibration_error', 'Expected calibration error on them, ten bins.'), ('threshold', 'Confidence from which verdicts are trusted; null = never.'),
      ('alpha', 'Share of trusted verdicts that may be wrong.'), ('delta', 'Probability that the share is passed.'),
      ('trusted', 'Labelled verdicts at or above the threshold.'), ('errors', 'How many of them were wrong.'), ('basis', 'What the threshold rests on, or why there is none.'),
      ('fitted_at', 'When.'), ('stale', 'Whether that was more than 30 days ago.')) as own(name, meaning)
  loop
    execute format('comment on column flywheel.judge_calibration.%I is %L', said.name, said.meaning);
  end loop;
end
$block$;

select flywheel._grant(role, privilege)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  'select on flywheel.judge_calibration',
  'execute on function flywheel.judge_probability(uuid, boolean, double precision, double precision)',
  'execute on function flywheel.compare_judges(text, integer, integer, text, text)']) as privilege;
select flywheel._grant('flywheel_admin', 'execute on function flywheel.calibrate_judge(text, integer, double precision, double precision, boolean)');
