"""Startup of a run: checks of the config and the run directory, then model and optimizer."""

from __future__ import annotations

from pathlib import Path

import torch

from planner.activity import doing
from planner.config.run import RunConfig
from planner.counts.run import steps_of, tokens_per_step
from planner.errors import CheckpointError, ConfigError, FileError, InputError
from planner.runs.directory import CONFIG, holds_steps
from reference_trainer.data.samples import TokenData, end_of_text_of
from reference_trainer.device.cuda_setup import apply_allocator
from reference_trainer.device.out_of_memory import explained
from reference_trainer.distributed.layouts import refuse_layout_of_ranks
from reference_trainer.distributed.ranks import ALONE, Ranks
from reference_trainer.distributed.replicas import as_replica
from reference_trainer.distributed.sharding import is_sharded, shard
from reference_trainer.measure.measure import build_model
from reference_trainer.optim.updater import make_optimizer
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step import StepContext


def last_step_of(config: RunConfig, options: RunOptions, ranks: Ranks = ALONE) -> int:
    """The last step of this call. Raises ConfigError or InputError if the config cannot be run by these ranks."""
    refuse_layout_of_ranks(config, ranks)
    steps, tokens = steps_of(config), config.training.tokens
    if steps < 1 or (tokens is not None and tokens < tokens_per_step(config)):
        raise ConfigError(
            f"{config.training.tokens} tokens are fewer than one optimizer step needs: {tokens_per_step(config)}",
            remedy="plan with more tokens or a smaller batch",
        )
    if options.stop_after is None:
        return steps
    if options.stop_after < 1:
        raise InputError(f"cannot stop after step {options.stop_after}", remedy=f"give a step from 1 to {steps}")
    return min(steps, options.stop_after)


def check_directory(directory: Path, resume: bool) -> None:
    """Raises CheckpointError if there is no run to resume, FileError if a new run would be mixed with an old one."""
    if resume and not holds_steps(directory):
        raise CheckpointError(
            f"there is no run to resume in {directory}",
            why="it took no step",
            remedy=f"start it: gptplan run {directory / CONFIG} --out {directory}",
        )
    if not resume and holds_steps(directory):
        raise FileError(
            f"{directory} already contains a run",
            why="its metrics and checkpoints would be mixed with the new ones",
            remedy="continue it with --resume, or choose another directory with --out",
        )


@doing("building the model and its optimizer")
def build(config: RunConfig, device: torch.device, data: TokenData, ranks: Ranks = ALONE) -> StepContext:
    """Model and optimizer. The weights are drawn on the CPU, so that they are the same for every device and rank.

    Raises PlanError if memory runs out, DataError if the data lacks the end-of-text token that document masking needs.
    """
    if config.training.document_masking:
        end_of_text_of(data)  # raises now and not at the first batch
    torch.manual_seed(config.training.seed)
    apply_allocator(config.hardware.allocator, device)
    with explained(config, device, "before the first step"):
        model = build_model(config)
        if config.parallel.fsdp and ranks.joined:
            shard(model, config, device)  # block by block: no device has room for the whole
        model = model.to(device)
        replica = as_replica(model, config, ranks, device) if ranks.joined else None
        optimizer = make_optimizer(model, config)
    if config.training.runtime == "compiled":
        model.make_tables(
            config.training.seq, next(model.parameters()).device
        )  # before compiling, so that the program does not make them
        if not is_sharded(model):
            model.compile(dynamic=False)  # in place, so that parameters keep their names
    return StepContext(config, device, data, model, optimizer, ranks=ranks, replica=replica)
