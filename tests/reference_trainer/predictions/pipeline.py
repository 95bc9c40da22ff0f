"""One rank of a pipeline of the reference model under PyTorch's own stages and schedules, the other ranks absent.

The `fake` process group sends and receives nothing: a stage computes with what lies in its buffers, in the order of
its schedule, and allocates what it would between neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.distributed.tensor.parallel import loss_parallel

from planner.config.run import RunConfig
from planner.counts.ranks import chunks_of_layers
from planner.counts.run import tokens_per_step
from planner.counts.shape import is_recomputed
from reference_trainer.measure.measure import build_model
from reference_trainer.model.gpt import GPT
from tests.reference_trainer.predictions.sharded import SweepingTracker, group_of
from tests.reference_trainer.predictions.tensor_parallel import (
    LocalTracker,
    cut_model,
    local_bytes,
    use_local_tables,
    whole_model_config,
)


class ChunkOfBlocks(nn.Module):
    """Some consecutive blocks of a model; the first chunk embeds, the last one computes the loss."""

    def __init__(self, model: GPT, first: bool, last: bool) -> None:
        super().__init__()
        self.model, self.first, self.last = model, first, last
        if not first:  # a tied head has the table as its own weight
            del model.embedding
        if not first:
            del model.position, model.embedding_norm
        if not last:
            del model.norm, model.head

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        """What the next chunk receives, [B, T, h], or the loss over targets; x: ids [B, T], or what is received."""
        model = self.model
        with model.autocast_region(x.device):
            x = self.through_blocks(x)
            if not self.last:
                return x
            hidden: Tensor = model.norm(x)
            if not model.autocast:
                hidden = hidden.to(model.compute)
            del x
            plain = model.options.loss == "plain"
            loss: Tensor = (
                model.loss(model.head(hidden).float(), targets) if plain else model.loss(hidden, model.head, targets)
            )
            return loss

    def through_blocks(self, x: Tensor) -> Tensor:
        """The residual stream after the blocks."""
        model = self.model
        assert model.tables_for is not None
        length = model.tables_for[0]  # of the whole sequence, of which sequence parallelism cuts the stream
        tables = model.make_tables(length, x.device)
        if self.first:
            x = model.embedding_norm(model.embedding(x))
            if model.position is not None:
                x = x + model.position(torch.arange(length, device=x.device))
            x = model.dropout(x)
        for index, block in enumerate(model.blocks):
            x = model.recomputed(block, x, tables) if is_recomputed(model.options, index) else block(x, tables)
        return x


class LonelyStage(PipelineStage):
    """A stage whose neighbours agree with it, and whose phases are marked."""

    tracker: SweepingTracker

    def _warmup_forward_vote(self, *_: Any, **__: Any) -> Tensor:
        return torch.ones(1, dtype=torch.int32)

    _warmup_backward_result = _warmup_forward_vote

    def forward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        self.tracker.phase("forward")
        return super().forward_one_chunk(*args, **kwargs)

    def backward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        self.tracker.phase("backward")
        return super().backward_one_chunk(*args, **kwargs)


def stages_of(config: RunConfig, rank: int, tracker: SweepingTracker, mesh: DeviceMesh) -> list[LonelyStage]:
    """The chunks of one rank as stages; mesh: of stages and of the ranks that share their tensors."""
    p, t, model = config.parallel, config.training, config.model
    layers = chunks_of_layers(model.layers, p.pp * p.interleave)
    found = []
    for index in range(rank, len(layers), p.pp):
        first, last = index == 0, index == len(layers) - 1
        update = {"layers": layers[index]} | ({} if layers[index] else {"init_residual": "same"})  # scaled by none
        own = config.model_copy(update={"model": model.model_copy(update=update)})
        whole = build_model(whole_model_config(own))
        if p.tp > 1:
            cut_model(whole, own, mesh["tensors"], first, last)
        chunk = ChunkOfBlocks(whole, first, last)
        kind = next(chunk.parameters()).dtype
        ids = torch.empty(t.micro_batch, t.seq, dtype=torch.long, device="meta")
        tokens = t.seq // p.tp if p.sp else t.seq
        stream = torch.empty(t.micro_batch, tokens, model.hidden, dtype=kind, device="meta").requires_grad_()
        loss = torch.empty((), dtype=torch.float32, device="meta").requires_grad_()
        inputs, outputs = ids if first else stream, loss if last else stream
        group = mesh["stages"].get_group()
        stage = LonelyStage(chunk, index, len(layers), torch.device("cpu"), inputs, outputs, group=group)
        stage.tracker = tracker
        found.append(stage)
    return found


def pipeline_peaks(config: RunConfig, rank: int) -> dict[str, int]:
    """Bytes at the highest moment of all forward and of all backward passes of a step, optimizer's state left out."""
    t, p, tracker = config.training, config.parallel, LocalTracker()
    _clear_sharding_prop_cache()  # DTensor would look for a group of the stage before, which is gone
    with group_of(p.pp * p.tp, rank=rank * p.tp), loss_parallel():
        mesh = init_device_mesh("cpu", (p.pp, p.tp), mesh_dim_names=("stages", "tensors"))
        stages = stages_of(config, rank, tracker, mesh)
        whole = (t.micro_batch * t.accumulation, t.seq)
        ids = torch.zeros(whole, dtype=torch.long) if rank == 0 else None
        targets = {"targets": torch.zeros(whole, dtype=torch.long)} if rank == p.pp - 1 else {}

        def per_token(loss: Tensor, target: Tensor) -> Tensor:
            return loss / tokens_per_step(config)

        parts: list[Any] = [stage.submod for stage in stages]
        use_local_tables(parts[0].model, config)
        tables = parts[0].model.tables
        for part in parts:  # one table of positions for all chunks
            part.model.tables, part.model.tables_for = tables, parts[0].model.tables_for
            tracker.add(list(part.parameters()), tables)
        tracker.add(ids, targets)
        schedule: Any = (
            Schedule1F1B(stages[0], t.accumulation, loss_fn=per_token, scale_grads=False)
            if p.interleave == 1
            else ScheduleInterleaved1F1B(stages, t.accumulation, loss_fn=per_token, scale_grads=False)
        )
        for _ in range(2):
            with tracker:
                schedule.step(
                    *([] if ids is None else [ids]), target=targets.get("targets"), return_outputs=False, **targets
                )
            weights = [parameter for part in parts for parameter in part.parameters()]
            tracker.peaks |= {"weights": local_bytes(weights), "gradients": local_bytes(w.grad for w in weights)}
            for weight in weights:
                weight.grad = None
            tracker.phase("between")
    return tracker.peaks
