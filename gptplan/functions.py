"""The functions of `import gptplan`: the commands `estimate`, `plan` and `compare`, called from Python."""

from __future__ import annotations

from inspect import Parameter, Signature
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from gptplan.drafting import config_over
from gptplan.keywords import Keywords, flags_of
from gptplan.results import Comparison, Plan
from planner import presets
from planner.analysis.findings import findings_with_remedies
from planner.config.run import RunConfig
from planner.errors import InputError
from planner.finding import Finding
from planner.inputs.run_toml import load_config, write_config
from planner.paths import exists
from planner.plan import Plan as LibraryPlan
from planner.plan import estimate as plan_of
from planner.runs.comparison_file import load_comparison

Config = RunConfig | str | PathLike[str]


def estimate(
    config: Config | None = None, *, as_of: str | None = None, replay: bool = True, **keywords: Unpack[Keywords]
) -> Plan:
    """The plan of a run: its memory, time, cost and schedule.

    config: a RunConfig or the path of a run.toml; the keywords override it. Without one the keywords are the run.
    as_of: date of the plan, such as "2026-11-21"; today by default.
    replay: simulate PyTorch's allocator over two steps, as the command does (10 to 100 ms).
    keywords: the command's flags, with underscores: numbers (8, 1e10) or text ("10B", "40%"); None is not given.

    Raises PlanError: InputError for keywords, FileError and ConfigError for a file.
    """
    return Plan.of(plan_of(plan(config, as_of=as_of, **keywords), replay=replay))


def plan(config: Config | None = None, *, as_of: str | None = None, **keywords: Unpack[Keywords]) -> RunConfig:
    """The whole config of a run, every default recorded in its provenance. Arguments and errors as in `estimate`."""
    flags = flags_of(keywords)
    return config_over(flags, config if config is None or isinstance(config, RunConfig) else _read(config), as_of)


def findings(plan: LibraryPlan) -> tuple[Finding, ...]:
    """What is wrong or unusual about a plan, errors first, each with what mends it: up to 2 s if it does not fit."""
    return findings_with_remedies(plan)


def save_config(config: RunConfig, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write a run.toml, which `gptplan run` trains, and its machine profile beside it, if it has one.

    Raises FileError, also where the file exists.
    """
    write_config(Path(path), config, overwrite=overwrite)


def compare(run_directory: str | PathLike[str]) -> Comparison:
    """Predicted and measured numbers of a finished run. Raises FileError for a directory without comparison."""
    return Comparison.of(load_comparison(Path(run_directory)))


def _read(path: str | PathLike[str]) -> RunConfig:
    if isinstance(path, str) and path in presets.model_ids() and not exists(Path(path)):
        raise InputError(
            f"{path!r} is a model, not a file",
            why="without a keyword, the argument is the path of a run.toml",
            remedy=f'give model="{path}"',
        )
    return load_config(path)


def _show_keywords() -> None:
    """Give both functions a signature with every keyword, which help() and completion in a notebook show."""
    functions: tuple[Any, ...] = (estimate, plan)
    for function in functions:
        own = [p for p in Signature.from_callable(function).parameters.values() if p.kind != Parameter.VAR_KEYWORD]
        flags = [
            Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation="KeywordValue")
            for n in Keywords.__annotations__
        ]
        function.__signature__ = Signature([*own, *flags])


_show_keywords()
