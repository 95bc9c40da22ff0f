"""The help of one option, and the names that it may have, for completion."""

from __future__ import annotations

from planner import presets
from planner.config.options import OPTION
from planner.config.run import CPU


def names_of(name: str) -> tuple[str, ...]:
    """The names known for an option; () where it takes a number or a path."""
    if name == "model":
        return tuple(presets.model_ids())
    if name == "gpu":
        return (*presets.gpu_ids(), CPU)
    if name == "recipe":
        return tuple(presets.recipe_ids())
    return OPTION[name].kind.choices


def field_text(name: str) -> str:
    """The help of an option: label, panel, flag, placeholder, sentence, its key in run.toml, and its known names."""
    option, names = OPTION[name], names_of(name)
    spelled = "/".join(f"--{choice}" for choice in names) if option.kind.parser == "switch" else option.flag
    lines = [
        f"{option.short} ({option.panel})",
        f"  {spelled} {option.kind.placeholder}".rstrip(),
        f"  {option.sentence}",
    ]
    lines += [f"  in run.toml: {option.key}"] if option.key else []
    lines += [f"  one of: {', '.join(names)}"] if names else []
    return "\n".join(lines)
