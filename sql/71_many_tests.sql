-- Many tests: which of them found something, when each alone may be right by chance.

create or replace function flywheel.ebh(e_values double precision[], alpha double precision default 0.05) returns boolean[]
language sql immutable strict parallel safe security invoker
begin atomic
  with given as (
    select e, place, row_number() over (order by e desc nulls last) as k, count(e) over () as m
      from unnest(e_values) with ordinality as one (e, place)
  )
  select coalesce(array_agg(coalesce(e >= (select min(e) from given where e >= m / (k * alpha)), false) order by place), '{}') from given;
end;
comment on function flywheel.ebh is
  'Which of many e-values are discoveries at this false discovery rate, however they depend on each other (e-BH); null is none.';

create or replace function flywheel.bh_adjusted(p_values double precision[]) returns double precision[]
language sql immutable strict parallel safe security invoker
begin atomic
  select coalesce(array_agg(case when p is not null then adjusted end order by place), '{}')
    from (select p, place, least(1, min(p * m / k) over (order by p desc nulls first, k desc
                                                         rows between unbounded preceding and current row)) as adjusted
            from (select p, place, rank() over (order by p nulls last) + count(*) over (partition by p) - 1 as k, count(p) over () as m
                    from unnest(p_values) with ordinality as one (p, place)) as ranked) as stepped;
end;
comment on function flywheel.bh_adjusted is
  'P values of many tests, adjusted to the false discovery rate (Benjamini and Hochberg), for a report with a fixed date; null stays null and does not count.';

select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role,
       unnest(array['ebh', 'bh_adjusted']) as name;
