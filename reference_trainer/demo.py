"""A demo run sized to this machine: the largest model of a ladder that trains enough steps in the given minutes."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import torch

from planner.config.run import CPU, RunConfig
from planner.errors import FileError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import write_config
from planner.log import Log
from planner.plan import estimate
from planner.presets import UNLISTED_GPU
from reference_trainer.device.device import pick_device
from reference_trainer.execute import Outcome, execute, refuse_occupied
from reference_trainer.loop.device_adaptation import adapt_to_device
from reference_trainer.step.options import RunOptions

# layers, width, heads, sequence, micro-batch: byte-level GPT-2-like models from 0.1M to 85M parameters
LADDER = (
    (2, 64, 2, 128, 8),
    (3, 96, 3, 128, 8),
    (4, 128, 4, 128, 8),
    (4, 192, 4, 256, 8),
    (6, 256, 8, 256, 8),
    (6, 384, 6, 256, 8),
    (8, 512, 8, 512, 8),
    (12, 768, 12, 512, 8),
)
BYTE_VOCAB = 256  # vocabulary of the byte tokenizer
ENOUGH_STEPS = 120
FEWEST_STEPS = 12  # fewer give no useful median of the step time
TIME_LIMIT_FACTOR = 1.5  # the run stops after this times the minutes given
SECONDS_PER_MINUTE = 60


def sized_config(minutes: float, device: torch.device, version: str, log: Log) -> RunConfig:
    """The config of the largest model that is predicted to train `ENOUGH_STEPS` in `minutes` on this machine."""
    chosen: RunConfig | None = None
    for i, row in enumerate(LADDER):
        # messages about the device are logged once
        config = adapt_to_device(
            _config(row, FEWEST_STEPS, device, version), device, log if i == 0 else lambda line: None
        )
        seconds = estimate(config).throughput.step_seconds.value
        if seconds is None:  # the machine was too busy to be measured
            log("the speed is unknown: the smallest model is trained, until the time is over")
            smallest = _config(LADDER[0], ENOUGH_STEPS, device, version)
            return adapt_to_device(smallest, device, lambda line: None)
        steps = int(minutes * SECONDS_PER_MINUTE / seconds)
        if chosen is not None and steps < ENOUGH_STEPS:
            break
        chosen = adapt_to_device(_config(row, max(steps, FEWEST_STEPS), device, version), device, lambda line: None)
    assert chosen is not None, "the ladder is not empty"
    return chosen


def _config(row: tuple[int, ...], steps: int, device: torch.device, version: str) -> RunConfig:
    layers, hidden, heads, seq, micro = map(str, row)
    flags = Flags(
        layers=layers,
        hidden=hidden,
        heads=heads,
        vocab=str(BYTE_VOCAB),
        seq=seq,
        micro_batch=micro,
        accumulation="1",
        steps=str(steps),
        # small models and few tokens allow a higher lr than the smallest row of the default table
        peak_lr="1e-3",
        runtime="eager",  # minutes on the models of a ladder: compiling would take longer, and shows fewer peaks
        gpu=CPU if device.type == "cpu" else UNLISTED_GPU,  # `adapt_to_device` names the card
    )
    return draft(flags, as_of=date.today().isoformat(), version=version)


def demo(minutes: float, directory: Path, version: str, log: Log) -> Outcome:
    """Plan, run and compare. Writes run.toml and the run directory `run` in `directory`.

    Raises FileError, before this machine is measured, if the directory is there already or cannot be made.
    """
    refuse_occupied(directory)
    if os.path.lexists(directory):
        raise FileError(
            f"{directory} exists already", why="nothing is overwritten unasked", remedy="give another --out"
        )
    device = pick_device(None)
    config = sized_config(minutes, device, version, log)
    # if the machine is busier than when it was measured, the run stops early instead of taking an hour
    limit = TIME_LIMIT_FACTOR * minutes * SECONDS_PER_MINUTE
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
        raise FileError(f"{directory} cannot be made", why=why, remedy="give another --out") from None
    write_config(directory / "run.toml", config)
    return execute(
        config, directory / "run", False, RunOptions(device=device.type, progress=True, time_limit=limit), log
    )
