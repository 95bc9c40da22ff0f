"""What data-parallel replicas add to the bytes of one device: the buckets of DDP, and the buffers of NCCL.

DistributedDataParallel copies each new gradient into a bucket, reduces the bucket over all replicas, and copies it
back (torch/csrc/distributed/c10d/reducer.cpp of PyTorch 2.13). A bucket is closed by the tensor that fills it; the
first one is small, so that the first reduction starts early. The buckets live as long as the program.
"""

from __future__ import annotations

from collections.abc import Iterable

from planner.counts.run import Resolved
from planner.counts.tensors import named_tensors
from planner.interval import Interval, exactly
from planner.rules import rules

FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes: defaults of DDP


def ddp_bucket_bytes(run: Resolved) -> tuple[int, ...]:
    """The bytes of each bucket, in the order in which backward fills them; none for one GPU, or with views.

    A bucket has the dtype of the weights, because autograd's new gradients have. A loop that adds into wider gradients
    of its own, such as Megatron's (the runtime `fused`), reduces these where they lie, and has no buckets.
    """
    config = run.config
    replicas = config.hardware.gpus > 1 and not config.parallel.fsdp
    if not replicas or config.parallel.ddp_bucket_view or config.training.runtime == "fused":
        return ()
    itemsize = run.recipe.weights_bytes_per_parameter
    sizes = [itemsize * t.count for t in named_tensors(config.model) for _ in range(t.times)]
    return tuple(filled(reversed(sizes)))


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
    """Bytes that NCCL takes from the driver for one communicator of all GPUs; 0 for one GPU, which needs none."""
    if run.config.hardware.gpus == 1:
        return exactly(0)
    rule = rules("roofline")["memory"]["nccl"]
    return Interval(rule["low_bytes"], rule["bytes"], rule["high_bytes"])
