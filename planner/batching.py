"""Micro-batch and accumulation from what was typed: the effective batch is met exactly or refused."""

from __future__ import annotations

from typing import Protocol

from planner import presets
from planner.config import (
    HardwareConfig,
    ModelConfig,
    OptimizerConfig,
    Provenance,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
)
from planner.errors import InputError
from planner.memory_account import memory_of
from planner.typed import Typed, flag
from planner.units import parse_count

DEFAULT_BATCH_TOKENS = 524_288
MOST_TOKENS_AT_ONCE = 16_384
FILL = 0.9


class Recorder(Protocol):
    """Where assumptions are noted."""

    def add(self, key: str, value: object, source: str) -> None:
        """Record a value that nobody typed."""


def batch_of(
    typed: Typed,
    base: RunConfig | None,
    model: ModelConfig,
    training: TrainingConfig,
    hardware: HardwareConfig,
    notes: Recorder,
) -> TrainingConfig:
    """`training` with micro-batch and accumulation.

    Raises InputError when a typed batch cannot be divided among the devices; the message names the nearest legal ones.
    """
    micro = _count(typed, "micro_batch")
    accumulation = _count(typed, "accumulation")
    wanted = _count(typed, "global_batch_tokens")
    if base is not None and wanted is None:
        micro = micro or base.training.micro_batch
        accumulation = accumulation or base.training.accumulation
    if accumulation is not None:
        if micro is None:
            micro = 1
            notes.add("micro_batch", 1, "default beside a given accumulation")
        return training.model_copy(update={"micro_batch": micro, "accumulation": accumulation})
    per_device = _sequences_per_device(wanted, training, hardware, micro or 1, notes)
    if micro is None:
        micro = _largest_micro_batch(model, training, hardware, per_device)
        notes.add(
            "micro_batch",
            micro,
            "largest divisor of the sequences per device with at most 16,384 tokens whose peak stays below 90 % of "
            "the memory (1 if none does)",
        )
    notes.add("accumulation", per_device // micro, "batch divided by devices and micro-batch")
    return training.model_copy(update={"micro_batch": micro, "accumulation": per_device // micro})


def _count(typed: Typed, name: str) -> int | None:
    text = getattr(typed, name)
    return None if text is None else parse_count(text, name=flag(name))


def _sequences_per_device(
    wanted: int | None, training: TrainingConfig, hardware: HardwareConfig, micro: int, notes: Recorder
) -> int:
    """Sequences of one step on each device; a default batch is rounded to a legal one, a typed one is not."""
    unit = training.seq * hardware.gpus * micro
    if wanted is None:
        found = max(1, round(DEFAULT_BATCH_TOKENS / unit))
        notes.add(
            "global_batch_tokens",
            found * unit,
            "default: 524,288 tokens per step (2^19, GPT-3's 0.5M for 125M, arXiv 2005.14165), in whole sequences",
        )
        return found * micro
    if wanted % unit:
        below, above = wanted // unit * unit, (wanted // unit + 1) * unit
        near = f"{below:,} or {above:,}" if below else f"{above:,}"
        raise InputError(
            f"--global-batch-tokens: {wanted:,} is not a whole number of sequences on every device",
            why=f"sequence {training.seq:,} x micro-batch {micro:,} x {hardware.gpus:,} GPUs = {unit:,} tokens",
            remedy=f"the nearest legal batches are {near}",
        )
    return wanted // unit * micro


def _largest_micro_batch(
    model: ModelConfig, training: TrainingConfig, hardware: HardwareConfig, per_device: int
) -> int:
    """The micro-batch of the rule; memory is only asked where the card's is known."""
    gpu = presets.gpu(hardware.gpu) if hardware.gpu in presets.gpu_ids() else None
    usable = gpu.usable_bytes if gpu else None
    for micro in range(min(per_device, max(1, MOST_TOKENS_AT_ONCE // training.seq)), 0, -1):
        if per_device % micro:
            continue
        if usable is None or micro == 1:
            return micro
        update = {"micro_batch": micro, "accumulation": per_device // micro}
        need = memory_of(_provisional(model, training.model_copy(update=update), hardware), gpu).peak_allocated_bytes
        if need is not None and need <= FILL * usable:
            return micro
    return 1


def _provisional(model: ModelConfig, training: TrainingConfig, hardware: HardwareConfig) -> RunConfig:
    """A config for the memory account alone: schedule and provenance do not enter it."""
    return RunConfig(
        model=model,
        training=training,
        optimizer=OptimizerConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0),
        schedule=ScheduleConfig(peak_lr=1.0, min_lr=0.0, warmup_steps=0),
        hardware=hardware,
        provenance=Provenance(as_of="", gptplan=""),
    )
