-- Draws and triage: which spans people are asked about. A draw is by chance with a known probability, so its labels
-- estimate rates; triage takes what teaches most, so its labels never do.

-- _frame_sql: the spans of a time a validator is for ($1, $2), each with its stratum: what its versions ($3) last said, or 'all'.
create or replace function flywheel._frame_sql(name text, definition jsonb, method text) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$
    select span.span_id, span.started_at, span.revision, %s as stratum
      from flywheel.spans as span%s
     where span.started_at >= $1 and span.started_at < $2 and %s$code$,
    case _frame_sql.method when 'random' then $$'all'$$ else $$case last.passed when true then 'pass' when false then 'fail' else 'unjudged' end$$ end,
    case _frame_sql.method when 'random' then '' else $code$
      left join lateral (
        select scores.passed from flywheel.scores join flywheel.validator_versions as versions using (version_id)
         where (scores.span_id, scores.revision, scores.started_at) = (span.span_id, span.revision, span.started_at)
           and scores.version_id = any ($3) and versions.status <> 'shadow'
         order by versions.version desc limit 1) as last on true$code$ end,
    flywheel._eligible_sql(_frame_sql.name, _frame_sql.definition))
$function$;
comment on function flywheel._frame_sql is 'Internal: the spans a draw is from, with their strata.';

-- _allocate_draw: more labels where people disagree with the verdict more often, as far as labels tell. No stratum gets
-- none: of spans that cannot be drawn nothing could be estimated.
create or replace function flywheel._allocate_draw(validator_id uuid, version_ids uuid[], strata text[], sizes bigint[], n integer) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  rates double precision[];
  shares integer[];
begin
  select array_agg(coalesce((known.passes + 1.0) / (known.labels + 2), 0.5) order by stratum.place) into rates
    from unnest(_allocate_draw.strata) with ordinality as stratum(name, place)
    left join (
      select case last.passed when true then 'pass' when false then 'fail' else 'unjudged' end as name,
             count(*) filter (where gold.passed) as passes, count(*) as labels
        from flywheel.gold_labels as gold
        left join lateral (
          select scores.passed from flywheel.scores join flywheel.validator_versions as versions using (version_id)
           where (scores.span_id, scores.revision, scores.started_at) = (gold.span_id, gold.revision, gold.started_at)
             and scores.version_id = any (_allocate_draw.version_ids)
           order by versions.version desc limit 1) as last on true
       where gold.validator_id = _allocate_draw.validator_id and gold.passed is not null
       group by 1) as known on known.name = stratum.name;
  select flywheel.neyman_allocation(array_agg(size / total.spans order by place), rates, _allocate_draw.sizes, _allocate_draw.n) into shares
    from unnest(_allocate_draw.sizes) with ordinality as stratum(size, place),
         (select sum(size)::double precision from unnest(_allocate_draw.sizes) as size) as total(spans);
  return (select jsonb_agg(jsonb_build_object('stratum', name, 'size', size, 'probability', least(1, greatest(share, 1)::double precision / size)) order by place)
            from unnest(_allocate_draw.strata, _allocate_draw.sizes, shares) with ordinality as stratum(name, size, share, place));
end
$function$;
comment on function flywheel._allocate_draw is 'Internal: strata with their sizes and the probability of each of their spans.';

create or replace function flywheel._require_draw(n integer, since timestamptz, until timestamptz, method text, reviewers integer) returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if n is null or n < 1 then
    raise exception using errcode = 'WF009', message = format('%s spans cannot be drawn', coalesce(n::text, 'null')), hint = 'Draw 1 or more.';
  elsif since is null or until is null or since >= until then
    raise exception using errcode = 'WF009', message = format('a draw from %s to %s has no spans', since, until),
      hint = 'since is the first started_at, until the first one no longer included.';
  elsif method is null or method not in ('random', 'stratified') then
    raise exception using errcode = 'WF009', message = format('there is no method %s', coalesce(method, 'null')), hint = 'The methods of a draw are random and stratified.';
  elsif reviewers not between 1 and 100 then
    raise exception using errcode = 'WF009', message = format('%s reviewers cannot label one span', reviewers), hint = 'Ask 1 to 100.';
  end if;
end
$function$;
comment on function flywheel._require_draw is 'Internal: raise WF009 for a draw that makes no sense.';

-- draw_labels: a span has one number in [0, 1) for a question, for ever, and is drawn when it lies below the probability
-- of its stratum. So draws that overlap hold together: the larger one holds the smaller one, and a span's probability
-- of being in either is the larger of the two. Reviewers meet spans in the order of that number: who stops early has a
-- smaller draw, not a biased one.
create or replace function flywheel.draw_labels(validator text, n integer, since timestamptz, until timestamptz default now(),
  method text default 'random', reviewers integer default null)
returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  asked record;
  made uuid := flywheel.new_id();
  frame text;
  version_ids uuid[];
  names text[];
  sizes bigint[];
  cut jsonb := '[]';
  taken integer := 0;
begin
  perform flywheel._require_draw(n, since, until, method, reviewers);
  select * into asked from flywheel._question(draw_labels.validator);
  frame := flywheel._frame_sql(draw_labels.validator, asked.definition, draw_labels.method);
  version_ids := array(select versions.version_id from flywheel.validators join flywheel.validator_versions as versions using (validator_id)
                        where validators.name = draw_labels.validator);
  execute format('select array_agg(stratum order by stratum), array_agg(spans order by stratum)
                    from (select stratum, count(*) as spans from (%s) as frame group by stratum) as sized', frame)
     into names, sizes using since, until, version_ids;
  if names is not null then
    cut := flywheel._allocate_draw(asked.validator_id, version_ids, names, sizes, draw_labels.n);
  end if;
  insert into flywheel.label_draws (draw_id, validator_id, method, since, until, wanted, strata)
  values (made, asked.validator_id, draw_labels.method, draw_labels.since, draw_labels.until, draw_labels.n, cut);
  execute format($code$
    insert into flywheel._label_items as items (item_id, validator_id, span_id, started_at, revision, lane, draw_id, stratum, incl_prob, priority, wanted)
    select flywheel.new_id(), $4, frame.span_id, frame.started_at, frame.revision, 'estimation', $5, cut.stratum, cut.probability,
           1 - flywheel._hash01(frame.span_id, $4::text) / cut.probability, $7
      from (%s) as frame join jsonb_to_recordset($6) as cut(stratum text, probability double precision) using (stratum)
     where flywheel._hash01(frame.span_id, $4::text) < cut.probability
        on conflict on constraint label_item_is_queued_once do update
       set draw_id = case when excluded.incl_prob > items.incl_prob then excluded.draw_id else items.draw_id end,
           stratum = case when excluded.incl_prob > items.incl_prob then excluded.stratum else items.stratum end,
           incl_prob = greatest(excluded.incl_prob, items.incl_prob), wanted = greatest(excluded.wanted, items.wanted),
           closed_at = case when excluded.wanted <= items.wanted then items.closed_at end$code$, frame)
    using since, until, version_ids, asked.validator_id, made, cut, coalesce(draw_labels.reviewers, flywheel._setting('reviews_wanted')::integer);
  get diagnostics taken = row_count;
  update flywheel.label_draws set drawn = taken where label_draws.draw_id = made;
  return made;
end
$function$;
comment on function flywheel.draw_labels is
  'Draw about n spans of a time by chance, for labels that estimate rates; stratified = by verdict, more where it errs more. Each span''s probability is stored first. Spans drawn before count in n: a larger n adds to them. Returns the draw''s id.';

-- _triage_candidates: the newest spans the validator is for that nobody was asked about; older days only when those are few.
create or replace function flywheel._triage_candidates(validator_id uuid, eligible text, most integer)
returns table (span_id uuid, started_at timestamptz, revision integer)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  since timestamptz;
  found_spans bigint;
  unasked text := format($code$
    select span.span_id, span.started_at, span.revision from flywheel.spans as span
     where span.started_at >= $1 and %s
       and not exists (select from flywheel._label_items as items
                        where (items.validator_id, items.span_id, items.revision) = ($2, span.span_id, span.revision))
       and not exists (select from flywheel._current_labels as labels
                        where (labels.validator_id, labels.span_id, labels.revision, labels.annotator_kind) = ($2, span.span_id, span.revision, 'human'))
     order by span.started_at desc, span.span_id limit $3$code$, _triage_candidates.eligible);
begin
  foreach since in array array[now() - interval '1 day', now() - interval '7 days', now() - interval '30 days', '-infinity'] loop
    execute format('select count(*) from (%s) as few', unasked) into found_spans
      using since, _triage_candidates.validator_id, _triage_candidates.most;
    exit when found_spans >= most;
  end loop;
  return query execute unasked using since, _triage_candidates.validator_id, _triage_candidates.most;
end
$function$;
comment on function flywheel._triage_candidates is 'Internal: the newest spans that nobody has labelled and that wait for nobody.';

-- _uncertainty: of the calibrated verdict; 1 where nobody judged, half where the judge does not say how sure it is. Versions that differ are a risk
-- of their own. Every version that goes by these labels counts, shadows and other tiers too.
create or replace function flywheel._uncertainty(validator_id uuid, span_ids uuid[], started_ats timestamptz[])
returns table (span_id uuid, judged boolean, uncertainty double precision, flip_risk double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select wanted.span_id, last.passed,
         case when last.passed is null then 1
              when last.confidence is null and last.value is null
                   and not exists (select from flywheel.calibrations as known where known.version_id = last.version_id) then 0.5
              else 2 * least(worth.p_pass, 1 - worth.p_pass) end,
         case when count(distinct scores.passed) > 1 then 1 else 0 end
    from unnest(_uncertainty.span_ids, _uncertainty.started_ats) as wanted(span_id, started_at)
    join flywheel.spans as span on (span.span_id, span.started_at) = (wanted.span_id, wanted.started_at)
    left join (flywheel.scores join flywheel.validator_versions as versions
                 on versions.version_id = scores.version_id and flywheel._question_of(versions) = _uncertainty.validator_id)
      on (scores.span_id, scores.started_at, scores.revision) = (span.span_id, span.started_at, span.revision)
    left join lateral (
      select newest.version_id, newest.passed, newest.confidence, newest.value
        from flywheel.scores as newest join flywheel.validator_versions as theirs using (version_id)
       where (newest.span_id, newest.started_at, newest.revision) = (span.span_id, span.started_at, span.revision)
         and flywheel._question_of(theirs) = _uncertainty.validator_id
       order by theirs.status = 'shadow', newest.scored_at desc, theirs.version desc limit 1) as last on true
   cross join lateral (select flywheel.judge_probability(last.version_id, last.passed, last.value, last.confidence)) as worth(p_pass)
   group by wanted.span_id, last.version_id, last.passed, last.confidence, last.value, worth.p_pass
$function$;
comment on function flywheel._uncertainty is 'Internal: how unsure the last verdict on each span is, what it was, and whether verdicts differ.';

-- _severity: what else speaks against a span: its worst failed check, or a user's thumb.
create or replace function flywheel._severity(validator_id uuid, span_ids uuid[], started_ats timestamptz[])
returns table (span_id uuid, severity double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select wanted.span_id, greatest(
           (select max(array_position(array['info', 'low', 'medium', 'high', 'critical'], versions.severity)) / 5.0
              from flywheel.scores join flywheel.validator_versions as versions using (version_id)
             where (scores.span_id, scores.started_at, scores.revision) = (span.span_id, span.started_at, span.revision)
               and scores.annotator_kind = 'code' and not scores.passed and versions.validator_id <> _severity.validator_id),
           (select max(case feedback.kind when 'thumb' then 1.0 else 0.5 end) from flywheel.feedback
             where (feedback.span_id = span.span_id or feedback.span_id is null and feedback.trace_id = span.trace_id)
               and (feedback.kind = 'thumb' and feedback.value <= 0 or feedback.kind in ('edit', 'correction'))),
           0)::double precision
    from unnest(_severity.span_ids, _severity.started_ats) as wanted(span_id, started_at)
    join flywheel.spans as span on (span.span_id, span.started_at) = (wanted.span_id, wanted.started_at)
$function$;
comment on function flywheel._severity is 'Internal: what else speaks against each span, in [0, 1].';

-- _novelty: far from every example is new. Ranks, for what a distance means differs from one embedder to the next.
create or replace function flywheel._novelty(validator_id uuid, span_ids uuid[], started_ats timestamptz[])
returns table (span_id uuid, novelty double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select measured.span_id, percent_rank() over (order by measured.distance)
    from (
      select known.span_id, min(example.embedding operator(public.<=>) known.embedding) as distance
        from unnest(_novelty.span_ids, _novelty.started_ats) as wanted(span_id, started_at)
        join flywheel.span_embeddings as known on (known.span_id, known.started_at) = (wanted.span_id, wanted.started_at)
        join flywheel.embedders on embedders.embedder_id = known.embedder_id and embedders.status = 'serving'
        join flywheel._example_embeddings as example
          on (example.embedder_id, example.part, example.validator_id) = (known.embedder_id, known.part, _novelty.validator_id)
       where known.part = 'item'
       group by known.span_id) as measured
$function$;
comment on function flywheel._novelty is 'Internal: rank in [0, 1] of the distance of each span to the examples; spans without vectors are left out.';

-- _cluster_need: few labels where the span lies (its project and node) make the next one worth more.
create or replace function flywheel._cluster_need(validator_id uuid, span_ids uuid[], started_ats timestamptz[])
returns table (span_id uuid, cluster_need double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with labelled as materialized (              -- counted once, whatever the planner expects of the view
    select span.project, span.node, count(*) as labels
      from flywheel.spans as span
      join flywheel.gold_labels as gold on (gold.span_id, gold.started_at) = (span.span_id, span.started_at)
     where gold.validator_id = _cluster_need.validator_id
     group by span.project, span.node)
  select wanted.span_id, 1 / sqrt(1 + coalesce(labelled.labels, 0))
    from unnest(_cluster_need.span_ids, _cluster_need.started_ats) as wanted(span_id, started_at)
    join flywheel.spans as span on (span.span_id, span.started_at) = (wanted.span_id, wanted.started_at)
    left join labelled using (project, node)
$function$;
comment on function flywheel._cluster_need is 'Internal: in (0, 1], smaller where there are labels already.';

-- _triage_priorities: what is not known counts as half.
create or replace function flywheel._triage_priorities(validator_id uuid, span_ids uuid[], started_ats timestamptz[])
returns table (span_id uuid, judged boolean, priority double precision, components jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select unsure.span_id, unsure.judged,
         0.35 * unsure.uncertainty + 0.25 * severe.severity + 0.15 * coalesce(new.novelty, 0.5) + 0.15 * need.cluster_need + 0.10 * unsure.flip_risk,
         jsonb_build_object('uncertainty', unsure.uncertainty, 'severity', severe.severity, 'novelty', new.novelty,
           'cluster_need', need.cluster_need, 'flip_risk', unsure.flip_risk, 'judged', unsure.judged)
    from flywheel._uncertainty(_triage_priorities.validator_id, _triage_priorities.span_ids, _triage_priorities.started_ats) as unsure
    join flywheel._severity(_triage_priorities.validator_id, _triage_priorities.span_ids, _triage_priorities.started_ats) as severe using (span_id)
    join flywheel._cluster_need(_triage_priorities.validator_id, _triage_priorities.span_ids, _triage_priorities.started_ats) as need using (span_id)
    left join flywheel._novelty(_triage_priorities.validator_id, _triage_priorities.span_ids, _triage_priorities.started_ats) as new using (span_id)
$function$;
comment on function flywheel._triage_priorities is 'Internal: how much a label of each span would teach, and what that is made of.';

-- queue_triage: three in ten are spans the judge passed, for a judge that passes too much is not found among its fails.
create or replace function flywheel.queue_triage(validator text, n integer default 50) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  asked record;
  added integer;
begin
  if n is null or n not between 1 and 10000 then
    raise exception using errcode = 'WF009', message = format('%s spans cannot be queued', coalesce(n::text, 'null')), hint = 'Queue 1 to 10000.';
  end if;
  select * into asked from flywheel._question(queue_triage.validator);
  with candidates as materialized (
    select * from flywheel._triage_candidates(asked.validator_id, flywheel._eligible_sql(queue_triage.validator, asked.definition), greatest(500, 4 * n))
  ), ranked as (
    select candidates.*, rated.priority, rated.components, rated.judged is true as judged_pass,
           row_number() over (partition by rated.judged is true
                              order by rated.priority desc, flywheel._hash01(candidates.span_id, 'triage')) as place
      from candidates
      join flywheel._triage_priorities(asked.validator_id, array(select span_id from candidates), array(select started_at from candidates)) as rated
        using (span_id))
  insert into flywheel._label_items (item_id, validator_id, span_id, started_at, revision, lane, priority, components, wanted)
  select flywheel.new_id(), asked.validator_id, ranked.span_id, ranked.started_at, ranked.revision, 'triage', ranked.priority, ranked.components,
         flywheel._setting('reviews_wanted')::integer
    from ranked
   order by ranked.judged_pass and ranked.place <= ceil(0.3 * n) desc, ranked.priority desc, flywheel._hash01(ranked.span_id, 'triage') limit n
      on conflict do nothing;
  get diagnostics added = row_count;
  return added;
end
$function$;
comment on function flywheel.queue_triage is
  'Queue up to n spans that nobody has labelled, those that would teach most first: unsure, severe, new, rarely labelled, judged differently by versions; three in ten are spans the judge passed. Returns how many.';

select flywheel._grant(role, privilege)
  from unnest(array['flywheel_reviewer', 'flywheel_admin']) as role
 cross join unnest(array['execute on function flywheel.queue_triage(text, integer)']) as privilege;
select flywheel._grant('flywheel_admin', privilege) from unnest(array[
  'execute on function flywheel.draw_labels(text, integer, timestamptz, timestamptz, text, integer)',
  'select on flywheel.label_draws, flywheel.labels, flywheel.fixes, flywheel._label_items, flywheel._label_claims']) as privilege;
