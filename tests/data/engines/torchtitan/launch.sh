#!/usr/bin/env bash
# torchtitan 0.3.0: 8 processes on each of 2 nodes
# on each node: NODE_RANK=0 … HEAD=address of node 0 bash launch.sh
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$HERE"
export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"
exec torchrun --nnodes=2 --nproc_per_node=8 --node_rank="$NODE_RANK" --rdzv_backend=c10d --rdzv_id=gptplan --rdzv_endpoint="$HEAD:29500" -m torchtitan.train --module gptplan_torchtitan --config run "$@"
