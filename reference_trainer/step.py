"""One optimizer step, the same for every caller: forward, backward, clip, update, timed with the device at rest."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from planner.config import RunConfig
from planner.errors import PlanError
from planner.shape import rate_at, tokens_per_step
from reference_trainer.data import TokenData, batch
from reference_trainer.guard import NonFiniteGuard
from reference_trainer.model import GPT
from reference_trainer.monitor import device_name, wait_for
from reference_trainer.updates import Updater


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: mean loss in nats per token, global gradient norm before clipping, rate, wall time.

    `updated` is false where the loss or the gradient was not finite and the weights were left alone.
    """

    step: int
    loss: float
    grad_norm: float
    rate: float
    seconds: float
    updated: bool


@dataclass(slots=True)
class Work:
    """What a step works on."""

    config: RunConfig
    device: torch.device
    data: TokenData
    model: GPT
    optimizer: Updater
    guard: NonFiniteGuard = field(default_factory=NonFiniteGuard)


def train_step(work: Work, step: int) -> Step:
    """One optimizer step: all micro-batches forward and backward, clip, update; timed with the device at rest.

    Raises PlanError when the memory does not suffice.
    """
    config, training = work.config, work.config.training
    tokens = tokens_per_step(config)
    first_sample = (step - 1) * training.micro_batch * training.accumulation
    wait_for(work.device)
    begin = time.perf_counter()
    optimizer = work.optimizer
    optimizer.set_rate(rate_at(config, step))
    total = torch.zeros((), device=work.device)
    with explained_shortage(work.device, f"in step {step}"):
        for micro in range(training.accumulation):
            start = first_sample + micro * training.micro_batch
            b = batch(work.data, config, start, training.micro_batch)
            ids, targets = _on_device((b.ids, b.targets), work.device)
            documents = None if b.documents is None else b.documents.to(work.device)
            loss = (
                work.model(ids, targets, documents) / tokens
            )  # the model sums: divided once, every token weighs the same
            optimizer.backward(loss)
            total += loss.detach()
        scale, norm = optimizer.scale, optimizer.clip(config.optimizer.clip_norm)
        loss_value, grad_norm = torch.stack([total, norm]).tolist()  # both at once: one wait for the device
        updated = work.guard.allows(loss_value, grad_norm, scale)
        optimizer.step(updated)
    optimizer.zero_grad()
    wait_for(work.device)
    return Step(step, loss_value, grad_norm, optimizer.rate, time.perf_counter() - begin, updated)


@contextmanager
def explained_shortage(device: torch.device, when: str) -> Iterator[None]:
    """Make PlanErrors of PyTorch's errors about memory; on a CPU they have no class of their own."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise PlanError(
            f"{device_name(device)} ran out of memory {when}",
            why=str(error).splitlines()[0],
            remedy="plan with a smaller micro-batch and more accumulation, or with activation checkpointing",
        ) from error


def _on_device(pair: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    ids, targets = pair
    if device.type == "cpu":
        return ids, targets
    # from pinned memory the copy does not wait for the kernels already queued
    return ids.pin_memory().to(device, non_blocking=True), targets.pin_memory().to(device, non_blocking=True)


@contextmanager
def numerics(deterministic: bool, tf32: bool = False) -> Iterator[None]:
    """fp32 means fp32 unless the recipe is TF32's, and on request nothing varies; the settings return at the end."""
    before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    if deterministic:
        # cuBLAS reads it when it starts, which is at the first matrix product (NVIDIA, "Results reproducibility")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.use_deterministic_algorithms(deterministic or before[1])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.use_deterministic_algorithms(before[1])
