#!/usr/bin/env bash
# Bring Superset's own tables, the user admin and pgflywheel's assets up to date; then become what was asked for.
#
#   SUPERSET_PASSWORD                       the password of admin, set anew at each start
#   PGFLYWHEEL_BI_ADDRESS, _DATABASE, _USER, _PASSWORD, _SSLMODE   where the database is, and who reads it
set -euo pipefail

export FLASK_APP=superset
superset db upgrade
superset fab create-admin --username admin --password "$SUPERSET_PASSWORD" --firstname pgflywheel --lastname admin --email admin@localhost
superset fab reset-password --username admin --password "$SUPERSET_PASSWORD"
superset init
python "$(dirname "$0")/load.py"
exec "$@"
