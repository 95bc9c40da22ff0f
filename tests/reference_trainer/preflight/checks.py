"""What the tests of the preflight share: a config's built model, and a report's checks by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from planner.config.run import RunConfig
from planner.runs.preflight import Check, Preflight
from reference_trainer.data.samples import MicroBatch, batch, open_data
from reference_trainer.loop.startup import build
from reference_trainer.step.step import StepContext

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")
NAMES = [
    "data", "targets", "learning rate", "memory", "first loss", "first gradient", "all are trained", "decay groups",
    "causality", "step time", "save and load", "checkpoint size", "peak of a step", "one sequence over-fitted", "disk",
    "whole run",
]  # fmt: skip


def verdicts(report: Preflight) -> dict[str, str]:
    return {check.name: check.verdict for check in report.checks}


def the(report: Preflight, name: str) -> Check:
    (found,) = (check for check in report.checks if check.name == name)
    return found


def built(config: RunConfig, text: Path) -> tuple[StepContext, MicroBatch]:
    data = open_data(text, config.model.vocab, config.training.seq)
    return build(config, CPU, data), batch(data, config, 0, config.training.micro_batch)
