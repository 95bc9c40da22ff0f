#!/usr/bin/env bash
# nanochat of 2025-10-30 (dfc88334b61a): 8 processes on each of 1 nodes
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
cd "${NANOCHAT:?set NANOCHAT to the checkout of nanochat}"
export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"
exec torchrun --standalone --nproc_per_node=8 -m scripts.base_train "$HERE/gptplan_nanochat.py" "$@"
