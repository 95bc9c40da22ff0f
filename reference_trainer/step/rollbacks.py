"""Rollbacks after loss spikes: back to a good checkpoint, past the batches that led there, within a budget.

PaLM's recipe (Chowdhery et al. 2022, section 5.1): restart some 100 steps before the spike and skip 200 to 500 batches.
The list stands in the run directory, outside of the checkpoints, because an older one must know of it too. Which
samples a step sees, and by what its rate is lowered, are pure functions of the step and the list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from planner.config.loop import GuardConfig
from planner.errors import CheckpointError, PlanError
from planner.files import read_text, write_atomically


@dataclass(frozen=True, slots=True)
class Rollback:
    """One spike: where it was, the step gone back to, the steps of data passed by, the factor on the rate since."""

    spike_step: int
    to_step: int
    skipped_steps: int
    rate_factor: float


def data_step(rollbacks: Sequence[Rollback], step: int) -> int:
    """The step whose samples, in a run without rollbacks, step `step` sees."""
    return step + sum(r.skipped_steps for r in rollbacks if step > r.to_step)


def rate_factor(rollbacks: Sequence[Rollback], step: int) -> float:
    """Factor of all rollbacks before `step` on its learning rate."""
    return prod(r.rate_factor for r in rollbacks if step > r.to_step)


def next_rollback(guard: GuardConfig, before: Sequence[Rollback], spike_step: int, to_step: int) -> Rollback:
    """The rollback that `guard` asks for. Raises PlanError when its budget is spent."""
    if len(before) >= guard.rollback_budget:
        raise PlanError(
            f"training stopped at step {spike_step}: a loss spike after {len(before)} rollbacks",
            why=f"the budget is {guard.rollback_budget}; more of them would be a loop",
            remedy="plan with a lower peak rate or a smaller clip norm, or look at the data that the spikes share",
        )
    # fewer steps than lie between would bring the same batch again
    skipped = max(guard.rollback_skips, spike_step - to_step)
    return Rollback(spike_step, to_step, skipped, guard.rollback_rate)


def load_rollbacks(path: Path) -> tuple[Rollback, ...]:
    """Those of a run so far, oldest first. Raises CheckpointError for a damaged file."""
    if not path.exists():
        return ()
    try:
        return tuple(Rollback(**row) for row in json.loads(read_text(path)))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged", why=str(error), remedy="bring back a good copy: the order of the data depends on it"
        ) from None


def save_rollbacks(path: Path, rollbacks: Sequence[Rollback]) -> None:
    """Write the list, whole or not at all. Raises FileError."""
    write_atomically(path, json.dumps([asdict(r) for r in rollbacks], indent=1) + "\n", overwrite=True)
