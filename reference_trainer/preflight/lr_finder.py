"""The learning-rate range test on the real model: a hundred steps at rising rates, after which nothing is changed.

The steps are the trainer's own, with clipping and weight decay as configured. Weights, masters, the optimizer's state
and the loss scale are put back to the bit afterwards, so that a run can begin, or go on, from where it stood.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from planner.config.run import RunConfig
from planner.errors import InputError
from planner.log import Log
from planner.runs.rate_search import RateSearch, has_exploded, rates_between, search_of
from reference_trainer.device.device import pick_device
from reference_trainer.device.out_of_memory import explained
from reference_trainer.loop.device_adaptation import adapt_to_device
from reference_trainer.loop.evaluation import opened_for
from reference_trainer.loop.startup import build, last_step_of
from reference_trainer.preflight.model import steps_on
from reference_trainer.step.options import RunOptions
from reference_trainer.step.precision import refuse_unrunnable
from reference_trainer.step.step import StepContext, numerics


def find_learning_rate(
    config: RunConfig, data: Path | None, device: str | None, span: tuple[float, float, int], log: Log
) -> RateSearch:
    """The range test of a config, on its own data and batch, from its first weights; span: low, high, steps.

    Raises PlanError for what no run could begin with.
    """
    refuse_span(*span)
    where = pick_device(device)
    if any(a.key == "recipe" for a in config.provenance.assumptions):
        config = adapt_to_device(config, where, log)  # the recipe of the run, which this machine may choose
    last_step_of(config, RunOptions())
    refuse_unrunnable(config, where)
    tokens = opened_for(config, data)
    with numerics(False, config.training.recipe == "tf32"), explained(config, where, "in the range test"):
        return lr_range_test(build(config, where, tokens), *span)


def refuse_span(low: float, high: float, steps: int) -> None:
    """Raises InputError for rates that do not rise and for fewer than ten steps."""
    if low >= high:
        raise InputError(f"--from {low:g} is not below --to {high:g}", remedy="give rates that rise, 1e-7 to 1e-1")
    if steps < 10:
        raise InputError(
            f"{steps} steps show no curve", why="the loss of single steps is noise", remedy="100 are usual"
        )


def lr_range_test(context: StepContext, low: float, high: float, steps: int) -> RateSearch:
    """The range test from where `context` stands; it ends where the loss explodes, and leaves `context` as it was."""
    rates = rates_between(low, high, steps)
    losses: list[float] = []
    with untouched(context) as tried:
        for step, rate in enumerate(rates, start=1):
            tried.config = at_rate(context.config, rate)
            losses += [loss for loss, _ in steps_on(tried, step, step)]
            if has_exploded(losses):
                break
    return search_of(rates, losses)


def at_rate(config: RunConfig, rate: float) -> RunConfig:
    """The config with this rate at every step."""
    flat = {"kind": "constant", "peak_lr": rate, "min_lr": 0.0, "warmup_steps": 0, "cooldown_steps": 0}
    return config.model_copy(update={"schedule": config.schedule.model_copy(update=flat)})


@contextmanager
def untouched(context: StepContext) -> Iterator[StepContext]:
    """A twin of `context` with the same model and optimizer; what the twin's steps changed is put back to the bit."""
    optimizer = context.optimizer
    rate = optimizer.rate
    weights = {name: w.detach().clone() for name, w in optimizer.weights.items()}
    state = {name: t.detach().clone() for name, t in optimizer.state().items()}
    try:
        yield _twin(context)
    finally:
        optimizer.zero_grad()
        with torch.no_grad():
            for name, w in optimizer.weights.items():
                w.copy_(weights[name])
            slots = optimizer.fresh_slots()
            for name, slot in slots.items():
                slot.copy_(state[name])
        optimizer.loaded(slots)
        optimizer.set_rate(rate)


def _twin(context: StepContext) -> StepContext:
    """`context` with a judge of its own: the run's has not seen these steps."""
    twin = copy.copy(context)
    twin.spike_guard, twin.watchers = copy.deepcopy(context.spike_guard), []
    return twin
