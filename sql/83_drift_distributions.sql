-- Distributions: of values, latencies and lengths, day by day against a fixed window, from counts.
--
-- The fixed window is cut into tenths and two open ends; chance alone moves a histogram, so small days need a larger
-- difference before they say drift.

-- _length_bin: octets, not characters: how long a text is can be told without reading it.
create or replace function flywheel._length_bin(body text) returns integer
language sql immutable parallel safe security invoker
begin atomic
  select floor(5.7707801635558535 * ln(1 + octet_length(body)))::integer;
end;
comment on function flywheel._length_bin is 'Internal: floor(4 * log2(1 + bytes)); null = no text.';

-- _count_lengths: once for a day that is over, from a hash sample of 20,000 spans or so. Names are cut: a key of an index has a limit.
create or replace function flywheel._count_lengths(day date) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with bounds as materialized (
    select (day::timestamp at time zone 'UTC') as since, ((day + 1)::timestamp at time zone 'UTC') as until
  ), volume as materialized (
    select coalesce(sum(counts.n), 0) as n from bounds join flywheel._span_counts as counts on counts.grain = 'day' and counts.bucket = bounds.since
  ), added as (
    insert into flywheel._length_days (day, project, node, feature, bin, n)
    select _count_lengths.day, left(spans.project, 200), left(spans.node, 200), length.feature, length.bin, count(*)
      from bounds cross join volume
      join flywheel.spans on spans.started_at >= bounds.since and spans.started_at < bounds.until
                         and (volume.n <= 20000 or flywheel._hash01(spans.trace_id, 'length') < 20000.0 / volume.n)
     cross join lateral (values ('input_length', flywheel._length_bin(spans.input)), ('output_length', flywheel._length_bin(spans.output))) as length(feature, bin)
     where length.bin is not null and not exists (select from flywheel._length_days as known where known.day = _count_lengths.day)
     group by 1, 2, 3, 4, 5
        on conflict do nothing
    returning 1
  )
  select count(*)::integer from added
$function$;
comment on function flywheel._count_lengths is 'Internal: count the lengths of a day, unless they are counted; returns in how many bins.';

create or replace function flywheel._feature_counts(since date, until date)
returns table (feature text, version_id uuid, project text, node text, day date, bin integer, n bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with bounds as materialized (
    select (_feature_counts.since::timestamp at time zone 'UTC') as since, ((_feature_counts.until + 1)::timestamp at time zone 'UTC') as until
  )
  select 'value', counts.version_id, counts.project, null, (counts.bucket at time zone 'UTC')::date, counts.value_bin::integer, sum(counts.valued)::bigint
    from bounds join flywheel._score_counts as counts on counts.grain = 'day' and counts.bucket >= bounds.since and counts.bucket < bounds.until
    join flywheel.validator_versions as versions on versions.version_id = counts.version_id and versions.status = 'active'
   where counts.value_bin >= 0 and counts.reason = ''
   group by 2, 3, 5, 6
  union all
  select 'latency', null, counts.project, counts.node, (counts.bucket at time zone 'UTC')::date, counts.latency_bin::integer, sum(counts.n)::bigint
    from bounds join flywheel._span_counts as counts on counts.grain = 'day' and counts.bucket >= bounds.since and counts.bucket < bounds.until
   where counts.latency_bin <> -999
   group by 3, 4, 5, 6
  union all
  select lengths.feature, null, lengths.project, lengths.node, lengths.day, lengths.bin, lengths.n
    from flywheel._length_days as lengths
   where lengths.day between _feature_counts.since and _feature_counts.until
$function$;
comment on function flywheel._feature_counts is 'Internal: what is compared, by day and bin: values of active versions, latencies and lengths by node.';

-- _tenth_cuts: first bin of each group but the first: what lies below the reference, then its tenths, the last with what lies above;
-- of a reference that is all the same, below, the same, above.
create or replace function flywheel._tenth_cuts(bins integer[], counts bigint[]) returns integer[]
language sql immutable parallel safe security invoker
begin atomic
  with line as (
    select bin, sum(n) over (order by bin) / sum(n) over () as share from (select bin, sum(n) as n from unnest(bins, counts) as given(bin, n) group by bin having sum(n) > 0) as known
  )
  select coalesce(array_agg(distinct cut order by cut), '{}')
    from (select min(bin) as cut from line
          union all
          select min(line.bin) filter (where line.share >= tenth / 10.0 - 1e-9) + 1 from line cross join generate_series(1, 9) as tenth group by tenth) as cuts
   where cut is not null;
end;
comment on function flywheel._tenth_cuts is 'Internal: where a histogram is cut into tenths; width_bucket() finds the group of a bin.';

create or replace function flywheel._grouped(bins integer[], counts bigint[], cuts integer[]) returns bigint[]
language sql immutable parallel safe security invoker
begin atomic
  select array_agg(held.n order by each.place)
    from generate_series(0, cardinality(cuts)) as each(place)
   cross join lateral (select coalesce(sum(given.n), 0)::bigint as n from unnest(bins, counts) as given(bin, n) where width_bucket(given.bin, cuts) = each.place) as held;
end;
comment on function flywheel._grouped is 'Internal: rows of each group between cuts.';

create or replace function flywheel._reference_id(feature text, version_id uuid, project text, node text) returns uuid
language sql immutable parallel safe security invoker
begin atomic
  select md5(jsonb_build_array(feature, version_id, project, node)::text)::uuid;
end;
comment on function flywheel._reference_id is 'Internal: the id of a reference window.';

-- _set_references: the first days that have enough rows together, of what has no window yet.
create or replace function flywheel._set_references(until date) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with counted as materialized (
    select * from flywheel._feature_counts(_set_references.until - 30, _set_references.until)
  ), summed as (
    select feature, version_id, project, node, day, sum(sum(n)) over (partition by feature, version_id, project, node order by day) as n
      from counted group by 1, 2, 3, 4, 5
  ), enough as (
    select summed.feature, summed.version_id, summed.project, summed.node, min(summed.day) as until_day
      from summed where summed.n >= flywheel._setting('drift_reference') group by 1, 2, 3, 4
  ), whole as (
    select enough.*, min(counted.day) as from_day, array_agg(counted.bin) as bins, array_agg(counted.n) as counts, sum(counted.n)::bigint as n
      from enough join counted on (counted.feature, counted.project) = (enough.feature, enough.project) and counted.version_id is not distinct from enough.version_id
                              and counted.node is not distinct from enough.node and counted.day <= enough.until_day
     group by 1, 2, 3, 4, 5
  ), added as (
    insert into flywheel._references (reference_id, feature, version_id, project, node, from_day, until_day, cuts, counts, n)
    select flywheel._reference_id(whole.feature, whole.version_id, whole.project, whole.node), whole.feature, whole.version_id, whole.project, whole.node,
           whole.from_day, whole.until_day, cut.cuts, flywheel._grouped(whole.bins, whole.counts, cut.cuts), whole.n
      from whole cross join lateral (select flywheel._tenth_cuts(whole.bins, whole.counts) as cuts) as cut
        on conflict do nothing
    returning 1
  )
  select count(*)::integer from added
$function$;
comment on function flywheel._set_references is 'Internal: fix the windows of what has enough rows and no window yet; returns how many.';

-- set_reference: days that are known to have been good, instead of the first ones.
create or replace function flywheel.set_reference(feature text, since date, until date, validator text default null, project text default 'default', node text default null)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  version uuid := (select versions.version_id from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
                    where validators.name = set_reference.validator and versions.status = 'active');
  found_rows record;
begin
  if set_reference.validator is not null and version is null then
    raise exception using errcode = '22023', message = format('there is no active version of validator %s', set_reference.validator),
      hint = 'Values are compared within one version: activate it first.';
  end if;
  select array_agg(counted.bin) as bins, array_agg(counted.n) as counts, coalesce(sum(counted.n), 0)::bigint as n into found_rows
    from flywheel._feature_counts(set_reference.since, set_reference.until) as counted
   where (counted.feature, counted.project) = (set_reference.feature, set_reference.project)
     and counted.version_id is not distinct from version and counted.node is not distinct from set_reference.node;
  if found_rows.n < 30 then
    raise exception using errcode = '22023', message = format('%s of %s has %s rows from %s to %s', set_reference.feature,
        flywheel._slice_text(set_reference.project, null, set_reference.node, null), found_rows.n, set_reference.since, set_reference.until),
      detail = 'A reference needs 30 rows at least.', hint = 'Features are value (with a validator), latency, input_length and output_length (with a node).';
  end if;
  insert into flywheel._references as known (reference_id, feature, version_id, project, node, from_day, until_day, cuts, counts, n, set_by)
  select flywheel._reference_id(set_reference.feature, version, set_reference.project, set_reference.node), set_reference.feature, version, set_reference.project,
         set_reference.node, set_reference.since, set_reference.until, cut.cuts, flywheel._grouped(found_rows.bins, found_rows.counts, cut.cuts), found_rows.n, session_user
    from (select flywheel._tenth_cuts(found_rows.bins, found_rows.counts) as cuts) as cut
      on conflict on constraint _references_pkey do update
     set (from_day, until_day, cuts, counts, n, set_by, set_at) = (excluded.from_day, excluded.until_day, excluded.cuts, excluded.counts, excluded.n, excluded.set_by, now());
  return found_rows.n;
end
$function$;
comment on function flywheel.set_reference is
  'Fix the days that later ones are compared with: feature value (of a validator), latency, input_length or output_length (of a node). Returns their rows.';

-- _test_distributions: three statistics of the same two histograms. The floor of the Kolmogorov-Smirnov distance is what
-- chance exceeds once in a thousand; that of the Jensen-Shannon distance says the same as that of the stability index.
create or replace function flywheel._test_distributions(day date) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with counted as materialized (
    select feature, version_id, project, node, array_agg(bin) as bins, array_agg(n) as counts, sum(n)::bigint as n
      from flywheel._feature_counts(_test_distributions.day, _test_distributions.day) group by 1, 2, 3, 4
  ), compared as materialized (
    select known.*, counted.n as n_current, groups.counts as current, stability.psi, stability.floor, stability.alarmed,
           flywheel.js_distance(known.counts, groups.counts) as js, flywheel.ks_distance(known.counts, groups.counts) as ks
      from flywheel._references as known
      join counted on (counted.feature, counted.project) = (known.feature, known.project) and counted.version_id is not distinct from known.version_id
                  and counted.node is not distinct from known.node
     cross join lateral (select flywheel._grouped(counted.bins, counted.counts, known.cuts) as counts) as groups
     cross join lateral flywheel.population_stability(known.counts, groups.counts) as stability
     where known.cuts is not null and known.until_day < _test_distributions.day
  ), noted as (
    select flywheel._note_drift(row(null, null, test.kind, concat_ws(', ', flywheel._version_text(compared.version_id), replace(compared.feature, '_', ' ')),
             flywheel._slice_text(compared.project, null, compared.node, null), compared.project, compared.version_id,
             _test_distributions.day::timestamp at time zone 'UTC', (_test_distributions.day + 1)::timestamp at time zone 'UTC',
             compared.from_day::timestamp at time zone 'UTC', (compared.until_day + 1)::timestamp at time zone 'UTC',
             case when compared.n_current >= 30 then test.statistic end, test.threshold, case when compared.n_current >= 30 then test.statistic end,
             compared.n, compared.n_current, case when compared.n_current >= 30 then test.statistic > test.threshold end,
             jsonb_build_object('cuts', compared.cuts, 'reference', compared.counts, 'current', compared.current))::flywheel.drift_tests)
      from compared cross join lateral (
        values ('psi', compared.psi, compared.floor), ('js', compared.js, sqrt(compared.floor / (8 * ln(2.0)))),
               ('ks', compared.ks, greatest(0.1, 1.95 * sqrt(1.0 / compared.n + 1.0 / nullif(compared.n_current, 0))))) as test(kind, statistic, threshold)
  )
  select count(*)::integer from noted
$function$;
comment on function flywheel._test_distributions is 'Internal: compare a day with the reference windows; returns how many tests were written.';

select flywheel._grant('flywheel_admin', 'execute on function flywheel.set_reference(text, date, date, text, text, text)');
