#!/usr/bin/env bash
# Make the cluster on the first start, then become Postgres, so that signals reach it.
#
#   POSTGRES_PASSWORD, or POSTGRES_PASSWORD_FILE    password of POSTGRES_USER; without one the container does not start
#   POSTGRES_USER (postgres), POSTGRES_DB (POSTGRES_USER)   the superuser and the database made on the first start
#   POSTGRES_HOST_AUTH_METHOD (scram-sha-256)       `trust` lets anybody in over the network and needs no password
#   /docker-entrypoint-initdb.d                     *.sql, *.sql.gz and *.sh, run in name order on the first start
set -euo pipefail

fail() {
  printf 'entrypoint: %s\n  detail: %s\n  hint: %s\n' "$@" >&2
  exit 1
}

read_settings() {
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
  fi
  password=${POSTGRES_PASSWORD:-}
  user=${POSTGRES_USER:-postgres}
  database=${POSTGRES_DB:-$user}
  auth_method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  unset POSTGRES_PASSWORD # the server and what it starts do not need it
}

require_password() {
  [ -n "$password" ] || [ "$auth_method" = trust ] || fail "no password was given for the superuser \"$user\"" \
    'POSTGRES_PASSWORD is empty, and the server will listen on every address.' \
    'Set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, or POSTGRES_HOST_AUTH_METHOD=trust on a closed network.'
}

# Run as postgres what was started as root: the volume may belong to root when it is first mounted.
become_postgres() {
  [ "$(id -u)" = 0 ] || return 0
  install -d -o postgres -g postgres -m 0755 "$(dirname "$PGDATA")"
  if [ -d "$PGDATA" ]; then
    find "$PGDATA" \! -user postgres -exec chown postgres:postgres {} +
  fi
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
}

make_cluster() {
  local new=$1 with_password=()
  [ -z "$password" ] || with_password=(--pwfile=/dev/fd/3)
  initdb --pgdata="$new" --username="$user" "${with_password[@]}" --auth-local=trust --auth-host="$auth_method" \
    --encoding=UTF8 --locale-provider=builtin --builtin-locale=C.UTF-8 \
    --data-checksums --set listen_addresses='*' --set password_encryption=scram-sha-256 3<<<"$password"
  printf 'host all all all %s\n' "$auth_method" >>"$new/pg_hba.conf"
}

run_init_files() {
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) bash "$file" ;;
      *.sql) psql --file="$file" ;;
      *.sql.gz) gunzip --stdout "$file" | psql ;;
    esac
  done
}

# Fill the cluster through a server that nobody outside can reach yet.
fill_cluster() {
  local new=$1
  pg_ctl --pgdata="$new" --wait --options="-c listen_addresses=''" start
  export PGUSER=$user PGDATABASE=$database PSQLRC=/dev/null PGOPTIONS='-c client_min_messages=warning'
  psql() { command psql --set=ON_ERROR_STOP=1 --no-password "$@"; }
  if [ "$database" != postgres ]; then
    PGDATABASE=postgres psql --quiet --set=name="$database" <<<'create database :"name"'
  fi
  psql --quiet --command='create extension if not exists vector'
  run_init_files
  pg_ctl --pgdata="$new" --wait --mode=fast stop
}

# The cluster takes its name only when it is whole: a container killed halfway begins again.
first_start() {
  local new=$PGDATA.new
  require_password
  rm -rf "$new"
  make_cluster "$new"
  (fill_cluster "$new") # a subshell, so that its PG* variables end with it
  mv "$new" "$PGDATA"
}

if [ "${1:-postgres}" != postgres ] && [ "${1#-}" = "$1" ]; then
  exec "$@" # another program, such as bash or psql
fi
[ "${1:-}" = postgres ] && shift
become_postgres "$@"
read_settings
[ -s "$PGDATA/PG_VERSION" ] || first_start
exec postgres -D "$PGDATA" "$@"
