"""The reference model under FSDP2 in a group of many ranks of which one exists: every storage, and who freed it.

PyTorch's `fake` process group answers collectives at once and moves nothing: one process allocates what one rank of any
number would. FSDP2 frees with `resize_`, which a tracker that counts storages once does not see: after every
operator all known storages are added up anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from planner.config.run import RunConfig
from planner.counts.run import tokens_per_step
from reference_trainer.distributed.sharding import shard
from reference_trainer.measure.measure import build_model
from reference_trainer.measure.replay import watch_phases, zero_inputs
from reference_trainer.model.gpt import GPT


class SweepingTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes of each phase, over all storages that any operator has seen and that still exist."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[int, Any] = {}
        self.peaks: dict[str, int] = {}
        self.name = "init"

    def phase(self, name: str) -> None:
        """Later peaks belong to `name`."""
        self.name = name

    def add(self, *trees: Any) -> None:
        """Count the tensors in `trees`; of a distributed tensor its local part."""
        for leaf in tree_iter(trees):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                storage = (leaf._local_tensor if isinstance(leaf, DTensor) else leaf).untyped_storage()
                known = self.storages.get(storage._cdata)
                if known is None or known() is None:
                    self.storages[storage._cdata] = weakref.ref(storage)

    def live(self) -> int:
        """Bytes of all storages that exist."""
        found = {key: storage for key, ref in self.storages.items() if (storage := ref()) is not None}
        self.storages = {key: self.storages[key] for key in found}
        return sum(storage.nbytes() for storage in found.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.add(out, args, kwargs)
        self.peaks[self.name] = max(self.peaks.get(self.name, 0), self.live())
        return out


@contextmanager
def group_of(ranks: int, backend: str = "fake", folder: Path | None = None, rank: int = 0) -> Iterator[None]:
    """A process group of `ranks` ranks, of which this process is one: of a `fake` group any, else the first."""
    if backend == "fake":
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())  # type: ignore[no-untyped-call]
    else:
        dist.init_process_group(backend, rank=0, world_size=ranks, init_method=f"file://{folder}/store")
    try:
        yield
    finally:
        dist.destroy_process_group()


def sharded_model(config: RunConfig, tracker: SweepingTracker) -> tuple[GPT, list[Any]]:
    """The model of a config, sharded by the trainer itself, and the handles of the phases' hooks."""
    model = build_model(config)
    handles = watch_phases(model, tracker)
    shard(model, config, torch.device("cpu"))
    return model, handles


def shard_blocks(model: GPT, config: RunConfig, mesh: DeviceMesh) -> None:
    """Shard each block of a model, and the rest, over a mesh."""
    narrow = {"mixed-bf16": torch.bfloat16}.get(config.training.recipe)
    # positions stay as they are: FSDP2 would cast the rotary angles, which are an input of every block
    policy = MixedPrecisionPolicy(param_dtype=narrow, cast_forward_inputs=False)
    if narrow is not None:
        policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=config.parallel.reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def peaks_of_one_rank(config: RunConfig) -> dict[str, int]:
    """Bytes at the highest moment of each phase of a step on one rank, the optimizer's state left out."""
    training = config.training
    with group_of(config.hardware.gpus):
        tracker = SweepingTracker()
        model, handles = sharded_model(config, tracker)
        model.make_tables(training.seq, torch.device("cpu"))
        inputs = zero_inputs(config, (training.micro_batch, training.seq))
        tracker.add(list(model.parameters()), list(model.buffers()), model.tables, inputs)
        track_training(model, inputs, config, tracker)
        for handle in handles:
            handle.remove()
        track_evaluation(model, inputs, tracker)
    return tracker.peaks


def track_training(model: GPT, inputs: tuple[torch.Tensor, ...], config: RunConfig, tracker: SweepingTracker) -> None:
    """Forward and backward of up to two micro-batches of a step; later ones are like the second."""
    for _ in range(min(2, config.training.accumulation)):
        with tracker:
            loss = model(*inputs) / tokens_per_step(config)
            tracker.phase("backward_start")
            loss.backward()
            del loss


def track_evaluation(model: GPT, inputs: tuple[torch.Tensor, ...], tracker: SweepingTracker) -> None:
    """A forward pass without gradients: of weights' gradients nothing is left."""
    for parameter in model.parameters():
        parameter.grad = None
    model.eval()
    tracker.phase("evaluation")
    with tracker, torch.no_grad():
        model(*inputs)
