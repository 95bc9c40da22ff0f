"""Preflight checks of checkpoints: a save and a load, bit for bit, their size, and the room on the disk."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from planner.config.run import RunConfig
from planner.counts.run import steps_of, tokens_per_step
from planner.errors import FileError
from planner.plan import Plan
from planner.runs.comparison import CHECKPOINT
from planner.runs.preflight import Check
from planner.units import format_bytes, format_duration, format_fraction, format_rate, told_apart
from reference_trainer.checkpoint.atomic import stored_bytes
from reference_trainer.checkpoint.checkpoint import load, save, state_of
from reference_trainer.checkpoint.retention import saves_ahead
from reference_trainer.step.step import StepContext


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A checkpoint that was written and read back: its size, both times, and the names of tensors that differ."""

    size_bytes: int
    save_seconds: float
    load_seconds: float
    different: tuple[str, ...]


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder`, deleted afterwards even after an error or SIGTERM. Raises FileError."""
    try:
        made = tempfile.TemporaryDirectory(prefix=".gptplan-preflight-", dir=folder)
    except OSError as error:
        raise FileError(
            f"{folder} cannot be written", why=error.strerror or str(error), remedy="give another --out"
        ) from None

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    main = threading.current_thread() is threading.main_thread()  # signals can be set there only
    before = signal.signal(signal.SIGTERM, end) if main else None
    try:
        with made as name:
            yield Path(name)
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def round_trip(context: StepContext, folder: Path) -> RoundTrip:
    """Save a checkpoint, overwrite every tensor in memory, load it, and compare bit for bit."""
    optimizer, state = (
        context.optimizer,
        state_of(context.config, context.data.fingerprint, 1, tokens_per_step(context.config)),
    )
    before = {name: t.detach().clone() for name, t in _everything(context).items()}
    begin = time.perf_counter()
    path = save(folder, optimizer, state)
    saved = time.perf_counter()
    size = stored_bytes(path)
    with torch.no_grad():
        for tensor in _everything(context).values():
            tensor.detach().fill_(1)
    loading = time.perf_counter()
    load(path, optimizer, state)
    loaded = time.perf_counter()
    after = _everything(context)
    different = sorted(n for n in before.keys() | after.keys() if n not in before or n not in after
                       or not _same_bits(before[n], after[n]))  # fmt: skip
    return RoundTrip(size, saved - begin, loaded - loading, tuple(different))


def _everything(context: StepContext) -> dict[str, Tensor]:
    """Model parameters, (master) weights of the optimizer, and optimizer state, by name."""
    tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in context.model.named_parameters()}
    tensors |= {f"weights.{name}": w for name, w in context.optimizer.weights.items()}
    return tensors | {f"state.{name}": t for name, t in context.optimizer.state().items()}


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8)))


def check_round_trip(plan: Plan, saved: RoundTrip) -> tuple[Check, Check]:
    """Check the round trip, and the size of the checkpoint against the prediction."""
    speed = format_rate(saved.size_bytes / saved.save_seconds / 1e6, "MB/s")
    values = {"save_seconds": saved.save_seconds, "load_seconds": saved.load_seconds, "different": len(saved.different)}
    measured = (
        f"saved in {format_duration(saved.save_seconds)} ({speed}), loaded in {format_duration(saved.load_seconds)}"
    )
    trip = Check("save and load", "ok", measured, "all tensors bit-equal", values=values)
    if saved.different:
        why = f"these tensors changed: {', '.join(saved.different[:4])}"
        trip = Check(
            "save and load",
            "failed",
            measured,
            "all tensors bit-equal",
            why,
            "do not train before this is fixed",
            values,
        )
    predicted = plan.memory.checkpoint_bytes
    sizes = {"bytes": saved.size_bytes, "predicted_bytes": predicted}
    size = (format_bytes(saved.size_bytes), format_bytes(predicted))
    if abs(saved.size_bytes / predicted - 1) <= CHECKPOINT:
        return trip, Check("checkpoint size", "ok", *size, values=sizes)
    why = f"beyond {format_fraction(CHECKPOINT)} of the prediction"
    return trip, Check("checkpoint size", "warning", *size, why, "plan disk space with the measured size", sizes)


def check_disk(config: RunConfig, folder: Path, bytes_each: int) -> Check:
    """Check that the disk of `folder` has room for all checkpoints that exist at the same time."""
    ahead = saves_ahead(config, 0, steps_of(config))
    saves, standing = ahead.saves, ahead.at_once
    free, need = shutil.disk_usage(folder).free, standing * bytes_each
    room, needed = told_apart(format_bytes, free, need)
    measured, expected = f"{room} free", f"{needed}: {standing} × {format_bytes(bytes_each)}"
    values = {"free_bytes": free, "needed_bytes": need, "checkpoints_at_once": standing, "saves": saves}
    if need <= free:
        return Check("disk", "ok", measured, expected, values=values)
    why = f"the disk is full after {free // bytes_each} checkpoints"
    mend = "free space, keep fewer with --keep-checkpoints, or choose another disk with --out"
    return Check("disk", "failed", measured, expected, why, mend, values)
