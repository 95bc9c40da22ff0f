#!/usr/bin/env bash
# DeepSpeed 0.19.8: 8 processes on each of 1 nodes
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$HERE"
export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"
exec torchrun --standalone --nproc_per_node=8 train.py "$@"
