-- Estimates: what a pass rate is, given that the judge errs and that a few of its verdicts were labelled.
--
-- Only labels that were drawn for estimation count, and only those of the same judge version on spans of the same time and
-- slice. Where there are none, labels from elsewhere may stand in (Rogan and Gladen), and the note says so. Without any,
-- the rate is null and its interval [0, 1]: a judge nobody checked is no evidence.

-- _live_interval: a rate corrected by labels is q p1 + (1 - q) p0: what the judge passes (q), and what people pass of what the
-- judge passes (p1) and fails (p0). Each of the three has a confidence sequence at a third of the error, so whatever is
-- possible within all three holds the truth at every look at once.
create or replace function flywheel._live_interval(tp bigint, fp bigint, fn bigint, tn bigint, judged_pass bigint, judged bigint,
  out low double precision, out high double precision)
language sql immutable parallel safe security invoker
begin atomic
  select least(q.low * p1.low + (1 - q.low) * p0.low, q.high * p1.low + (1 - q.high) * p0.low),
         greatest(q.low * p1.high + (1 - q.low) * p0.high, q.high * p1.high + (1 - q.high) * p0.high)
    from (select flywheel._live_low(judged_pass, judged, 1 - 0.05 / 3), 1 - flywheel._live_low(judged - judged_pass, judged, 1 - 0.05 / 3)) as q (low, high),
         (select flywheel._live_low(tp, tp + fp, 1 - 0.05 / 3), 1 - flywheel._live_low(fp, tp + fp, 1 - 0.05 / 3)) as p1 (low, high),
         (select flywheel._live_low(fn, fn + tn, 1 - 0.05 / 3), 1 - flywheel._live_low(tn, fn + tn, 1 - 0.05 / 3)) as p0 (low, high);
end;
comment on function flywheel._live_interval is 'Internal: 95 % interval of a corrected rate that stays right when people keep looking; wide, for it assumes nothing.';

-- _post_stratified_error: the standard error that a value judge has to beat; a little smoothed, so that no verdict counts as sure.
create or replace function flywheel._post_stratified_error(tp bigint, fp bigint, fn bigint, tn bigint, judged_pass bigint, judged bigint)
returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select sqrt(q ^ 2 * p1 * (1 - p1) / greatest(tp + fp, 1) + (1 - q) ^ 2 * p0 * (1 - p0) / greatest(fn + tn, 1)
              + (p1 - p0) ^ 2 * q * (1 - q) / judged)
    from (select judged_pass::double precision / nullif(judged, 0), (tp + 0.5) / (tp + fp + 1.0::double precision),
                 (fn + 0.5) / (fn + tn + 1.0::double precision)) as share (q, p1, p0);
end;
comment on function flywheel._post_stratified_error is 'Internal: standard error of a rate corrected by verdict.';

-- _estimate: one version in one slice. judged: passed, judged, valued, value_sum, value_squares. here: its labelled cells with
-- the sums of values; weighed: what these cells are worth in equal labels, null where that is not known. elsewhere: cells of
-- the same version anywhere, and what it judged there.
create or replace function flywheel._estimate(code boolean, by_verdict boolean, passed bigint, judged bigint,
  tp bigint, fp bigint, fn bigint, tn bigint, weighed double precision[],
  valued bigint, value_sum double precision, value_squares double precision,
  labelled_valued bigint, y_sum double precision, f_sum double precision, yf_sum double precision, ff_sum double precision,
  other_tp bigint, other_fp bigint, other_fn bigint, other_tn bigint, with_halving boolean,
  out labels bigint, out method text, out rate double precision, out low double precision, out high double precision,
  out live_low double precision, out live_high double precision, out labels_to_halve bigint, out note text)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  others bigint := other_tp + other_fp + other_fn + other_tn;
  worth constant double precision := (select sum(cell) from unnest(weighed) as cell);
  unlike constant boolean := coalesce(worth < 0.999 * (tp + fp + fn + tn), false);
  cells constant double precision[] := case when unlike then weighed else array[tp, fp, fn, tn] end;
  tuned record;
  plain record;
begin
  labels := tp + fp + fn + tn;
  method := 'none';
  low := 0;
  high := 1;
  note := 'no labels';
  if labels > 0 then
    method := 'post_stratified';
    select * into rate, low, high from flywheel._corrected(cells[1], cells[2], cells[3], cells[4], passed, judged, 0.95);
    note := case when tp + fp = 0 and passed > 0 then 'no labels of what it passes: half of that is added to both sides'
                 when fn + tn = 0 and passed < judged then 'no labels of what it fails: half of that is added to both sides'
                 when fp + tn < 5 then format('%s of %s labels fail: with fewer than 5 the interval may be a little short', fp + tn, labels)
                 when tp + fn < 5 then format('%s of %s labels pass: with fewer than 5 the interval may be a little short', tp + fn, labels) end;
    note := nullif(concat_ws('; ', flywheel._weight_note(labels, worth), note), '');
  elsif others > 0 and judged > 0 then
    select * into plain from flywheel.rogan_gladen(passed, judged, other_tp, other_fp, other_fn, other_tn);
    note := format('%s labels, of other times or slices, and they do not show a judge better than chance', others);
    if plain.method = 'rogan_gladen' then
      select 'rogan_gladen', plain.rate, plain.low, plain.high into method, rate, low, high;
      note := format('%s labels, all of other times or slices: right only if the judge errs as it did there', others);
    end if;
  end if;
  if labels >= 100 and labelled_valued = labels and valued = judged and not by_verdict and not unlike then
    tuned := flywheel.ppi_rate(labels, y_sum, f_sum, yf_sum, ff_sum, y_sum, valued - labelled_valued,
      least(valued - labelled_valued, greatest(0, value_sum - f_sum)), greatest(0, value_squares - ff_sum));
    if tuned.method = 'ppi' and tuned.standard_error < 0.95 * flywheel._post_stratified_error(tp, fp, fn, tn, passed, judged) then
      select 'ppi', tuned.rate, tuned.low, tuned.high into method, rate, low, high;
    end if;
  end if;
  if code and labels = 0 then
    note := 'no labels; whatever people would say, the verdicts of code are exact';
    live_low := flywheel._live_low(passed, judged);
    live_high := 1 - flywheel._live_low(judged - passed, judged);
  else
    select * into live_low, live_high from flywheel._live_interval(cells[1]::bigint, cells[2]::bigint, cells[3]::bigint, cells[4]::bigint, passed, judged);
  end if;
  if with_halving and not (code and labels = 0) then
    labels_to_halve := case method when 'ppi' then nullif(least(3 * labels, judged - labels + 1), judged - labels + 1)
                                   when 'rogan_gladen' then null
                                   else flywheel.labels_to_halve(cells[1]::bigint, cells[2]::bigint, cells[3]::bigint, cells[4]::bigint, passed, judged) end;
  end if;
end
$function$;
comment on function flywheel._estimate is 'Internal: the corrected pass rate of a version in a slice, how it was reached, and what it lacks.';

-- _estimates_sql: from sources of counts of scores, of labelled cells and of their weights, by expressions for time and project over their rows.
create or replace function flywheel._estimates_sql(scores text, cells text, weights text, "time" text, project text, with_halving boolean, with_code boolean) returns text
language sql immutable parallel safe security invoker
begin atomic
  select format($code$
    with judged as (
      select %4$s as time, %5$s as project, version_id, sum(n)::bigint as n, sum(passed)::bigint as passed, sum(passed + failed)::bigint as judged,
             sum(valued)::bigint as valued, sum(value_sum) as value_sum, sum(value_squares) as value_squares
        from (%1$s) as part group by 1, 2, 3
    ), labelled as (
      select %4$s as time, %5$s as project, version_id, sum(tp)::bigint as tp, sum(fp)::bigint as fp, sum(fn)::bigint as fn, sum(tn)::bigint as tn,
             sum(valued)::bigint as valued, sum(y_sum) as y_sum, sum(f_sum) as f_sum, sum(yf_sum) as yf_sum, sum(ff_sum) as ff_sum
        from (%2$s) as part where lane = 'estimation' group by 1, 2, 3
    ), weighed as (
      select "time", project, version_id, sum(n) as labels, sum(weight) as weight, sum(squares) as squares,
             array[coalesce(max((even).pass) filter (where judge_passed), 0), coalesce(max((even).fail) filter (where judge_passed), 0),
                   coalesce(max((even).pass) filter (where not judge_passed), 0), coalesce(max((even).fail) filter (where not judge_passed), 0)] as cells
        from (select *, flywheel._worth(weight, passing, squares, passing_squares) as even
                from (select %4$s as time, %5$s as project, version_id, judge_passed, count(*) as n, sum(weight) as weight, sum(weight ^ 2) as squares,
                             coalesce(sum(weight) filter (where human_passed), 0) as passing, coalesce(sum(weight ^ 2) filter (where human_passed), 0) as passing_squares
                        from (%3$s) as part group by 1, 2, 3, 4) as summed) as of_verdict
       group by 1, 2, 3
    ), ever as (
      select version_id, sum(tp)::bigint as tp, sum(fp)::bigint as fp, sum(fn)::bigint as fn, sum(tn)::bigint as tn
        from flywheel._cell_counts where grain = 'day' and lane = 'estimation' group by version_id
    ), by_verdict as (
      select distinct validator_id from flywheel.labels where lane = 'estimation' and stratum in ('pass', 'fail', 'unjudged')
    )
    select judged.time, versions.validator, versions.version, judged.project, judged.n, judged.judged,
           judged.passed::double precision / nullif(judged.judged, 0) as raw_rate,
           estimate.labels, estimate.method, estimate.rate as corrected_rate, estimate.low as corrected_low, estimate.high as corrected_high,
           estimate.live_low, estimate.live_high, estimate.labels_to_halve,
           nullif(concat_ws('; ', flywheel._coverage_note(weighed.weight, weighed.squares, judged.judged), estimate.note), '') as note,
           versions.status, versions.annotator_kind, versions.provisional
      from judged
      join flywheel._known_versions as versions using (version_id)
      left join by_verdict on by_verdict.validator_id = versions.question_id
      left join labelled on (labelled.version_id, labelled.project, labelled.time) = (judged.version_id, judged.project, judged.time)
      left join weighed on (weighed.version_id, weighed.project, weighed.time) = (judged.version_id, judged.project, judged.time)
      left join ever on ever.version_id = judged.version_id
      left join lateral (
        select thinned.*
          from (select sum(counts.passed)::bigint as passed, sum(counts.passed + counts.failed)::bigint as judged
                  from flywheel._score_counts as counts
                 where counts.grain = 'day' and counts.version_id = judged.version_id
                   and labelled.tp is null and by_verdict.validator_id is not null) as everywhere,
               flywheel._evened(ever.tp, ever.fp, ever.fn, ever.tn, everywhere.passed, everywhere.judged) as thinned
         where everywhere.judged > 0) as even on true
     cross join lateral flywheel._estimate(versions.annotator_kind = 'code', by_verdict.validator_id is not null, judged.passed, judged.judged,
             coalesce(labelled.tp, 0), coalesce(labelled.fp, 0), coalesce(labelled.fn, 0), coalesce(labelled.tn, 0),
             case when weighed.labels = labelled.tp + labelled.fp + labelled.fn + labelled.tn then weighed.cells end,
             judged.valued, judged.value_sum, judged.value_squares,
             coalesce(labelled.valued, 0), labelled.y_sum, labelled.f_sum, labelled.yf_sum, labelled.ff_sum,
             coalesce(even.tp, ever.tp, 0), coalesce(even.fp, ever.fp, 0), coalesce(even.fn, ever.fn, 0), coalesce(even.tn, ever.tn, 0), %6$L) as estimate
     where %7$L or versions.annotator_kind <> 'code' or labelled.tp is not null$code$,
    scores, cells, weights, "time", project, with_halving, with_code);
end;
comment on function flywheel._estimates_sql is 'Internal: the query behind corrected_pass_rates and its like.';

do $block$
declare
  counted constant text := 'select * from flywheel.%I where grain = ''day'' and bucket >= %s';
  weighed constant text := 'select * from flywheel._cell_weights(%s, ''infinity'')';
begin
  execute 'create or replace view flywheel.corrected_pass_rates as
    select validator, version, project, n, judged, raw_rate, labels, method, corrected_rate, corrected_low, corrected_high, live_low, live_high,
           labels_to_halve, note, status, annotator_kind, provisional
      from (' || flywheel._estimates_sql(format(counted, '_score_counts', '(select flywheel._quality_since())'),
                                         format(counted, '_cell_counts', '(select flywheel._quality_since())'),
                                         format(weighed, '(select flywheel._quality_since())'),
                                         '''-infinity''::timestamptz', 'project', true, false) || ') as estimates
     where status in (''active'', ''paused'', ''retired'')';
  execute 'create or replace view flywheel.corrected_by_week as
    select "time", validator, version, project, n, judged, raw_rate, labels, method, corrected_rate, corrected_low, corrected_high, live_low, live_high,
           note, status, annotator_kind, provisional
      from (' || flywheel._estimates_sql(format(counted, '_score_counts', 'date_trunc(''week'', now(), ''UTC'') - interval ''8568 hours'''),
                                         format(counted, '_cell_counts', 'date_trunc(''week'', now(), ''UTC'') - interval ''8568 hours'''),
                                         format(weighed, 'date_trunc(''week'', now(), ''UTC'') - interval ''8568 hours'''),
                                         'date_trunc(''week'', bucket, ''UTC'')', 'project', false, false) || ') as estimates
     where status in (''active'', ''paused'', ''retired'')';
end
$block$;
comment on view flywheel.corrected_pass_rates is
  'Pass rate of each judge version and project, corrected by the labels drawn for estimation, over the last settings.quality_window_days days (30).';
comment on view flywheel.corrected_by_week is
  'The same as corrected_pass_rates for each of the last 52 weeks (from Monday, UTC), each from its own labels.';

-- _slice_sql: of a source of counts, what a question is about. Names come from people, so they stand in quotes.
create or replace function flywheel._slice_sql(source text, since timestamptz, until timestamptz, validator text,
  project text, release text[], environment text) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select 'select * from ('
         || case $1 when '_cell_weights' then (select format('select * from flywheel._cell_weights(%L, %L)', min(part.since), max(part.until)) from flywheel._ranges($2, $3) as part)
                    else flywheel._counted_sql($1, $2, $3) end
         || ') as counted where version_id = any ('
         || quote_literal(array(select known.version_id from flywheel._known_versions as known where known.validator = $4)) || '::uuid[])'
         || coalesce(' and project = ' || quote_literal($5), '') || coalesce(' and release = any (' || quote_literal($6) || '::text[])', '')
         || coalesce(' and environment = ' || quote_literal($7), '')
$function$;
comment on function flywheel._slice_sql is 'Internal: the counts or weights of one validator in a time and, where they are not null, in a project, releases and an environment.';

create or replace function flywheel.corrected_pass_rate(validator text, since timestamptz, until timestamptz default now(),
  project text default null, release text default null, environment text default null)
returns setof flywheel.corrected_pass_rates
language plpgsql stable security definer rows 2
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query execute format($code$
    select validator, version, %L::text, n, judged, raw_rate, labels, method, corrected_rate, corrected_low, corrected_high, live_low, live_high,
           labels_to_halve, note, status, annotator_kind, provisional
      from (%s) as estimates order by version$code$, project,
    flywheel._estimates_sql(flywheel._slice_sql('_score_counts', since, until, validator, project, case when release is not null then array[release] end, environment),
                            flywheel._slice_sql('_cell_counts', since, until, validator, project, case when release is not null then array[release] end, environment),
                            flywheel._slice_sql('_cell_weights', since, until, validator, project, case when release is not null then array[release] end, environment),
                            $$'-infinity'::timestamptz$$, $$''::text$$, true, true));
end
$function$;
comment on function flywheel.corrected_pass_rate is
  'corrected_pass_rates of one validator for spans of a time (to the minute), and of a project, release or environment where they are named: one row for each version, shadows too.';

-- Releases against each other ----------------------------------------------------------------------------------------------

create or replace function flywheel._points(share double precision) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select trim_scale(greatest(0.1, round(abs(share)::numeric * 100, 1)))::text
$function$;
comment on function flywheel._points is 'Internal: a difference of rates in percentage points, without its sign.';

-- _difference_in_words: never "no change": what was not seen may still be there, up to what could have been seen.
create or replace function flywheel._difference_in_words(difference double precision, low double precision, high double precision) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when difference is null then 'nothing to compare: a side has no verdicts'
    when low > 0 then format('better by %s to %s points', flywheel._points(low), flywheel._points(high))
    when high < 0 then format('worse by %s to %s points', flywheel._points(high), flywheel._points(low))
    else format('no difference shown (n too small to see less than %s points)', flywheel._points((high - low) / 2))
  end
$function$;
comment on function flywheel._difference_in_words is 'Internal: what an interval of a difference of rates says, in words.';

-- _comparisons_sql: arms by project, environment, version and release; baseline names the release each is held against.
create or replace function flywheel._comparisons_sql(scores text, cells text, baseline text) returns text
language sql immutable parallel safe security invoker
begin atomic
  select format($code$
    with arm as (
      select judged.*, coalesce(tp, 0) as tp, coalesce(fp, 0) as fp, coalesce(fn, 0) as fn, coalesce(tn, 0) as tn
        from (
          select project, environment, version_id, release, sum(passed)::bigint as passed, sum(passed + failed)::bigint as judged,
                 min(bucket) as first_at, max(bucket) as last_at
            from (%1$s) as part where release is not null group by 1, 2, 3, 4) as judged
        left join (
          select project, environment, version_id, release, sum(tp)::bigint as tp, sum(fp)::bigint as fp, sum(fn)::bigint as fn, sum(tn)::bigint as tn
            from (%2$s) as part where lane = 'estimation' group by 1, 2, 3, 4) as labelled using (project, environment, version_id, release)
    ), candidate as (
      select arm.*, %3$s as baseline_release from arm
      window line as (partition by project, environment, version_id order by first_at, last_at, release)
    )
    select candidate.project, candidate.environment, versions.validator, versions.version, baseline.release as baseline_release,
           candidate.release as candidate_release, baseline.judged as baseline_n, candidate.judged as candidate_n,
           baseline.passed::double precision / nullif(baseline.judged, 0) as baseline_rate,
           candidate.passed::double precision / nullif(candidate.judged, 0) as candidate_rate,
           raw.difference, raw.low as difference_low, raw.high as difference_high,
           corrected.difference as corrected_difference, corrected.low as corrected_difference_low, corrected.high as corrected_difference_high,
           case when corrected.difference is not null then flywheel._difference_in_words(corrected.difference, corrected.low, corrected.high)
                when versions.annotator_kind = 'code' then flywheel._difference_in_words(raw.difference, raw.low, raw.high)
                else flywheel._difference_in_words(raw.difference, raw.low, raw.high) || ', going by the judge alone: a side has no labels' end as verdict,
           baseline.tp + baseline.fp + baseline.fn + baseline.tn as baseline_labels,
           candidate.tp + candidate.fp + candidate.fn + candidate.tn as candidate_labels,
           versions.status, versions.annotator_kind, versions.provisional, candidate.first_at as candidate_first_at
      from candidate
      join arm as baseline on (baseline.project, baseline.environment, baseline.version_id, baseline.release)
                            = (candidate.project, candidate.environment, candidate.version_id, candidate.baseline_release)
      join flywheel._known_versions as versions on versions.version_id = candidate.version_id
     cross join lateral flywheel.rate_difference(baseline.passed, baseline.judged, candidate.passed, candidate.judged) as raw
     cross join lateral flywheel.corrected_rate(baseline.tp, baseline.fp, baseline.fn, baseline.tn, baseline.passed, baseline.judged) as before
     cross join lateral flywheel.corrected_rate(candidate.tp, candidate.fp, candidate.fn, candidate.tn, candidate.passed, candidate.judged) as after
     cross join lateral flywheel.corrected_difference(before.rate, before.low, before.high, after.rate, after.low, after.high) as corrected$code$,
    scores, cells, baseline);
end;
comment on function flywheel._comparisons_sql is 'Internal: the query behind release_comparisons and compare_releases.';

do $block$
declare
  counted constant text := 'select * from flywheel.%I where grain = ''day'' and bucket >= (select flywheel._quality_since())';
begin
  execute 'create or replace view flywheel.release_comparisons as select * from ('
    || flywheel._comparisons_sql(format(counted, '_score_counts'), format(counted, '_cell_counts'), 'lag(release) over line')
    || ') as compared where status in (''active'', ''paused'', ''retired'')';
end
$block$;
comment on view flywheel.release_comparisons is
  'Each release against the one before it (by first day), where the same validator version judged both, over the last settings.quality_window_days days (30). Any two: compare_releases().';

create or replace function flywheel.compare_releases(validator text, baseline text, candidate text,
  since timestamptz default now() - interval '30 days', until timestamptz default now(), project text default null, environment text default null)
returns setof flywheel.release_comparisons
language plpgsql stable security definer rows 2
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query execute format('select * from (%s) as compared where candidate_release = %L order by project, environment, version',
    flywheel._comparisons_sql(flywheel._slice_sql('_score_counts', since, until, validator, project, array[baseline, candidate], environment),
                              flywheel._slice_sql('_cell_counts', since, until, validator, project, array[baseline, candidate], environment),
                              quote_nullable(baseline) || '::text'), candidate);
end
$function$;
comment on function flywheel.compare_releases is
  'One release against another for spans of a time (to the minute): one row for each project, environment and version that judged both. For a date fixed beforehand: who looks every day sees differences that are not there.';

-- Alignment over time ------------------------------------------------------------------------------------------------------

create or replace view flywheel.alignment_by_week as
  select counted.time, versions.validator, versions.version, counted.tp, counted.fp, counted.fn, counted.tn,
         metrics.tpr, metrics.tpr_low, metrics.tpr_high, metrics.tnr, metrics.tnr_low, metrics.tnr_high, metrics.kappa,
         counted.tp + counted.fp + counted.fn + counted.tn as labels, versions.status, versions.annotator_kind
    from (
      select date_trunc('week', bucket, 'UTC') as time, version_id, sum(tp)::bigint as tp, sum(fp)::bigint as fp, sum(fn)::bigint as fn, sum(tn)::bigint as tn
        from flywheel._cell_counts where grain = 'day' and lane = 'estimation' group by 1, 2) as counted
    join flywheel._known_versions as versions using (version_id)
    left join (select distinct validator_id from flywheel.labels where lane = 'estimation' and stratum in ('pass', 'fail', 'unjudged')) as by_verdict
      on by_verdict.validator_id = versions.question_id
    left join lateral (
      select sum(scores.passed)::bigint as passed, sum(scores.passed + scores.failed)::bigint as judged
        from flywheel._score_counts as scores
       where scores.grain = 'day' and scores.bucket >= counted.time and scores.bucket < counted.time + interval '168 hours'
         and scores.version_id = counted.version_id and by_verdict.validator_id is not null) as week on true
    left join lateral flywheel._evened(counted.tp, counted.fp, counted.fn, counted.tn, week.passed, week.judged) as even on week.judged > 0
   cross join lateral flywheel.confusion_metrics(coalesce(even.tp, counted.tp), coalesce(even.fp, counted.fp),
                                                 coalesce(even.fn, counted.fn), coalesce(even.tn, counted.tn)) as metrics;
comment on view flywheel.alignment_by_week is
  'How far each version agrees with people, by week (from Monday, UTC) of the spans, from labels drawn for estimation, those of the test split too: to watch a judge drift, not to tune it. Labels drawn by verdict are thinned to what a plain draw would hold.';

-- Comments on columns: one meaning each, in whichever of these views they stand.
do $block$
declare
  said record;
begin
  for said in
    select format('comment on column %s.%I is %L', shown.attrelid::regclass, shown.attname, own.meaning) as statement
      from (values
        ('time', 'Monday (UTC) of the week in which the spans started.'),
        ('validator', 'Name of the validator.'), ('version', 'Which version of it judged; versions are never added up.'),
        ('status', 'What that version is now.'), ('annotator_kind', 'Who judges: code, judge or neighbours.'),
        ('provisional', 'True = a judge not yet shown to agree with people.'), ('project', 'Project of the spans; null = all.'),
        ('environment', 'Environment of the spans.'),
        ('n', 'Scores: judged + unscored.'), ('judged', 'Scores with a verdict.'), ('raw_rate', 'Share of the verdicts that say pass: what the judge says, errors included.'),
        ('labels', 'Labels drawn for estimation on these verdicts.'),
        ('method', 'post_stratified (labels by verdict), ppi (labels and values), rogan_gladen (labels from elsewhere) or none.'),
        ('corrected_rate', 'What people would pass, as far as the labels tell; null = no labels.'),
        ('corrected_low', 'Lower end of its 95 % interval: for a time fixed beforehand.'), ('corrected_high', 'Upper end of that interval.'),
        ('live_low', 'Lower end of an interval that stays right when people keep looking; of the raw rate where code has no labels.'), ('live_high', 'Upper end of that interval.'),
        ('labels_to_halve', 'How many more labels, drawn at random, would halve the interval; null = labelling all would not, or labels are from elsewhere.'),
        ('note', 'What the estimate lacks or assumes, first where its labels were drawn from less than 80 % of what was judged; null = nothing.'),
        ('baseline_release', 'The earlier release.'), ('candidate_release', 'The release held against it.'),
        ('baseline_n', 'Verdicts on the baseline.'), ('candidate_n', 'Verdicts on the candidate.'),
        ('baseline_rate', 'Share of them that pass.'), ('candidate_rate', 'Share of them that pass.'),
        ('difference', 'candidate_rate - baseline_rate, as the validator says.'), ('difference_low', 'Lower end of its 95 % interval (Newcombe).'), ('difference_high', 'Upper end of that interval.'),
        ('corrected_difference', 'Difference of the rates corrected by labels; null = a side has none.'), ('corrected_difference_low', 'Lower end of its 95 % interval; -1 where it is null.'),
        ('corrected_difference_high', 'Upper end of that interval; 1 where it is null.'),
        ('verdict', 'What that says, in words: of the corrected difference where there is one.'),
        ('baseline_labels', 'Labels drawn for estimation on the baseline.'), ('candidate_labels', 'Labels drawn for estimation on the candidate.'),
        ('candidate_first_at', 'First day (UTC) on which the candidate was judged.'),
        ('tp', 'Labels: both pass.'), ('fp', 'Labels: the judge passes what people fail.'), ('fn', 'Labels: the judge fails what people pass.'), ('tn', 'Labels: both fail.'),
        ('tpr', 'Share of what people pass that the judge passes; null = people passed none.'), ('tpr_low', 'Lower end of its 95 % interval.'), ('tpr_high', 'Upper end of that interval.'),
        ('tnr', 'Share of what people fail that the judge fails; null = people failed none.'), ('tnr_low', 'Lower end of its 95 % interval.'), ('tnr_high', 'Upper end of that interval.'),
        ('kappa', 'Cohen''s kappa; low where one verdict is rare.')
      ) as own(name, meaning)
      join pg_catalog.pg_attribute as shown on shown.attname = own.name and shown.attnum > 0
     where shown.attrelid = any (array['flywheel.corrected_pass_rates', 'flywheel.corrected_by_week', 'flywheel.release_comparisons', 'flywheel.alignment_by_week']::regclass[])
  loop
    execute said.statement;
  end loop;
end
$block$;

-- What views call is run as whoever reads them.
select flywheel._grant(role, privilege)
  from unnest(array['flywheel_analyst', 'flywheel_admin']) as role, unnest(array[
  'select on flywheel.corrected_pass_rates, flywheel.corrected_by_week, flywheel.release_comparisons, flywheel.alignment_by_week',
  'execute on function flywheel.corrected_pass_rate(text, timestamptz, timestamptz, text, text, text),
                       flywheel.compare_releases(text, text, text, timestamptz, timestamptz, text, text),
                       flywheel._live_interval(bigint, bigint, bigint, bigint, bigint, bigint), flywheel._points(double precision),
                       flywheel._post_stratified_error(bigint, bigint, bigint, bigint, bigint, bigint),
                       flywheel._difference_in_words(double precision, double precision, double precision)',
  (select format('execute on function %s', oid::regprocedure) from pg_catalog.pg_proc
    where proname = '_estimate' and pronamespace = 'flywheel'::regnamespace)]) as privilege;
