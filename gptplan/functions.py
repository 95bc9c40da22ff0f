"""The functions of `import gptplan`: `estimate`, `plan`, `search`, `fit` and `compare`, called from Python."""

from __future__ import annotations

from inspect import Parameter, Signature
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from gptplan.drafting import config_over
from gptplan.keywords import Keywords, KeywordValue, flags_of
from gptplan.results import Comparison, Plan
from planner import presets
from planner.analysis.findings import findings_with_remedies
from planner.analysis.largest import Fit, fit_of
from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.errors import InputError
from planner.finding import Finding
from planner.inputs.flags import Flags
from planner.inputs.run_toml import load_config, write_config
from planner.inputs.search import RankedBy, SearchLimits, limits_of, one_of_each, ranking_of, searched_config, space_of
from planner.paths import exists
from planner.plan import Plan as LibraryPlan
from planner.plan import estimate as plan_of
from planner.runs.comparison_file import load_comparison

if TYPE_CHECKING:
    from planner.analysis.search.search import SearchResult

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


def search(
    config: Config | None = None,
    *,
    as_of: str | None = None,
    max_cost: KeywordValue = None,
    within: str | None = None,
    head_room: KeywordValue = None,
    by: str = "time",
    top: int = 10,
    **keywords: Unpack[Keywords],
) -> SearchResult:
    """The best layouts of a run with the same steps, the best of each placement, and the front of time and cost.

    gpu="h100-80gb,h200" and gpus="8..64" are lists here; other keywords of the layout stay as they are given.
    max_cost: dollars of the run; within: its time, such as "7d"; head_room: fraction of the memory that stays free.
    by: "time", "cost", "energy" or "head-room". top: number of layouts. Other arguments as in `estimate`.

    Raises PlanError: InputError where nothing is found, with the limit that binds and the nearest layout.
    """
    base = config if config is None or isinstance(config, RunConfig) else _read(config)
    limits = limits_of(*(None if value is None else str(value) for value in (max_cost, within, head_room)))
    return searched(flags_of(keywords), base, as_of, limits, (ranking_of(by), top))


def searched(
    flags: Flags,
    config: RunConfig | Path | None,
    as_of: str | None,
    limits: SearchLimits,
    shown: tuple[RankedBy, int],
    processes: int = 1,
) -> SearchResult:
    """The search of these flags, lists of cards and of numbers of GPUs among them, over a config or its file.

    shown: what is ranked, and how many. processes: that look at a large space; a script that is not guarded by its
    __name__ would run again in each, so that one is enough for the library.
    """
    from planner.analysis.search.search import search as best_layouts  # numpy: 0.1 s, wanted for a search only

    base = load_config(config) if isinstance(config, Path) else config
    whole = searched_config(config_over(one_of_each(flags, base), base, as_of), flags, base)
    return best_layouts(whole, space_of(flags, whole, limits), *shown, processes)


def fit(config: Config | None = None, *, as_of: str | None = None, **keywords: Unpack[Keywords]) -> Fit:
    """The largest micro-batch, sequence, depth and width of a run that fit, and the cheapest change with which it does.

    Arguments and errors as in `estimate`; InputError also where the memory of the device is not known.
    """
    return fit_of(resolve(plan(config, as_of=as_of, **keywords)))


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
    """Give these functions a signature with every keyword, which help() and completion in a notebook show."""
    functions: tuple[Any, ...] = (estimate, plan, search, fit)
    for function in functions:
        own = [p for p in Signature.from_callable(function).parameters.values() if p.kind != Parameter.VAR_KEYWORD]
        flags = [
            Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation="KeywordValue")
            for n in Keywords.__annotations__
        ]
        function.__signature__ = Signature([*own, *flags])


_show_keywords()
