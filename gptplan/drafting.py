"""Flags to a config; adds this machine's GPU and profile, and today's date."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from gptplan import __version__
from planner.config.run import CPU, RunConfig
from planner.errors import InputError
from planner.inputs.flags import Flags

if TYPE_CHECKING:
    from planner.finding import Finding
    from planner.plan import Plan


def config_of(flags: Flags, file: Path | None, as_of: str | None = None) -> RunConfig:
    """The complete config from flags over a file.

    as_of: the plan's date, today by default. Raises PlanError for a user's mistake.
    """
    from planner.inputs.run_toml import load_config

    return config_over(flags, load_config(file) if file else None, as_of)


def config_over(flags: Flags, base: RunConfig | None, as_of: str | None = None) -> RunConfig:
    """The complete config from flags over another config; else as `config_of`."""
    from planner.inputs.detect import machine_gpu
    from planner.inputs.draft import draft
    from planner.inputs.profile_cache import cached_profile, without_profile
    from planner.inputs.profile_file import is_noisy

    if base is not None and not flags.anything() and as_of is None:
        return base  # a plan is a pure function of its file
    found = machine_gpu() if base is None and flags.gpu is None else None
    profile, aside = base.profile if base else None, list[str]()
    if profile is not None and is_noisy(profile):
        profile, aside = None, ["the profile in the file was taken on a busy machine"]
    for_cpu = flags.gpu == CPU or (flags.gpu is None and base is not None and base.hardware.gpu == CPU)
    if for_cpu and profile is None and flags.profile is None:
        profile = cached_profile(CPU, aside.append)
    day = _day(as_of) if as_of is not None else date.today()
    made = draft(flags, as_of=day.isoformat(), version=__version__, base=base, machine_gpu=found, profile=profile)
    return without_profile(made, aside[-1]) if for_cpu and aside and made.profile is None else made


def all_findings(plan: Plan, safetensors: Path | None) -> tuple[Finding, ...]:
    """The findings of a plan with remedies; first those of the weights file, if one is given.

    Raises FileError if the weights file cannot be read.
    """
    from planner.analysis.findings import findings_with_remedies

    found = findings_with_remedies(plan)
    if safetensors is None:
        return found
    from planner.analysis.stored_weights import weights_findings
    from planner.inputs.safetensors import stored_tensors

    return (*weights_findings(stored_tensors(safetensors), plan.config.model, safetensors.name), *found)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--as-of: {text!r} is not a date",
            why="the age of prices is computed from it",
            remedy="write it like 2026-11-21",
        ) from None
