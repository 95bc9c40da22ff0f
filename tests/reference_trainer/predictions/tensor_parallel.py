"""The reference model under tensor parallelism in a group of ranks of which one exists, by PyTorch's own styles.

`parallelize_module` cuts the linear layers and both tables (ColwiseParallel, RowwiseParallel), `loss_parallel` the
loss. What lies between cut layers runs on this rank's plain tensors: attention on its heads, norms and dropout on the
residual stream, of which each rank has its own tokens under sequence parallelism.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    loss_parallel,
    parallelize_module,
)
from torch.utils._pytree import tree_iter

from planner.config.model import ModelConfig
from planner.config.run import RunConfig
from reference_trainer.measure.measure import build_model
from reference_trainer.measure.replay import watch_phases, zero_inputs
from reference_trainer.model.gpt import GPT
from reference_trainer.model.positions import make_tables
from tests.reference_trainer.predictions.sharded import (
    SweepingTracker,
    group_of,
    shard_blocks,
    track_evaluation,
    track_training,
)


class LocalTracker(SweepingTracker):
    """Sees the operators on local tensors inside those on distributed ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(t, (DTensor, AsyncCollectiveTensor)) for t in types):
            return NotImplemented  # the subclass calls the operator again on what it holds
        if torch._guards.detect_fake_mode() is not None:  # DTensor asks for an output's shape: nothing is allocated
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def add(self, *trees: Any) -> None:
        """Count the tensors in `trees`; an asynchronous one has a storage of no bytes around one that was seen."""
        super().add(*(t for t in tree_iter(trees) if not isinstance(t, AsyncCollectiveTensor)))


class VocabParallelEmbedding(nn.Module):
    """This rank's rows of a table (Megatron-LM's layers.py); ids that other ranks have look up nothing.

    PyTorch's RowwiseParallel makes the whole table's gradient on every rank, which this does not.
    """

    def __init__(self, table: nn.Embedding, mesh: DeviceMesh, out: Placement) -> None:
        super().__init__()
        self.weight = nn.Parameter(distribute_tensor(table.weight.detach(), mesh, [Shard(0)]))
        self.rows, self.mesh, self.out = table.num_embeddings // mesh.size(), mesh, out

    def forward(self, ids: Tensor) -> Tensor:
        """The sum over the ranks of their rows of ids [B, T]."""
        first = self.rows * self.mesh.get_local_rank()
        found, elsewhere = self.own_rows(ids, first)
        partial = found.masked_fill_(elsewhere[..., None], 0.0)
        del found, elsewhere
        return DTensor.from_local(partial, self.mesh, [Partial()]).redistribute(placements=[self.out]).to_local()

    def own_rows(self, ids: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Rows of the ids, any row for those that others have; and which ids others have."""
        elsewhere = (ids < first) | (ids >= first + self.rows)
        return F.embedding((ids - first).masked_fill_(elsewhere, 0), self.weight.to_local()), elsewhere


def whole_model_config(config: RunConfig) -> RunConfig:
    """The config with a key-value head for each rank: where there are fewer, ranks hold copies."""
    model = config.model
    kv_heads = max(model.kv_heads, config.parallel.tp)
    return config.model_copy(update={"model": model.model_copy(update={"kv_heads": kv_heads})})


def parallel_model(config: RunConfig, tracker: SweepingTracker, mesh: DeviceMesh) -> tuple[GPT, list[Any]]:
    """The model of a config as one rank of its tensor-parallel group has it, and the handles of the phases' hooks."""
    model = build_model(whole_model_config(config))
    handles = watch_phases(model, tracker)  # first, so that they see plain tensors
    cut_model(model, config, mesh)
    return model, handles


def cut_model(model: GPT, config: RunConfig, mesh: DeviceMesh, embeds: bool = True, has_head: bool = True) -> None:
    """Cut the layers of a model, or of a chunk of one, among the ranks of a mesh."""
    tp, sequence = config.parallel.tp, config.parallel.sp
    stream: Placement = Shard(1) if sequence else Replicate()
    plan: dict[str, Any] = {}
    if has_head:
        plan["head"] = ColwiseParallel(input_layouts=stream, output_layouts=Shard(-1), use_local_output=False)
    enters = PrepareModuleInput(input_layouts=(stream,), desired_input_layouts=(Replicate(),))
    with_tables = PrepareModuleInput(input_layouts=(stream, None), desired_input_layouts=(Replicate(), None))
    for i, block in enumerate(model.blocks):
        plan |= {f"blocks.{i}.attention": with_tables, f"blocks.{i}.mlp": enters}
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear):
                leaves = name.endswith(("proj", "down"))
                plan[f"blocks.{i}.{name}"] = RowwiseParallel(output_layouts=stream) if leaves else ColwiseParallel()
        block.attention.heads //= tp
        block.attention.kv_heads //= tp
    parallelize_module(model, mesh, plan)
    if embeds:
        model.embedding = VocabParallelEmbedding(model.embedding, mesh, stream)
    if has_head and config.training.loss == "chunked":  # the hidden states enter once, before they are cut
        hidden = PrepareModuleInput(input_layouts=(stream, None, None), desired_input_layouts=(Replicate(), None, None))
        parallelize_module(model.loss, mesh, hidden)
    if embeds and has_head and config.model.tied_embeddings:
        model.head.weight = model.embedding.weight
    if embeds and sequence and model.position is not None:
        own = config.training.seq // tp
        model.position.register_forward_pre_hook(lambda module, args: (args[0][:own],))


def use_local_tables(model: GPT, config: RunConfig) -> None:
    """Give a model the tables of positions of this rank's heads."""
    length, device = config.training.seq, torch.device("cpu")
    model.tables = make_tables(local_model_config(config.model, config.parallel.tp), length, model.compute, device)
    model.tables_for = (length, device)


def local_model_config(model: ModelConfig, tp: int) -> ModelConfig:
    """The model with this rank's heads, of which tables of positions have one row each."""
    return model.model_copy(update={"heads": model.heads // tp})


def stored_bytes(model: GPT) -> dict[str, int]:
    """What one rank stores of weights and gradients, and of the moments that AdamW makes of them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    optimizer.step()
    weights = list(model.parameters())
    gradients = [weight.grad for weight in weights]
    state = [tensor for moments in optimizer.state.values() for tensor in moments.values()]
    return {"weights": local_bytes(weights), "gradients": local_bytes(gradients), "optimizer": local_bytes(state)}


def local_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of storage of the tensors, of distributed ones of their local part."""
    held = (t.to_local() if isinstance(t, DTensor) else t for t in tensors if t is not None)
    return sum(t.untyped_storage().nbytes() for t in held)


def peaks_of_one_rank(config: RunConfig, tracker: SweepingTracker | None = None) -> dict[str, int]:
    """Bytes at the highest moment of each phase of a step on one rank, the optimizer's state left out.

    Under FSDP2 the tensor-parallel groups are its replicas: a mesh of both.
    """
    training, tp = config.training, config.parallel.tp
    tracker = tracker or LocalTracker()
    with group_of(config.hardware.gpus), loss_parallel():
        mesh = init_device_mesh("cpu", (config.hardware.gpus // tp, tp), mesh_dim_names=("replicas", "tensors"))
        model, handles = parallel_model(config, tracker, mesh["tensors"])
        if config.parallel.fsdp:
            shard_blocks(model, config, mesh["replicas"])
        use_local_tables(model, config)
        inputs = zero_inputs(config, (training.micro_batch, training.seq))
        tracker.add(list(model.parameters()), list(model.buffers()), model.tables, inputs)
        track_training(model, inputs, config, tracker)
        for handle in handles:
            handle.remove()
        tracker.peaks |= stored_bytes(model)
        track_evaluation(model, inputs, tracker)
    return tracker.peaks
