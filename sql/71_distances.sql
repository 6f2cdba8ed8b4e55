-- Distances: how far apart two distributions, two sets of vectors, two texts are.
--
-- All from counts and sums that add up, except texts. Time for a pair of texts is bounded; the comments say by what.

-- _require_bins: two histograms of the same bins.
create or replace function flywheel._require_bins(reference bigint[], current bigint[]) returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require(cardinality(reference) = cardinality(current)
      and (select coalesce(bool_and(r >= 0 and c >= 0), true) from unnest(reference, current) as bin (r, c)),
    format('%s and %s are no counts of the same bins', reference, current), 'Give one count of at least 0 for each bin, in the same order.');
end
$function$;
comment on function flywheel._require_bins is 'Internal: refuse counts that are not of the same bins.';

-- _smoothed: shares of each bin, half a row added to each, so that an empty bin is rare and not impossible.
create or replace function flywheel._smoothed(counts bigint[]) returns double precision[]
language sql immutable strict parallel safe security invoker
begin atomic
  select array_agg((n + 0.5::double precision) / (total + cardinality(counts) / 2.0) order by place)
    from unnest(counts) with ordinality as bin (n, place), (select sum(n) from unnest(counts) as n) as all_bins (total)
   where total > 0;
end;
comment on function flywheel._smoothed is 'Internal: the share of each bin with half a row added; null where there are no rows.';

create or replace function flywheel.population_stability(
  reference bigint[], current bigint[], out psi double precision, out floor double precision, out alarmed boolean)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  n double precision;
  m double precision;
begin
  perform flywheel._require_bins(reference, current);
  select sum(r), sum(c) into n, m from unnest(reference, current) as bin (r, c);
  if n > 0 and m > 0 then
    psi := (select sum((q - p) * ln(q / p)) from unnest(flywheel._smoothed(reference), flywheel._smoothed(current)) as share (p, q));
    floor := greatest(0.1, 3 * (cardinality(reference) - 1) * (1 / n + 1 / m));
    alarmed := case when least(n, m) >= 30 then psi > floor end;
  end if;
end
$function$;
comment on function flywheel.population_stability is
  'Population stability index of two histograms of the same bins; alarmed where it is above floor, which is what chance may do and at least 0.1. Null where one is empty; alarmed is null below 30 rows on either side.';

create or replace function flywheel.js_distance(reference bigint[], current bigint[]) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require_bins(reference, current);
  return (select sqrt(greatest(0, sum(p * ln(2 * p / (p + q)) + q * ln(2 * q / (p + q))) / 2 / ln(2::double precision)))
            from unnest(flywheel._smoothed(reference), flywheel._smoothed(current)) as share (p, q)
          having count(p) > 0 and count(q) > 0);
end
$function$;
comment on function flywheel.js_distance is
  'Jensen-Shannon distance (base 2) of two histograms of the same bins: 0 the same, near 1 nothing in common. For display: it has no noise floor. Null where one is empty.';

create or replace function flywheel.ks_distance(reference bigint[], current bigint[]) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require_bins(reference, current);
  return (select max(abs(before - now_))
            from (select sum(r) over up_to / nullif(sum(r) over (), 0)::double precision, sum(c) over up_to / nullif(sum(c) over (), 0)::double precision
                    from unnest(reference, current) with ordinality as bin (r, c, place)
                  window up_to as (order by place)) as cumulated (before, now_));
end
$function$;
comment on function flywheel.ks_distance is
  'Greatest difference of two cumulated histograms of the same ordered bins; at most the Kolmogorov-Smirnov statistic of the values themselves. Null where one is empty.';

create or replace function flywheel._dot(a real[], b real[]) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require(cardinality(a) = cardinality(b), format('vectors of %s and %s numbers cannot be compared', cardinality(a), cardinality(b)),
    'Both are of the same embedder.');
  return (select coalesce(sum(x::double precision * y), 0) from unnest(a, b) as pair (x, y));
end
$function$;
comment on function flywheel._dot is 'Internal: the inner product of two vectors.';

create or replace function flywheel.linear_mmd(
  n bigint, sum_n real[], squares_n double precision, m bigint, sum_m real[], squares_m double precision,
  spread double precision default null,
  out statistic double precision, out z double precision, out cosine_distance double precision)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  norm_n double precision := flywheel._dot(sum_n, sum_n);
  norm_m double precision := flywheel._dot(sum_m, sum_m);
  across double precision := flywheel._dot(sum_n, sum_m);
begin
  perform flywheel._require(least(n, m) >= 0 and coalesce(spread, 0) >= 0, format('%s and %s vectors cannot differ by %s', n, m, spread),
    'Counts and the spread are at least 0.');
  cosine_distance := 1 - across / nullif(sqrt(norm_n) * sqrt(norm_m), 0);
  if n > 1 and m > 1 then
    statistic := (norm_n - squares_n) / n / (n - 1) + (norm_m - squares_m) / m / (m - 1) - 2 * across / n / m;
    z := statistic / nullif(sqrt(2 * spread * (1.0 / n / (n - 1) + 1.0 / m / (m - 1) + 2.0 / n / m)), 0);
  end if;
end
$function$;
comment on function flywheel.linear_mmd is
  'How far the means of two sets of vectors are apart, from each set''s count, sum and sum of squared lengths (the count, for unit vectors): unbiased, 0 on average where nothing changed. spread is the mean of mmd_pair over random pairs of the first set, and gives z; drifted: z > 4 and statistic > 0.005.';

create or replace function flywheel.mmd_pair(first real[], second real[], mean real[]) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require(cardinality(first) = cardinality(mean) and cardinality(second) = cardinality(mean),
    format('vectors of %s and %s numbers have no mean of %s', cardinality(first), cardinality(second), cardinality(mean)), 'All are of the same embedder.');
  return (select sum((x::double precision - c) * (y::double precision - c)) ^ 2 from unnest(first, second, mean) as number (x, y, c));
end
$function$;
comment on function flywheel.mmd_pair is
  'What a pair of vectors adds to the spread of linear_mmd: average it over some 3,000 random pairs of different vectors around their mean. Takes 0.1 ms for 384 numbers.';

create or replace function flywheel.mmd_spread(vectors real[], dimensions integer, pairs integer default 3000) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  n integer := cardinality(vectors) / nullif(dimensions, 0);
  mean real[];
begin
  perform flywheel._require(dimensions > 0 and cardinality(vectors) = n * dimensions and pairs > 0,
    format('%s numbers are no vectors of %s', cardinality(vectors), dimensions), 'Vectors lie one behind another in one array.');
  if n < 2 then
    return null;
  end if;
  mean := array(select avg(x)::real from unnest(vectors) with ordinality as number (x, place) group by (place - 1) % dimensions order by (place - 1) % dimensions);
  return (select avg(flywheel.mmd_pair(vectors[a * dimensions + 1 : (a + 1) * dimensions], vectors[b * dimensions + 1 : (b + 1) * dimensions], mean))
            from generate_series(0, pairs - 1) as k,
                 lateral (select k % n, 1 + k / n % (n - 1)) as shift (a, by),
                 lateral (select (a + by) % n) as other (b));
end
$function$;
comment on function flywheel.mmd_spread is
  'The spread of linear_mmd from vectors that lie one behind another in random order: so many pairs, each with its next, next but one ... neighbour. Null below two vectors. Takes 0.3 s for 3,000 pairs of 384 numbers.';

create or replace function flywheel.answer_consistency(class_counts bigint[]) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require((select coalesce(bool_and(n >= 0), true) from unnest(class_counts) as n),
    format('%s are no counts', class_counts), 'Give one count of at least 0 for each kind of answer.');
  return (select sum(n * (n - 1))::double precision / nullif(sum(n) * (sum(n) - 1), 0) from unnest(class_counts) as n);
end
$function$;
comment on function flywheel.answer_consistency is
  'The chance that two answers of a cluster are of the same kind, from how many there are of each kind; null below two answers.';

create or replace function flywheel.cohesion(n bigint, vector_sum real[]) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select (flywheel._dot(vector_sum, vector_sum) - n) / nullif(n::double precision * (n - 1), 0);
end;
comment on function flywheel.cohesion is
  'Mean cosine of all pairs of n unit vectors, from their sum; null below two. Same question, different answers: of inputs at least 0.15 above that of outputs, for 5 rows and more.';

-- Pure, so for everyone who reads numbers; what views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  '_require_bins', '_smoothed', 'population_stability', 'js_distance', 'ks_distance', '_dot', 'linear_mmd', 'mmd_pair', 'mmd_spread',
  'answer_consistency', 'cohesion'
]) as name;
