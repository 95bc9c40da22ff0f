"""Where a number of the config comes from: assumed by a rule, a field's default, a preset, or chosen by the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from planner.config import Assumption, RunConfig
from planner.quantities import QUANTITIES

Found = TypeVar("Found")
NO_WITNESS = "none: a choice"
UNITS = {"tflops": "FLOP/s", "usd_per_gpu_hour": "USD/hour", "checkpoint_every": "1", "seed": "1"}
# settings whose assumption goes by another name
ASSUMED_AS = {
    "config.optimizer": ("optimizer",),
    "config.model": ("shape", "family"),
    "config.training": (),
    "config.schedule": (),
    "config.hardware": (),
}


def config_origin(config: RunConfig, key: str, value: float, make: Callable[..., Found]) -> Found:
    """The explanation of `key`, a number of the config; `make` builds it."""
    section, _, name = key.rpartition(".")
    unit = UNITS.get(name) or (QUANTITIES[name].unit if name in QUANTITIES else "1")
    field = _field(config, key)
    meaning = field.description or name.replace("_", " ")
    assumed = _assumption(config, section, name)
    if assumed is not None:
        return make(key, value, "assumed", meaning, assumed.source, NO_WITNESS, unit, (assumed,))
    if section.startswith("config.model"):
        return make(key, value, "preset", meaning, config.model.source, NO_WITNESS, unit)
    if field.default == value:
        return make(key, value, "default", meaning, "default of the field in run.toml", NO_WITNESS, unit)
    return make(key, value, "chosen", meaning, "chosen: typed as a flag, or written in the file", NO_WITNESS, unit)


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
