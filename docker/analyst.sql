-- A login that is an analyst; again, it gets the password given now.
--
--   psql -v login=grafana -v password=... -f docker/analyst.sql
\set ON_ERROR_STOP on
select format('create role %I login', :'login') where to_regrole(quote_ident(:'login')) is null \gexec
select format('alter role %I login password %L', :'login', :'password') \gexec
select flywheel.make_analyst(:'login');
