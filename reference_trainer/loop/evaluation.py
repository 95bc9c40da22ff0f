"""The loss on held-out data, and what follows from a row of such losses: the best model, and stopping early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from planner.config.run import RunConfig
from planner.errors import ConfigError
from reference_trainer.data.corpus.sources import Reading
from reference_trainer.data.samples import TokenData, batch, open_data
from reference_trainer.device.out_of_memory import explained
from reference_trainer.step.step import StepContext


@dataclass(slots=True)
class EvaluationProgress:
    """The evaluations so far: the best loss in nats per token and its step, and how many came since without a better.

    A checkpoint keeps it, so that a run which continues judges as an uninterrupted one.
    """

    best_loss: float | None = None
    best_step: int | None = None
    since_best: int = 0
    nonfinite_in_a_row: int = 0

    def add(self, step: int, loss: float) -> bool:
        """Whether `loss` is the best so far; one that is not finite never is."""
        if loss < (float("inf") if self.best_loss is None else self.best_loss):
            self.best_loss, self.best_step, self.since_best = loss, step, 0
            return True
        self.since_best += 1
        return False


def refuse_unevaluated(config: RunConfig, data: TokenData) -> None:
    """Raises ConfigError for a config that asks for evaluations on data without a validation part."""
    if config.evaluation.every is not None and data.validation is None:
        raise ConfigError(
            f"evaluation.every = {config.evaluation.every}, but the data has no validation part",
            why="a loss on the training data shows no over-fitting",
            remedy="prepare the data with: gptplan data … --val-share 0.01, or leave evaluation.every out",
        )


def opened_for(config: RunConfig, path: Path | None, reading: Reading | None = None) -> TokenData:
    """The data of a run, with a part held out where the config evaluates. Raises DataError."""
    hold_out = config.evaluation.every is not None
    return open_data(path, config.model.vocab, config.training.seq, hold_out=hold_out, reading=reading)


def passes_of(config: RunConfig, validation: TokenData) -> int:
    """Forward passes of one evaluation: the tokens asked for in whole micro-batches, at most all that there are."""
    per_pass = config.training.micro_batch * config.training.seq
    wanted = -(-config.evaluation.tokens // per_pass)
    return max(1, min(wanted, validation.valid_tokens // per_pass))


def evaluate(context: StepContext, stopping: Callable[[], bool]) -> float | None:
    """Mean loss in nats per valid token of the same held-out samples every time; None where `stopping` broke it off.

    Raises PlanError when the memory does not suffice.
    """
    config, validation, model = context.config, context.data.validation, context.model
    assert validation is not None, "refuse_unevaluated came first"
    size = config.training.micro_batch
    total, valid = torch.zeros((), device=context.device), 0
    model.eval()
    try:
        with torch.no_grad(), explained(config, context.device, "in an evaluation"):
            for index in range(passes_of(config, validation)):
                if stopping():
                    return None
                held = batch(validation, config, index * size, size)
                given = held.moved(lambda t: t.to(context.device))
                valid += held.valid
                total += model(given.ids, given.targets, given.documents)
        return float(total) / max(valid, 1)
    finally:
        model.train()
