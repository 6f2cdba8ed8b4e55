-- Means: what the mean of values is, from sums that add up.
--
-- Student's interval is right for values that are not skewed, or many. Sums of cubes tell how skewed they are; values that
-- cannot leave [0, 1] need no such sums.

create or replace function flywheel.mean_interval(
  n bigint, sum double precision, sum_of_squares double precision, confidence double precision default 0.95,
  out mean double precision, out low double precision, out high double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  squares double precision := sum_of_squares - sum ^ 2 / nullif(n, 0);
begin
  perform flywheel._require(n >= 0 and sum_of_squares >= 0 and squares >= -1e-9 * sum_of_squares,
    format('%s values cannot sum to %s with squares that sum to %s', n, sum, sum_of_squares), 'Give sums of the same values.');
  mean := sum / nullif(n, 0);
  if n > 1 and squares > 1e-12 * sum_of_squares then
    low := mean - flywheel._t_quantile(0.5 + confidence / 2, n - 1) * sqrt(squares / (n - 1) / n);
    high := 2 * mean - low;
  end if;
end
$function$;
comment on function flywheel.mean_interval is
  'Mean of latencies, costs and the like with Student''s interval, from additive sums; no limits (null) below two values and where all are the same. Of few skewed values one limit is too near: skewed_mean_interval, or bounded_mean_interval for values in [0, 1].';

-- skewed_mean_interval: Hall's (1992) cubic transformation makes the error of a mean symmetric; g is the skewness of the values,
-- corrected for few of them. It underrates long tails that were hardly seen, so neither limit is nearer than Student's.
create or replace function flywheel.skewed_mean_interval(
  n bigint, sum double precision, sum_of_squares double precision, sum_of_cubes double precision, confidence double precision default 0.95,
  out mean double precision, out low double precision, out high double precision, out skewness double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  variance double precision;
  error double precision;
  bend double precision;
  t double precision;
  halls double precision[];
begin
  select plain.mean, plain.low, plain.high into mean, low, high from flywheel.mean_interval(n, sum, sum_of_squares, confidence) as plain;
  if n < 3 or low is null then
    return;
  end if;
  variance := sum_of_squares / n - mean ^ 2;
  skewness := (sum_of_cubes / n - 3 * mean * sum_of_squares / n + 2 * mean ^ 3) / variance ^ 1.5;
  perform flywheel._require(abs(skewness) <= (n - 2) / sqrt(n - 1) + 1e-3,
    format('%s values that sum to %s, squares to %s, cannot have cubes that sum to %s', n, sum, sum_of_squares, sum_of_cubes), 'Give sums of the same values.');
  skewness := skewness * sqrt(n * (n - 1.0)) / (n - 2);
  bend := skewness / (3 * sqrt(n));
  if abs(bend) > 1e-6 then
    t := flywheel._t_quantile(0.5 + confidence / 2, n - 1);
    error := sqrt(variance / (n - 1));
    select array_agg(mean - error * (cbrt(1 + 3 * bend * (side * t - bend / 2)) - 1) / bend) into halls from unnest(array[1, -1]) as side;
    low := least(low, halls[1]);
    high := greatest(high, halls[2]);
  end if;
end
$function$;
comment on function flywheel.skewed_mean_interval is
  'Mean of values with a long tail, as latencies and costs have, from additive sums up to the third power: the wider of Student''s limit and of Hall''s on each side, and their skewness. No limits (null) below two values and where all are the same.';

-- bounded_mean_interval: as if a 0 and a 1 had been seen besides, for values that agree are no certainty. With half of each,
-- Jeffreys' counts, zeros and ones alone would hold the truth in .86 of runs at some rates; so, in .93 or more at every rate and from 10 on.
create or replace function flywheel.bounded_mean_interval(
  n bigint, sum double precision, sum_of_squares double precision, confidence double precision default 0.95,
  out mean double precision, out low double precision, out high double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  slack constant double precision := 1 + 1e-6;    -- of sums of millions of values, some taken away again
  moved double precision := (sum + 1) / (greatest(0, n) + 2);
  half double precision;
begin
  perform flywheel._require(n >= 0 and sum >= -1e-6 and sum <= n * slack + 1e-6 and sum_of_squares >= -1e-6 and sum_of_squares <= sum * slack + 1e-6
      and sum ^ 2 <= (n * sum_of_squares + 1e-6) * slack,
    format('%s values in [0, 1] cannot sum to %s with squares that sum to %s', n, sum, sum_of_squares), 'Give sums of the same values, all between 0 and 1.');
  mean := case when n > 0 then least(1, greatest(0, sum / n)) end;
  half := flywheel._t_quantile(0.5 + confidence / 2, greatest(1, n - 1)) * sqrt(greatest(0, (sum_of_squares + 1) / (n + 2) - moved ^ 2) / (n + 2));
  low := case when n > 0 then greatest(0, least(mean, moved - half)) else 0 end;
  high := case when n > 0 then least(1, greatest(mean, moved + half)) else 1 end;
end
$function$;
comment on function flywheel.bounded_mean_interval is
  'Mean of values in [0, 1], as judges give, with an interval, from additive sums; of none null, [0, 1].';

-- Pure, so for everyone who reads numbers; what views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role,
       unnest(array['mean_interval', 'skewed_mean_interval', 'bounded_mean_interval']) as name;
