"""Bytes that a published run's program holds beside what the planner counts: DeepSpeed's buffers.

They are made for the update or for a reduction, in one piece each, and the allocator keeps them: no activation is as
large. Source: github.com/deepspeedai/DeepSpeed deepspeed/runtime: zero/stage_1_and_2.py, fp16/fused_optimizer.py,
bf16_optimizer.py, engine.py (`allreduce_bucket`), with the defaults of its configuration.
"""

from __future__ import annotations

from planner.config.run import RunConfig
from planner.counts.run import recipe_of
from planner.formulas.itemsize import FP32
from planner.memory.breakdown import Memory

BUCKET = 500_000_000  # elements: reduce_bucket_size


def deepspeed_bytes(config: RunConfig, memory: Memory, zero: bool) -> int:
    """Bytes of DeepSpeed's buffers on the GPU of the breakdown; `zero`: the run asked for ZeRO, on however many GPUs.

    With fp32 gradients (BF16_Optimizer): the narrow gradients of backward, which stay, a wide copy of one of them as it
    is added, at most of the table's rows, and a bucket of wide ones. With ZeRO-1: the partition of the narrow gradients
    made flat before it is widened, and a bucket of narrow ones. Without (FP16_Optimizer): the widened gradients are a
    list, and flat a second time.
    """
    recipe = recipe_of(config)
    narrow = recipe.weights_bytes_per_parameter
    held = memory.weights_bytes // narrow
    bucket = min(BUCKET, held) * recipe.gradients_bytes_per_parameter
    if recipe.gradients_bytes_per_parameter == FP32:
        table = config.model.vocab // config.parallel.tp * config.model.hidden
        return narrow * held + FP32 * table + bucket
    updated = memory.master_weights_bytes // recipe.master_weights_bytes_per_parameter
    return narrow * updated + bucket if zero else FP32 * updated
