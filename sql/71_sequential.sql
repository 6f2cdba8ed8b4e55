-- Watching: intervals, tests and alarms that stay right while rows keep coming in.
--
-- State is small and additive: counts, one logarithm, one statistic. Formulas and sources: docs/explanation/statistics.md.

-- centred_confidence_sequence: rates p that the mixture Beta(weight p, weight (1 - p)) around p itself has not refuted. For
-- 50 rows and more it is narrower than confidence_sequence; each end is found by halving.
create or replace function flywheel.centred_confidence_sequence(
  passes bigint, total bigint, confidence double precision default 0.95, weight double precision default 20,
  out low double precision, out high double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  rate double precision := case when total > 0 then passes::double precision / total else 0.5 end;
  inside double precision[] := array[rate, rate];
  outside double precision[] := array[0, 1];
  p double precision;
begin
  perform flywheel._require(passes between 0 and total and weight > 0, format('%s of %s cannot have passed', passes, total),
    'passes lies between 0 and total, weight above 0.');
  for side in 1 .. 2 loop
    for halving in 1 .. 36 loop
      p := (inside[side] + outside[side]) / 2;
      if p > 0 and p < 1 and flywheel._log_beta(weight * p + passes, weight * (1 - p) + total - passes) - flywheel._log_beta(weight * p, weight * (1 - p))
         < flywheel._log_likelihood(p, passes, total) - ln(1 - confidence) then
        inside[side] := p;
      else
        outside[side] := p;
      end if;
    end loop;
  end loop;
  low := case when passes = 0 then 0 else inside[1] end;
  high := case when passes = total then 1 else inside[2] end;
end
$function$;
comment on function flywheel.centred_confidence_sequence is
  'Interval of a rate that stays right when people keep looking, tightest around 100 to 2,000 rows; weight is how many rows the mixture is worth. [0, 1] where total is 0.';

-- corrected_sequence: three confidence sequences share the doubt (by Bonferroni), so all three hold at once and at every
-- count; the rate lies between its least and its greatest value over them.
create or replace function flywheel.corrected_sequence(
  pp bigint, pf bigint, fp bigint, ff bigint, judged_pass bigint, judged bigint, confidence double precision default 0.95,
  out rate double precision, out low double precision, out high double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select theta.rate,
         case when theta.rate is null then 0 else least(q.low * p1.low + (1 - q.low) * p0.low, q.high * p1.low + (1 - q.high) * p0.low) end,
         case when theta.rate is null then 1 else greatest(q.low * p1.high + (1 - q.low) * p0.high, q.high * p1.high + (1 - q.high) * p0.high) end
    from flywheel.confidence_sequence(judged_pass, judged, 1 - (1 - confidence) / 3) as q,
         flywheel.confidence_sequence(pp, pp + pf, 1 - (1 - confidence) / 3) as p1,
         flywheel.confidence_sequence(fp, fp + ff, 1 - (1 - confidence) / 3) as p0,
         flywheel.corrected_rate(pp, pf, fp, ff, judged_pass, judged, confidence) as theta;
end;
comment on function flywheel.corrected_sequence is
  'corrected_rate (same arguments) with an interval that stays right however often people look, while verdicts and labels keep coming in; about twice as wide. No labels: null, [0, 1].';

-- block_e_step: what is bet on a block comes from earlier blocks alone. A candidate that looks no worse is not bet against.
create or replace function flywheel.block_e_step(
  log_e double precision,
  seen_passes_a bigint, seen_a bigint, seen_passes_b bigint, seen_b bigint,
  passes_a bigint, total_a bigint, passes_b bigint, total_b bigint,
  prior_a double precision[] default array[0.18, 0.18], prior_b double precision[] default array[0.18, 0.18])
returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  rate_a double precision := (seen_passes_a + prior_a[1]) / (seen_a + prior_a[1] + prior_a[2]);
  rate_b double precision := (seen_passes_b + prior_b[1]) / (seen_b + prior_b[1] + prior_b[2]);
  shared double precision := (total_a * rate_a + total_b * rate_b) / nullif(total_a + total_b, 0);
begin
  perform flywheel._require(passes_a between 0 and total_a and passes_b between 0 and total_b and total_a > 0 and total_b > 0
      and seen_passes_a between 0 and seen_a and seen_passes_b between 0 and seen_b
      and least(prior_a[1], prior_a[2], prior_b[1], prior_b[2]) > 0,
    format('a block cannot hold %s passes of %s and %s of %s', passes_a, total_a, passes_b, total_b),
    'A block has rows of both sides, as many as was fixed before; priors are two numbers above 0.');
  if rate_b >= rate_a then
    return log_e;
  end if;
  return log_e + passes_a * ln(rate_a / shared) + (total_a - passes_a) * ln((1 - rate_a) / (1 - shared))
               + passes_b * ln(rate_b / shared) + (total_b - passes_b) * ln((1 - rate_b) / (1 - shared));
end
$function$;
comment on function flywheel.block_e_step is
  'Evidence that candidate b passes less often than baseline a, after one more block of fixed size: the logarithm of an e-value, to be kept with the counts seen before the block. At ln(20) = 3.0 roll back, with a chance of false alarm of at most 5 % whenever one looks.';

create or replace function flywheel.block_e(
  baseline boolean[], candidate boolean[], baseline_per_block integer default 1, candidate_per_block integer default 1,
  prior_a double precision[] default array[0.18, 0.18], prior_b double precision[] default array[0.18, 0.18])
returns double precision[]
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  log_e double precision := 0;
  evidence double precision[] := '{}';
  of_a bigint[];
  of_b bigint[];
  passes_a bigint := 0;
  passes_b bigint := 0;
begin
  perform flywheel._require(least(baseline_per_block, candidate_per_block) > 0,
    format('a block cannot have %s and %s rows', baseline_per_block, candidate_per_block), 'Both sides need at least one row in a block.');
  of_a := flywheel._block_passes(baseline, baseline_per_block);
  of_b := flywheel._block_passes(candidate, candidate_per_block);
  for block in 1 .. least(cardinality(of_a), cardinality(of_b)) loop
    log_e := flywheel.block_e_step(
      log_e, passes_a, (block - 1) * baseline_per_block, passes_b, (block - 1) * candidate_per_block,
      of_a[block], baseline_per_block, of_b[block], candidate_per_block, prior_a, prior_b);
    passes_a := passes_a + of_a[block];
    passes_b := passes_b + of_b[block];
    evidence[block] := log_e;
  end loop;
  return evidence;
end
$function$;
comment on function flywheel.block_e is
  'The logarithm of the evidence that the candidate passes less often than the baseline after each complete block of outcomes in the order they came; see block_e_step.';

create or replace function flywheel._block_passes(outcomes boolean[], per_block integer) returns bigint[]
language sql immutable strict parallel safe security invoker
begin atomic
  select coalesce(array_agg(passes order by block), '{}')
    from (select (place - 1) / per_block, count(*) filter (where passed)
            from unnest(outcomes) with ordinality as outcome (passed, place)
           group by 1 having count(*) = per_block) as whole (block, passes);
end;
comment on function flywheel._block_passes is 'Internal: passes in each complete block of outcomes.';

-- cusum_step: evidence for fail rate q1 against q0, never below 0. The order of rows matters: a run of fails that passes
-- follow may cross a limit and come back, which is what peak remembers.
create or replace function flywheel.cusum_step(
  before double precision, passed boolean[], q0 double precision, q1 double precision,
  out statistic double precision, out peak double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  of_fail double precision;
  of_pass double precision;
  outcome boolean;
begin
  perform flywheel._require_rates(q0, q1);
  of_fail := ln(q1 / q0);
  of_pass := ln((1 - q1) / (1 - q0));
  statistic := greatest(0, before);
  peak := statistic;
  foreach outcome in array passed loop
    statistic := greatest(0, statistic + case when outcome then of_pass when not outcome then of_fail else 0 end);
    peak := greatest(peak, statistic);
  end loop;
end
$function$;
comment on function flywheel.cusum_step(double precision, boolean[], double precision, double precision) is
  'Bernoulli CUSUM after a batch of verdicts in order: alarm where peak reaches cusum_limit, then begin again at 0. q0 is the usual fail rate, q1 the one to be noticed (lower than q0: watch for improvement, or a dead judge). Null verdicts change nothing.';

create or replace function flywheel.cusum_step(
  before double precision, fails bigint, passes bigint, q0 double precision, q1 double precision)
returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require_rates(q0, q1);
  perform flywheel._require(least(fails, passes) >= 0, format('%s fails and %s passes cannot be counted', fails, passes), 'Counts are at least 0.');
  return greatest(0, greatest(0, before) + fails * ln(q1 / q0) + passes * ln((1 - q1) / (1 - q0)));
end
$function$;
comment on function flywheel.cusum_step(double precision, bigint, bigint, double precision, double precision) is
  'Bernoulli CUSUM after a batch of which only counts are known: never above what the rows in their order would give, so no false alarm is added, but a short burst inside of a large batch may be missed. Keep batches small.';

create or replace function flywheel._require_rates(q0 double precision, q1 double precision) returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require(q0 > 0 and q0 < 1 and q1 > 0 and q1 < 1 and q0 <> q1, format('fail rates %s and %s cannot be told apart', q0, q1),
    'Both lie between 0 and 1 and differ; of n rows without a fail take (0.5) / (n + 1) as q0, and at least 0.005.');
end
$function$;
comment on function flywheel._require_rates is 'Internal: refuse fail rates no CUSUM can be made of.';

-- _cusum_levels: rows until a statistic that moves up by `up` levels (a share `more` of times by one more) with chance p,
-- else down by one, reaches the top. It passes every level on its way down, so levels are solved from the top: what is
-- the chance and the time to get from each to the one below? `chance` and `time` add these up.
create or replace function flywheel._cusum_levels(p double precision, up integer, more double precision, levels integer)
returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  chance double precision[] := array_fill(1::double precision, array[levels]);
  time double precision[] := array_fill(0::double precision, array[levels]);
  back double precision;
  spent double precision;
begin
  for level in reverse levels - 1 .. 0 loop
    back := 0;
    spent := 0;
    if level + up < levels then
      back := (1 - more) * chance[level + 1] / chance[level + up + 1];
      spent := (1 - more) * (time[level + 1] - time[level + up + 1]) / chance[level + up + 1];
    end if;
    if level + up + 1 < levels then
      back := back + more * chance[level + 1] / chance[level + up + 2];
      spent := spent + more * (time[level + 1] - time[level + up + 2]) / chance[level + up + 2];
    end if;
    exit when level = 0;
    chance[level] := chance[level + 1] * (1 - p) / (1 - p * back);
    time[level] := time[level + 1] + chance[level + 1] * (1 + p * spent) / (1 - p * back);
  end loop;
  return (1 + p * spent) / (p * (1 - back));
end
$function$;
comment on function flywheel._cusum_levels is 'Internal: mean rows until alarm of a CUSUM on levels, which falls by one level at a time.';

-- _cusum_steps: the same where it rises by one level and falls by `down` (a share `more` of times by one more): the time
-- from each level to the next above.
create or replace function flywheel._cusum_steps(p double precision, down integer, more double precision, levels integer)
returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  time double precision[] := array[0];
begin
  for level in 1 .. levels loop
    time[level + 1] := time[level] + (1 + (1 - p) * ((1 - more) * (time[level] - time[greatest(1, level - down)])
                                                     + more * (time[level] - time[greatest(1, level - down - 1)]))) / p;
  end loop;
  return time[levels + 1];
end
$function$;
comment on function flywheel._cusum_steps is 'Internal: mean rows until alarm of a CUSUM on levels, which rises by one level at a time.';

-- cusum_arl: the steps of a fail and of a pass are no multiples of each other; the smaller is the level, the greater falls
-- on the two nearest levels. Between whole levels of h the logarithm is interpolated, which errs to early alarms.
create or replace function flywheel.cusum_arl(q0 double precision, q1 double precision, h double precision, q double precision default null)
returns double precision
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  p double precision := case when q1 > q0 then coalesce(q, q0) else 1 - coalesce(q, q0) end;
  up double precision;
  down double precision;
  ratio double precision;
  below integer;
  logs double precision[];
begin
  perform flywheel._require_rates(q0, q1);
  perform flywheel._require(h > 0 and p > 0 and p < 1, format('no limit %s is reached at a fail rate of %s', h, coalesce(q, q0)),
    'The limit is above 0, the fail rate between 0 and 1.');
  up := case when q1 > q0 then ln(q1 / q0) else ln((1 - q1) / (1 - q0)) end;
  down := case when q1 > q0 then ln((1 - q0) / (1 - q1)) else ln(q0 / q1) end;
  ratio := greatest(up, down) / least(up, down) + 1e-9;
  below := greatest(1, floor(h / least(up, down))::integer);
  for side in 0 .. 1 loop
    logs[side] := ln(case when up >= down then flywheel._cusum_levels(p, floor(ratio)::integer, ratio - floor(ratio), below + side)
                          else flywheel._cusum_steps(p, floor(ratio)::integer, ratio - floor(ratio), below + side) end);
  end loop;
  return greatest(1, exp(logs[0] + (h / least(up, down) - below) * (logs[1] - logs[0])));
end
$function$;
comment on function flywheel.cusum_arl is
  'Mean number of rows until a CUSUM (cusum_step) of limit h gives alarm while the fail rate is q (default q0: between false alarms; q1: until a real one is found). By Markov chain; a little low, by less than a tenth for small q0. Takes 0.2 ms for q0 = 0.1, 3 ms for 0.005.';

create or replace function flywheel.cusum_limit(
  q0 double precision, q1 double precision, items_per_month double precision, monitors integer default 1,
  budget_per_month double precision default 2)
returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  wanted double precision := items_per_month * monitors / nullif(budget_per_month, 0);
  low double precision := 0;
  high double precision;
begin
  perform flywheel._require_rates(q0, q1);
  perform flywheel._require(items_per_month >= 0 and monitors > 0 and budget_per_month > 0,
    format('%s rows a month, %s monitors and %s false alarms make no limit', items_per_month, monitors, budget_per_month),
    'Rows are those of one monitor; the budget is the false alarms a month of all monitors together.');
  high := greatest(1, ln(greatest(1, wanted)));  -- a mean of exp(h) rows lies between false alarms, or more (Lorden)
  for halving in 1 .. 10 loop
    if flywheel.cusum_arl(q0, q1, (low + high) / 2) >= wanted then
      high := (low + high) / 2;
    else
      low := (low + high) / 2;
    end if;
  end loop;
  return greatest(2, high);
end
$function$;
comment on function flywheel.cusum_limit is
  'The limit h at which a number of monitors, each of so many rows a month, give no more false alarms a month than the budget, all together; at least 2, however few the rows. Takes 2 ms for q0 = 0.1, 30 ms for 0.005.';

-- Pure, so for everyone who reads numbers; what views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  'centred_confidence_sequence', 'corrected_sequence', 'block_e_step', 'block_e', '_block_passes', '_require_rates', '_cusum_levels', '_cusum_steps',
  'cusum_step(double precision, boolean[], double precision, double precision)',
  'cusum_step(double precision, bigint, bigint, double precision, double precision)', 'cusum_arl', 'cusum_limit'
]) as name;
