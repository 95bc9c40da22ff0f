"""The model as ranks train it: DistributedDataParallel where each rank holds all of it.

DDP averages gradients over the ranks. A rank's loss is therefore divided by the valid targets of the whole step over
the number of ranks: then the average is the gradient of the mean over all targets, whoever had them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from planner.config.run import RunConfig
from reference_trainer.distributed.ranks import Ranks
from reference_trainer.distributed.sharding import is_sharded


def as_replica(model: nn.Module, config: RunConfig, ranks: Ranks, device: torch.device) -> nn.Module:
    """What a rank calls in training: `model` under DDP, or `model` itself where it is sharded.

    Under DDP its weights are those of the leader from then on. Parameters keep their names and places. A rank that is
    alone has nobody to add gradients with, and DDP's buckets would hold them a second time.
    """
    if ranks.world == 1 or is_sharded(model):
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=config.parallel.ddp_bucket_view,
    )


def reduce_in_backward(model: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass adds up gradients over the ranks: only the last one of a step needs to."""
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = wanted  # as its no_sync, without a block around forward and backward
