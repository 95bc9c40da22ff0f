"""Step results are read from the device once per log interval: nothing else waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from reference_trainer.step.step import train_step
from tests.reference_trainer.step.spikes import MakeConfig, Train

READERS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero")


@pytest.mark.parametrize("log_every", [1, 4])
def test_the_loop_waits_for_the_device_once_in_a_log_interval(
    tiny: MakeConfig, train: Train, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    """Whatever reads a tensor's value on the host would wait for a GPU: outside of `PendingSteps.read` nothing does."""
    from reference_trainer.step.step_results import PendingSteps

    reads, strays, read = list[int](), list[str](), PendingSteps.read
    inside = [False]

    def counted(self: PendingSteps) -> Any:
        if self.steps:
            reads.append(len(self.steps))
        inside[0] = True
        try:
            return read(self)
        finally:
            inside[0] = False

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(torch.Tensor, name)

        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if not inside[0]:
                strays.append(name)
            return original(self, *args, **kwargs)

        return call

    step = train_step

    def stepped(context: Any, number: int) -> Any:
        with monkeypatch.context() as patch:
            for name in READERS:
                patch.setattr(torch.Tensor, name, watched(name))
            return step(context, number)

    monkeypatch.setattr(PendingSteps, "read", counted)
    monkeypatch.setattr("reference_trainer.train.train_step", stepped)
    train(tiny(checkpoint_every=None, implementation="fused"), log_every=log_every)
    assert reads == [log_every] * (8 // log_every) and strays == []
