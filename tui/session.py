"""What a sitting at the planner knows, and the one call that turns typed text into a plan. No terminal in here."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from planner.checks import findings
from planner.config import RunConfig
from planner.draft import RECIPE_OF_PRECISION, draft
from planner.errors import PlanError
from planner.finding import Finding
from planner.plan import Plan, estimate
from planner.typed import Typed, flag
from planner.units import format_number, spell_count

FIRST_RUN = Typed(params="125M", tokens="10B")


@dataclass(frozen=True, slots=True)
class Session:
    """What does not change while the planner is open: the day, the program, this machine, the file.

    file, base: the run.toml that typed fields override, and its config. machine_gpu: preset of this machine's GPU,
    or the error that it has none: shown as long as no GPU is named. cpu_profile: measured times of its processor.
    """

    as_of: str
    version: str
    file: Path | None = None
    base: RunConfig | None = None
    machine_gpu: str | PlanError | None = None
    cpu_profile: dict[str, object] | None = None

    @property
    def first(self) -> Typed:
        """What stands in the form at the start."""
        return FIRST_RUN if self.base is None else Typed()


@dataclass(frozen=True, slots=True)
class Result:
    """A plan with its findings."""

    plan: Plan
    findings: tuple[Finding, ...]


def result_of(typed: Typed, session: Session) -> Result:
    """The plan of what was typed. Raises PlanError."""
    plan = estimate(_config_of(typed, session), replay=True)
    return Result(plan, findings(plan))


def _config_of(typed: Typed, session: Session) -> RunConfig:
    if session.base is not None and not typed.anything():
        return session.base  # a plan is a pure function of its file
    machine_gpu = session.machine_gpu if session.base is None and typed.gpu is None else None
    if isinstance(machine_gpu, PlanError):
        raise machine_gpu
    return draft(
        typed,
        as_of=session.as_of,
        version=session.version,
        base=session.base,
        machine_gpu=machine_gpu,
        profile=(session.base.profile if session.base else None) or session.cpu_profile,
    )


def command_of(typed: Typed, session: Session) -> str:
    """The command that gives the same plan without a terminal program, quoted for a shell."""
    words = ["gptplan", "estimate"]
    if session.file is not None:
        words += ["--config", str(session.file)]
    for name in typed.given(*Typed.__dataclass_fields__):
        words += [flag(name), getattr(typed, name)]
    return shlex.join(words)


def fields_named(error: PlanError, typed: Typed) -> frozenset[str]:
    """The typed fields that a message is about: those whose flag or whose quoted text it says."""
    said = set(re.findall(r"--[a-z-]+", error.what))
    return frozenset(
        name
        for name in typed.given(*Typed.__dataclass_fields__)
        if flag(name) in said or repr(getattr(typed, name)) in error.what
    )


def in_effect(plan: Plan) -> dict[str, str]:
    """The value of each main field of a plan, as it would be typed: what an empty field stands for."""
    config, hardware = plan.config, plan.config.hardware
    precision = {recipe: name for name, recipe in RECIPE_OF_PRECISION.items()}
    price = plan.cost.usd_per_gpu_hour
    return {
        "params": spell_count(plan.nominal_parameters),
        "model": config.model.name,
        "tokens": spell_count(plan.tokens.requested),
        "seq": str(config.training.seq),
        "gpu": hardware.gpu,
        "gpus": str(hardware.gpus),
        "micro_batch": str(config.training.micro_batch),
        "global_batch_tokens": str(plan.batch.tokens_per_step),
        "precision": precision.get(config.training.recipe, config.training.recipe),
        "activation_checkpointing": config.training.activation_checkpointing,
        "peak_lr": format_number(config.schedule.peak_lr),
        "warmup_steps": str(config.schedule.warmup_steps),
        "price_per_gpu_hour": "unknown" if price is None else format_number(price),
    }
