"""The micro-batches of each step, and how many targets count in it; what is needed for both is read once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.config.run import RunConfig
from reference_trainer.data.samples import MicroBatch, TokenData, batch, batch_of_rows, count_targets, sample_rows
from reference_trainer.distributed.ranks import ALONE, Ranks
from reference_trainer.step.rollbacks import Rollback, data_step

KEPT_STEPS = 2  # the one that is trained, and the next, of which a thread makes the first micro-batch


@dataclass(frozen=True, slots=True)
class _StepRows:
    """A rank's tokens of a whole step [samples, seq + 1], and how many targets count on all ranks together."""

    rows: npt.NDArray[np.int64]
    valid: int


class BatchSource:
    """The host's micro-batches of a run, by step. rollbacks: whose data is passed by; ranks: who takes which.

    Of the micro-batches that one rank alone would take in a step, rank r of n takes r, r + n, r + 2n, …: the samples of
    a step are the same for any number of ranks.

    Two threads ask it: the loop for the number of targets, and the one that prefetches. Under document masking the
    number depends on the tokens of the whole step, which are therefore read together, 8 bytes each.
    """

    def __init__(
        self, config: RunConfig, data: TokenData, rollbacks: tuple[Rollback, ...] = (), ranks: Ranks = ALONE
    ) -> None:
        self.config, self.data, self.rollbacks, self.ranks = config, data, rollbacks, ranks
        self._kept: dict[int, _StepRows] = {}  # by the index of the first sample
        self._lock = threading.Lock()

    def first_sample(self, step: int) -> int:
        """Global index of the first sample of `step`."""
        return (data_step(self.rollbacks, step) - 1) * self._samples

    def number(self, micro: int) -> int:
        """The number, among all ranks' micro-batches of a step, of this rank's `micro`-th."""
        return micro * self.ranks.world + self.ranks.rank

    def micro_batch(self, step: int, micro: int) -> MicroBatch:
        """A micro-batch of `step`, on the host. Raises DataError as `batch`."""
        size, first = self.config.training.micro_batch, self.first_sample(step)
        if not self.config.training.document_masking:
            return batch(self.data, self.config, first + self.number(micro) * size, size)
        rows = self._rows_from(first).rows[micro * size : (micro + 1) * size]
        return batch_of_rows(rows, self.data, self.config)

    def valid_targets(self, step: int) -> int:
        """How many targets of the whole step count: the divisor of its loss. Without masking nothing is read."""
        if not self.config.training.document_masking:
            return self._samples * self.config.training.seq
        return self._rows_from(self.first_sample(step)).valid

    @property
    def _samples(self) -> int:
        t = self.config.training
        return t.micro_batch * t.accumulation * self.ranks.world

    def _rows_from(self, first: int) -> _StepRows:
        with self._lock:
            if first not in self._kept:
                while len(self._kept) >= KEPT_STEPS:
                    del self._kept[next(iter(self._kept))]
                self._kept[first] = self._read(first)
            return self._kept[first]

    def _read(self, first: int) -> _StepRows:
        """The rows of the step that begins with sample `first`; of other ranks' micro-batches only the targets stay."""
        size, valid = self.config.training.micro_batch, 0
        mine: list[npt.NDArray[np.int64]] = []
        for number in range(self._samples // size):
            rows = sample_rows(self.data, self.config, first + number * size, size)
            valid += count_targets(rows, self.data)
            if number % self.ranks.world == self.ranks.rank:
                mine.append(rows)
        return _StepRows(np.concatenate(mine), valid)
