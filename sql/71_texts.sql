-- Texts: how much of a draft was changed, and whether a question was asked again. Contrib modules are not needed.

-- _levenshtein: Myers' bit vectors, 62 rows of the matrix in one number (the sign and a carry take the other two bits).
-- Bit i of rises (falls) says that the distance of row i is one above (below) that of row i - 1.
create or replace function flywheel._levenshtein(a integer[], b integer[]) returns integer
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  full_ constant bigint := 4611686018427387903;
  blocks integer := (cardinality(a) + 61) / 62;
  last bigint := 1::bigint << ((cardinality(a) + 61) % 62);
  distance integer := cardinality(a);
  equal bigint[] := array_fill(0::bigint, array[(select max(symbol) from unnest(a || b) as symbol) * blocks + blocks]);
  rises bigint[] := array_fill(full_, array[blocks]);
  falls bigint[] := array_fill(0::bigint, array[blocks]);
  same bigint;
  up bigint;
  right_up bigint;
  right_down bigint;
  carry_up bigint;
  carry_down bigint;
  symbol integer;
begin
  for place in 1 .. cardinality(a) loop
    symbol := a[place] * blocks + (place - 1) / 62 + 1;
    equal[symbol] := equal[symbol] | (1::bigint << (place - 1) % 62);
  end loop;
  foreach symbol in array b loop
    carry_up := 1;
    carry_down := 0;
    for block in 1 .. blocks loop
      up := rises[block];
      same := equal[symbol * blocks + block] | falls[block];
      right_down := equal[symbol * blocks + block] | carry_down;
      right_down := (((right_down & up) + up & full_) # up) | right_down;
      right_up := falls[block] | ~(right_down | up) & full_;
      right_down := right_down & up;
      if block = blocks then
        distance := distance + case when right_up & last <> 0 then 1 when right_down & last <> 0 then -1 else 0 end;
      end if;
      up := (right_up << 1) & full_ | carry_up;
      carry_up := right_up >> 61;
      rises[block] := (right_down << 1) & full_ | carry_down | ~(same | up) & full_;
      carry_down := right_down >> 61;
      falls[block] := up & same;
    end loop;
  end loop;
  return distance;
end
$function$;
comment on function flywheel._levenshtein is
  'Internal: edit distance of two sequences of symbols numbered from 0 on; the first is not empty. Takes 1 µs for 60 cells of the matrix.';

-- _symbols: the same number for the same piece in both texts.
create or replace function flywheel._symbols(a text[], b text[], out first integer[], out second integer[])
language sql immutable strict parallel safe security invoker
begin atomic
  select array_agg(number - 1 order by place) filter (where of_a), array_agg(number - 1 order by place) filter (where not of_a)
    from (select of_a, place, dense_rank() over (order by piece collate "C")::integer
            from (select true, piece, place from unnest(a) with ordinality as one (piece, place)
                  union all
                  select false, piece, place from unnest(b) with ordinality as one (piece, place)) as both_texts (of_a, piece, place)
         ) as numbered (of_a, place, number);
end;
comment on function flywheel._symbols is 'Internal: the pieces of two texts as numbers from 0 on.';

-- _shared_start: by halving, since comparing is fast and looping is not.
create or replace function flywheel._shared_start(a text, b text) returns integer
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  same integer := 0;
  other integer := least(char_length(a), char_length(b)) + 1;
begin
  while other - same > 1 loop
    if left(a, (same + other) / 2) = left(b, (same + other) / 2) collate "C" then
      same := (same + other) / 2;
    else
      other := (same + other) / 2;
    end if;
  end loop;
  return same;
end
$function$;
comment on function flywheel._shared_start is 'Internal: how many characters two texts begin with in common.';

-- _piece_distance: edit distance of two lists of pieces; where the matrix is too large, how many pieces the one has and the
-- other has not, whatever their order, which is never more than the edit distance.
create or replace function flywheel._piece_distance(a text[], b text[]) returns integer
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  coded record;
begin
  if cardinality(a) = 0 or cardinality(b) = 0 then
    return greatest(cardinality(a), cardinality(b));
  elsif cardinality(a)::bigint * cardinality(b) > 4000000 then
    return (select greatest(sum(greatest(n, 0)), sum(greatest(-n, 0)))
              from (select sum(side) from (select piece, 1 from unnest(a) as piece union all select piece, -1 from unnest(b) as piece) as one (piece, side)
                     group by piece) as surplus (n));
  end if;
  coded := flywheel._symbols(a, b);
  return case when cardinality(a) <= cardinality(b) then flywheel._levenshtein(coded.first, coded.second)
              else flywheel._levenshtein(coded.second, coded.first) end;
end
$function$;
comment on function flywheel._piece_distance is 'Internal: edit distance of two lists of pieces.';

create or replace function flywheel.edit_ratio(draft text, final text) returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  longest integer := greatest(char_length(draft), char_length(final));
  shared integer := flywheel._shared_start(draft, final);
  a text := substr(draft, shared + 1);
  b text := substr(final, shared + 1);
  blanks constant text := E' \t\r\n';
begin
  shared := flywheel._shared_start(reverse(a), reverse(b));
  a := left(a, char_length(a) - shared);
  b := left(b, char_length(b) - shared);
  if a = '' or b = '' then
    return coalesce(greatest(char_length(a), char_length(b)) / nullif(longest, 0)::double precision, 0);
  elsif char_length(a)::bigint * char_length(b) <= 4000000 then
    return flywheel._piece_distance(string_to_array(a, null), string_to_array(b, null)) / longest::double precision;
  end if;
  return least(1, flywheel._piece_distance(regexp_split_to_array(btrim(a, blanks), '\s+'), regexp_split_to_array(btrim(b, blanks), '\s+'))
                  / (1.0::double precision + greatest(regexp_count(btrim(draft, blanks), '\s+'), regexp_count(btrim(final, blanks), '\s+'))));
end
$function$;
comment on function flywheel.edit_ratio is
  'How much of a draft was changed: edit distance over the length of the longer text, 0 the same, 1 all. Characters where what differs spans up to 2,000 by 2,000 of them, words beyond; of more than 2,000 by 2,000 words their order is not looked at. Takes at most 0.2 s for texts of 100 kB.';

create or replace function flywheel.edit_class(ratio double precision) returns text
language sql immutable strict parallel safe security invoker
begin atomic
  select case when ratio <= 0 then 'accepted' when ratio <= 0.1 then 'minor' when ratio <= 0.4 then 'edited' else 'rewritten' end;
end;
comment on function flywheel.edit_class is
  'What an edit_ratio means: accepted (0), minor (up to 0.1), edited (up to 0.4) or rewritten.';

-- _material: what changes the meaning though it is short. All words of negation count as one.
create or replace function flywheel._material(content text) returns text[]
language sql immutable strict parallel safe security invoker
begin atomic
  select coalesce(array_agg(piece order by piece collate "C"), '{}')
    from (select case when found[2] is not null then 'not' else found[1] end
            from regexp_matches(
              regexp_replace(lower(content), '(\d)[,’''](?=\d{3}(?!\d))', '\1', 'g'),
              '(\d(?:[\d.,:/-]*\d)?|\m(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec|mon|tues?|wed|wednes|thu|thurs|fri|sat|satur|sun'
              '|january|february|march|april|august|september|october|november|december)(?:day)?\M|today|tomorrow|yesterday)'
              '|(\m(?:no|not|never|none|nothing|nobody|neither|nor|without|cannot|\w+n[’'']t)\M)', 'g') as found
         ) as all_ (piece);
end;
comment on function flywheel._material is 'Internal: the numbers, dates and negations of an English text, sorted.';

create or replace function flywheel.material_change(draft text, final text) returns boolean
language sql immutable strict parallel safe security invoker
begin atomic
  select flywheel._material(draft) <> flywheel._material(final);
end;
comment on function flywheel.material_change is
  'Whether an edit changed a number, a date or a negation (English words), however small it is; 1,240 and 1240 are the same number.';

create or replace function flywheel._rephrase_chance(
  cosine double precision, gap_seconds double precision, alike double precision, denies boolean, follows boolean)
returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select 1 / (1 + exp(4 - 5 * least(1, greatest(0, (cosine - 0.6) / 0.35)) - 1.5 * exp(-gap_seconds / 60) - alike
                      - case when denies then 1.5 else 0 end + case when follows then 2 else 0 end));
end;
comment on function flywheel._rephrase_chance is 'Internal: how likely a question is one asked again, by the weights we begin with.';

create or replace function flywheel._rephrase_kind(previous text, next text, cosine double precision, alike double precision) returns text
language sql immutable parallel safe security invoker
begin atomic
  select case when coalesce(cosine, 0.6 + 0.35 * alike) >= 0.995 or lower(btrim(previous)) = lower(btrim(next)) then 'retry'
              when coalesce(cosine, 0.6 + 0.35 * alike) >= 0.75 then 'rephrase' end;
end;
comment on function flywheel._rephrase_kind is
  'Internal: whether one question is another (retry), in other words (rephrase), or not (null); alike stands in for a cosine.';

create or replace function flywheel._score_rephrase(
  previous text, next text, cosine double precision, gap_seconds double precision, alike double precision) returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select flywheel._rephrase_chance(coalesce(cosine, 0.6 + 0.35 * alike), gap_seconds, alike,
    lower(next) ~ '^\W*(no|nope|wrong|again|actually|instead|i (meant|mean|said|asked)|not (what|that|this)|(that|this)([’'']s| is) (not|wrong)|you misunderstood)\M',
    lower(next) ~ '^\W*(and|also|then|so|ok|okay|thanks|thank you|great|perfect|what about|how about)\M'
      or char_length(next) > 2 * char_length(previous) + 40);
end;
comment on function flywheel._score_rephrase is 'Internal: how likely a question that asks another again was asked because the answer failed.';

-- rephrase_score: weights are starting values of ours, to be fitted on labelled pairs.
create or replace function flywheel.rephrase_score(
  previous text, next text, cosine double precision, gap_seconds double precision, out kind text, out score double precision)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  alike double precision := flywheel.trigram_similarity(previous, next);
begin
  if gap_seconds < 0 or gap_seconds > 180 or gap_seconds is null then
    return;
  end if;
  kind := flywheel._rephrase_kind(previous, next, cosine, alike);
  if kind is not null then
    score := flywheel._score_rephrase(previous, next, cosine, gap_seconds, alike);
  end if;
end
$function$;
comment on function flywheel.rephrase_score is
  'Whether the next question of a session asks the previous one again: kind is retry (the same text) or rephrase, null for neither, score how likely. cosine is that of their embeddings; without one, shared trigrams stand in. A weak sign that the answer failed, never a label.';

-- Pure, so for everyone who reads numbers; what views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  '_levenshtein', '_symbols', '_shared_start', '_piece_distance', 'edit_ratio', 'edit_class', '_material', 'material_change',
  '_trigrams', 'trigram_similarity', '_rephrase_chance', '_rephrase_kind', '_score_rephrase', 'rephrase_score'
]) as name;
