"""The session of the planner, and the functions from the text of the form to a plan. No terminal in here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.analysis.difference import Difference, changed_fields, differences
from planner.analysis.findings import findings
from planner.analysis.fitting import with_remedies
from planner.config.options import OPTION, flag
from planner.config.run import CPU, RunConfig
from planner.errors import PlanError
from planner.finding import Finding
from planner.inputs.draft import draft
from planner.inputs.flags import OPTION_NAMES, Flags
from planner.inputs.run_toml import load_config
from planner.plan import Plan, estimate
from tui.files import file_named

FIRST_RUN = Flags(params="125M", tokens="10B")
FILE = "file"  # the name of a change of the run.toml among the changes


@dataclass(frozen=True, slots=True)
class Session:
    """What does not change while a file is open: the day, the program, this machine, the file.

    file, base: the run.toml that typed fields override, and its config. machine_gpu: preset of this machine's GPU,
    or the error that it has none: shown until a GPU is given. cpu_profile: measured times of its processor.
    """

    as_of: str
    version: str
    file: Path | None = None
    base: RunConfig | None = None
    machine_gpu: str | PlanError | None = None
    cpu_profile: dict[str, object] | None = None

    @property
    def first(self) -> Flags:
        """The text of the form at the start."""
        return FIRST_RUN if self.base is None else Flags()

    def opened(self, file: Path) -> Session:
        """The session with another run.toml. Raises FileError, ConfigError."""
        return replace(self, file=file, base=load_config(file))

    def without_file(self) -> Session:
        """The session with no run.toml."""
        return replace(self, file=None, base=None)


@dataclass(frozen=True, slots=True)
class FormState:
    """One state of the form: the text of its fields, and the session with the file that they override."""

    session: Session
    flags: Flags


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A plan with its findings. `settled`: the allocator is simulated, and every finding has its remedy."""

    plan: Plan
    findings: tuple[Finding, ...]
    settled: bool


@dataclass(frozen=True, slots=True)
class Pinned:
    """The pinned plan, and the state of the form that gave it."""

    form_state: FormState
    result: PlanResult


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a pane may show. `stale`: the form has changed since, and cannot be computed.

    command: the one that gives the same plan. differences: of `pinned` and `result`, None while they are computed.
    """

    result: PlanResult
    stale: bool = False
    command: str = ""
    pinned: Pinned | None = None
    differences: tuple[Difference, ...] | None = None


def flags_result(flags: Flags, session: Session, *, replay: bool = True) -> PlanResult:
    """The plan of the form's flags; without `replay` in a few ms: device bytes by rule, no search for what fits.

    Raises PlanError.
    """
    return config_result(_config_of(flags, session), replay=replay)


def config_result(config: RunConfig, *, replay: bool) -> PlanResult:
    """The plan of a config with its findings. replay: with the simulated allocator and with what fits (up to 2 s).

    A processor has no allocator to simulate: there the quick result is final, unless a finding lacks its remedy.
    """
    plan = estimate(config, replay=replay)
    found = findings(plan)
    if replay:
        return PlanResult(plan, with_remedies(plan, found), True)
    return PlanResult(plan, found, config.hardware.gpu == CPU and all(f.remedy for f in found))


def differences_of(before: FormState, after: FormState) -> tuple[Difference, ...]:
    """Why two plans differ: each number's difference divided among the fields that differ."""
    changes = changed_fields(before.flags, after.flags)
    if before.session.file != after.session.file:
        changes = (FILE, *changes)

    def plan_of(made: frozenset[str]) -> Plan:
        flags = replace(before.flags, **{n: getattr(after.flags, n) for n in made if n != FILE})
        session = after.session if FILE in made else before.session
        return estimate(_config_of(flags, session))

    return differences(changes, plan_of)


def _config_of(flags: Flags, session: Session) -> RunConfig:
    if session.base is not None and not flags.anything():
        return session.base  # a plan is a pure function of its file
    if flags.hf_config is not None:
        file_named(flags.hf_config)  # refused where the browser may not look
    if flags.profile is not None:
        file_named(flags.profile)
    machine_gpu = session.machine_gpu if session.base is None and flags.gpu is None else None
    if isinstance(machine_gpu, PlanError):
        raise machine_gpu
    return draft(
        flags,
        as_of=session.as_of,
        version=session.version,
        base=session.base,
        machine_gpu=machine_gpu,
        profile=(session.base.profile if session.base else None) or session.cpu_profile,
    )


def command_of(flags: Flags, session: Session, words: Sequence[str] = ("gptplan", "estimate")) -> str:
    """The command that gives the same plan without a terminal program, quoted for a shell."""
    found = list(words)
    if session.file is not None:
        found += ["--config", str(session.file)]
    for name in flags.given(*OPTION_NAMES):
        text = getattr(flags, name)
        found += [flag(text)] if OPTION[name].kind.parser == "switch" else [flag(name), text]
    return shlex.join(found)


def fields_named(error: PlanError, flags: Flags) -> frozenset[str]:
    """The filled fields that a message is about: those whose flag or quoted text is in it."""
    flags_named = set(re.findall(r"--[a-z-]+", error.what))
    return frozenset(
        name
        for name in flags.given(*OPTION_NAMES)
        if flag(name) in flags_named or repr(getattr(flags, name)) in error.what
    )
