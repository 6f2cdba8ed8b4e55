-- Neighbours: a verdict without a model, the weighted vote of the nearest examples.

-- _neighbours_policy: a vote wants more examples than a prompt and counts no tokens. Who is near decides who votes: age and
-- disagreement as weights made votes worse on all labelled sets they were tried on, and what is trusted weighs in the vote itself.
create or replace function flywheel._neighbours_policy(given jsonb) returns jsonb
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._shot_policy('{"count": 12, "minimum": 8, "token_budget": 100000000}'::jsonb || coalesce(given, '{}')
    || case when coalesce(given ->> 'strategy', 'similar') in ('recent', 'similar_recent', 'random') then '{}'::jsonb
            else jsonb_build_object('weights', '{"similarity": 1, "recency": 0, "disagreement": 0, "trust": 0}'::jsonb || coalesce(given -> 'weights', '{}')) end)
$function$;
comment on function flywheel._neighbours_policy is 'Internal: the policy by which neighbours vote, with everything it leaves open filled in.';

-- _vote_neighbours: a neighbour weighs exp(10 * similarity), times its trust, and over the share its verdict has in the pool: where
-- fails are rare, every pass would win otherwise. value is the share of pass, confidence that of the verdict.
create or replace function flywheel._vote_neighbours(version_id uuid, span_ids uuid[], started_ats timestamptz[], embeddings real[], dimensions integer)
returns table (place integer, passed boolean, value double precision, confidence double precision, critique text, shots uuid[], reason text, detail text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  version flywheel.validator_versions;
  policy jsonb;
  pool record;
begin
  select * into version from flywheel.validator_versions as versions where versions.version_id = _vote_neighbours.version_id;
  policy := flywheel._neighbours_policy(version.definition -> 'shots');
  select count(*) filter (where coalesce(e.passed, false)) as passes, count(*) filter (where not coalesce(e.passed, false)) as fails, count(*) as examples into pool
    from flywheel.examples as e where e.validator_id = flywheel._question_of(version) and e.status = 'servable';
  if pool.examples < (policy ->> 'minimum')::integer or pool.passes = 0 or pool.fails = 0 then
    return query
      select each::integer, null::boolean, null::double precision, null::double precision, null, null::uuid[], 'no_examples',
             format('%s servable examples pass, %s fail; %s are needed, of both', pool.passes, pool.fails, policy ->> 'minimum')
        from generate_series(1, cardinality(_vote_neighbours.span_ids)) as each;
    return;
  end if;
  return query
    with ballot as (
      select shot.place, shot.example_id, shot.rank, coalesce(e.passed, false) as passed, e.critique,
             exp(10 * coalesce(shot.similarity, 0)) * greatest(e.trust, 0.01) * pool.examples / case when coalesce(e.passed, false) then pool.passes else pool.fails end as weight
        from flywheel._chosen_for(flywheel._question_of(version), policy, _vote_neighbours.span_ids, _vote_neighbours.started_ats,
               _vote_neighbours.embeddings, _vote_neighbours.dimensions, (policy ->> 'count')::integer) as shot
        join flywheel.examples as e on e.example_id = shot.example_id
    ), counted as (
      select ballot.place, sum(ballot.weight) filter (where ballot.passed) as pass_weight, sum(ballot.weight) as weight,
             (array_agg(ballot.critique order by ballot.weight desc) filter (where ballot.passed))[1] as critique_of_pass,
             (array_agg(ballot.critique order by ballot.weight desc) filter (where not ballot.passed))[1] as critique_of_fail,
             array_agg(ballot.example_id order by ballot.rank desc) as shots
        from ballot group by ballot.place
    ), voted as (
      select counted.*, coalesce(counted.pass_weight, 0) / counted.weight as share from counted
    )
    select wanted.place, voted.share >= 0.5, voted.share, greatest(voted.share, 1 - voted.share),
           nullif(case when voted.share >= 0.5 then voted.critique_of_pass else voted.critique_of_fail end, ''), voted.shots,
           case when voted.place is null then 'no_examples' end, case when voted.place is null then 'no servable example is of another conversation' end
      from generate_series(1, cardinality(_vote_neighbours.span_ids)) as wanted(place) left join voted using (place);
end
$function$;
comment on function flywheel._vote_neighbours is 'Internal: the vote of the nearest examples on each of several spans; critique is that of the weightiest neighbour on the winning side.';

-- _write_votes: new scores that are not sure enough are handed to the next tier in the same statement.
create or replace function flywheel._write_votes(version_id uuid, keys flywheel._span_key[], embeddings real[], dimensions integer, out scores integer, out shots uuid[])
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with spans as materialized (
    select array_agg(each.span_id order by each.place) as span_ids, array_agg(each.started_at order by each.place) as started_ats
      from unnest(keys) with ordinality as each(span_id, revision, started_at, trace_id, project, place)
  ), written as (
    insert into flywheel.scores
           (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique, unscored_reason, unscored_detail, annotator_kind, confidence, shots)
    select key.span_id, key.revision, _write_votes.version_id, key.started_at, key.trace_id, key.project, vote.passed, vote.value, vote.critique,
           vote.reason, vote.detail, 'neighbours', vote.confidence, vote.shots
      from spans
     cross join lateral flywheel._vote_neighbours(_write_votes.version_id, spans.span_ids, spans.started_ats, _write_votes.embeddings, _write_votes.dimensions) as vote
      join unnest(keys) with ordinality as key(span_id, revision, started_at, trace_id, project, place) on key.place = vote.place
        on conflict do nothing
    returning scores.span_id, scores.revision, scores.started_at, scores.confidence, scores.shots
  )
  select counted.scores::integer, array(select distinct each.id from written cross join unnest(written.shots) as each(id))
    from (select count(*) as scores, flywheel._hand_on(_write_votes.version_id, array_agg(span_id), array_agg(revision), array_agg(started_at),
                   array_agg(confidence)) as handed from written) as counted
$function$;
comment on function flywheel._write_votes is 'Internal: write the votes of one version on many spans; how many were new, and the examples that voted.';

-- _write_neighbours: nobody revokes an example that voted between the look at it and the commit: who comes to do so finds the scores. With
-- one that was revoked before, nothing is written, and the others vote anew.
create or replace function flywheel._write_neighbours(version_id uuid, keys flywheel._span_key[], embeddings real[], dimensions integer) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  written record;
  misled boolean;
begin
  loop
    misled := false;
    begin
      select * into written
        from flywheel._write_votes(_write_neighbours.version_id, _write_neighbours.keys, _write_neighbours.embeddings, _write_neighbours.dimensions);
      perform from flywheel.examples where examples.example_id = any (written.shots) order by examples.example_id for key share;
      misled := exists (select from flywheel.examples where examples.example_id = any (written.shots) and examples.status = 'revoked');
      if not misled then
        return written.scores;
      end if;
      raise exception using errcode = 'WF012', message = 'an example that voted is revoked';  -- takes back what was written
    exception when sqlstate 'WF012' then
      if not misled then
        raise;
      end if;
    end;
  end loop;
end
$function$;
comment on function flywheel._write_neighbours is 'Internal: write the votes of one version on many spans; returns how many were new.';

select flywheel._grant('flywheel_worker', 'execute on function flywheel._write_neighbours(uuid, flywheel._span_key[], real[], integer)');
