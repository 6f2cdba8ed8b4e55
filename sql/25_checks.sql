-- Pure functions on text, for the expressions of SQL validators.
--
-- Each takes any text of any length in linear time, never raises, and gives null for null. Regular expressions
-- match under collation "C", where only A-Z and a-z fold, so that a verdict does not depend on a database's locale.
-- A function that is one expression has a `begin atomic` body and no `set`, so the planner inlines it. Those with a
-- subquery are run only where a cheap expression has found a candidate. Their Python twins are in pgflywheel.checks.

-- is_blank: an answer that holds nothing to read.
create or replace function flywheel.is_blank(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select is_blank.text collate "C" !~ '[^ \t\n\r\f\v]';
end;
comment on function flywheel.is_blank is 'Whether a text is empty or only white space.';

create or replace function flywheel.word_count(text text) returns integer
language sql immutable parallel safe security invoker
begin atomic
  select regexp_count(word_count.text collate "C", '[^ \t\n\r\f\v]+');
end;
comment on function flywheel.word_count is 'How many runs of characters that are not ASCII white space a text has.';

-- _word_pattern: a regular expression in which the words stand only for themselves. Not inlined, on purpose: with
-- constant words the planner calls it once, not once a row. The separators are U+001F, and ASCII punctuation,
-- symbols, arrows, dashes, CJK punctuation and emoji around a word; a letter of any alphabet is none.
create or replace function flywheel._word_pattern(words text[]) returns text
language sql immutable parallel safe security invoker
begin atomic
  select case when joined.words = '' then null
              else '(?:^|' || separator.class || ')(?:'
                   || replace(regexp_replace(joined.words, '([!-/:-@[-`{-~])', '\\\1', 'g'), chr(31), '|')
                   || ')(?:$|' || separator.class || ')' end
    from (select btrim(regexp_replace(array_to_string(_word_pattern.words, chr(31)), '\x1f+', chr(31), 'g'), chr(31))
         ) as joined (words),
         (values ('[\u0001-/:-@[-^`{-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7'
                  || '\u2000-\u206f\u20a0-\u20cf\u2190-\u2bff\u3000-\u3003\u3008-\u301f\U0001f000-\U0001faff]')
         ) as separator (class);
end;
comment on function flywheel._word_pattern is
  'Internal: a regular expression that finds any of the words as a whole word; null where there is no word.';

create or replace function flywheel.contains_any_word(text text, words text[]) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select case when contains_any_word.text is null or contains_any_word.words is null then null
              else coalesce(contains_any_word.text collate "C" ~* flywheel._word_pattern(contains_any_word.words),
                            false)
         end;
end;
comment on function flywheel.contains_any_word is
  'Whether a text holds any of the words or phrases, whole; A-Z equal a-z. Words are plain text, not patterns.';

-- passes_luhn: from the right, each second digit is doubled and its digits summed; the sum is a multiple of ten.
-- A loop: for the twenty steps it takes, starting a query costs ten times as much.
create or replace function flywheel.passes_luhn(text text) returns boolean
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  digits text := reverse(translate(left(passes_luhn.text, 64), ' -', ''));
  digit integer;
  total integer := 0;
begin
  if passes_luhn.text collate "C" !~ '^[0-9](?:[ -]?[0-9]){1,31}$' then
    return false;
  end if;
  for place in 1 .. length(digits) loop
    digit := ascii(substr(digits, place, 1)) - 48;
    total := total + case when place % 2 = 1 then digit when digit < 5 then 2 * digit else 2 * digit - 9 end;
  end loop;
  return total % 10 = 0;
end
$function$;
comment on function flywheel.passes_luhn is
  'Whether a text is 2 to 32 digits, with single spaces or hyphens between, whose last is the Luhn check digit.';

-- _has_card: 16 digits in fours or together, 19 together, and the 4-6-5 and 4-6-4 of Amex and Diners Club, each with an
-- issuer's first digit. A number that goes on in a word or a decimal is none. A match begins with the character before
-- the number, and is cut at its first digit: capturing the number would make each match five times as slow.
create or replace function flywheel._has_card(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select case when _has_card.text is null then null else exists (
    select from regexp_matches(_has_card.text collate "C",
      '(?:^|[^0-9A-Za-z.])(?:(?:4[0-9]{3}|5[0-9]{3}|6[0-9]{3}|2[2-7][0-9]{2}|35[0-9]{2})(?:[ -]?[0-9]{4}){3}'
      '|[456][0-9]{18}|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}|3[0689][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{4})'
      '(?![0-9A-Za-z])', 'g') as found (candidate)
     where flywheel.passes_luhn(ltrim(found.candidate[1], translate(left(found.candidate[1], 1), '23456', '')))) end;
end;
comment on function flywheel._has_card is 'Internal: contains_card, for a text that holds enough digits for one.';

create or replace function flywheel.contains_card(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select contains_card.text collate "C" ~ '[2-6][0-9]{3}[ -]?[0-9]{4}[0-9 -]{5}'
         and flywheel._has_card(contains_card.text);
end;
comment on function flywheel.contains_card is
  'Whether a text holds a payment card number: an issuer''s format and a right Luhn digit.';

create or replace function flywheel.contains_ssn(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select contains_ssn.text collate "C" ~ ('(?:^|[^0-9A-Za-z-])'
    '(?:00[1-9]|0[1-9][0-9]|[1-578][0-9]{2}|6[0-57-9][0-9]|66[0-57-9])'
    '(?:-(?:0[1-9]|[1-9][0-9])-| (?:0[1-9]|[1-9][0-9]) )'
    '(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})(?:$|[^0-9A-Za-z-])');
end;
comment on function flywheel.contains_ssn is
  'Whether a text holds a US social security number: 3-2-4 digits apart, of an area, group and serial that are issued.';

create or replace function flywheel.contains_email(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select contains_email.text collate "C"
         ~ '[A-Za-z0-9_%+-]@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(?:$|[^A-Za-z0-9_-])';
end;
comment on function flywheel.contains_email is
  'Whether a text holds an e-mail address at a domain of two or more labels.';

-- _iban_length: by the SWIFT registry of ISO 13616; the digits keep two neighbours from making a third country.
create or replace function flywheel._iban_length(country text) returns integer
language sql immutable parallel safe security invoker
begin atomic
  select left(nullif(split_part(
         'NO15BE16DK18FI18FK18FO18GL18NL18SD18MK19SI19AT20BA20EE20KZ20LT20LU20MN20XK20CH21HR21LI21LV21BG22BH22'
         'CR22DE22GB22GE22IE22ME22RS22VA22AE23GI23IL23IQ23OM23SO23TL23AD24CZ24ES24MD24PK24RO24SA24SE24SK24TN24'
         'VG24LY25PT25ST25IS26TR26BI27DJ27FR27GR27IT27MC27MR27SM27AL28AZ28BY28CY28DO28GT28HN28HU28LB28NI28PL28'
         'SV28BR29EG29PS29QA29UA29JO30KW30MU30YE30MT31SC31LC32RU33'
         , _iban_length.country, 2), ''), 2)::integer;
end;
comment on function flywheel._iban_length is
  'Internal: how many characters an IBAN of a country has; null = it has none.';

-- _iban_checks: the groups that make up the country's length, without what follows them. The first four characters go
-- to the end, letters count 10 to 35, and the number leaves 1 modulo 97.
create or replace function flywheel._iban_checks(iban text) returns boolean
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  wanted integer := flywheel._iban_length(left(_iban_checks.iban, 2));
  joined text := '';
  piece text;
  code integer;
  remainder integer := 0;
begin
  foreach piece in array string_to_array(_iban_checks.iban, ' ') loop
    joined := joined || piece;
    exit when length(joined) >= wanted;
  end loop;
  if length(joined) is distinct from wanted then
    return false;
  end if;
  joined := substr(joined, 5) || left(joined, 4);
  for place in 1 .. wanted loop
    code := ascii(substr(joined, place, 1));
    remainder := case when code < 65 then remainder * 10 + code - 48 else remainder * 100 + code - 55 end % 97;
  end loop;
  return remainder = 1;
end
$function$;
comment on function flywheel._iban_checks is
  'Internal: whether groups of capitals and digits begin with an IBAN of its country''s length and right check digits.';

-- _has_iban: as in _has_card, a match begins with the character before, which ltrim takes off.
create or replace function flywheel._has_iban(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select case when _has_iban.text is null then null else exists (
    select from regexp_matches(_has_iban.text collate "C",
      '(?:^|[^0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![0-9A-Za-z])', 'g')
           as found (candidate)
     where flywheel._iban_checks(regexp_replace(found.candidate[1], '^[^A-Z]', ''))) end;
end;
comment on function flywheel._has_iban is
  'Internal: contains_iban, for a text that holds what looks like the start of one.';

create or replace function flywheel.contains_iban(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select contains_iban.text collate "C" ~ '(?:^|[^0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11}'
         and flywheel._has_iban(contains_iban.text);
end;
comment on function flywheel.contains_iban is
  'Whether a text holds an IBAN in capitals: a country''s length and right check digits (ISO 13616).';

-- contains_phone: a regular expression, so neither all numbers nor only numbers; the check of the catalogue named
-- no_valid_phone_number uses the library phonenumbers, which knows each country's plan. Digits before a space are taken
-- for the start of a longer number, as in an IBAN.
create or replace function flywheel.contains_phone(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select contains_phone.text collate "C" ~ ('(?:^ ?|[^0-9A-Za-z.+ -]|[^0-9] )(?:'
    '\+[1-9](?:[ ./()-]{0,2}[0-9]){6,14}|00[1-9][0-9]{0,2}[ ./-](?:[ ./()-]{0,2}[0-9]){5,13}'  -- +49 30 901820
    '|(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}'  -- (212) 555-0123
    '|(?:0[1-9][0-9]{1,4}[ /-]|\(0[1-9][0-9]{1,4}\) ?)[0-9]{3,4}[ -]?[0-9]{3,5}'  -- 020 7946 0958
    '|0[1-9](?:[ .][0-9]{2}){4}'  -- 01 23 45 67 89
    ')(?:$|[^0-9A-Za-z])');
end;
comment on function flywheel.contains_phone is
  'Whether a text holds what is written like a phone number: international or as in the US, Britain, Germany, France.';

-- is_refusal: only the first 400 characters, where a refusal stands; further on it may be quoted.
create or replace function flywheel.is_refusal(text text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select left(is_refusal.text, 400) collate "C" ~* ('(?:^|[^0-9a-z_])(?:'
    '(?:i (?:can[''’]?t|can ?not|won[''’]?t|will not)(?: be able to)?'
    '|i(?:[''’]m| am) (?:not able|unable|not allowed|not permitted) to) '
    '(?:help|assist|comply|fulfil|provide|answer|share|discuss|disclose|reveal|engage|support|do that|give|create|write)'
    '|as an? (?:ai|artificial intelligence|(?:large )?language model)(?:$|[^0-9a-z_])'
    '|i (?:must|have to|need to) (?:respectfully )?(?:decline|refuse)'
    '|(?:goes )?against (?:my|our) (?:guidelines|policies|policy|programming)'
    ')');
end;
comment on function flywheel.is_refusal is
  'Whether the first 400 characters of a text hold a phrase with which English-speaking models refuse.';

-- _is_deep_json: only called for texts with so many brackets that the server's recursive parser could run out of stack.
create or replace function flywheel._is_deep_json(text text) returns boolean
language plpgsql immutable parallel restricted security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  return _is_deep_json.text is json;
exception when statement_too_complex then
  return false;
end
$function$;
comment on function flywheel._is_deep_json is
  'Internal: is_json for a text of many brackets; nested deeper than the server''s stack allows is no JSON.';

create or replace function flywheel.is_json(text text) returns boolean
language sql immutable parallel restricted security invoker
begin atomic
  select case when char_length(is_json.text) - char_length(translate(is_json.text, '[{', '')) > 1000
              then flywheel._is_deep_json(is_json.text)
              else is_json.text is json end;
end;
comment on function flywheel.is_json is
  'Whether a text is one JSON value (RFC 8259); nested deeper than the server''s stack allows it is none.';
