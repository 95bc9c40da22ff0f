"""One optimizer step: forward, backward, clip, judge, update. Nothing in this file waits for the device.

What it calls waits in two cases: a mixture of experts without a grouped kernel reads how many tokens each expert has,
once in a product and pass (grouped.py), and an optimizer that counts on the host reads whether the step is good, once
(conditional_step.py).

Do not use `tolist`, `item`, `numpy` or `bool` of a tensor here: each makes the host wait until the device is done. The
numbers of a step stay on the device in a `PendingStep` until the loop reads many steps at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from planner.config.run import RunConfig
from planner.counts.run import rate_at
from planner.errors import PlanError
from reference_trainer.data.prefetch import Prefetcher
from reference_trainer.data.samples import MicroBatch, TokenData
from reference_trainer.device.device import device_name
from reference_trainer.device.out_of_memory import explained
from reference_trainer.distributed.ranks import ALONE, Ranks
from reference_trainer.distributed.replicas import reduce_in_backward
from reference_trainer.distributed.watch import Moves
from reference_trainer.model.gpt import GPT
from reference_trainer.optim.updater import Updater
from reference_trainer.step.batch_source import BatchSource
from reference_trainer.step.optimizer_step import optimizer_step
from reference_trainer.step.rollbacks import Rollback, rate_factor
from reference_trainer.step.spike_guard import SpikeGuard
from reference_trainer.step.step_results import Clock, PendingStep


class Watcher(Protocol):
    """Measures something during a step, on the device. The numbers that it returns are logged by name."""

    def before_step(self, context: StepContext, step: int) -> None:
        """Called before the first forward pass."""

    def after_micro(self, context: StepContext, step: int, micro: int) -> None:
        """Called after each backward pass, when its gradients are added."""

    def before_update(self, context: StepContext, step: int) -> None:
        """Called when gradients are complete and clipped, before the weights change."""

    def after_update(self, context: StepContext, step: int) -> dict[str, Tensor]:
        """Called after the update; gradients still exist. Returns 0-dimensional tensors on the device."""


def as_loss(loss: Tensor) -> dict[str, Tensor]:
    """The numbers that a process on its own shares: its loss is the step's."""
    return {"loss": loss}


@dataclass(slots=True)
class StepContext:
    """Everything that a step needs: config, device, data, model, optimizer, watchers, source of batches.

    replica: what is called in training, which reduces gradients over `ranks`; None: the model itself. with_loss: the
    mean of the ranks' losses, and other numbers that they share in the same message, by name. moves: how far it is.
    """

    config: RunConfig
    device: torch.device
    data: TokenData
    model: GPT
    optimizer: Updater
    watchers: list[Watcher] = field(default_factory=list)
    ranks: Ranks = ALONE
    replica: nn.Module | None = None
    with_loss: Callable[[Tensor], dict[str, Tensor]] = as_loss
    moves: Moves = field(default_factory=Moves)
    spike_guard: SpikeGuard = field(init=False)
    source: BatchSource = field(init=False)
    prefetcher: Prefetcher = field(init=False)

    def __post_init__(self) -> None:
        self.spike_guard = SpikeGuard(self.config.guard, self.device)
        self.source = BatchSource(self.config, self.data, ranks=self.ranks)
        # the thread knows the source alone: knowing the context, it would keep the model in memory
        self.prefetcher = Prefetcher(self.source.micro_batch, self.config.training.accumulation, self.device)

    @property
    def rollbacks(self) -> tuple[Rollback, ...]:
        """The rollbacks of the run so far: the data of some steps is passed by."""
        return self.source.rollbacks

    @rollbacks.setter
    def rollbacks(self, rollbacks: tuple[Rollback, ...]) -> None:
        self.source.rollbacks = rollbacks


def train_step(context: StepContext, step: int) -> PendingStep:
    """Train one optimizer step of the run: all micro-batches forward and backward, then clip, judge and update.

    Raises PlanError if the device runs out of memory.
    """
    config, optimizer = context.config, context.optimizer
    clock, valid = Clock(context.device), context.source.valid_targets(step)
    optimizer.set_lr(rate_at(config, step) * rate_factor(context.rollbacks, step))
    parts, balance = _TrainingParts(context, step, valid), context.model.balance
    if balance is not None:
        balance.begin_step()
    for watcher in context.watchers:
        watcher.before_step(context, step)
    with explained(config, context.device, f"in step {step}"):
        # ranks are averaged: each divides by its part of the targets, as if all had as many
        divisor = valid / context.ranks.world
        optimizer_step(context.replica or context.model, optimizer, config.optimizer.clip_norm, divisor, parts)
    clock.stop()
    return PendingStep(step, optimizer.lr, clock, context.prefetcher.waited(), valid, parts.numbers)


class _TrainingParts:
    """What a step of a run has in `optimizer_step`: its data, the guard, watchers, the balance of experts.

    numbers: of the step, scalars on the device, by name; complete after the step.
    """

    def __init__(self, context: StepContext, step: int, valid: int) -> None:
        self.context, self.step, self.valid = context, step, valid
        self.micro_batches = context.config.training.accumulation
        self.total = torch.zeros((), device=context.device)
        self.numbers: dict[str, Tensor] = {}

    def inputs(self, micro: int) -> MicroBatch:
        """The run's next micro-batch, copied to the device ahead of its use; dropout is seeded for it."""
        self.context.moves.moved()
        if self.context.replica is not None:
            reduce_in_backward(self.context.replica, micro == self.micro_batches - 1)
        taken = self.context.prefetcher.take(self.step, micro)
        self.context.moves.moved()
        seed_dropout(self.context.config, self.step, self.context.source.number(micro))
        return taken

    def before_backward(self) -> None:
        """Nothing happens between forward and backward."""

    def after_backward(self, micro: int, loss: Tensor) -> None:
        """Add up the loss; call the watchers."""
        self.context.moves.moved()
        self.total += loss
        for watcher in self.context.watchers:
            watcher.after_micro(self.context, self.step, micro)

    def before_clip(self) -> None:
        """The loss that is judged: of all ranks, of the language alone if experts are balanced by a loss too."""
        balance = self.context.model.balance
        if balance is not None and balance.has_loss:
            self.total = balance.language / max(self.valid, 1)
        self.numbers |= self.context.with_loss(self.total)
        self.total = self.numbers["loss"]

    def judged(self, norm: Tensor) -> Tensor:
        """Whether the guard lets the step pass."""
        found = self.context.spike_guard.judge(self.total, norm)
        self.numbers |= {"grad_norm": norm, "scale": self.context.optimizer.scale_tensor}
        self.numbers |= {"good": found.good, "spike": found.spike}
        self.numbers |= {"loss_sigmas": found.loss_sigmas, "norm_sigmas": found.norm_sigmas}
        for watcher in self.context.watchers:
            watcher.before_update(self.context, self.step)
        return found.good

    def after_update(self) -> None:
        """Move the bias of experts, collect what balance and watchers measured."""
        balance = self.context.model.balance
        if balance is not None:
            balance.move_bias(self.numbers["good"])
            self.numbers |= balance.metrics(self.valid)
        for watcher in self.context.watchers:
            self.numbers |= watcher.after_update(self.context, self.step)


def seed_dropout(config: RunConfig, step: int, micro: int) -> None:
    """Seed dropout with a pure function of (seed, step, micro-batch).

    A resumed run therefore draws the same masks as an uninterrupted one, without any saved state.
    """
    if config.training.dropout > 0:
        digest = hashlib.sha256(f"{config.training.seed}/{step}/{micro}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # below 2^63


@contextmanager
def explained_breakdown(device: torch.device) -> Iterator[None]:
    """Turn a CUDA error into a PlanError. The CUDA context is broken then, so nothing can be saved."""
    try:
        yield
    except RuntimeError as error:
        if "CUDA error" not in str(error):
            raise
        raise PlanError(
            f"the GPU failed: {device_name(device)}",
            why=str(error).splitlines()[0],
            remedy="check the driver's log (dmesg, Xid), then resume from the last checkpoint with --resume",
        ) from error


@contextmanager
def numerics(deterministic: bool, tf32: bool = False) -> Iterator[None]:
    """Set TF32 only if `tf32`, and deterministic algorithms if requested; restore the previous settings afterwards."""
    before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    if deterministic:
        # cuBLAS reads it at the first matmul (NVIDIA, "Results reproducibility")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.use_deterministic_algorithms(deterministic or before[1])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.use_deterministic_algorithms(before[1])
