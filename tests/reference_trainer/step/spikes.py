"""Runs with a spike guard and with losses that are made to spike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from planner.config.loop import GuardConfig
from planner.config.run import RunConfig
from reference_trainer.metrics.records import RunResult

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]


def guarded(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"guard": GuardConfig(spike_window=8, **changes)})


def garbage(monkeypatch: pytest.MonkeyPatch, samples: set[int], factor: float = 50.0) -> list[int]:
    """Steps whose first sample is in `samples` have a loss `factor` times too large; the samples seen, in order."""
    import reference_trainer.step.batch_source as source
    import reference_trainer.step.step as module

    batch, seen = source.batch, list[int]()

    class Scaled(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        @property
        def balance(self) -> Any:
            return self.inner.balance

        def forward(self, *args: Any) -> torch.Tensor:
            loss: torch.Tensor = self.inner(*args)
            return loss * factor if seen[-1] in samples else loss

    def noted(data: Any, config: RunConfig, start: int, count: int) -> Any:
        seen.append(start)
        return batch(data, config, start, count)

    step = module.train_step

    def wrapped(context: Any, number: int) -> Any:
        model = context.model
        context.model = Scaled(model)
        try:
            return step(context, number)
        finally:
            context.model = model

    monkeypatch.setattr(source, "batch", noted)
    monkeypatch.setattr("reference_trainer.train.train_step", wrapped)
    return seen
