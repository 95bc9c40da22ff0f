"""What a changed schedule does to the learning rate at the step where a run continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from planner.config.run import RunConfig, ScheduleConfig
from planner.counts.run import rate_at

HORIZON = ("steps", "tokens")  # of [training]: they decide how long the schedule is


def schedule_change(stored: Mapping[str, Any], config: RunConfig, step: int) -> str | None:
    """A message with the learning rate of update `step` under a checkpoint's schedule and under the config's.

    stored: the checkpoint's settings by dotted name. None where neither schedule nor horizon differ, or where the
    settings are those of another version.
    """
    own = {key.partition(".")[2]: value for key, value in stored.items() if key.startswith("schedule.")}
    horizon = {name: stored.get(f"training.{name}") for name in HORIZON}
    try:
        before = config.model_copy(
            update={
                "schedule": ScheduleConfig(**own),
                "training": config.training.model_copy(update=horizon),
            }
        )
    except (ValidationError, TypeError):
        return None
    if all(value is None for value in horizon.values()) or (before.schedule, before.training) == (
        config.schedule,
        config.training,
    ):
        return None
    old, new = rate_at(before, step), rate_at(config, step)
    if old == new:
        return f"the schedule was changed: at step {step} the learning rate is {new:.3g} under both"
    change = f", {new / old:.3g} times the old one" if old else ""
    return f"the schedule was changed: at step {step} the learning rate jumps from {old:.3g} to {new:.3g}{change}"
