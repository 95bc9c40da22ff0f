"""Evaluation on held-out data, and what follows from it: the best checkpoint, and early stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from planner.activity import doing
from planner.config.run import RunConfig
from planner.errors import ConfigError
from reference_trainer.data.corpus.sources import ReadOptions
from reference_trainer.data.prefetch import on_device
from reference_trainer.data.samples import TokenData, batch, open_data
from reference_trainer.device.out_of_memory import explained
from reference_trainer.distributed.sharding import is_sharded
from reference_trainer.step.optimizer_step import summed_loss
from reference_trainer.step.step import StepContext


@dataclass(slots=True)
class EvaluationProgress:
    """The best validation loss (nats per token), its step, and the number of evaluations since then.

    A checkpoint saves it, so that a resumed run decides as an uninterrupted one.
    """

    best_loss: float | None = None
    best_step: int | None = None
    since_best: int = 0
    nonfinite_in_a_row: int = 0
    evaluated_step: int | None = None  # of the last evaluation that was finished

    def add(self, step: int, loss: float) -> bool:
        """Add a validation loss. Returns True if it is the best so far; a loss that is not finite never is."""
        self.evaluated_step = step
        if loss < (float("inf") if self.best_loss is None else self.best_loss):
            self.best_loss, self.best_step, self.since_best = loss, step, 0
            return True
        self.since_best += 1
        return False


def refuse_unevaluated(config: RunConfig, data: TokenData) -> None:
    """Raises ConfigError if the config wants evaluations and the data has no validation part."""
    if config.evaluation.every is not None and data.validation is None:
        raise ConfigError(
            f"evaluation.every = {config.evaluation.every}, but the data has no validation part",
            why="a loss on training data does not show over-fitting",
            remedy="prepare the data with: gptplan data … --val-share 0.01, or leave evaluation.every out",
        )


@doing("reading the data")
def opened_for(config: RunConfig, path: Path | None, reading: ReadOptions | None = None) -> TokenData:
    """The data of a run, with a held-out part if the config wants evaluations. Raises DataError."""
    hold_out = config.evaluation.every is not None
    return open_data(path, config.model.vocab, config.training.seq, hold_out=hold_out, reading=reading)


def passes_of(config: RunConfig, validation: TokenData) -> int:
    """Forward passes of one evaluation: `evaluation.tokens`, in micro-batches, at most all of the data."""
    per_pass = config.training.micro_batch * config.training.seq
    passes = -(-config.evaluation.tokens // per_pass)
    return max(1, min(passes, validation.valid_tokens // per_pass))


def evaluate(context: StepContext, stopping: Callable[[], bool]) -> float | None:
    """Mean loss in nats per valid token, on the same held-out samples every time. None if `stopping` returned True.

    Several ranks take the passes in turn.

    Raises PlanError if the device runs out of memory.
    """
    config, validation, model = context.config, context.data.validation, context.model
    assert validation is not None, "refuse_unevaluated was called before"
    size, ranks, passes = config.training.micro_batch, context.ranks, passes_of(config, validation)
    total, valid = torch.zeros((), device=context.device), 0
    model.eval()
    try:
        with torch.no_grad(), explained(config, context.device, "in an evaluation"):
            for first in range(0, passes, ranks.world):
                context.moves.moved()
                if stopping():
                    return None
                index = first + ranks.rank
                if index >= passes and not is_sharded(model):
                    continue
                # sharded weights are gathered by all ranks: who has no pass left runs the last one, and forgets it
                host = batch(validation, config, min(index, passes - 1) * size, size)
                loss = summed_loss(model, on_device(host, context.device))
                if index < passes:
                    valid += host.valid
                    total += loss
        sums = ranks.sums([float(total), valid])
        return sums[0] / max(sums[1], 1)
    finally:
        model.train()
