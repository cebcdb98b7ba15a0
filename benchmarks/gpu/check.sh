#!/usr/bin/env bash
# Everything that only a GPU can show, in one command: benchmarks/gpu/check.sh [--cpu] [--only PART ...]
# Packages that the machine lacks are taken from wheels in .whl (benchmarks/gpu/collect.sh), for this check alone.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
wheels=${WHEELS:-$root/.whl}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G "$wheels/*.whl" >/dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
fi
# The checkout's own code goes before what a wheel of it brings.
export PYTHONPATH="$root:$root/plugins:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
cd "$root"
"$python" benchmarks/gpu/check.py "$@"
