"""Results of steps: kept on the device, then copied to the host together. Only this copy makes the loop wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reference_trainer.distributed.requests import ASKED

CORE = ("loss", "grad_norm", "scale", "good", "spike", "loss_sigmas", "norm_sigmas")
NOT_LOGGED = {*CORE, *ASKED}


@dataclass(frozen=True, slots=True)
class StepResult:
    """The numbers of one optimizer step, on the host.

    loss: mean, nats per token. grad_norm: global norm before clipping. seconds: on the device, from the first to the
    last operation of the step. data_seconds: how long the host waited for batches. scale: loss scale in backward.
    updated: false if the update was skipped. spike: the spike guard saw one; loss_sigmas, norm_sigmas: by how many
    standard deviations. signals: numbers measured by watchers, by name. asked: what the ranks were asked, summed, by
    the names in ASKED; empty for a process on its own.
    """

    step: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    updated: bool
    scale: float = 1.0
    spike: bool = False
    loss_sigmas: float = 0.0
    norm_sigmas: float = 0.0
    data_seconds: float = 0.0
    valid_tokens: int = 0
    signals: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)


class Clock:
    """Times one step without waiting for the device: CUDA events on a GPU, the host's clock elsewhere.

    began: the host's monotonic clock at the start of the step, in seconds.
    """

    def __init__(self, device: torch.device) -> None:
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        if device.type == "cuda":
            self._events = _event(), _event()
            self._events[0].record()
        self.began = self._end = time.perf_counter()

    def stop(self) -> None:
        """Mark the end of the step: its last operation has been launched."""
        if self._events is not None:
            self._events[1].record()
        self._end = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds from start to stop. On a GPU, read it only after the device has passed the stop event."""
        if self._events is None:
            return self._end - self.began
        return float(self._events[0].elapsed_time(self._events[1])) / 1e3


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step whose numbers (0-dimensional tensors) are still on the device."""

    step: int
    lr: float
    clock: Clock
    data_seconds: float
    valid_tokens: int
    values: dict[str, Tensor]


class PendingSteps:
    """Steps that are not yet read, and the length of the log window that they form.

    A log window lasts from one reading to the next, so that no time falls between two windows; the first one begins
    with the first step. Only the blocks marked `outside_window` (evaluations, saves, …) are subtracted.
    """

    def __init__(self) -> None:
        self.steps: list[PendingStep] = []
        self.window_seconds = 0.0  # of the last window that was read
        self._window_began: float | None = None
        self._outside_seconds = 0.0

    def add(self, step: PendingStep) -> None:
        """Keep a step until the next reading."""
        if self._window_began is None:
            self._window_began = step.clock.began
        self.steps.append(step)

    def read(self) -> list[StepResult]:
        """All pending steps as results, in order, by one copy from the device. Ends the log window."""
        steps, self.steps = self.steps, []
        if not steps or self._window_began is None:
            return []
        flat = torch.stack([value.float() for step in steps for value in step.values.values()])
        numbers = iter(flat.tolist())
        now = time.perf_counter()
        self.window_seconds = now - self._window_began - self._outside_seconds
        self._window_began, self._outside_seconds = now, 0.0
        return [_result_of(step, {name: next(numbers) for name in step.values}) for step in steps]

    @contextmanager
    def outside_window(self) -> Iterator[None]:
        """Subtract the time of this block from the log window: it has its own seconds in events.jsonl."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._outside_seconds += time.perf_counter() - begin


def read_one(step: PendingStep) -> StepResult:
    """The result of one step, read at once: for timing or testing single steps."""
    pending = PendingSteps()
    pending.add(step)
    return pending.read()[0]


def _result_of(step: PendingStep, values: dict[str, float]) -> StepResult:
    return StepResult(
        step=step.step,
        loss=values["loss"],
        grad_norm=values["grad_norm"],
        lr=step.lr,
        seconds=step.clock.seconds,
        updated=bool(values["good"]),
        scale=values["scale"],
        spike=bool(values["spike"]),
        loss_sigmas=values["loss_sigmas"],
        norm_sigmas=values["norm_sigmas"],
        data_seconds=step.data_seconds,
        valid_tokens=step.valid_tokens,
        signals={name: value for name, value in values.items() if name not in NOT_LOGGED},
        asked={name: values[name] for name in ASKED if name in values},
    )
