"""The order of one optimizer step, for everybody who takes one: training, the probe, the replay on fake tensors.

Nothing here waits for the device; what it calls may (step.py says where).
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from reference_trainer.data.samples import MicroBatch
from reference_trainer.optim.updater import Updater


class StepParts(Protocol):
    """What differs between a step of a run and one that is measured; `optimizer_step` asks for it.

    micro_batches: forward and backward passes of the step.
    """

    micro_batches: int

    def inputs(self, micro: int) -> MicroBatch:
        """The next micro-batch, on the model's device."""

    def before_backward(self) -> None:
        """Called when the loss of a micro-batch is there."""

    def after_backward(self, micro: int, loss: Tensor) -> None:
        """Called when its gradients are added. loss: its part of the step's mean, a scalar on the device."""

    def before_clip(self) -> None:
        """Called when all gradients are there."""

    def judged(self, norm: Tensor) -> Tensor:
        """Whether to update the weights, a bool on the device; norm: of all gradients before they were clipped."""

    def after_update(self) -> None:
        """Called after the update; the gradients are still there."""


def summed_loss(model: nn.Module, inputs: MicroBatch) -> Tensor:
    """The loss of all valid targets of a micro-batch, added up."""
    total: Tensor = model(inputs.ids, inputs.targets, inputs.documents)
    return total


def loss_part(model: nn.Module, inputs: MicroBatch, valid: float) -> Tensor:
    """The micro-batch's part of the mean loss of `valid` targets: every target of a step has the same weight."""
    return summed_loss(model, inputs) / (valid or 1)


def optimizer_step(
    model: nn.Module, optimizer: Updater, clip_norm: float | None, valid: float, parts: StepParts
) -> None:
    """One optimizer step: all micro-batches forward and backward, then clip, judge and update.

    clip_norm: largest gradient norm, None: unlimited. valid: number of targets in all its micro-batches; of several
    ranks, the mean of their numbers.
    """
    for micro in range(parts.micro_batches):
        loss = loss_part(model, parts.inputs(micro), valid)
        parts.before_backward()
        optimizer.backward(loss)
        parts.after_backward(micro, loss.detach())
        del loss
    parts.before_clip()
    optimizer.step(parts.judged(optimizer.clip(clip_norm)))
    parts.after_update()
    optimizer.zero_grad()
