"""What a stage of a pipeline holds beside its blocks: buffers of what it receives, ids, the gradient it sent last.

torch.distributed.pipelining makes a buffer for the input and one for the output's gradient of every micro-batch of a
step, once, and keeps them. Under 1F1B the gradient that a stage sent last is freed when it has another. Megatron-Core's
loop (the runtime `fused`) has one buffer of each, made as they arrive.

Source: torch/distributed/pipelining of PyTorch 2.13 (stage.py, schedules.py). Checked against its schedules
(tests/reference_trainer/predictions/pipeline.py).
"""

from __future__ import annotations

from planner.formulas.itemsize import FP32, INT64
from planner.memory.eager.context import SimulationContext


def stream_bytes(ctx: SimulationContext) -> int:
    """Bytes of the residual stream of one micro-batch, which goes from stage to stage."""
    return ctx.stream_tokens * ctx.shape.hidden * ctx.weight_bytes


def buffers_of(ctx: SimulationContext) -> int:
    """Buffers of a stage that stay, each of `stream_bytes`; 0 without a pipeline."""
    p, rank = ctx.parallel, ctx.rank
    if p.pp == 1:
        return 0
    if ctx.training.runtime == "fused":
        return 2
    chunks = 2 if p.pp_schedule == "dualpipe" else p.interleave
    return ctx.training.accumulation * (2 * chunks - rank.embeds - rank.has_head)


def sent_bytes(ctx: SimulationContext) -> int:
    """Bytes of the gradient that a stage sent last, alive while the next micro-batch runs; 0 where there is none."""
    keeps = ctx.parallel.pp > 1 and ctx.parallel.pp_schedule == "1f1b" and ctx.training.runtime != "fused"
    return stream_bytes(ctx) if keeps and not ctx.rank.embeds else 0


def input_bytes(ctx: SimulationContext) -> int:
    """Bytes of ids and targets that are on the GPU together, and of documents.

    PyTorch's schedules are given all micro-batches of a step: ids to the stage that embeds, targets to the one with the
    loss, which keeps each micro-batch's.
    """
    t, rank = ctx.training, ctx.rank
    tokens = t.micro_batch * t.seq
    if ctx.parallel.pp == 1 or t.runtime == "fused":
        return (3 if t.document_masking else 2) * INT64 * tokens
    ends = int(rank.embeds) + int(rank.has_head)
    documents = tokens * INT64 if t.document_masking else 0
    return t.accumulation * (ends * INT64 * tokens + int(rank.has_head) * FP32) + documents
