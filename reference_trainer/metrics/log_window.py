"""Makes the rows of metrics.jsonl: per step, and per log window its speed, time left, power and noise scale.

A log window is the steps that are read together. It lasts from one reading to the next, on a monotonic clock, without
evaluations, saves, rollbacks and eval commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from planner.counts.run import steps_of, tokens_per_step
from planner.log import Log
from planner.units import format_duration
from reference_trainer.device.device import AllocatorState, read_allocator
from reference_trainer.device.power import PowerMeter, power_meter
from reference_trainer.metrics.metrics_file import MetricValue, read_rows
from reference_trainer.metrics.noise_scale import SCALE, SmoothedNoise, smoothed_noise
from reference_trainer.metrics.records import row_of
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step import StepContext
from reference_trainer.step.step_results import StepResult

RECENT_STEPS = 64  # steps of this call whose median is the usual step time
SETTLED = 8  # the first steps are never called slow: they compile and allocate
SLOW_TIMES, SLOW_SECONDS = 5.0, 1.0  # a slow step takes 5 times as long as usual, and at least 1 s longer
MetricsRow = dict[str, MetricValue]
LogEvent = Callable[..., None]


class LogWindow:
    """Makes the rows of each log window. Reports slow steps and allocator retries to `event` and `log`."""

    def __init__(self, context: StepContext, options: RunOptions, event: LogEvent, log: Log) -> None:
        self.context, self.options, self.event, self.log = context, options, event, log
        self.recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self.noise = SmoothedNoise()
        self.power: PowerMeter = power_meter(context.device)
        self._retries = self._retries_at_start = read_allocator(context.device).retries

    def restore(self, metrics: Path) -> None:
        """Restore the averages from the rows in `metrics`, after a resume or a rollback."""
        if self.options.noise_scale:
            self.noise = smoothed_noise(read_rows(metrics))

    def rows(self, steps: Sequence[StepResult], window_seconds: float) -> list[MetricsRow]:
        """One row per step; the last one also has the numbers of the whole window."""
        if not steps:
            return []
        memory = read_allocator(self.context.device)  # once: the steps have been launched, it is the same for all
        rows = [self._of_step(step, memory) for step in steps]
        rows[-1] |= self._of_window(steps, window_seconds)
        rows[-1]["alloc_retries"] = self._count_retries(steps[-1].step, memory.retries)
        return rows

    def _of_step(self, step: StepResult, memory: AllocatorState) -> MetricsRow:
        row = row_of(self.context, self.options, step, memory)
        limit = self.context.config.optimizer.clip_norm
        row["clipped"] = None if limit is None or row["grad_norm"] is None else step.grad_norm > limit
        row["slow"] = self._is_slow(step)
        self.recent.append(step.seconds)
        row["eta_seconds"] = (steps_of(self.context.config) - step.step) * median(self.recent)
        if self.options.noise_scale:
            self.noise.add(row)
            row[SCALE] = self.noise.tokens
        return row

    def _is_slow(self, step: StepResult) -> bool:
        if len(self.recent) < SETTLED:
            return False
        usual = median(self.recent)
        if step.seconds < max(SLOW_TIMES * usual, usual + SLOW_SECONDS):
            return False
        self._report_gap(f"step {step.step} took {format_duration(step.seconds)}", step.step, step.seconds, usual)
        return True

    def _report_gap(self, what: str, step: int, seconds: float, usual: float) -> None:
        self.event("slow step", step=step, seconds=seconds, usual_seconds=usual)
        self.log(
            f"{what}, a usual step {format_duration(usual)}: the process was stopped, "
            "or something else used the machine; do not trust this speed"
        )

    def _of_window(self, steps: Sequence[StepResult], seconds: float) -> MetricsRow:
        tokens, busy = len(steps) * tokens_per_step(self.context.config), sum(step.seconds for step in steps)
        idle = max(0.0, seconds - busy)
        if len(self.recent) >= SETTLED and idle > max(busy, SLOW_SECONDS):
            what = f"up to step {steps[-1].step} the device waited {format_duration(idle)} between steps"
            self._report_gap(what, steps[-1].step, idle, median(self.recent))
        watts = self.power.watts()
        return {
            "window_steps": len(steps),
            "window_seconds": seconds,
            "window_tokens_per_second": tokens / seconds,
            "window_idle_seconds": idle,
            "power_watts": watts,
            "joules_per_token": None if watts is None else watts * seconds / tokens,
            "device_used_bytes": _device_used(self.context.device),
        }

    def _count_retries(self, step: int, now: int | None) -> int | None:
        """Allocator retries since the start of this call: it emptied its cache and asked the driver again."""
        if now is None or self._retries is None or self._retries_at_start is None:
            return None
        if now > self._retries:
            count = now - self._retries_at_start
            self.event("allocator retries", step=step, count=count)
            if self._retries == self._retries_at_start:  # later ones are only in the rows and events
                self.log(
                    f"step {step}: the allocator ran out of memory {count} times, emptied its cache and retried; "
                    "this is slow and the next step may fail. Use a smaller micro-batch or --allocator expandable"
                )
        self._retries = now
        return now - self._retries_at_start


def _device_used(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free
