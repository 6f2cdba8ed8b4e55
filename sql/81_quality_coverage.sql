-- Coverage: how much of what was judged the labels of an estimate were drawn from. Each label drawn with probability p stands
-- for 1 / p spans, so together they stand for as many as the draw was from; spans that came after it are in no draw.

-- _late_cells: of spans whose labels the rollups lack; nothing where they lack none.
create or replace function flywheel._late_cells()
returns table (span_id uuid, started_at timestamptz, revision integer, version_id uuid, project text, environment text, release text)
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
    select cells.span_id, cells.started_at, cells.revision, cells.version_id, cells.project, cells.environment, cells.release
      from flywheel._recount_cells_of(late.span_ids, late.since, late.last) as cells where cells.lane = 'estimation';
  end if;
end
$function$;
comment on function flywheel._late_cells is 'Internal: scores labelled for estimation that the rollups do not know yet.';

-- _cell_weights: of a draw that is labelled in part, those labelled stand for the others, too: they are asked about in an order
-- by chance. A draw without a label covers nothing yet. Tables of this size are read as a whole, whatever old statistics say.
create or replace function flywheel._cell_weights(since timestamptz, until timestamptz)
returns table (bucket timestamptz, version_id uuid, project text, environment text, release text, weight double precision)
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
    select known.span_id, known.started_at, known.revision, known.version_id, slices.project, slices.environment, slices.release
      from flywheel._label_cells as known join flywheel._slices as slices using (slice_id)
     where known.lane = 'estimation' and known.started_at >= since and known.started_at < until
       and known.span_id not in (select changes.span_id from flywheel._label_changes as changes)
     union all
    select * from flywheel._late_cells() as late where late.started_at >= since and late.started_at < until
  )
  select flywheel._minute(cells.started_at), cells.version_id, cells.project, cells.environment, cells.release, drawn.weight * coalesce(draws.stretch, 1)
    from cells
    join flywheel._known_versions as versions using (version_id)
    join drawn on (drawn.validator_id, drawn.span_id, drawn.started_at, drawn.revision) = (versions.question_id, cells.span_id, cells.started_at, cells.revision)
    left join draws using (draw_id)
   where drawn.labelled
$function$;
comment on function flywheel._cell_weights is 'Internal: scores labelled for estimation, with the minute of each and how many scores it stands for, itself among them.';

-- _coverage_note: a sum of few weights is rough, so what it may be by chance (two standard errors) is granted.
create or replace function flywheel._coverage_note(labels bigint, judged bigint, mean_weight double precision, mean_square double precision) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('labels were drawn from about %s of %s judged spans: the rate holds for those only', round(labels * mean_weight), judged)
   where labels * mean_weight + 2 * sqrt(labels * mean_square) < 0.8 * judged
$function$;
comment on function flywheel._coverage_note is 'Internal: what to say where labels were drawn from less than 80 % of what was judged; null where from more.';

-- What views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel._cell_weights(timestamptz, timestamptz), flywheel._coverage_note(bigint, bigint, double precision, double precision)')
  from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
