"""The watchers of a run, and the reasons why some of their signals are not available."""

from __future__ import annotations

from planner.errors import InputError
from planner.units import format_bytes
from reference_trainer.distributed.sharding import is_sharded
from reference_trainer.metrics.layer_statistics import LayerStatistics, kept_bytes, shows_activations
from reference_trainer.metrics.noise_scale import NoiseScale, why_not
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step import StepContext, Watcher


def attach_watchers(context: StepContext, options: RunOptions) -> list[str]:
    """Attach the watchers that `options` request to `context`. Returns messages for the log.

    Raises InputError for an interval below 1.
    """
    found: list[Watcher] = []
    notes = []
    every = options.statistics_every
    if every is not None and is_sharded(context.model):
        raise InputError(
            "--statistics-every does not go with fsdp = true",
            why="the rows of a matrix are on several ranks, and its norm is on none",
            remedy="leave it out, or train without --fsdp",
        )
    if every is not None:
        if every < 1:
            raise InputError(
                f"--statistics-every {every} is not a number of steps", remedy="give a whole number, 1 or more"
            )
        found.append(LayerStatistics(every))
        kept = format_bytes(kept_bytes(context.optimizer.weights.values()))
        notes.append(f"layer statistics every {every} steps; they keep {kept} of weight samples")
        if not shows_activations(context.config):
            notes.append("no activation statistics: a compiled program cannot run the hooks that measure them")
    if options.noise_scale and context.ranks.world > 1:
        raise InputError(
            "--noise-scale runs on one device",
            why="a rank alone does not have the gradients of the small batch and of the large one",
            remedy="leave it out, or measure it with --gpus 1",
        )
    if options.noise_scale:
        reason = why_not(context.config)
        notes += [reason] if reason else []
        found += [] if reason else [NoiseScale()]
    context.watchers = found
    return notes
