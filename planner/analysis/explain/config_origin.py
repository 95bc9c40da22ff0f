"""Where a number of the config comes from: assumed by a rule, a field's default, a preset, or chosen by the user."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from planner.analysis.explain.explanation import Explanation, itself
from planner.config.run import Assumption, RunConfig
from planner.formulas.quantities import QUANTITIES

UNITS = {"tflops": "FLOP/s", "usd_per_gpu_hour": "USD/hour", "checkpoint_every": "1", "seed": "1"}
# settings whose assumption goes by another name
ASSUMED_AS = {
    "config.optimizer": ("optimizer",),
    "config.model": ("shape", "family"),
    "config.training": (),
    "config.schedule": (),
    "config.hardware": (),
}


def config_origin(config: RunConfig, key: str, value: float) -> Explanation:
    """The explanation of `key`, a number of the config."""
    section, _, name = key.rpartition(".")
    field, assumed = _field(config, key), _assumption(config, section, name)
    if assumed is not None:
        origin, source = "assumed", assumed.source
    elif section.startswith("config.model"):
        origin, source = "preset", config.model.source
    elif field.default == value:
        origin, source = "default", "default of the field in run.toml"
    else:
        origin, source = "chosen", "chosen: typed as a flag, or written in the file"
    return Explanation(
        key=key,
        value=value,
        unit=UNITS.get(name) or (QUANTITIES[name].unit if name in QUANTITIES else "1"),
        origin=origin,
        meaning=field.description or name.replace("_", " "),
        arguments=itself(key, value),
        source=source,
        checked_against="none: a choice",
        assumptions=(assumed,) if assumed else (),
    )


def _assumption(config: RunConfig, section: str, name: str) -> Assumption | None:
    names = (name, *ASSUMED_AS.get(section, ()))
    return next((a for n in names for a in config.provenance.assumptions if a.key == n), None)


def _field(config: RunConfig, key: str) -> Any:
    """The pydantic field at the end of the path."""
    value: Any = config
    found: Any = None
    for part in key.split(".")[1:]:
        if not isinstance(value, BaseModel):
            break  # an entry of a list: the list's own field
        found, value = type(value).model_fields[part], getattr(value, part)
    return found
