"""Under document masking a step's tokens are read once: for its micro-batches, and for how many targets count."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from planner.config.run import RunConfig
from reference_trainer.data.samples import TokenData, batch
from reference_trainer.loop.startup import build
from reference_trainer.step.batch_source import BatchSource
from reference_trainer.step.rollbacks import Rollback
from reference_trainer.step.step import train_step

MakeConfig = Callable[..., RunConfig]
END = 63


class CountedTokens:
    """Tokens that count how often a slice of them is read."""

    def __init__(self) -> None:
        self.tokens = np.random.default_rng(3).integers(50, 64, 2000).astype(np.uint16)
        self.reads = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, where: slice) -> Any:
        self.reads += 1
        return self.tokens[where]


@pytest.fixture
def data() -> TokenData:
    return TokenData(CountedTokens(), "", "", 1984, end_of_text=END)  # type: ignore[arg-type]


def test_each_sample_of_a_masked_step_is_read_once(tiny: MakeConfig, data: TokenData) -> None:
    config = tiny(vocab=64, document_masking=True, micro_batch=2, accumulation=3)
    context = build(config, torch.device("cpu"), data)
    for step in (1, 2, 3):
        train_step(context, step)
    assert data.tokens.reads == 3 * 2 * 3  # type: ignore[attr-defined]


def test_without_masking_nothing_is_read_for_the_number_of_targets(tiny: MakeConfig, data: TokenData) -> None:
    source = BatchSource(tiny(vocab=64), data)
    assert source.valid_targets(1) == 2 * 2 * 32 and data.tokens.reads == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("masking", [False, True])
def test_micro_batches_are_those_of_their_samples_also_past_a_rollback(
    tiny: MakeConfig, data: TokenData, masking: bool
) -> None:
    config = tiny(vocab=64, document_masking=masking, micro_batch=2, accumulation=2)
    source = BatchSource(config, data)
    skipped = (Rollback(spike_step=2, to_step=1, skipped_steps=5, rate_factor=1.0),)
    for step, rollbacks, first in [
        (1, (), 0),
        (2, (), 4),
        (2, skipped, 4 + 5 * 4),
        (3, skipped, 8 + 5 * 4),
        (1, (), 0),
    ]:
        source.rollbacks = rollbacks
        assert source.first_sample(step) == first
        parts = [source.micro_batch(step, micro) for micro in (0, 1)]
        for micro, part in enumerate(parts):
            direct = batch(data, config, first + 2 * micro, 2)
            for name in ("ids", "targets", *(["documents"] if masking else [])):
                assert torch.equal(getattr(part, name), getattr(direct, name)), (step, micro, name)
        assert source.valid_targets(step) == sum(part.valid for part in parts)


def test_two_threads_that_ask_at_once_read_once(tiny: MakeConfig, data: TokenData) -> None:
    config = tiny(vocab=64, document_masking=True)
    source, found = BatchSource(config, data), list[int]()
    threads = [Thread(target=lambda: found.append(source.valid_targets(4))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and data.tokens.reads == 4  # type: ignore[attr-defined]
