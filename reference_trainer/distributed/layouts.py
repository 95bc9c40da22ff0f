"""Whether the ranks that were started are those of a config."""

from __future__ import annotations

from planner.config.run import RunConfig
from planner.counts.untrained_layouts import missing_on_ranks
from planner.errors import ConfigError
from reference_trainer.distributed.ranks import Ranks


def refuse_layout_of_ranks(config: RunConfig, ranks: Ranks) -> None:
    """Raises ConfigError unless the config's GPUs are these ranks, and each part of its layout is in this trainer."""
    gpus, world = config.hardware.gpus, ranks.world
    missing = missing_on_ranks(config) if ranks.joined or gpus > 1 else None
    if missing is not None:
        raise ConfigError(
            f"the reference trainer does not run {missing.name}",
            why=missing.why,
            remedy="plan without it, or train with a program that has it, such as torchtitan or Megatron-LM",
        )
    if gpus != world:
        here = "this run is one process" if world == 1 else f"this run has {world} ranks"
        start = f"start it with --nproc {gpus}" if gpus > 1 else "start it without --nproc and torchrun"
        raise ConfigError(
            f"the config is for {gpus} GPU{'s' if gpus > 1 else ''}, and {here}",
            why="each GPU is one rank, and on another number of them the same config has another batch size",
            remedy=f"{start}, or plan with --gpus {world} and the --accumulation that gives the same batch",
        )
