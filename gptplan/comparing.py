"""What `gptplan compare` compares: a run of ours, a log of another trainer, or a profiler's trace, with its plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import InputError

if TYPE_CHECKING:
    from planner.runs.comparison import Comparison


@dataclass(frozen=True, slots=True)
class Compared:
    """Text for people, the values of --json, and the comparison, if there is one."""

    text: str
    values: dict[str, Any]
    comparison: Comparison | None


def comparison_of(
    directory: Path | None, log: Path | None, trace: Path | None, config: Path | None, of: str | None
) -> Compared:
    """The comparison of what was given: exactly one of a run directory, a log and a trace.

    of: whose log it is. Raises InputError for other combinations, FileError and ConfigError for files.
    """
    given = [
        name for name, value in (("RUN_DIR", directory), ("--log", log), ("--profile", trace)) if value is not None
    ]
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "nothing to compare is given"
        raise InputError(what, why="one thing is compared with one plan", remedy="give RUN_DIR, --log or --profile")
    if (config is None) == (directory is None):
        what = "--config is missing" if config is None else "--config beside RUN_DIR"
        why = f"{given[0]} has no plan of its own" if config is None else "a run directory holds its own config"
        raise InputError(what, why=why, remedy="give --config RUN_TOML with --log and --profile only")
    if of is not None and log is None:
        raise InputError("--from needs --log", why="it says whose log it is", remedy="leave it out")
    if directory is not None:
        return _run(directory)
    return _log(log, config, of) if log is not None else _trace(trace, config)


def _run(directory: Path) -> Compared:
    from dataclasses import asdict

    from planner.report.comparison import comparison_lines
    from planner.runs.comparison_file import load_comparison

    comparison = load_comparison(directory)
    return Compared(comparison_lines(comparison), asdict(comparison), comparison)


def _log(log: Path, config: Path | None, of: str | None) -> Compared:
    from dataclasses import asdict

    from planner.inputs.run_toml import load_config
    from planner.plan import estimate
    from planner.report.comparison import comparison_lines
    from planner.report.logs import log_sentences
    from planner.runs.logs.compare import compare_log
    from planner.runs.logs.read import read_log

    assert config is not None
    plan = estimate(load_config(config), replay=True)
    read = read_log(log, of)
    comparison = compare_log(plan, read)
    text = "\n".join([comparison_lines(comparison), "", *log_sentences(read, comparison)])
    return Compared(text, asdict(comparison) | {"log": asdict(read)}, comparison)


def _trace(trace: Path | None, config: Path | None) -> Compared:
    from dataclasses import asdict

    from planner.inputs.run_toml import load_config
    from planner.plan import estimate
    from planner.report.logs import trace_lines
    from planner.runs.logs.compare_trace import compare_trace
    from planner.runs.logs.trace import read_trace

    assert config is not None and trace is not None
    found = compare_trace(estimate(load_config(config), replay=False), read_trace(trace))
    return Compared(trace_lines(found), asdict(found), None)
