"""Real training steps for the preflight and the learning-rate range test."""

from __future__ import annotations

import math
import time

from reference_trainer.device.device import wait_for
from reference_trainer.step.step import StepContext, train_step
from reference_trainer.step.step_results import read_one


def steps_on(context: StepContext, first: int, last: int, deadline: float = math.inf) -> list[tuple[float, float]]:
    """(loss in nats per token, seconds) of training steps `first` … `last`; stops at `deadline` (monotonic clock)."""
    taken = []
    for step in range(first, last + 1):
        wait_for(context.device)
        begin = time.perf_counter()
        loss = read_one(train_step(context, step)).loss
        wait_for(context.device)
        taken.append((loss, time.perf_counter() - begin))
        if time.monotonic() >= deadline:
            break
    return taken
