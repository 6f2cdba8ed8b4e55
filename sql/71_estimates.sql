-- Estimates: what a rate is, from a judge who errs, few labels and sums that add up.
--
-- Pure functions of additive state. Wald's interval is nowhere shown: it is too short where labels are few or rates are
-- near 0 or 1, and has no width where all labels agree. Standard errors are given beside, as the public libraries have them.

-- _score_interval: Wilson's, for a rate that is known as well as n independent rows would tell it (n may be a fraction).
create or replace function flywheel._score_interval(
  rate double precision, n double precision, confidence double precision, out low double precision, out high double precision)
language sql immutable parallel safe security invoker
begin atomic
  select case when rate > 0 and n > 0 then greatest(0, (rate + zz / 2 / n - half) / (1 + zz / n)) else 0 end,
         case when rate < 1 and n > 0 then least(1, (rate + zz / 2 / n + half) / (1 + zz / n)) else 1 end
    from (select flywheel._normal_quantile(0.5 + confidence / 2) ^ 2) as quantile (zz),
         lateral (select sqrt(zz * greatest(0, rate * (1 - rate)) / nullif(n, 0) + zz * zz / 4 / nullif(n, 0) ^ 2)) as width (half);
end;
comment on function flywheel._score_interval is 'Internal: Wilson score interval of a rate from n rows; [0, 1] where n is 0.';

-- _effective_interval: a standard error says how many independent rows the estimate is worth. Of a rate at an end it says
-- nothing, and from fewer than 100 labels it is itself too uncertain to claim more than those labels.
create or replace function flywheel._effective_interval(
  rate double precision, standard_error double precision, labels bigint, confidence double precision,
  out low double precision, out high double precision)
language sql immutable parallel safe security invoker
begin atomic
  select scored.low, scored.high
    from (select least(1, greatest(0, rate))) as inside (rate),
         lateral (select case when inside.rate > 0 and inside.rate < 1 and standard_error > 1e-9
                              then inside.rate * (1 - inside.rate) / standard_error ^ 2 else labels end) as worth (n),
         lateral flywheel._score_interval(
           inside.rate, case when labels < 100 then least(labels, worth.n) else worth.n end, confidence) as scored;
end;
comment on function flywheel._effective_interval is
  'Internal: Wilson score interval of an estimate with this standard error; as of the labels alone where the error is 0, the rate at an end or the labels are few.';

-- _ppi: the label's mean, moved by lambda times what the labelled rows' judge values differ from all the others'. Variances
-- divide by n - ddof, lambda is at most `most`: 0 and 1 as in ppi-python, 1 and without limit as in GLIDE.
create or replace function flywheel._ppi(
  n bigint, sum_y double precision, sum_f double precision, sum_yf double precision, sum_ff double precision,
  sum_yy double precision, others bigint, others_sum_f double precision, others_sum_ff double precision, ddof integer,
  most double precision,
  out rate double precision, out standard_error double precision, out lambda double precision, out correlation double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select y + tuned * (f_others - f),
         sqrt(greatest(0, var_y - 2 * tuned * cov + tuned ^ 2 * var_f) / (n - ddof) + tuned ^ 2 * var_others / nullif(others - ddof, 0)),
         tuned,
         case when var_y > 1e-12 and var_f > 1e-12 then cov / sqrt(var_y * var_f) end
    from (select sum_y / n, sum_f / n, others_sum_f / nullif(others, 0), (sum_f + others_sum_f) / (n + others)) as mean (y, f, f_others, f_all),
         lateral (select greatest(0, sum_yy / n - y ^ 2), greatest(0, sum_ff / n - f ^ 2), sum_yf / n - y * f,
                         greatest(0, others_sum_ff / nullif(others, 0) - f_others ^ 2),
                         ((sum_ff + others_sum_ff) - (n + others) * f_all ^ 2) / nullif(n + others - 1, 0)
                 ) as spread (var_y, var_f, cov, var_others, var_all),
         lateral (select case when var_all > 1e-12
                      then least(most, greatest(0, cov * n / (n - ddof) / ((1 + n::double precision / others) * var_all))) else 0 end) as best (tuned);
end;
comment on function flywheel._ppi is 'Internal: PPI++ estimate of a mean with its standard error, from sums of labels y and judge values f.';

create or replace function flywheel.ppi_rate(
  n bigint, sum_y double precision, sum_f double precision, sum_yf double precision, sum_ff double precision, sum_yy double precision,
  others bigint, others_sum_f double precision, others_sum_ff double precision,
  confidence double precision default 0.95, minimum_labels integer default 100,
  out rate double precision, out low double precision, out high double precision, out standard_error double precision,
  out lambda double precision, out method text)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  tuned record;
begin
  perform flywheel._require(n >= 0 and others >= 0 and sum_y between 0 and n and sum_f between 0 and n and others_sum_f between 0 and others,
    format('%s labels cannot sum to %s, with judge values of %s; %s other values cannot sum to %s', n, sum_y, sum_f, others, others_sum_f),
    'Labels and judge values lie between 0 and 1; others are the judged rows without a label.');
  method := case when n = 0 then 'none' else 'labels_only' end;
  rate := sum_y / nullif(n, 0);
  lambda := 0;
  standard_error := sqrt(greatest(0, sum_yy / nullif(n, 0) - rate ^ 2) / nullif(n, 0));
  if n >= greatest(3, minimum_labels) and others >= 2 then
    tuned := flywheel._ppi(n, sum_y, sum_f, sum_yf, sum_ff, sum_yy, others, others_sum_f, others_sum_ff, 0, 1);
    if tuned.correlation > 1 / sqrt(n - 2) then
      rate := tuned.rate;
      lambda := tuned.lambda;
      standard_error := tuned.standard_error;
      method := 'ppi';
    end if;
  end if;
  select * into low, high
    from flywheel._effective_interval(rate, case when method = 'ppi' then standard_error end, n, confidence);
  rate := case when n > 0 then least(1, greatest(0, rate)) end;
end
$function$;
comment on function flywheel.ppi_rate is
  'Mean of labels y in [0, 1], sharpened by judge values f in [0, 1] (PPI++): n labelled rows with sums of y, f, yf, ff, yy; others: judged rows without a label, with sums of f, ff. method is labels_only where there are fewer than minimum_labels or the judge tells too little, none (null, [0, 1]) without labels.';

-- rogan_gladen: what a judge's share of passes means if it errs as it did on labels from elsewhere. Lee et al.'s interval
-- is shifted by the error of a ratio; it needs a judge that is better than chance.
create or replace function flywheel.rogan_gladen(
  judged_pass bigint, judged bigint, tp bigint, fp bigint, fn bigint, tn bigint, confidence double precision default 0.95,
  out rate double precision, out low double precision, out high double precision, out method text)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  tpr double precision := tp::double precision / nullif(tp + fn, 0);
  tnr double precision := tn::double precision / nullif(tn + fp, 0);
  z double precision := flywheel._normal_quantile(0.5 + confidence / 2);
  q double precision := (judged_pass + z * z / 2) / (judged + z * z);
  sure double precision := (tp + 1.0) / (tp + fn + 2);
  unsure double precision := (tn + 1.0) / (tn + fp + 2);
  middle double precision := (q + unsure - 1) / nullif(sure + unsure - 1, 0);
  spread_pass double precision := sure * (1 - sure) / (tp + fn + 2);
  spread_fail double precision := unsure * (1 - unsure) / (tn + fp + 2);
  half double precision;
begin
  perform flywheel._require(least(tp, fp, fn, tn) >= 0 and judged_pass between 0 and judged,
    format('%s of %s cannot have passed, or a count of %s, %s, %s, %s is negative', judged_pass, judged, tp, fp, fn, tn),
    'Counts are of rows: tp and fp were judged pass, tp and fn labelled pass.');
  if coalesce(judged = 0 or tpr + tnr <= 1.05 or sure + unsure <= 1, true) then
    method := case when tp + fp + fn + tn = 0 then 'none' else 'labels_only' end;
    rate := (tp + fn)::double precision / nullif(tp + fp + fn + tn, 0);
    select * into low, high from flywheel.wilson_interval(tp + fn, tp + fp + fn + tn, confidence);
    return;
  end if;
  method := 'rogan_gladen';
  rate := least(1, greatest(0, (judged_pass::double precision / judged + tnr - 1) / (tpr + tnr - 1)));
  half := z * sqrt(q * (1 - q) / (judged + z * z) + (1 - middle) ^ 2 * spread_fail + middle ^ 2 * spread_pass) / (sure + unsure - 1);
  middle := middle + 2 * z * z * (middle * spread_pass - (1 - middle) * spread_fail);
  low := least(1, greatest(0, middle - half));
  high := least(1, greatest(0, middle + half));
end
$function$;
comment on function flywheel.rogan_gladen is
  'Pass rate behind a judge''s verdicts, where labels come from other rows (tp, fp judged pass; fn, tn judged fail; labels not drawn by verdict). method is labels_only (their own rate) where the judge is no better than chance or labels lack a verdict, none without labels.';

-- _students_interval: around a rate that was moved by two passes and two fails more, so that agreeing labels are no certainty
-- (of one stratum: Agresti and Coull; of several, which share them evenly: Price and Bonett). Student's t, for few labels tell their
-- spread badly. unknown: half the weight of what has no label, added linearly, for it is ignorance and not noise.
create or replace function flywheel._students_interval(
  rate double precision, moved double precision, variance double precision, degrees double precision, unknown double precision,
  confidence double precision, out low double precision, out high double precision)
language sql immutable parallel safe security invoker
begin atomic
  select case when rate + moved - half is null then 0 else greatest(0, least(rate, moved - half - unknown)) end,
         case when rate + moved + half is null then 1 else least(1, greatest(rate, moved + half + unknown)) end
    from (select sqrt(variance) * flywheel._t_quantile(0.5 + confidence / 2, greatest(1, degrees))) as spread (half);
end;
comment on function flywheel._students_interval is
  'Internal: interval of an estimate with two passes and two fails more; [0, 1] where there is none.';

create or replace function flywheel.stratified_rate(
  sizes bigint[], labels bigint[], passes bigint[], confidence double precision default 0.95, minimum_labels integer default 10,
  out rate double precision, out low double precision, out high double precision, out strata integer)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  found record;
begin
  perform flywheel._require(cardinality(sizes) = cardinality(labels) and cardinality(sizes) = cardinality(passes)
      and (select coalesce(bool_and(p between 0 and l and s >= 0), true) from unnest(sizes, labels, passes) as given (s, l, p)),
    format('%s, %s and %s are no sizes, labels and passes of the same strata', sizes, labels, passes),
    'Give one size, one number of labels and one of passing labels for each stratum.');
  with merged as (
    select sum(size)::double precision as size, sum(labelled)::double precision as labelled, sum(passed)::double precision as passed
      from unnest(sizes, labels, passes) with ordinality as given (size, labelled, passed, place)
     group by case when labelled >= minimum_labels then place else 0 end
    having sum(size) > 0
  ), stratum as (
    select size / sum(size) over () as weight, sum(size) over () as total, labelled, coalesce(passed / nullif(labelled, 0), 0.5) as p,
           case when labelled > 0 then (passed + more) / (labelled + 2 * more) else 0.5 end as moved,
           case when labelled > 0 then (passed + more) * (labelled - passed + more) / (labelled + 2 * more) ^ 3 else 0 end as variance
      from (select *, 2.0::double precision / nullif(count(*) filter (where labelled > 0) over (), 0) as more from merged) as added
  )
  select sum(weight * p) as mean, sum(weight * moved) as moved, count(*) as strata, sum(labelled) as labelled,
         coalesce(sum(weight) filter (where labelled = 0), 0) / 2 as unknown,
         sum(weight ^ 2 * variance) + greatest(0, sum(weight * p ^ 2) - sum(weight * p) ^ 2) / max(total) as variance,
         sum((weight ^ 2 * variance) ^ 2 / greatest(1, labelled - 1)) as uncertain
    into found
    from stratum;
  rate := case when found.labelled > 0 then least(1, found.mean) end;
  strata := found.strata;
  select * into low, high
    from flywheel._students_interval(rate, found.moved, found.variance, found.variance ^ 2 / nullif(found.uncertain, 0), found.unknown, confidence);
end
$function$;
comment on function flywheel.stratified_rate is
  'Rate over strata that were labelled unequally: sizes, labels and passing labels, one of each for each stratum. Strata with fewer than minimum_labels are merged into one; what has no label at all adds half its weight to both sides. No labels: null, [0, 1].';

-- stratified_ppi_rate: PPI++ with a lambda for each stratum, weighed by size. Sums of strata with few labels are added up first.
-- A pass more that the judge fails, and a fail more that it passes, add 1 and lambda² to the squares.
create or replace function flywheel.stratified_ppi_rate(
  n bigint[], sum_y double precision[], sum_f double precision[], sum_yf double precision[], sum_ff double precision[],
  sum_yy double precision[], others bigint[], others_sum_f double precision[], others_sum_ff double precision[],
  confidence double precision default 0.95, minimum_labels integer default 10,
  out rate double precision, out low double precision, out high double precision, out standard_error double precision, out strata integer)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  found record;
begin
  with merged as (
    select sum(given.labelled)::bigint as labelled, sum(y) as y, sum(f) as f, sum(yf) as yf, sum(ff) as ff, sum(yy) as yy,
           sum(rest)::bigint as rest, sum(rest_f) as rest_f, sum(rest_ff) as rest_ff
      from unnest(n, sum_y, sum_f, sum_yf, sum_ff, sum_yy, others, others_sum_f, others_sum_ff)
           with ordinality as given (labelled, y, f, yf, ff, yy, rest, rest_f, rest_ff, place)
     group by case when given.labelled >= minimum_labels then place else 0 end
    having sum(given.labelled) + sum(rest) > 0
  ), stratum as (
    select labelled, (labelled + rest) / sum(labelled + rest) over ()::double precision as weight,
           coalesce(ppi.rate, y / nullif(labelled, 0), 0.5) as p, coalesce(ppi.lambda, 0) as lambda,
           case when labelled < 2 then 0
                else coalesce(ppi.standard_error, sqrt(greatest(0, yy / labelled - (y / labelled) ^ 2) / (labelled - 1))) end as error,
           2.0::double precision / nullif(count(*) filter (where labelled > 1) over (), 0) as more
      from merged
      left join lateral flywheel._ppi(case when labelled > 1 and rest > 1 then labelled end, y, f, yf, ff, yy, rest, rest_f, rest_ff, 1, 'infinity') as ppi on true
  ), moved as (
    select *, case when labelled > 1 then (labelled * p + more) / (labelled + 2 * more) else 0.5 end as moved,
           case when labelled > 1 then ((weight * labelled * error) ^ 2 + weight ^ 2 * more * (1 + lambda ^ 2)) / (labelled + 2 * more) ^ 2 else 0 end as spread
      from stratum
  )
  select sum(weight * p) as mean, sqrt(sum((weight * error) ^ 2)) as error, sum(labelled)::bigint as labelled, count(*) as strata,
         coalesce(sum(weight) filter (where labelled < 2), 0) / 2 as unknown,
         sum(weight * moved) as moved, sum(spread) as variance, sum(spread ^ 2 / greatest(1, labelled - 1)) as uncertain
    into found
    from moved;
  rate := case when found.labelled > 0 then least(1, greatest(0, found.mean)) end;
  standard_error := case when found.labelled > 1 then found.error end;
  strata := found.strata;
  select * into low, high
    from flywheel._students_interval(rate, found.moved, found.variance, found.variance ^ 2 / nullif(found.uncertain, 0), found.unknown, confidence);
end
$function$;
comment on function flywheel.stratified_ppi_rate is
  'PPI++ in each stratum, weighed by its rows: arguments as in ppi_rate, one element for each stratum. Strata with fewer than minimum_labels are merged into one; a stratum with fewer than 2 adds half its weight to both sides. No labels: null, [0, 1].';

-- active_rate: the two passes and fails more weigh as much as the labels do on average, and are errors of the judge.
create or replace function flywheel.active_rate(
  rows bigint, labels bigint, sum_a double precision, sum_b double precision, sum_aa double precision, sum_ab double precision,
  sum_bb double precision, confidence double precision default 0.95,
  out rate double precision, out low double precision, out high double precision, out standard_error double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  var_a double precision := (sum_aa - sum_a ^ 2 / nullif(rows, 0)) / nullif(rows - 1, 0);
  var_b double precision := (sum_bb - sum_b ^ 2 / nullif(rows, 0)) / nullif(rows - 1, 0);
  cov double precision := (sum_ab - sum_a * sum_b / nullif(rows, 0)) / nullif(rows - 1, 0);
  lambda double precision := case when var_a > 1e-12 then cov / var_a else 0 end;
begin
  perform flywheel._require(labels between 0 and rows, format('%s of %s rows cannot be labelled', labels, rows),
    'rows counts all rows that could be drawn, labels those that were drawn and labelled.');
  if labels > 0 and rows > 1 then
    rate := least(1, greatest(0, (sum_b - lambda * sum_a) / rows));
    standard_error := sqrt(greatest(0, var_b - 2 * lambda * cov + lambda ^ 2 * var_a) / rows);
  end if;
  select * into low, high
    from flywheel._students_interval(rate, (labels * rate + 2) / (labels + 4),
      ((labels * standard_error) ^ 2 + 2 * (1 + lambda ^ 2)) / (labels + 4) ^ 2, labels - 1, 0, confidence);
end
$function$;
comment on function flywheel.active_rate is
  'Rate from labels that were drawn with known probabilities p, over all rows: a = f (x / p - 1) and b = y x / p with judge value f, label y and x = 1 where the row was drawn, else 0. Its interval is too short where fails hide among rows that are seldom drawn and heavy. No labels: null, [0, 1].';

-- labels_for_half_width: of several strata, with labels given to each by Neyman's rule.
create or replace function flywheel.labels_for_half_width(
  half_width double precision, rates double precision[] default array[0.5], shares double precision[] default array[1.0],
  confidence double precision default 0.95)
returns bigint
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require(half_width > 0 and cardinality(rates) = cardinality(shares)
      and (select bool_and(rate between 0 and 1 and share >= 0) and sum(share) > 0 from unnest(rates, shares) as given (rate, share)),
    format('no number of labels gives ±%s for rates %s with shares %s', half_width, rates, shares),
    'A half width is above 0; rates lie between 0 and 1, each with its share of the rows.');
  return (select ceil((flywheel._normal_quantile(0.5 + confidence / 2) * sum(share * sqrt(rate * (1 - rate))) / sum(share) / half_width) ^ 2 - 1e-9)
            from unnest(rates, shares) as given (rate, share));
end
$function$;
comment on function flywheel.labels_for_half_width is
  'How many labels an interval of ± half_width takes: for one rate, or for several strata with their rates and shares, labelled by Neyman''s rule. A rate of 0 or 1 asks for none: give what is feared, not what was seen.';

-- _width_with: labels that are drawn at random fall on the verdicts by their shares, and pass as those before did.
create or replace function flywheel._width_with(
  more bigint, pp bigint, pf bigint, fp bigint, ff bigint, judged_pass bigint, judged bigint, confidence double precision)
returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select then_.high - then_.low
    from (select round(more * judged_pass::numeric / nullif(judged, 0))::bigint) as added (of_pass),
         lateral (select round(of_pass * coalesce(pp::numeric / nullif(pp + pf, 0), 0.5))::bigint,
                         round((more - of_pass) * coalesce(fp::numeric / nullif(fp + ff, 0), 0.5))::bigint) as passing (of_pass, of_fail),
         lateral flywheel.corrected_rate(pp + passing.of_pass, pf + added.of_pass - passing.of_pass, fp + passing.of_fail,
                                         ff + more - added.of_pass - passing.of_fail, judged_pass, judged, confidence) as then_;
end;
comment on function flywheel._width_with is 'Internal: how wide the interval of a corrected rate would be with so many labels more.';

create or replace function flywheel.labels_to_halve(
  pp bigint, pf bigint, fp bigint, ff bigint, judged_pass bigint, judged bigint, confidence double precision default 0.95)
returns bigint
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  goal double precision := flywheel._width_with(0, pp, pf, fp, ff, judged_pass, judged, confidence) / 2;
  short bigint := 0;
  enough bigint := judged - (pp + pf + fp + ff);
begin
  if coalesce(flywheel._width_with(enough, pp, pf, fp, ff, judged_pass, judged, confidence) > goal, true) then
    return null;
  end if;
  while enough - short > 1 loop
    if flywheel._width_with((short + enough) / 2, pp, pf, fp, ff, judged_pass, judged, confidence) <= goal then
      enough := (short + enough) / 2;
    else
      short := (short + enough) / 2;
    end if;
  end loop;
  return enough;
end
$function$;
comment on function flywheel.labels_to_halve is
  'How many more labels, drawn at random, would halve the interval of corrected_rate (same arguments) if they turn out as those before; null where labelling every judged row would not.';

-- corrected_difference: b - a from estimates with limits; each side takes the limit that is nearer to the other (Newcombe's square-and-add).
create or replace function flywheel.corrected_difference(
  rate_a double precision, low_a double precision, high_a double precision,
  rate_b double precision, low_b double precision, high_b double precision,
  out difference double precision, out low double precision, out high double precision)
language sql immutable parallel safe security invoker
begin atomic
  select rate_b - rate_a,
         coalesce(greatest(-1, rate_b - rate_a - sqrt((rate_b - low_b) ^ 2 + (high_a - rate_a) ^ 2)), -1),
         coalesce(least(1, rate_b - rate_a + sqrt((high_b - rate_b) ^ 2 + (rate_a - low_a) ^ 2)), 1);
end;
comment on function flywheel.corrected_difference is
  'How much higher b is than a, from two independent estimates with their limits, as corrected_rate gives them; null, [-1, 1] where one is unknown.';

create or replace function flywheel.rate_difference(
  passes_a bigint, total_a bigint, passes_b bigint, total_b bigint, confidence double precision default 0.95,
  out difference double precision, out low double precision, out high double precision)
language sql immutable strict parallel safe security invoker
begin atomic
  select apart.difference, apart.low, apart.high
    from flywheel.wilson_interval(passes_a, total_a, confidence) as a,
         flywheel.wilson_interval(passes_b, total_b, confidence) as b,
         flywheel.corrected_difference(passes_a::double precision / nullif(total_a, 0), a.low, a.high,
                                       passes_b::double precision / nullif(total_b, 0), b.low, b.high) as apart;
end;
comment on function flywheel.rate_difference is
  'How much higher the rate of b is than that of a (two different sets of rows), with Newcombe''s interval; null, [-1, 1] where one has no rows.';

-- Pure, so for everyone who reads numbers; what views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  '_score_interval', '_effective_interval', '_ppi', 'ppi_rate', 'rogan_gladen', 'stratified_rate', 'stratified_ppi_rate',
  '_students_interval', 'active_rate', 'labels_for_half_width', '_width_with', 'labels_to_halve', 'corrected_difference', 'rate_difference'
]) as name;
