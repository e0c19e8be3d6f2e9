#!/usr/bin/env bash
# Runs a command in the environment of scripts/setup.sh: the entry point of the Dockerfile.
set -e
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec "$@"
