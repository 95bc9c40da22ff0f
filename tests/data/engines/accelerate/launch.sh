#!/usr/bin/env bash
# accelerate 1.15.0: 8 processes on each of 1 nodes
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$HERE"
export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"
exec accelerate launch --config_file accelerate.yaml train.py "$@"
