"""Rollbacks after loss spikes: return to a checkpoint before the spike and skip the data that led to it.

As in PaLM (Chowdhery et al. 2022, section 5.1): restart about 100 steps before the spike and skip 200 to 500 batches.
The list of rollbacks is in the run directory, not in a checkpoint, because older checkpoints need it too. The samples
and the learning rate of a step are pure functions of the step and this list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from planner.config.loop import GuardConfig
from planner.errors import CheckpointError, PlanError
from planner.files import read_bytes, write_atomically
from planner.json_input import checked_by, parsed_json
from planner.paths import exists

MOST_ROLLBACKS = 10_000
_Steps = Annotated[int, Field(ge=0, le=10**15)]


@dataclass(frozen=True, slots=True)
class Rollback:
    """One rollback: step of the spike, step returned to, steps of data skipped, factor on the later lr."""

    spike_step: _Steps
    to_step: _Steps
    skipped_steps: _Steps
    rate_factor: Annotated[float, Field(ge=0, le=1e6)]


def data_step(rollbacks: Sequence[Rollback], step: int) -> int:
    """The step that has the same samples in a run without rollbacks."""
    return step + sum(r.skipped_steps for r in rollbacks if step > r.to_step)


def rate_factor(rollbacks: Sequence[Rollback], step: int) -> float:
    """Factor on the learning rate of `step` from all rollbacks before it."""
    return prod(r.rate_factor for r in rollbacks if step > r.to_step)


def next_rollback(guard: GuardConfig, before: Sequence[Rollback], spike_step: int, to_step: int) -> Rollback:
    """The rollback for this spike. Raises PlanError if the budget of rollbacks is spent."""
    if len(before) >= guard.rollback_budget:
        raise PlanError(
            f"training stopped at step {spike_step}: another loss spike, or loss that is not finite, "
            f"after {len(before)} rollbacks",
            why=f"the budget is {guard.rollback_budget} rollbacks",
            remedy="plan with a lower --peak-lr or a smaller clip norm, and check the data near the spikes",
        )
    # skipping fewer steps would train on the same batch again
    skipped = max(guard.rollback_skips, spike_step - to_step)
    return Rollback(spike_step, to_step, skipped, guard.rollback_rate)


def load_rollbacks(path: Path) -> tuple[Rollback, ...]:
    """The rollbacks of a run so far, oldest first. Raises CheckpointError for a damaged file."""
    if not exists(path):
        return ()
    schema = TypeAdapter(Annotated[tuple[Rollback, ...], Field(max_length=MOST_ROLLBACKS)])
    try:
        return checked_by(schema, parsed_json(read_bytes(path)))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged", why=str(error), remedy="restore it from a backup: the order of the data depends on it"
        ) from None


def save_rollbacks(path: Path, rollbacks: Sequence[Rollback]) -> None:
    """Write the list atomically. Raises FileError."""
    write_atomically(path, json.dumps([asdict(r) for r in rollbacks], indent=1) + "\n", overwrite=True)
