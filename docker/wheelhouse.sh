#!/usr/bin/env bash
# Fill docker/wheels (or the directory named) with the project and what it needs, for Debian trixie's Python, so
# that docker/worker.Dockerfile builds without a package index.
#
#   docker/wheelhouse.sh [DIRECTORY]
#
# Uses `python -m pip` with its own settings; PYTHON names another interpreter, EXTRAS other extras than
# `checks,judge,analysis`; build with the same --build-arg EXTRAS.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
wheels=${1:-$root/docker/wheels}
python=${PYTHON:-python3}
machine=$(uname -m)

mkdir -p "$wheels"
find "$wheels" -name '*.whl' -delete
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$root"
project=$(echo "$wheels"/pgflywheel-*.whl)
"$python" -m pip download --quiet --dest "$wheels" --only-binary=:all: --implementation cp --python-version 3.13 \
  --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
  "pgflywheel[${EXTRAS:-checks,judge,analysis}] @ file://$project"
echo "$(find "$wheels" -name '*.whl' | wc -l) wheels in $wheels"
