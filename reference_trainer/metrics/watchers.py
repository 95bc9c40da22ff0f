"""Which watchers a run has, and what of their signals it cannot show, with the reason."""

from __future__ import annotations

from planner.config.run import RunConfig
from planner.errors import InputError
from planner.units import format_bytes
from reference_trainer.metrics.layer_statistics import LayerStatistics, kept_bytes, shows_activations
from reference_trainer.metrics.noise_scale import NoiseScale, why_not
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step import StepContext, Watcher


def attach_watchers(context: StepContext, options: RunOptions) -> list[str]:
    """Give `context` the watchers that `options` ask for; returns what is to be said about them.

    Raises InputError for an interval below one.
    """
    found: list[Watcher] = []
    notes = []
    every = options.statistics_every
    if every is not None:
        if every < 1:
            raise InputError(f"statistics every {every} steps", remedy="give a whole number from 1 up")
        found.append(LayerStatistics(every))
        kept = format_bytes(kept_bytes(context.optimizer.weights.values()))
        notes.append(f"statistics of every layer each {every} steps, with samples of the weights of {kept}")
        if not shows_activations(context.config):
            notes.append("no statistics of activations: a compiled program has no place for hooks")
    if options.noise_scale:
        reason = why_not(context.config)
        notes += [reason] if reason else []
        found += [] if reason else [NoiseScale()]
    context.watchers = found
    return notes


def watches_noise(config: RunConfig, options: RunOptions) -> bool:
    """Whether the rows have the gradient-noise scale."""
    return options.noise_scale and not why_not(config)
