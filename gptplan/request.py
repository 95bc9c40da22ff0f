"""What `gptplan run` was asked for: a new run of a config, or the rest of an old one."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.config.run import RunConfig
from planner.errors import FileError, InputError
from planner.inputs.profile_file import read_profile
from planner.inputs.run_toml import load_config
from planner.paths import is_file
from planner.runs.directory import CONFIG, holds_steps
from planner.units import parse_count

if TYPE_CHECKING:
    from reference_trainer.data.corpus.sources import ReadOptions


@dataclass(frozen=True, slots=True)
class Request:
    """A run to begin or to continue."""

    config: RunConfig
    directory: Path
    resume: bool
    stop_after: int | None


def request_of(
    config: Path | None, out: Path | None, resume: Path | None, steps: str | None, new_schedule: bool = False
) -> Request:
    """The request of the command's arguments.

    Raises InputError for contradictions and gaps, FileError and ConfigError for what cannot be read.
    """
    stop_after = None if steps is None else parse_count(steps, name="--steps")
    if resume is not None:
        if config is not None or out is not None:
            raise InputError(
                "--resume stands alone",
                why="the run directory holds its own config",
                remedy=f"gptplan run --resume {resume}",
            )
        found = resume / CONFIG
        if not is_file(found):
            raise FileError(f"{resume} is not a run directory", why="it has no config.toml", remedy="check the path")
        return Request(load_config(found), resume, True, stop_after)
    if new_schedule:
        raise InputError(
            "--new-schedule belongs to --resume",
            why="a new run has no schedule that it could leave",
            remedy="leave it out, or edit config.toml in a run directory and continue that run",
        )
    if config is None:
        raise InputError(
            "the config is missing",
            why="a run needs a run.toml",
            remedy="write one with: gptplan plan --params 125M --tokens 10B -o run.toml",
        )
    loaded = load_config(config)
    if out is None:
        raise InputError(
            "--out is missing", why="a run writes its log and checkpoints", remedy=f"gptplan run {config} --out RUN_DIR"
        )
    return Request(loaded, out, False, stop_after)


def restarted(request: Request) -> Request:
    """The same, as the rest of the run if torchrun has started this process again and there is something to go on from.

    The command line is that of the beginning then: torchrun knows no other.
    """
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and is_file(request.directory / CONFIG)
    if request.resume or not again or not holds_steps(request.directory):
        return request
    return replace(request, config=load_config(request.directory / CONFIG), resume=True)


def profile_of_run(path: Path | None, resume: bool) -> dict[str, object] | None:
    """The kernel times that a new run was given. Raises InputError beside --resume, FileError, ConfigError."""
    if path is not None and resume:
        raise InputError(
            "--profile belongs to a new run",
            why="a run that goes on keeps the prediction that was made before it began",
            remedy="leave --profile out",
        )
    return None if path is None else read_profile(path)


def reading_of(tokenizer: str, text_key: str, eot: str | None) -> ReadOptions:
    """How --data is read. Raises UnitError for an --eot that is no number."""
    from reference_trainer.data.corpus.sources import ReadOptions  # needs the trainer's extras

    end_of_text = None if eot is None else parse_count(eot, name="--eot", allow_zero=True)
    return ReadOptions(tokenizer, text_key, end_of_text)


def config_to_check(config: Path | None, what: str) -> RunConfig:
    """The config of a command that needs one. Raises InputError where it is missing, FileError, ConfigError."""
    if config is None:
        raise InputError(
            "the config is missing",
            why=f"{what} needs a run.toml",
            remedy="write one with: gptplan plan --params 125M --tokens 10B -o run.toml",
        )
    return load_config(config)
