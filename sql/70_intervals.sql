-- Intervals and tests on counts: what a rate may be, given what was seen.
--
-- Pure functions: the same numbers give the same answer, whoever asks. A share of nothing is null, its interval [0, 1].

-- _lgamma: Stirling's series at x + 8, walked back by the product. Postgres has lgamma only from 18 on.
create or replace function flywheel._lgamma(x double precision) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select (y - 0.5) * ln(y) - y + ln(2 * pi()) / 2
         + (1.0 / 12 - (1.0 / 360 - (1.0 / 1260 - (1.0 / 1680 - (1.0 / 1188 - (691.0 / 360360 - z / 156) * z) * z) * z) * z) * z) / y
         - ln(x * (x + 1) * (x + 2) * (x + 3) * (x + 4) * (x + 5) * (x + 6) * (x + 7))
    from (select x + 8, 1 / ((x + 8) * (x + 8))) as shifted (y, z);
end;
comment on function flywheel._lgamma is 'Internal: the logarithm of the gamma function of x, for 0 < x < 1e38.';

create or replace function flywheel._log_beta(a double precision, b double precision) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select flywheel._lgamma(a) + flywheel._lgamma(b) - flywheel._lgamma(a + b);
end;
comment on function flywheel._log_beta is 'Internal: the logarithm of the beta function of a and b, both above 0.';

-- _incomplete_beta: its continued fraction, by Lentz's method, on the side of the mean where it converges fast.
create or replace function flywheel._incomplete_beta(x double precision, a double precision, b double precision)
returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  fraction double precision := 1;
  numerator double precision;
  above double precision := 1;
  below double precision := 0;
begin
  if x <= 0 or x >= 1 then
    return case when x <= 0 then 0 else 1 end;
  elsif x > (a + 1) / (a + b + 2) then
    return 1 - flywheel._incomplete_beta(1 - x, b, a);
  end if;
  for step in 1 .. 10000 loop
    numerator := case when step % 2 = 0 then (step / 2) * (b - step / 2) * x / ((a + step - 1) * (a + step))
                      else -(a + step / 2) * (a + b + step / 2) * x / ((a + step - 1) * (a + step)) end;
    below := 1 / (1 + numerator * below);
    above := 1 + numerator / above;
    fraction := fraction * above * below;
    exit when abs(above * below - 1) < 1e-15;
  end loop;
  return exp(greatest(a * ln(x) + b * ln(1 - x) - flywheel._log_beta(a, b), -700)) / (a * fraction);
end
$function$;
comment on function flywheel._incomplete_beta is 'Internal: the distribution function of Beta(a, b) at x.';

create or replace function flywheel._binomial_cdf(events bigint, trials bigint, probability double precision)
returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select case when events < 0 then 0 when events >= trials then 1
              else flywheel._incomplete_beta(1 - probability, trials - events, events + 1) end;
end;
comment on function flywheel._binomial_cdf is 'Internal: the chance of at most so many events in so many trials.';

-- _normal_quantile: in the lower half, where erfc keeps its digits: a closed form good to 0.002, then Halley's method,
-- which gives three times the digits each time. Not SQL: that would be inlined, each z written out many times over.
create or replace function flywheel._normal_quantile(p double precision) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  tail double precision := least(p, 1 - p);
  half_log double precision := ln(4 * tail * (1 - tail)) / 2;
  scale double precision := 2 / (pi() * 0.147) + half_log;
  z double precision := -sqrt(2 * (sqrt(scale * scale - 2 * half_log / 0.147) - scale));
  error double precision;
begin
  for step in 1 .. 3 loop
    error := (erfc(-z / sqrt(2)) / 2 - tail) * sqrt(2 * pi()) * exp(z * z / 2);
    z := z - error / (1 + z * error / 2);
  end loop;
  return case when p <= 0.5 then z else -z end;
end
$function$;
comment on function flywheel._normal_quantile is 'Internal: the standard normal quantile of p, for 0 < p < 1.';

-- _t_quantile: from a series around the normal quantile, then Newton on the logarithm of the tail.
create or replace function flywheel._t_quantile(p double precision, degrees double precision) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  z double precision := flywheel._normal_quantile(p);
  t double precision := z + (z ^ 3 + z) / (4 * degrees) + (5 * z ^ 5 + 16 * z ^ 3 + 3 * z) / (96 * degrees ^ 2)
                        + (3 * z ^ 7 + 19 * z ^ 5 + 17 * z ^ 3 - 15 * z) / (384 * degrees ^ 3);
  scale double precision;
  tail double precision;
  step double precision;
begin
  if p = 0.5 or degrees > 1e5 then
    return t;
  elsif p < 0.5 then
    return -flywheel._t_quantile(1 - p, degrees);
  elsif degrees = 1 then
    return tan(pi() * (p - 0.5));
  end if;
  scale := exp(-flywheel._log_beta(degrees / 2, 0.5)) / sqrt(degrees);
  for round in 1 .. 20 loop
    tail := flywheel._incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5) / 2;
    step := ln(tail / (1 - p)) * tail / (scale * (1 + t * t / degrees) ^ (-(degrees + 1) / 2));
    t := t + step;
    exit when abs(step) < 1e-12 * t;
  end loop;
  return t;
end
$function$;
comment on function flywheel._t_quantile is 'Internal: the quantile p of Student''s t, for 0 < p < 1 and degrees of freedom from 1 on.';

create or replace function flywheel._require(holds boolean, message text, hint text) returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not holds then
    raise exception using errcode = '22023', message = _require.message, hint = _require.hint;
  end if;
end
$function$;
comment on function flywheel._require is 'Internal: refuse numbers that cannot be; what is unknown (null) is not refused.';

-- _refused_rate: for expressions, which cannot perform anything.
create or replace function flywheel._refused_rate(passes bigint, total bigint) returns double precision
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require(false, format('%s of %s cannot have passed', passes, total), 'Passes are 0 to total.');
end
$function$;
comment on function flywheel._refused_rate is 'Internal: the error for counts that are of no rate.';

-- _wilson: counts may be fractions: what labels of unlike weight are worth.
create or replace function flywheel._wilson(passes double precision, total double precision, confidence double precision,
  out low double precision, out high double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select case when passes not between 0 and total then flywheel._refused_rate(passes::bigint, total::bigint)
              when total = 0 or passes = 0 then 0 else (passes + zz / 2 - half) / (total + zz) end,
         case when total = 0 or passes = total then 1 else (passes + zz / 2 + half) / (total + zz) end
    from (select flywheel._normal_quantile(0.5 + confidence / 2) ^ 2) as quantile (zz),
         lateral (select sqrt(zz * (passes * (total - passes) / nullif(total, 0) + zz / 4))) as width (half);
end;
comment on function flywheel._wilson is 'Internal: Wilson score interval, of fractions of passes, too.';

create or replace function flywheel.wilson_interval(
  passes bigint, total bigint, confidence double precision default 0.95,
  out low double precision, out high double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select found.low, found.high from flywheel._wilson(passes, total, confidence) as found;
end;
comment on function flywheel.wilson_interval is
  'Wilson score interval of a rate, for reports with a fixed date; [0, 1] where total is 0. See confidence_sequence for pages people look at again and again.';

-- clopper_pearson_upper: the chance of so few errors falls as the rate rises; the bound is where it is delta.
create or replace function flywheel.clopper_pearson_upper(errors bigint, total bigint, delta double precision default 0.10)
returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  low double precision := case when total > 0 then errors::double precision / total else 1 end;
  high double precision := 1;
begin
  if errors >= total then
    return 1;
  end if;
  for halving in 1 .. 54 loop
    if flywheel._binomial_cdf(errors, total, (low + high) / 2) > delta then
      low := (low + high) / 2;
    else
      high := (low + high) / 2;
    end if;
  end loop;
  return high;
end
$function$;
comment on function flywheel.clopper_pearson_upper is
  'Exact upper bound of an error rate: the true rate is above it with a chance of at most delta; 1 where total is 0.';

create or replace function flywheel._log_likelihood(p double precision, passes bigint, total bigint) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select case when passes = 0 then 0 when p <= 0 then '-infinity' else passes * ln(p) end
       + case when passes = total then 0 when p >= 1 then '-infinity' else (total - passes) * ln(1 - p) end;
end;
comment on function flywheel._log_likelihood is 'Internal: how well a rate p explains the passes, as a logarithm.';

-- confidence_sequence: rates that a Beta(1/2, 1/2) mixture has not refuted; by Ville's inequality the whole sequence of
-- intervals holds the truth at once, so one may look after every row. Log-concave: each end is found by halving.
create or replace function flywheel.confidence_sequence(
  passes bigint, total bigint, confidence double precision default 0.95,
  out low double precision, out high double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  floor_ double precision := flywheel._log_beta(0.5 + passes, 0.5 + total - passes) - ln(pi()) + ln(1 - confidence);
  rate double precision := case when total > 0 then passes::double precision / total else 0.5 end;
  inside double precision[] := array[rate, rate];
  outside double precision[] := array[0, 1];
  middle double precision;
begin
  for side in 1 .. 2 loop
    for halving in 1 .. 40 loop
      middle := (inside[side] + outside[side]) / 2;
      if flywheel._log_likelihood(middle, passes, total) > floor_ then
        inside[side] := middle;
      else
        outside[side] := middle;
      end if;
    end loop;
  end loop;
  low := case when passes = 0 then 0 else inside[1] end;
  high := case when passes = total then 1 else inside[2] end;
end
$function$;
comment on function flywheel.confidence_sequence is
  'Interval of a rate that stays right when people keep looking: wider than wilson_interval, valid at every count.';

create or replace function flywheel.mcnemar_exact(first_only bigint, second_only bigint) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select least(1, 2 * flywheel._binomial_cdf(least(first_only, second_only), first_only + second_only, 0.5));
end;
comment on function flywheel.mcnemar_exact is
  'Two-sided p value of a pair on the same rows, from the rows only the first and only the second had right; 1 where there are none.';

create or replace function flywheel.paired_log_e(first_only bigint, second_only bigint) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select flywheel._log_beta(0.5 + first_only, 0.5 + second_only) - ln(pi()) + (first_only + second_only) * ln(2::double precision);
end;
comment on function flywheel.paired_log_e is
  'Logarithm of the e-value against two of equal worth, from the rows only one of them had right; above ln(20) = 3.0 is evidence at 5 %, whenever one looks.';

-- _corrected: post-stratified by verdict, so right also where the fails were labelled more often. The three spreads
-- add as squares (MOVER); a verdict nobody labelled may hide anything, so half its weight is added to both sides.
-- Cells may be fractions: what labels of unlike weight are worth.
create or replace function flywheel._corrected(
  pp double precision, pf double precision, fp double precision, ff double precision, judged_pass bigint, judged bigint, confidence double precision,
  out rate double precision, out low double precision, out high double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select theta,
         coalesce(greatest(0, theta - unknown - sqrt((q * (p1 - l1)) ^ 2 + ((1 - q) * (p0 - l0)) ^ 2
                                         + ((p1 - p0) * case when p1 < p0 then uq - q else q - lq end) ^ 2)), 0),
         coalesce(least(1, theta + unknown + sqrt((q * (u1 - p1)) ^ 2 + ((1 - q) * (u0 - p0)) ^ 2
                                         + ((p1 - p0) * case when p1 < p0 then q - lq else uq - q end) ^ 2)), 1)
    from (select judged_pass::double precision / nullif(judged, 0),
                 coalesce(pp / nullif(pp + pf, 0), 0.5),
                 coalesce(fp / nullif(fp + ff, 0), 0.5)) as share (q, p1, p0),
         lateral (select case when pp + pf + fp + ff > 0 then q * p1 + (1 - q) * p0 end,
                         case when pp + pf = 0 then q / 2 else 0 end + case when fp + ff = 0 then (1 - q) / 2 else 0 end
                 ) as estimate (theta, unknown),
         lateral (select case when pp + pf = 0 then p1 else (flywheel._wilson(pp, pp + pf, confidence)).low end,
                         case when pp + pf = 0 then p1 else (flywheel._wilson(pp, pp + pf, confidence)).high end,
                         case when fp + ff = 0 then p0 else (flywheel._wilson(fp, fp + ff, confidence)).low end,
                         case when fp + ff = 0 then p0 else (flywheel._wilson(fp, fp + ff, confidence)).high end
                 ) as of_verdict (l1, u1, l0, u0),
         flywheel.wilson_interval(judged_pass, judged, confidence) as of_share (lq, uq);
end;
comment on function flywheel._corrected is 'Internal: corrected_rate, of fractions of labels, too.';

create or replace function flywheel.corrected_rate(
  pp bigint, pf bigint, fp bigint, ff bigint, judged_pass bigint, judged bigint, confidence double precision default 0.95,
  out rate double precision, out low double precision, out high double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select found.rate, found.low, found.high from flywheel._corrected(pp, pf, fp, ff, judged_pass, judged, confidence) as found;
end;
comment on function flywheel.corrected_rate is
  'Pass rate corrected for the judge''s errors. Labelled rows by judge and person, in that order (pp, pf: judged pass; fp, ff: judged fail), from labels drawn for estimation; judged counts all judged rows. No labels: null, [0, 1].';

create or replace function flywheel.begg_greenes(
  pp bigint, pf bigint, fp bigint, ff bigint, judged_pass bigint, judged bigint,
  out tpr double precision, out tnr double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select q * p1 / nullif(q * p1 + (1 - q) * p0, 0),
         (1 - q) * (1 - p0) / nullif(q * (1 - p1) + (1 - q) * (1 - p0), 0)
    from (select judged_pass::double precision / nullif(judged, 0),
                 pp::double precision / nullif(pp + pf, 0),
                 fp::double precision / nullif(fp + ff, 0)) as share (q, p1, p0);
end;
comment on function flywheel.begg_greenes is
  'TPR and TNR as they are among all judged rows, from labels drawn apart for each verdict; cells as in corrected_rate. Null where a verdict has no labels.';

-- Pure, so for everyone who reads numbers; what views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  '_lgamma', '_log_beta', '_incomplete_beta', '_binomial_cdf', '_normal_quantile', '_t_quantile', '_require', '_refused_rate', '_wilson', 'wilson_interval',
  'clopper_pearson_upper', '_log_likelihood', 'confidence_sequence', 'mcnemar_exact', 'paired_log_e',
  '_corrected', 'corrected_rate', 'begg_greenes'
]) as name;
