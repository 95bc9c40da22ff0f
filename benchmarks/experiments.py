"""Experiments of a training course, run with the reference trainer. Results without an effect are kept.

    python -m benchmarks.experiments [--json FILE] [--steps N] [--seeds N]

1. precision: the same run, a quarter of the steps, in fp32, bf16 and fp16 recipes: predicted peak, seconds per step,
   last loss; a processor without bf16 emulates it
2. recomputation: seconds per step with and without activation checkpointing, in turn, beside the predicted FLOPs
3. warm-up: with and without, at several peak rates and seeds
4. rates: a sweep of the peak rate from 1e-5 to 3e-3
Losses are means over the last tenth of a run's steps, nats per token; the data is the text of Python's own library.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_profile import gpt, run_of
from benchmarks.header import write
from planner.config.run import RunConfig
from planner.plan import estimate
from reference_trainer.data.samples import TokenData, open_data
from reference_trainer.device.device import device_name
from reference_trainer.loop.startup import build
from reference_trainer.step.step import StepContext, numerics, train_step
from reference_trainer.step.step_results import PendingSteps, StepResult

CPU = torch.device("cpu")
SETTLING = 3
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
WARMUP_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
BASE = run_of(gpt(4, 96, 4, vocab=257), seq=128, micro_batch=8)


def changed(config: RunConfig, **values: Any) -> RunConfig:
    """The config with some values of `training` and `schedule` changed."""
    for section in ("training", "schedule"):
        own = getattr(config, section)
        update = {key: value for key, value in values.items() if key in type(own).model_fields}
        config = config.model_copy(update={section: own.model_copy(update=update)})
    return config


def trained(config: RunConfig, data: TokenData) -> list[StepResult]:
    """Every step of a run, none of it written down."""
    context, pending = build(config, CPU, data), PendingSteps()
    for step in range(1, (config.training.steps or 0) + 1):
        pending.add(train_step(context, step))
    return pending.read()


def last_loss(steps: list[StepResult]) -> float:
    """Mean over the last tenth; infinite where any of it is not finite."""
    found = [step.loss for step in steps[-max(1, len(steps) // 10) :]]
    return statistics.fmean(found) if all(map(math.isfinite, found)) else math.inf


def precisions(base: RunConfig, data: TokenData) -> list[dict[str, Any]]:
    """One run per recipe."""
    rows = []
    for recipe in ("fp32", "mixed-bf16", "master-bf16", "pure-bf16", "mixed-fp16"):
        config = changed(base, recipe=recipe)
        steps = trained(config, data)
        rows.append(
            {
                "recipe": recipe,
                "predicted_peak_bytes": estimate(config).memory.peak_requested_bytes,
                "step_seconds": statistics.median(s.seconds for s in steps[SETTLING:]),
                "updates_left_out": sum(not s.updated for s in steps),
                "last_loss": last_loss(steps),
            }
        )
    return rows


def recomputation(base: RunConfig, data: TokenData, rounds: int) -> list[dict[str, Any]]:
    """none, selective and full take turns step by step."""
    modes = ("none", "selective", "full")
    configs = {mode: changed(base, activation_checkpointing=mode) for mode in modes}
    contexts: dict[str, StepContext] = {mode: build(config, CPU, data) for mode, config in configs.items()}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    losses: dict[str, float] = {}
    for step in range(1, SETTLING + rounds + 1):
        for mode in modes:
            pending = PendingSteps()
            pending.add(train_step(contexts[mode], step))
            done = pending.read()[0]
            losses[mode] = done.loss
            if step > SETTLING:
                seconds[mode].append(done.seconds)
    flops = {mode: estimate(config).flops.per_token_hardware for mode, config in configs.items()}
    return [
        {
            "activation_checkpointing": mode,
            "step_seconds": statistics.median(seconds[mode]),
            # step by step: a busy moment meets all three
            "time_ratio": statistics.median(a / b for a, b in zip(seconds[mode], seconds["none"], strict=True)),
            "predicted_flops_ratio": flops[mode] / flops["none"],
            "predicted_peak_bytes": estimate(configs[mode]).memory.peak_requested_bytes,
            "same_loss": losses[mode] == losses["none"],
        }
        for mode in modes
    ]


def warmups(base: RunConfig, data: TokenData, seeds: int) -> list[dict[str, Any]]:
    """With a tenth of the steps as warm-up, and with none."""
    total = base.training.steps or 0
    rows = []
    for rate in WARMUP_RATES:
        for warmup in (0, total // 10):
            losses = [
                last_loss(trained(changed(base, peak_lr=rate, min_lr=rate / 10, warmup_steps=warmup, seed=seed), data))
                for seed in range(1, seeds + 1)
            ]
            rows.append({"peak_lr": rate, "warmup_steps": warmup, "last_losses": [finite(x) for x in losses]})
    return rows


def rates(base: RunConfig, data: TokenData) -> list[dict[str, Any]]:
    """The last loss at each peak rate."""
    total = base.training.steps or 0
    found = {
        rate: last_loss(trained(changed(base, peak_lr=rate, min_lr=rate / 10, warmup_steps=total // 10), data))
        for rate in RATES
    }
    return [{"peak_lr": rate, "last_loss": finite(loss)} for rate, loss in found.items()]


def finite(x: float) -> float | None:
    """JSON has no infinity."""
    return x if math.isfinite(x) else None


def main() -> None:
    """All four, printed or written as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    base = changed(BASE, steps=asked.steps, peak_lr=1e-3, min_lr=1e-4, warmup_steps=asked.steps // 10)
    data = open_data(None, base.model.vocab, base.training.seq)
    with numerics(deterministic=False):
        result = {
            "device": device_name(CPU),
            "threads": torch.get_num_threads(),
            "data": data.description,
            "steps": asked.steps,
            "precision": precisions(changed(base, steps=max(10, asked.steps // 4)), data),
            "recomputation": recomputation(base, data, 40),
            "warmup": warmups(base, data, asked.seeds),
            "rates": rates(base, data),
        }
    write(result, asked.json)


if __name__ == "__main__":
    main()
