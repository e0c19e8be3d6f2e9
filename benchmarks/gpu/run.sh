#!/bin/sh
# What to measure on a GPU that is available for minutes, most wanted first: JSON lines on stdout and in OUTPUT/gpu.jsonl.
#
#     benchmarks/gpu/run.sh [OUTPUT] [--rehearse] [--parts pi0_3 ...]        README.md beside this file says more
#
# PYTHON: which one has torch (default: python3). WHEELS: a folder of wheels that it lacks (default: .whl), installed
# into a folder of this run alone. Ends within 8 minutes whatever happens.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
PYTHON=${PYTHON:-python3}
wheels=${WHEELS:-$root/.whl}
if ls "$wheels"/*.whl > /dev/null 2>&1; then
    site=$(mktemp -d)
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
exec timeout --kill-after=5 470 "$PYTHON" -u "$here/supervise.py" "$@"
