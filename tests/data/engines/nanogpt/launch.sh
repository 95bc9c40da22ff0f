#!/usr/bin/env bash
# nanoGPT of 2025-11-12 (3adf61e154c3): 8 processes on each of 1 nodes
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "${NANOGPT:?set NANOGPT to the checkout of nanoGPT}"
export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"
exec torchrun --standalone --nproc_per_node=8 train.py "$HERE/gptplan_nanogpt.py" "$@"
