-- What a reviewer reads: nothing that tells what a judge says of a span that is not labelled yet, by itself or as the only one
-- of its minute, node or release. Earlier releases granted some of it.

do $block$
declare
  apart text;
begin
  if to_regrole('flywheel_reviewer') is null then
    return;
  end if;
  foreach apart in array array['lowest_scores_today', 'quality_by_minute', 'quality_by_hour', 'quality_by_day', 'quality_by_validator', 'quality_by_node',
    'quality_by_release', 'score_distributions', 'corrected_pass_rates', 'corrected_by_week', 'release_comparisons', 'alignment_by_week']
  loop
    execute format('revoke select on flywheel.%I from flywheel_reviewer', apart);
  end loop;
  revoke select on flywheel.examples from flywheel_reviewer;
  for apart in
    select oid::regprocedure from pg_catalog.pg_proc
     where pronamespace = 'flywheel'::regnamespace and proname in ('quality', 'corrected_pass_rate', 'compare_releases', '_unfolded_scores', '_unfolded_spans', '_unfolded_cells')
  loop
    execute format('revoke execute on function %s from flywheel_reviewer', apart);
  end loop;
end
$block$;

-- What an example says and whether a judge disagreed make the verdict.
select flywheel._grant('flywheel_reviewer', format('select (%s) on flywheel.examples', string_agg(quote_ident(attname), ', ' order by attnum)))
  from pg_catalog.pg_attribute
 where attrelid = 'flywheel.examples'::regclass and attnum > 0 and not attisdropped and attname <> 'disagreed';
