"""Preflight checks of machine and money: memory, peaks, step time, a save and its load, the disk, the whole run."""

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
from statistics import median

import torch
from torch import Tensor

from planner.analysis.fitting import predicted_peak, smallest_change
from planner.config.run import RunConfig
from planner.counts.run import recipe_of, steps_of, tokens_per_step
from planner.errors import FileError
from planner.formulas import cost
from planner.plan import Plan
from planner.runs.comparison import ALLOCATED, CHECKPOINT, REQUESTED, REQUESTED_CHECKPOINTED, TIME
from planner.runs.preflight import Check
from planner.units import format_bytes, format_duration, format_fraction, format_money, format_rate
from reference_trainer.checkpoint.atomic import bytes_of
from reference_trainer.checkpoint.checkpoint import load, save, state_of
from reference_trainer.measure.replay import Track
from reference_trainer.preflight.model import steps_on
from reference_trainer.step.step import StepContext

SETTLING = 2  # steps that pay for allocation and caches, as in a run
TIMED = 5
MOST_FOR_SAVES = 0.05  # of the whole time, a judgement


# --- memory -------------------------------------------------------------------------------------------------------


def free_bytes(device: torch.device) -> int | None:
    """Memory of the device that this process could have now; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    line = next((one for one in meminfo.read_text(encoding="ascii").splitlines() if one.startswith("MemAvailable")), "")
    return int(line.split()[1]) * 1024 if line else None


def check_memory(plan: Plan, free: int | None) -> Check:
    """The predicted peak fits into what is free now; else the smallest change that does. `free`: `free_bytes`.

    Free bytes of a GPU are asked for by a process that has its CUDA context already: it is not counted again.
    """
    config, peak = plan.config, predicted_peak(plan.config, replay=True)
    measured = f"{format_bytes(free)} free now"
    expected = f"{format_bytes(peak)} predicted, in {plan.memory.peak_phase}"
    values = {"free_bytes": free, "predicted_peak_bytes": peak, "peak_phase": plan.memory.peak_phase}
    if free is None:
        why = "this system does not tell how much memory is free"
        return Check("memory", "skipped", measured, expected, why, "", values)
    if peak <= free:
        return Check("memory", "ok", measured, expected, values=values)
    found = smallest_change(config, free)
    mend = "a larger device, a smaller model, or another --recipe: no micro-batch fits"
    if found is not None:
        mend = f"{found.command_line} (the same global batch): predicted {format_bytes(found.peak_bytes)}"
    if (plan.memory.peak_allocated_bytes or peak) <= free:
        why = "it fits only if the allocator gives unused segments back and asks again, and each retry waits"
        return Check("memory", "warning", measured, expected, why, mend, values)
    return Check("memory", "failed", measured, expected, "the first step would run out of memory", mend, values)


def check_phase_peaks(plan: Plan, track: Track) -> Check:
    """Peak of each phase of two real steps, tensor by tensor, against the prediction (on a processor)."""
    seen, mode = track.by_phase(), plan.config.training.activation_checkpointing
    tolerance = REQUESTED if mode == "none" else REQUESTED_CHECKPOINTED
    pairs = {p.phase: (p.peak_bytes, seen[p.phase]) for p in plan.memory.phases if p.phase in seen}
    errors = {phase: found / predicted - 1 for phase, (predicted, found) in pairs.items()}
    worst = max(errors, key=lambda phase: abs(errors[phase]))
    values: dict[str, float | int | str | bool | None] = {
        f"{phase}_{kind}_bytes": size
        for phase, pair in pairs.items()
        for kind, size in zip(("predicted", "measured"), pair, strict=True)
    }
    top = track.peak
    measured = f"{format_bytes(top.peak_bytes)} in {top.phase}; {len(pairs)} phases to ±{_off(abs(errors[worst]))}"
    expected = f"{format_bytes(plan.memory.peak_requested_bytes)} in {plan.memory.peak_phase}, ±{_off(tolerance)}"
    if abs(errors[worst]) <= tolerance:
        return Check("peak of a step", "ok", measured, expected, values=values)
    why = f"{worst}: predicted {format_bytes(pairs[worst][0])}, measured {format_bytes(pairs[worst][1])}"
    return Check("peak of a step", "warning", measured, expected, why, "compare: gptplan trace RUN_TOML", values)


def check_device_peak(plan: Plan, allocated: int, reserved: int) -> Check:
    """The allocator's own counters after real steps against the prediction (on a GPU)."""
    m = plan.memory
    predicted = m.peak_allocated_bytes
    measured = f"{format_bytes(allocated)} allocated, {format_bytes(reserved)} reserved"
    expected = f"{format_bytes(predicted)} allocated, {format_bytes(m.peak_reserved_bytes)} reserved"
    values = {
        "allocated_bytes": allocated,
        "reserved_bytes": reserved,
        "predicted_allocated_bytes": predicted,
        "predicted_reserved_bytes": m.peak_reserved_bytes,
    }
    if predicted is None:
        return Check("peak of a step", "skipped", measured, "unknown", "nothing is predicted here", "", values)
    if abs(allocated / predicted - 1) <= ALLOCATED:
        return Check("peak of a step", "ok", measured, expected, values=values)
    why = f"allocated {_off(allocated / predicted - 1)} off, beyond {_off(ALLOCATED)}"
    return Check("peak of a step", "warning", measured, expected, why, "compare: gptplan trace RUN_TOML", values)


def _off(share: float) -> str:
    return "0 %" if share == 0 else format_fraction(share)


# --- time ---------------------------------------------------------------------------------------------------------


def check_step_time(context: StepContext, plan: Plan, seconds: float) -> tuple[Check, float | None]:
    """The median of a few real steps in at most about `seconds`, and its check against the prediction."""
    count = SETTLING + TIMED
    taken = steps_on(context, 1, min(count, steps_of(context.config)), time.monotonic() + seconds)
    settling = min(SETTLING, len(taken) - 1)
    kept = [each for _, each in taken[settling:]]
    middle = median(kept)
    t = plan.throughput
    measured = f"{format_duration(middle)}, {format_rate(tokens_per_step(context.config) / middle)} ({len(kept)} timed)"
    expected = f"{format_duration(t.step_seconds)}, {format_rate(t.tokens_per_second)}"
    values = {
        "step_seconds": middle,
        "predicted_step_seconds": t.step_seconds,
        "tokens_per_second": tokens_per_step(context.config) / middle,
        "steps_timed": len(kept),
    }
    if t.step_seconds is None or t.step_seconds_low is None or t.step_seconds_high is None:
        why = "the speed of this model on this device is not predicted; the measured one stands"
        return Check("step time", "skipped", measured, "unknown", why, "", values), middle
    low, high = t.step_seconds * (1 - TIME), t.step_seconds * (1 + TIME)
    if t.basis == "datasheet":
        low, high = t.step_seconds_low, t.step_seconds_high
    if low <= middle <= high:
        return Check("step time", "ok", measured, expected, values=values), middle
    why = f"outside {format_duration(low)} to {format_duration(high)}: other work on the machine, or the prediction"
    return Check("step time", "warning", measured, expected, why, "repeat it on an idle machine", values), middle


# --- saving -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A checkpoint written to the target's disk and read back: its size, both times, the tensors that differ."""

    size_bytes: int
    save_seconds: float
    load_seconds: float
    different: tuple[str, ...]


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder in `folder` that is gone afterwards, whatever happens, SIGTERM included. Raises FileError."""
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
    """Save the work, spoil every tensor in memory, load it again, and compare to the bit."""
    optimizer, state = (
        context.optimizer,
        state_of(context.config, context.data.fingerprint, 1, tokens_per_step(context.config)),
    )
    before = {name: t.detach().clone() for name, t in _everything(context).items()}
    begin = time.perf_counter()
    path = save(folder, optimizer, state)
    saved = time.perf_counter()
    size = bytes_of(path)
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
    """The model's parameters, the weights that are updated, and the optimizer's state, by name."""
    found: dict[str, Tensor] = {f"model.{name}": p for name, p in context.model.named_parameters()}
    found |= {f"weights.{name}": w for name, w in context.optimizer.weights.items()}
    return found | {f"state.{name}": t for name, t in context.optimizer.state().items()}


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8)))


def check_round_trip(plan: Plan, saved: RoundTrip) -> tuple[Check, Check]:
    """The round trip, and the checkpoint's size against the prediction."""
    speed = format_rate(saved.size_bytes / saved.save_seconds / 1e6, "MB/s")
    values = {"save_seconds": saved.save_seconds, "load_seconds": saved.load_seconds, "different": len(saved.different)}
    measured = (
        f"saved in {format_duration(saved.save_seconds)} ({speed}), loaded in {format_duration(saved.load_seconds)}"
    )
    trip = Check("save and load", "ok", measured, "every tensor equal to the bit", values=values)
    if saved.different:
        why = f"other bits in {', '.join(saved.different[:4])}"
        trip = Check("save and load", "failed", measured, "every tensor equal to the bit", why, "do not train", values)
    predicted = plan.memory.checkpoint_bytes
    sizes = {"bytes": saved.size_bytes, "predicted_bytes": predicted}
    size = (format_bytes(saved.size_bytes), format_bytes(predicted))
    if abs(saved.size_bytes / predicted - 1) <= CHECKPOINT:
        return trip, Check("checkpoint size", "ok", *size, values=sizes)
    why = f"beyond {format_fraction(CHECKPOINT)} of the prediction"
    return trip, Check("checkpoint size", "warning", *size, why, "count on the measured size", sizes)


def checkpoints_kept(config: RunConfig) -> tuple[int, int]:
    """Checkpoints that a run writes, and the most that stand on the disk at once."""
    steps, every, keeps = steps_of(config), config.training.checkpoint_every, config.checkpoints
    saves = 1 if every is None else (steps - 1) // every + 1
    standing = keeps.keep + 1 + (config.evaluation.every is not None)  # one more while it is written; the best one
    if keeps.keep_every is not None and every is not None:
        standing += sum(1 for step in range(every, steps, every) if step % keeps.keep_every == 0)
    return saves, min(saves, standing)


def check_disk(config: RunConfig, folder: Path, bytes_each: int) -> Check:
    """The disk of `folder` has room for all checkpoints that will stand there at once."""
    saves, standing = checkpoints_kept(config)
    free, need = shutil.disk_usage(folder).free, standing * bytes_each
    measured, expected = f"{format_bytes(free)} free", f"{format_bytes(need)}: {standing} × {format_bytes(bytes_each)}"
    values = {"free_bytes": free, "needed_bytes": need, "checkpoints_at_once": standing, "saves": saves}
    if need <= free:
        return Check("disk", "ok", measured, expected, values=values)
    why = f"after {free // bytes_each} checkpoints the disk is full"
    mend = "free space, keep fewer with --keep-checkpoints, or give a directory on another disk with --out"
    return Check("disk", "failed", measured, expected, why, mend, values)


# --- the whole run ------------------------------------------------------------------------------------------------


def estimate_whole_run(plan: Plan, step_seconds: float, save_seconds: float | None) -> Check:
    """Time and money of all steps and saves at the measured speed, beside the prediction; without evaluations."""
    config, steps = plan.config, steps_of(plan.config)
    saves, _ = checkpoints_kept(config)
    saving = 0.0 if config.checkpoints.asynchronous else saves * (save_seconds or 0.0)
    seconds = steps * step_seconds + saving
    hours = float(cost.gpu_hours(seconds, config.hardware.gpus))
    price = plan.cost.usd_per_gpu_hour
    usd = None if price is None else float(cost.cost_of_hours(hours, price))

    def both(time_taken: float | None, money: float | None) -> str:
        return format_duration(time_taken) + ("" if money is None else f", {format_money(money)}")

    measured, expected = both(seconds, usd), both(plan.time.seconds, plan.cost.usd)
    values = {
        "seconds": seconds,
        "saving_seconds": saving,
        "usd": usd,
        "predicted_seconds": plan.time.seconds,
        "predicted_usd": plan.cost.usd,
        "recipe": recipe_of(config).id,
    }
    if saving > MOST_FOR_SAVES * seconds:
        why = f"{saves} saves of {format_duration(save_seconds)} take {format_fraction(saving / seconds)} of it"
        return Check(
            "whole run", "warning", measured, expected, why, "raise --checkpoint-every, or --async-save", values
        )
    return Check("whole run", "ok", measured, expected, values=values)
