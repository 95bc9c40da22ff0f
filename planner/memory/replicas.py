"""What data-parallel replicas add to the bytes of one device: the buckets of DDP, and the buffers of NCCL.

DistributedDataParallel copies each new gradient into a bucket, reduces the bucket over all replicas, and copies it
back (torch/csrc/distributed/c10d/reducer.cpp of PyTorch 2.13). A bucket is closed by the tensor that fills it; the
first one is small, so that the first reduction starts early. The buckets live as long as the program.
"""

from __future__ import annotations

from collections.abc import Iterable

from planner.counts.ranks import held_named_tensors, held_tensors
from planner.counts.run import Resolved
from planner.counts.shards import sharing_gpus
from planner.interval import Interval, exactly
from planner.rules import rules

FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes: defaults of DDP
ZERO_BUCKET = 500_000_000  # elements: default of DeepSpeed


def ddp_bucket_bytes(run: Resolved) -> tuple[int, ...]:
    """The bytes of each bucket, in the order in which backward fills them; none for one replica, or if gradients stay.

    ZeRO-2 has one bucket, which it fills, reduces and fills again (DeepSpeed's reduce_bucket_size).

    A bucket has the dtype of the weights, because autograd's new gradients have. A loop that adds into wider gradients
    of its own, such as Megatron's (the runtime `fused`), reduces these where they lie, and has no buckets.
    """
    itemsize = run.recipe.weights_bytes_per_parameter
    if not _has_buckets(run):
        return ()
    if run.config.parallel.zero == 2:
        return (itemsize * min(ZERO_BUCKET, sum(t.times * t.count for t in held_tensors(run))),)
    sizes = [itemsize * t.count for t in held_named_tensors(run) for _ in range(t.times)]
    return tuple(filled(reversed(sizes)))


def _has_buckets(run: Resolved) -> bool:
    p = run.config.parallel
    if sharing_gpus(run) == 1 or p.shards_weights:
        return False
    return p.zero == 2 or not (gradients_stay(run) or run.config.training.runtime == "fused")


def gradients_stay(run: Resolved) -> bool:
    """Whether gradients lie in DDP's buckets alone, which live as long as the program: `ddp_bucket_view`.

    Of several micro-batches only the last one's gradients get there: the others add up in tensors of their own, so that
    there are two copies, as without the view. (The update finds one; a plan counts two there as well.)
    """
    p, t = run.config.parallel, run.config.training
    several = t.accumulation > 1 or p.pp > 1
    return sharing_gpus(run) > 1 and p.ddp_bucket_view and t.runtime != "fused" and not several


def bucket_total(run: Resolved) -> int:
    """Bytes of all buckets of `ddp_bucket_bytes`: what they hold is every gradient once, or one bucket of ZeRO-2."""
    held = sum(t.times * t.count for t in held_tensors(run)) if _has_buckets(run) else 0
    most = ZERO_BUCKET if run.config.parallel.zero == 2 else held
    return run.recipe.weights_bytes_per_parameter * min(most, held)


def filled(sizes: Iterable[int], first: int = FIRST_BUCKET, limit: int = BUCKET) -> list[int]:
    """Bytes of the buckets that tensors of these bytes fill one after the other: a bucket is closed at its limit."""
    buckets: list[int] = []
    held = 0
    for size in sizes:
        held += size
        if held >= (limit if buckets else first):
            buckets.append(held)
            held = 0
    return [*buckets, held] if held else buckets


def nccl_bytes(run: Resolved) -> Interval[int]:
    """Bytes that NCCL takes from the driver; 0 for one GPU, which needs no communicator.

    One communicator of all GPUs; where a layout has several, the upper end counts each.
    """
    if run.config.hardware.gpus == 1:
        return exactly(0)
    rule = rules("roofline")["memory"]["nccl"]
    p = run.config.parallel
    groups = max(1, sum(size > 1 for size in (sharing_gpus(run), p.tp, p.pp, p.cp, p.ep, p.hsdp or 1)))
    return Interval(rule["low_bytes"], rule["bytes"], groups * rule["high_bytes"])
