"""The names that a typed field may have, where they can be listed: what completes it."""

from __future__ import annotations

from typing import get_args

from planner import presets
from planner.config.run import CPU, OptimizerConfig
from planner.counts.schedule import KINDS
from planner.inputs.fields import FLAGS, SWITCHES, label


def names_of(field: str) -> tuple[str, ...]:
    """The names known for a field of `Flags`; () where it takes a number, a share or a path."""
    if field == "model":
        return tuple(presets.model_ids())
    if field == "gpu":
        return (*presets.gpu_ids(), CPU)
    if field == "recipe":
        return tuple(presets.recipe_ids())
    if field == "optimizer":
        return get_args(OptimizerConfig.model_fields["name"].annotation)
    if field == "schedule":
        return tuple(KINDS)
    if field in SWITCHES:
        return SWITCHES[field]
    placeholder = FLAGS[field][1]
    return tuple(placeholder.split("|")) if "|" in placeholder else ()


def field_text(field: str) -> str:
    """What help says of a field: label, panel, flag, placeholder, sentence, and the names where they are known."""
    panel, placeholder, sentence = FLAGS[field]
    names = names_of(field)
    known = f"\n  one of: {', '.join(names)}" if names else ""
    return f"{label(field)} ({panel})\n  --{field.replace('_', '-')} {placeholder}\n  {sentence}{known}"
