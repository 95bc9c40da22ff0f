"""The learning-rate range test: real steps at rising learning rates, after which the model is restored.

The steps are those of training, with clipping and weight decay as configured. Afterwards weights, master weights,
optimizer state and loss scale are restored bit for bit, so a run can start or continue from the same state.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from planner.activity import doing
from planner.bounds import MOST_RANGE_STEPS, refuse_more_than
from planner.config.run import RunConfig
from planner.counts.run import tokens_per_step
from planner.errors import InputError
from planner.log import Log
from planner.runs.rate_search import RateSearch, has_exploded, rates_between, search_of
from reference_trainer.data.corpus.listing import summary_lines
from reference_trainer.data.corpus.sources import ReadOptions
from reference_trainer.device.device import pick_device, progress
from reference_trainer.device.out_of_memory import explained
from reference_trainer.loop.device_adaptation import adapt_to_device, with_runnable_runtime
from reference_trainer.loop.evaluation import opened_for
from reference_trainer.loop.startup import build, last_step_of
from reference_trainer.preflight.steps import steps_on
from reference_trainer.step.options import BY_BYTES, RunOptions
from reference_trainer.step.precision import refuse_unrunnable, uses_tf32
from reference_trainer.step.step import StepContext, numerics


def find_learning_rate(
    config: RunConfig,
    data: Path | None,
    device: str | None,
    span: tuple[float, float, int],
    log: Log,
    reading: ReadOptions = BY_BYTES,
) -> RateSearch:
    """The range test of a config from its initial weights, on its own data and batch. span: (low, high, steps).

    reading: how the data is read.

    Raises PlanError if no run could start with this config.
    """
    refuse_span(*span)
    where = pick_device(device)
    if any(a.key == "recipe" for a in config.provenance.assumptions):
        config = adapt_to_device(config, where, log)  # nobody chose the recipe: use the one of a run on this machine
    config = with_runnable_runtime(config, where)
    last_step_of(config, RunOptions())
    refuse_unrunnable(config, where)
    tokens = opened_for(config, data, reading)
    for line in () if tokens.summary is None else summary_lines(tokens.summary):
        log(line)
    with numerics(False, uses_tf32(config)), explained(config, where, "in the range test"):
        context = build(config, where, tokens)
        with doing("taking steps at rising learning rates"):
            return lr_range_test(context, *span, log)


def refuse_span(low: float, high: float, steps: int) -> None:
    """Raises InputError if low is not below high, or for fewer than ten or too many steps."""
    refuse_more_than(MOST_RANGE_STEPS, steps, "--steps", "each step is one of training, and a row of the result")
    if low >= high:
        raise InputError(
            f"--from {low:g} is not below --to {high:g}",
            remedy="give a rising range, for example --from 1e-7 --to 1e-1",
        )
    if steps < 10:
        raise InputError(
            f"{steps} steps are too few for a curve",
            why="the loss of a single step is noisy",
            remedy="give 10 or more; 100 is usual",
        )


def lr_range_test(
    context: StepContext, low: float, high: float, steps: int, log: Log = lambda line: None
) -> RateSearch:
    """The range test from the current state of `context`, which it restores. It stops when the loss explodes."""
    rates = rates_between(low, high, steps)
    losses: list[float] = []
    told = progress(0, steps, tokens_per_step(context.config), log, bar=False)
    with untouched(context) as tried, told as show:
        for step, rate in enumerate(rates, start=1):
            tried.config = at_rate(context.config, rate)
            for loss, seconds in steps_on(tried, step, step):
                losses.append(loss)
                show(step, loss, seconds)
            if has_exploded(losses):
                break
    return search_of(rates, losses)


def at_rate(config: RunConfig, rate: float) -> RunConfig:
    """The config with a constant learning rate."""
    flat = {"kind": "constant", "peak_lr": rate, "min_lr": 0.0, "warmup_steps": 0, "cooldown_steps": 0}
    return config.model_copy(update={"schedule": config.schedule.model_copy(update=flat)})


@contextmanager
def untouched(context: StepContext) -> Iterator[StepContext]:
    """A copy of `context` with the same model and optimizer. Its changes are undone afterwards."""
    optimizer = context.optimizer
    rate = optimizer.lr
    weights = {name: w.detach().clone() for name, w in optimizer.weights.items()}
    state = {name: t.detach().clone() for name, t in optimizer.state().items()}
    try:
        yield _twin(context)
    finally:
        optimizer.zero_grad()
        with torch.no_grad():
            for name, w in optimizer.weights.items():
                w.copy_(weights[name])
            slots = optimizer.new_state()
            for name, slot in slots.items():
                slot.copy_(state[name])
        optimizer.finish_loading(slots)
        optimizer.set_lr(rate)


def _twin(context: StepContext) -> StepContext:
    """`context` with its own spike guard: these steps must not enter the window of the run."""
    twin = copy.copy(context)
    twin.spike_guard, twin.watchers = copy.deepcopy(context.spike_guard), []
    return twin
