#!/usr/bin/env bash
# Megatron-LM core 0.20.0 (d98e8a64ddf3): 8 processes on each of 4 nodes
# on each node: NODE_RANK=0 … HEAD=address of node 0 bash launch.sh
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "${MEGATRON_LM:?set MEGATRON_LM to the checkout of Megatron-LM}"
export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"
read -r -d '' -a ARGUMENTS < <(grep -v '^#' "$HERE/megatron_args.txt") || true
exec torchrun --nnodes=4 --nproc_per_node=8 --node_rank="$NODE_RANK" --rdzv_backend=c10d --rdzv_id=gptplan --rdzv_endpoint="$HEAD:29500" pretrain_gpt.py "${ARGUMENTS[@]}" "$@"
