"""The planner's peaks compared with a replay on fake tensors: `gptplan trace`."""

from __future__ import annotations

import torch

from planner import presets
from planner.activity import doing
from planner.analysis.replay import Replayed, TraceReport, few_layers, trace_report, with_layers
from planner.config.run import RunConfig
from planner.errors import ConfigError
from planner.inputs.runtime import runtime_is_assumed, with_runtime
from reference_trainer.measure.replay import Allocation, Track, replay

REPLAYED = ("eager", "autocast")


@doing("replaying two steps on fake tensors")
def traced(config: RunConfig, whole: bool | None = None) -> TraceReport:
    """The report of `config`. For a deep model two shallow ones are replayed and extrapolated linearly.

    whole: True replays every block, False as few as possible, None decides by the depth. A compiled runtime that nobody
    chose is replayed as eager. Raises ConfigError for a recipe that the reference trainer does not run, and for a
    runtime that cannot be replayed.
    """
    if runtime_is_assumed(config):
        config = with_runtime(config, presets.recipe(config.training.recipe).runtime)
    runtime = config.training.runtime
    if runtime not in REPLAYED:
        raise ConfigError(
            f"the runtime {runtime!r} is not replayed",
            why="fake tensors run the model's own operators, not those of a compiler or a fused kernel",
            remedy='set runtime = "eager" or "autocast" under [training]',
        )
    depths = few_layers(config, whole)
    allocations: list[Allocation] = []
    replays = []
    for layers in depths:
        events = allocations if depths == (config.model.layers,) else None
        replays.append(_highest(replay(with_layers(config, layers), None, events)))
    return trace_report(config, torch.__version__, depths, replays, allocations)


def _highest(track: Track) -> list[Replayed]:
    """One peak per phase name, the highest, in order of first appearance."""
    best: dict[str, Replayed] = {}
    for p in track.phases:
        if p.phase not in best or p.peak_bytes > best[p.phase].peak_bytes:
            best[p.phase] = Replayed(p.phase, p.peak_bytes, p.operator)
    return list(best.values())
