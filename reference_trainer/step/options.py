"""Run options that are not in the config. A run saves them in execution.json, and --resume uses them again."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from planner.files import write_atomically
from planner.log import Log
from planner.paths import exists
from planner.runs.directory import EXECUTION
from planner.runs.execution_file import load_execution
from reference_trainer.data.corpus.sources import ReadOptions
from reference_trainer.step.command_record import confirmed_command, record_command

# options that --resume takes over unless its command line sets them
KEPT = (
    "device", "data_path", "reading", "deterministic", "log_every", "statistics_every", "noise_scale", "trackers",
    "eval_timeout",
)  # fmt: skip

BY_BYTES = ReadOptions()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a config: the options that are not in the config.

    `device`: cpu, cuda or cuda:N; None: a GPU if there is one. `data_path`: None is the built-in text; `reading`: how
    it is read. `stop_after`: the step of the run after which to save and stop. `deterministic`: use only deterministic
    algorithms. `progress`: a progress bar, if stderr is a terminal. `time_limit`: seconds of training after which to
    save and stop. `new_schedule`: --resume may change steps, tokens and schedule. `log_every`: steps per log window;
    None: 10 on a GPU, 1 on a CPU. `flops_per_step`, `hardware_flops_per_step`: FLOPs of one step without and with
    recomputation; `peak_flops`: peak of the device in FLOP/s; all for MFU and HFU in the metrics, None: unknown.
    `statistics_every`: steps between layer statistics, None: never. `noise_scale`: measure the gradient-noise scale.
    `rank_timeout`: seconds in which every rank must come further, None: 600. `trackers`: names in `trackers.BACKENDS`.
    `eval_command`: a shell command, see eval_command.py; `eval_timeout`: seconds to wait for it, None: 600. `profile`:
    kernel times that the user named; a run keeps them beside its config.
    """

    device: str | None = None
    data_path: Path | None = None
    reading: ReadOptions = BY_BYTES
    resume: bool = False
    stop_after: int | None = None
    deterministic: bool = False
    progress: bool = False
    time_limit: float | None = None
    new_schedule: bool = False
    log_every: int | None = None
    flops_per_step: int | None = None
    hardware_flops_per_step: int | None = None
    peak_flops: float | None = None
    statistics_every: int | None = None
    noise_scale: bool = False
    trackers: tuple[str, ...] = ()
    eval_command: str | None = None
    eval_timeout: float | None = None
    profile: dict[str, object] | None = None
    rank_timeout: float | None = None


def write_options(directory: Path, options: RunOptions, log: Log) -> None:
    """Save in `directory` the options that --resume needs and the config does not contain.

    The eval command is not among them: it is recorded outside, for this user only (see command_record.py).
    """
    kept: dict[str, Any] = {name: getattr(options, name) for name in KEPT if name != "data_path"}
    kept["data"] = None if options.data_path is None else str(options.data_path.absolute())
    kept["reading"] = asdict(options.reading)
    kept["trackers"] = list(options.trackers)
    kept |= {"run_id": uuid.uuid4().hex, "has_eval_command": options.eval_command is not None}
    write_atomically(directory / EXECUTION, json.dumps(kept, indent=1) + "\n", overwrite=True)
    if options.eval_command is not None:
        record_command(directory, kept["run_id"], options.eval_command, log)


def as_before(directory: Path, options: RunOptions, log: Log) -> RunOptions:
    """The options of a resumed run: those of its start, unless the command line sets them.

    Raises FileError if execution.json is damaged, or if the run had an eval command that this user did not type.
    """
    before, kept = _with_kept(directory, options)
    return replace(before, eval_command=confirmed_command(directory, kept, options.eval_command, log))


def options_of_follower(directory: Path, options: RunOptions) -> RunOptions:
    """The options of a rank that is not the first: those of the first without what the first does alone."""
    before = _with_kept(directory, options)[0] if options.resume else options
    return replace(before, eval_command=None, trackers=(), progress=False)


def _with_kept(directory: Path, options: RunOptions) -> tuple[RunOptions, dict[str, Any]]:
    """The options with those of the run's start where the command line sets none, and the record of that start."""
    path = directory / EXECUTION
    if not exists(path):
        return options, {}
    record = load_execution(directory)
    kept = record.model_dump() | {
        "data_path": None if record.data is None else Path(record.data),
        "reading": ReadOptions(**record.reading.model_dump()),
    }
    defaults = {f.name: f.default for f in fields(RunOptions)}
    unset = [name for name in KEPT if getattr(options, name) == defaults[name]]
    return replace(options, **{name: kept[name] for name in unset}), kept
