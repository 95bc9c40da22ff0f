"""What steps left on the device, brought to the host together: the one place of the loop that waits for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

CORE = ("loss", "grad_norm", "scale", "good", "spike", "loss_sigmas", "norm_sigmas")


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimizer step as the host knows it: mean loss in nats per token, global gradient norm before clipping.

    seconds: of the device from the step's first work to its last. data_seconds: that the host waited for its batches.
    scale: of the loss in backward. updated: false where the weights were left alone. spike: whether the guard saw one,
    by `loss_sigmas` or `norm_sigmas` standard deviations. signals: what watchers measured, by name.
    """

    step: int
    loss: float
    grad_norm: float
    rate: float
    seconds: float
    updated: bool
    scale: float = 1.0
    spike: bool = False
    loss_sigmas: float = 0.0
    norm_sigmas: float = 0.0
    data_seconds: float = 0.0
    valid_tokens: int = 0
    signals: dict[str, float] = field(default_factory=dict)


class Clock:
    """Times one step without waiting for the device: events on a GPU, the host's clock elsewhere.

    began: the host's monotonic clock, in seconds, when the step began.
    """

    def __init__(self, device: torch.device) -> None:
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        if device.type == "cuda":
            self._events = _event(), _event()
            self._events[0].record()
        self.began = self._end = time.perf_counter()

    def stop(self) -> None:
        """The step's last work is on its way."""
        if self._events is not None:
            self._events[1].record()
        self._end = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Between the two; on a GPU only after the device has come past the second."""
        if self._events is None:
            return self._end - self.began
        return float(self._events[0].elapsed_time(self._events[1])) / 1e3


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step whose numbers, tensors without a shape, are still on the device."""

    step: int
    rate: float
    clock: Clock
    data_seconds: float
    valid_tokens: int
    values: dict[str, Tensor]


class PendingSteps:
    """Rows that wait to be read. window_seconds: from the first step of the last reading to its end, on the host."""

    def __init__(self) -> None:
        self.steps: list[PendingStep] = []
        self.window_seconds = 0.0

    def add(self, row: PendingStep) -> None:
        """Keep a row."""
        self.steps.append(row)

    def read(self) -> list[StepResult]:
        """All rows as steps, in order, by one copy from the device; none is left."""
        rows, self.steps = self.steps, []
        if not rows:
            return []
        flat = torch.stack([value.float() for row in rows for value in row.values.values()])
        numbers = iter(flat.tolist())
        self.window_seconds = time.perf_counter() - rows[0].clock.began
        return [_step_of(row, {name: next(numbers) for name in row.values}) for row in rows]


def read_one(row: PendingStep) -> StepResult:
    """One row, read at once: for whoever times or tests single steps."""
    pending = PendingSteps()
    pending.add(row)
    return pending.read()[0]


def _step_of(row: PendingStep, values: dict[str, float]) -> StepResult:
    return StepResult(
        step=row.step,
        loss=values["loss"],
        grad_norm=values["grad_norm"],
        rate=row.rate,
        seconds=row.clock.seconds,
        updated=bool(values["good"]),
        scale=values["scale"],
        spike=bool(values["spike"]),
        loss_sigmas=values["loss_sigmas"],
        norm_sigmas=values["norm_sigmas"],
        data_seconds=row.data_seconds,
        valid_tokens=row.valid_tokens,
        signals={name: value for name, value in values.items() if name not in CORE},
    )
