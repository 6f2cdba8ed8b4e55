-- Calibration: what a judge's value is worth as a probability, when a verdict may be trusted, and whom to ask next.

-- selective_threshold: thresholds are tried from strict to loose and the first that fails ends the search, so trying
-- many costs no certainty. The bound is at most alpha exactly where the chance of so few errors at alpha is <= delta.
create or replace function flywheel.selective_threshold(
  confidences double precision[], correct boolean[], alpha double precision default 0.10,
  delta double precision default 0.10, minimum integer default 30,
  out threshold double precision, out n bigint, out errors bigint)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  tried record;
begin
  for tried in
    select step.confidence, sum(step.rows) over strict_to_loose as rows, sum(step.wrong) over strict_to_loose as wrong
      from (select given.confidence, count(*), count(*) filter (where not given.is_correct)
              from unnest(confidences, correct) as given (confidence, is_correct)
             where given.confidence is not null and given.is_correct is not null
             group by given.confidence) as step (confidence, rows, wrong)
    window strict_to_loose as (order by step.confidence desc)
  loop
    continue when tried.rows < minimum;
    exit when flywheel._binomial_cdf(tried.wrong::bigint, tried.rows::bigint, alpha) > delta;
    threshold := tried.confidence;
    n := tried.rows;
    errors := tried.wrong;
  end loop;
end
$function$;
comment on function flywheel.selective_threshold is
  'Lowest confidence from which verdicts may be trusted: their error rate is above alpha with a chance of at most delta. One element per row labelled for estimation; null: trust nothing.';

-- isotonic_fit: pool adjacent violators. Each distinct value begins a block; a block not above the one before joins it.
create or replace function flywheel.isotonic_fit(judge_values double precision[], passes boolean[])
returns table (value double precision, probability double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  knot record;
  knots double precision[] := '{}';
  passed double precision[] := '{}';
  total double precision[] := '{}';
  ends integer[] := '{}';
  top integer := 0;
begin
  for knot in
    select given.x, count(*) filter (where given.y) as passed, count(*) as total
      from unnest(judge_values, passes) as given (x, y)
     where given.x is not null and given.y is not null group by given.x order by given.x
  loop
    knots := knots || knot.x;
    top := top + 1;
    passed[top] := knot.passed;
    total[top] := knot.total;
    while top > 1 and passed[top - 1] * total[top] >= passed[top] * total[top - 1] loop
      passed[top - 1] := passed[top - 1] + passed[top];
      total[top - 1] := total[top - 1] + total[top];
      top := top - 1;
    end loop;
    ends[top] := cardinality(knots);
  end loop;
  for block in 1 .. top loop
    for place in coalesce(ends[block - 1], 0) + 1 .. ends[block] loop
      value := knots[place];
      probability := passed[block] / total[block];
      return next;
    end loop;
  end loop;
end
$function$;
comment on function flywheel.isotonic_fit is
  'The never-falling map from a judge''s value to the probability of a person''s pass that fits best; one row per distinct value. For 200 labels and more.';

create or replace function flywheel._sigmoid(x double precision) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select 1 / (1 + exp(-least(700, greatest(-700, x))));
end;
comment on function flywheel._sigmoid is 'Internal: the probability that has log odds x; never overflows.';

-- platt_fit: Newton's method, two unknowns. Values that separate pass from fail, or are all the same, have no finite
-- best fit: the search ends where the curvature is gone, and probabilities are clipped when they are used.
create or replace function flywheel.platt_fit(
  judge_values double precision[], passes boolean[], out slope double precision, out intercept double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  fit record;
begin
  select ln((count(*) filter (where y) + 1.0) / (count(*) filter (where not y) + 1.0)), 0
    into intercept, slope
    from unnest(judge_values, passes) as given (x, y) where x is not null and y is not null;
  for step in 1 .. 50 loop
    select sum(y::integer - p) as g0, sum((y::integer - p) * x) as g1,
           sum(p * (1 - p)) as h00, sum(p * (1 - p) * x) as h01, sum(p * (1 - p) * x * x) as h11
      into fit
      from unnest(judge_values, passes) as given (x, y), lateral flywheel._sigmoid(slope * x + intercept) as p
     where x is not null and y is not null;
    exit when coalesce(fit.h00 * fit.h11 - fit.h01 * fit.h01 <= 1e-9 * fit.h00 * fit.h11 + 1e-12, true);
    intercept := intercept + (fit.h11 * fit.g0 - fit.h01 * fit.g1) / (fit.h00 * fit.h11 - fit.h01 * fit.h01);
    slope := slope + (fit.h00 * fit.g1 - fit.h01 * fit.g0) / (fit.h00 * fit.h11 - fit.h01 * fit.h01);
    exit when abs(fit.g0) + abs(fit.g1) < 1e-12;
  end loop;
end
$function$;
comment on function flywheel.platt_fit is
  'Slope and intercept of the log odds of a person''s pass over a judge''s value. For 50 to 199 labels.';

create or replace function flywheel.beta_fit(
  judge_values double precision[], passes boolean[], out judged_pass double precision, out judged_fail double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select (count(*) filter (where x >= 0.5 and y) + 1.0::double precision) / (count(*) filter (where x >= 0.5) + 2),
         (count(*) filter (where x < 0.5 and y) + 1.0::double precision) / (count(*) filter (where x < 0.5) + 2)
    from unnest(judge_values, passes) as given (x, y)
   where x is not null and y is not null;
end;
comment on function flywheel.beta_fit is
  'P(a person says pass) for each of the judge''s verdicts (a value of 0.5 and above is a pass), smoothed. For fewer than 50 labels.';

create or replace function flywheel._interpolate(knots jsonb, heights jsonb, value double precision) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  with points as (
    select x::double precision as x, y::double precision as y
      from rows from (jsonb_array_elements_text(knots), jsonb_array_elements_text(heights)) as point (x, y)
  ), below as (
    select x, y from points where x <= value order by x desc limit 1
  ), above as (
    select x, y from points where x >= value order by x limit 1
  )
  select coalesce(below.y + (above.y - below.y) * (value - below.x) / nullif(above.x - below.x, 0), below.y, above.y)
    from below full join above on true;
end;
comment on function flywheel._interpolate is 'Internal: the height at value between the knots, level outside of them.';

create or replace function flywheel.apply_calibration(method text, parameters jsonb, value double precision)
returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select case when p is not null then least(0.99, greatest(0.01, p)) end
    from (select case method
                   when 'isotonic' then flywheel._interpolate(parameters -> 'values', parameters -> 'probabilities', value)
                   when 'platt' then flywheel._sigmoid((parameters ->> 'slope')::double precision * value
                                                       + (parameters ->> 'intercept')::double precision)
                   when 'beta' then (parameters ->> case when value >= 0.5 then 'judged_pass' else 'judged_fail' end)::double precision
                   when 'none' then value
                 end) as calibrated (p);
end;
comment on function flywheel.apply_calibration is
  'Probability that a person says pass, given a judge''s value, within [0.01, 0.99]. method: isotonic (parameters values, probabilities), platt (slope, intercept), beta (judged_pass, judged_fail) or none.';

create or replace function flywheel.brier_score(probabilities double precision[], passes boolean[]) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select avg((p - y::integer) * (p - y::integer)) from unnest(probabilities, passes) as given (p, y);
end;
comment on function flywheel.brier_score is
  'Mean squared distance of probabilities from what happened: 0 is perfect, 0.25 is what always saying 0.5 gets.';

create or replace function flywheel.calibration_error(probabilities double precision[], passes boolean[], bins integer default 10)
returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select sum(abs(gap)) / nullif(sum(n), 0)
    from (select sum(p - y::integer), count(*)
            from unnest(probabilities, passes) as given (p, y)
           where p is not null and y is not null
           group by least(bins, width_bucket(p, 0, 1, bins))) as bin (gap, n);
end;
comment on function flywheel.calibration_error is
  'Expected calibration error: how far probabilities lie from the rates seen, over bins of equal width, weighted by rows.';

-- hash01: the same draw every time, so that a round may be repeated and a higher rate takes a superset.
create or replace function flywheel.hash01(id uuid, salt text) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select (uuid_hash_extended(id, hashtextextended(salt collate "C", 0)) & 9007199254740991) / 9007199254740992::double precision;
end;
comment on function flywheel.hash01 is
  'A number in [0, 1) that looks random and is always the same for an id and a salt; for draws and splits.';

-- capped_probabilities: rows are taken for certain, largest first, until the rest share what is left without passing 1.
create or replace function flywheel.capped_probabilities(u double precision[], budget double precision)
returns double precision[]
language sql immutable strict parallel safe security invoker
begin atomic
  with ranked as (
    select need, place, row_number() over largest_first - 1 as certain,
           sum(need) over (order by need, place desc rows unbounded preceding) as rest
      from unnest(u) with ordinality as given (need, place)
    window largest_first as (order by need desc, place)
  ), scale as (
    select (greatest(budget, 0) - certain) / nullif(rest, 0) as factor
      from ranked where (greatest(budget, 0) - certain) * need <= rest order by certain limit 1
  )
  select array_agg(case when need > 0 then least(1, (select factor from scale) * need) else 0 end order by place)
    from ranked;
end;
comment on function flywheel.capped_probabilities is
  'Probabilities in proportion to u, none above 1, that sum to the budget: the best draw of so many rows.';

-- neyman_allocation: weight times spread, held between a floor and the size of the stratum by one common factor, which
-- is found by halving; then whole numbers by largest remainder. A spread of nothing counts as very little.
create or replace function flywheel.neyman_allocation(
  weights double precision[], rates double precision[], sizes bigint[], budget integer, minimum integer default 2)
returns integer[]
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  needs double precision[];
  wanted double precision := least(budget, (select sum(size) from unnest(sizes) as size));
  least_each integer := case when wanted >= (select sum(least(size, minimum)) from unnest(sizes) as size) then minimum else 0 end;
  low double precision := 0;
  high double precision;
  taken double precision;
begin
  select array_agg(weight * greatest(sqrt(rate * (1 - rate)), 1e-9) order by place), max(size / nullif(weight, 0)) * 1e9
    into needs, high
    from unnest(weights, rates, sizes) with ordinality as stratum (weight, rate, size, place);
  for halving in 1 .. 120 loop
    select sum(least(size, greatest(least_each, (low + high) / 2 * need))) into taken
      from unnest(needs, sizes) as stratum (need, size);
    low := case when taken < wanted then (low + high) / 2 else low end;
    high := case when taken < wanted then high else (low + high) / 2 end;
  end loop;
  return (
    with share as (
      select place, least(size, greatest(least_each, high * need)) as exact
        from unnest(needs, sizes) with ordinality as stratum (need, size, place)
    ), ranked as (
      select place, floor(exact + 1e-9) as whole, row_number() over (order by exact - floor(exact + 1e-9) desc, place) as turn from share
    )
    select array_agg((whole + (turn <= wanted - (select sum(whole) from ranked))::integer)::integer order by place) from ranked);
end
$function$;
comment on function flywheel.neyman_allocation is
  'How many of budget labels each stratum gets: in proportion to weight times sqrt(rate (1 - rate)), at least minimum where it can be, never more than its size.';

-- Pure, so for everyone who reads numbers; what views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  'selective_threshold', 'isotonic_fit', '_sigmoid', 'platt_fit', 'beta_fit', '_interpolate', 'apply_calibration',
  'brier_score', 'calibration_error', 'hash01', 'capped_probabilities', 'neyman_allocation'
]) as name;
