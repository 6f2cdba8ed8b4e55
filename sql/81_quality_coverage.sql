-- Coverage: how much of what was judged the labels of an estimate were drawn from. Each label drawn with probability p stands
-- for 1 / p spans, so together they stand for as many as the draw was from; spans that came after it are in no draw.
-- Labels of one verdict that stand for unlike numbers of spans (two draws; a draw by what another version said) are weighed so.

-- _late_cells: of spans whose labels the rollups lack; nothing where they lack none.
create or replace function flywheel._late_cells()
returns table (span_id uuid, started_at timestamptz, revision integer, version_id uuid, project text, environment text, release text, judge_passed boolean, human_passed boolean)
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  late record;
begin
  select array_agg(distinct span_id) as span_ids, min(started_at) as since, max(started_at) as last into late from flywheel._label_changes;
  if late.span_ids is not null then
    return query
    select cells.span_id, cells.started_at, cells.revision, cells.version_id, cells.project, cells.environment, cells.release, cells.judge_passed, cells.human_passed
      from flywheel._recount_cells_of(late.span_ids, late.since, late.last) as cells where cells.lane = 'estimation';
  end if;
end
$function$;
comment on function flywheel._late_cells is 'Internal: scores labelled for estimation that the rollups do not know yet.';

-- _cell_weights: of a draw that is labelled in part, those labelled stand for the others, too: they are asked about in an order
-- by chance. A draw without a label covers nothing yet. Tables of this size are read as a whole, whatever old statistics say.
create or replace function flywheel._cell_weights(since timestamptz, until timestamptz)
returns table (bucket timestamptz, version_id uuid, project text, environment text, release text, judge_passed boolean, human_passed boolean, weight double precision)
language sql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp set jit = off set enable_nestloop = off set enable_mergejoin = off
as $function$
  with said as materialized (
    select labels.validator_id, labels.span_id, labels.started_at, labels.revision, max(labels.incl_prob) as incl_prob
      from flywheel.labels
      left join flywheel.labels as later on later.supersedes = labels.label_id
     where labels.lane = 'estimation' and labels.annotator_kind = 'human' and not labels.withdrawn and later.label_id is null
     group by 1, 2, 3, 4
  ), drawn as materialized (
    select validator_id, span_id, started_at, revision, items.draw_id, 1 / greatest(said.incl_prob, items.incl_prob) as weight, said.incl_prob is not null as labelled
      from said
      full join (select * from flywheel._label_items where lane = 'estimation') as items using (validator_id, span_id, started_at, revision)
  ), draws as (
    select drawn.draw_id, sum(drawn.weight) / sum(drawn.weight) filter (where drawn.labelled) as stretch
      from drawn where drawn.draw_id is not null group by drawn.draw_id
  ), cells as (
    select known.span_id, known.started_at, known.revision, known.version_id, slices.project, slices.environment, slices.release, known.judge_passed, known.human_passed
      from flywheel._label_cells as known join flywheel._slices as slices using (slice_id)
     where known.lane = 'estimation' and known.started_at >= since and known.started_at < until
       and known.span_id not in (select changes.span_id from flywheel._label_changes as changes)
     union all
    select * from flywheel._late_cells() as late where late.started_at >= since and late.started_at < until
  )
  select flywheel._minute(cells.started_at), cells.version_id, cells.project, cells.environment, cells.release, cells.judge_passed, cells.human_passed,
         drawn.weight * coalesce(draws.stretch, 1)
    from cells
    join flywheel._known_versions as versions using (version_id)
    join drawn on (drawn.validator_id, drawn.span_id, drawn.started_at, drawn.revision) = (versions.question_id, cells.span_id, cells.started_at, cells.revision)
    left join draws using (draw_id)
   where drawn.labelled
$function$;
comment on function flywheel._cell_weights is 'Internal: scores labelled for estimation, with the minute of each and how many scores it stands for, itself among them.';

-- _coverage_note: a sum of few weights is rough, so what it may be by chance (two standard errors) is granted.
create or replace function flywheel._coverage_note(weight double precision, squares double precision, judged bigint) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('labels were drawn from about %s of %s judged spans: the rate holds for those only', round(weight), judged)
   where weight + 2 * sqrt(squares) < 0.8 * judged
$function$;
comment on function flywheel._coverage_note is 'Internal: what to say where labels were drawn from less than 80 % of what was judged; null where from more.';

-- _evened: labels drawn apart for each verdict, as if they had been drawn from all alike: of the verdict labelled too often
-- only as many count as its share allows.
create or replace function flywheel._evened(tp bigint, fp bigint, fn bigint, tn bigint, judged_pass bigint, judged bigint,
  out tp bigint, out fp bigint, out fn bigint, out tn bigint)
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select round($1 * pass.weight)::bigint, round($2 * pass.weight)::bigint, round($3 * fail.weight)::bigint, round($4 * fail.weight)::bigint
    from (select $5::double precision / nullif($6, 0)) as share(q),
         lateral (select least(($1 + $2) / nullif(q, 0), ($3 + $4) / nullif(1 - q, 0))) as even(size),
         lateral (select coalesce(even.size * q / nullif($1 + $2, 0), 0)) as pass(weight),
         lateral (select coalesce(even.size * (1 - q) / nullif($3 + $4, 0), 0)) as fail(weight)
$function$;
comment on function flywheel._evened is 'Internal: cells of labels drawn by verdict, thinned to what a plain draw would hold.';

-- _worth: the labels of one verdict as if all had stood for as many: their weighted rate, and the number of equal labels that
-- would tell it as well. That is Kish's number, or less where the spread about the weighted rate is wider than chance of as many.
create or replace function flywheel._worth(weight double precision, passing double precision, squares double precision, passing_squares double precision,
  out pass double precision, out fail double precision)
language sql immutable parallel safe security invoker
begin atomic
  select coalesce(size * rate, 0), coalesce(size * (1 - rate), 0)
    from (select passing / nullif(weight, 0)) as weighed (rate),
         lateral (select least(weight ^ 2 / nullif(squares, 0),
                               case when rate between 1e-9 and 1 - 1e-9 then     -- labels that agree show no spread
                                 rate * (1 - rate) * weight ^ 2 / (passing_squares * (1 - 2 * rate) + squares * rate ^ 2) end)) as even (size);
end;
comment on function flywheel._worth is 'Internal: passes and fails of as many equal labels as some unlike ones are worth, from the sums of their weights and squares.';

-- _weight_note: nothing to say where labels are worth what they are by number.
create or replace function flywheel._weight_note(labels bigint, worth double precision) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('labels were drawn with unlike chances, so each counts for as many spans as it stands for: worth %s of equal ones', round(worth))
   where worth < 0.9 * labels
$function$;
comment on function flywheel._weight_note is 'Internal: what to say where some labels stand for more spans than others of the same verdict.';

-- What views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel._cell_weights(timestamptz, timestamptz),
  flywheel._coverage_note(double precision, double precision, bigint), flywheel._weight_note(bigint, double precision),
  flywheel._worth(double precision, double precision, double precision, double precision),
  flywheel._evened(bigint, bigint, bigint, bigint, bigint, bigint)')
  from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
