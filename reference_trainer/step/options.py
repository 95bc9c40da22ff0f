"""How a config is executed, as far as the config does not say; a run keeps it, so that its continuation is the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from planner.errors import FileError
from planner.files import read_text, write_atomically
from reference_trainer.data.corpus.sources import Reading

EXECUTION = "execution.json"
# what a continuation repeats where its command says nothing else
KEPT = (
    "device", "data_path", "reading", "deterministic", "log_every", "statistics_every", "noise_scale", "trackers",
    "eval_command", "eval_timeout",
)  # fmt: skip

BY_BYTES = Reading()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to execute a config, as far as the config does not say.

    `device`: cpu, cuda or cuda:N; None: a GPU if there is one. `data_path`: None: the built-in text; `reading`: how it
    is read. `stop_after`: the step, counted from the run's first, after which to save and stop. `deterministic`: refuse
    operations whose result may differ from run to run. `progress`: a bar on stderr if that is a terminal. `time_limit`:
    seconds of training after which to save and stop, resumable. `new_schedule`: a continuation may change steps, tokens
    and schedule. `log_every`: steps whose numbers are read from the device together; None: 10 on a GPU, 1 on a CPU.
    `flops_per_step`, `hardware_flops_per_step`, `peak_flops` (FLOP/s): the FLOPs of one step without and with what is
    computed twice, and the device's peak, for MFU and HFU in the metrics; None: unknown. `statistics_every`: steps
    between statistics of every layer; None: there are none. `noise_scale`: whether the gradient-noise scale is
    measured. `trackers`: names of `trackers.BACKENDS` that draw the metrics. `eval_command`: for the shell, see
    eval_command.py; `eval_timeout`: seconds that training waits for it, None: 600.
    """

    device: str | None = None
    data_path: Path | None = None
    reading: Reading = BY_BYTES
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


def write_options(directory: Path, options: RunOptions) -> None:
    """Keep in `directory` what a continuation needs to know and the config does not say."""
    kept: dict[str, Any] = {name: getattr(options, name) for name in KEPT if name != "data_path"}
    kept["data"] = None if options.data_path is None else str(options.data_path.absolute())
    kept["reading"] = asdict(options.reading)
    kept["trackers"] = list(options.trackers)
    write_atomically(directory / EXECUTION, json.dumps(kept, indent=1) + "\n")


def as_before(directory: Path, options: RunOptions) -> RunOptions:
    """The options of a continued run: as it was begun, where the command says nothing else.

    Raises FileError when its record is damaged.
    """
    path = directory / EXECUTION
    if not path.exists():
        return options
    try:
        kept = json.loads(read_text(path))
        kept["data_path"] = None if kept["data"] is None else Path(kept["data"])
        # records of before these were kept lack them
        kept["reading"] = Reading(**kept.get("reading", {}))
        kept["trackers"] = tuple(kept.get("trackers", ()))
        usual = {f.name: f.default for f in fields(RunOptions)}
        silent = [name for name in KEPT if getattr(options, name) == usual[name]]
        return replace(options, **{name: kept.get(name, usual[name]) for name in silent})
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is damaged", why=str(error), remedy="delete it, and repeat --data") from None
