"""The planner against real steps on real tensors: every allocation that PyTorch's profiler records on a CPU.

No dispatch mode watches here, so gradients that meet are added in place, as on a GPU. Kernels of a CPU allocate
scratch space of their own (packed operands, attention's blocks): the predicted allocations are a subsequence of
the real ones, in order, and the peak agrees. In fp32, where few kernels pack their operands.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import simulation_context
from planner.memory.micro_batch import simulate_micro_batch
from reference_trainer.measure.measure import build_model
from tests.reference_trainer.predictions.test_plain_models import CHECKPOINTING, FAMILIES, Recorder, config_of

SCALAR = 4  # the loss divided by the tokens, and its gradient, belong to the trainer


def real_allocations(config: RunConfig) -> list[int]:
    """Bytes allocated (positive) and freed (negative) during one micro-batch, in order."""
    training = config.training
    torch.manual_seed(0)
    model = build_model(config)
    model.make_tables(training.seq, torch.device("cpu"))
    ids, targets = (torch.zeros((training.micro_batch, training.seq), dtype=torch.long) for _ in range(2))
    model(ids, targets).backward()
    if training.accumulation == 1:
        model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        (model(ids, targets) / training.seq).backward()
    events = watched.profiler.kineto_results.events()  # type: ignore[union-attr]
    made = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return [e.nbytes() for e in made]


def predicted_allocations(config: RunConfig) -> Recorder:
    recorder = Recorder()
    autograd = Autograd(recorder, in_place=True)
    autograd.gradients_exist = config.training.accumulation > 1
    simulate_micro_batch(simulation_context(resolve(config)), autograd)
    return recorder


def is_subsequence(few: list[int], many: Iterator[int]) -> bool:
    return all(size in many for size in few)


@pytest.mark.parametrize(
    ("family", "checkpointing", "accumulation"), list(itertools.product(FAMILIES, CHECKPOINTING, (1, 2)))
)
def test_real_allocations_and_their_peak(family: str, checkpointing: str, accumulation: int) -> None:
    config = config_of(family, checkpointing, "fp32", (2, 48, 3, 300, accumulation))
    real = real_allocations(config)
    predicted = predicted_allocations(config)
    wanted = [size for size, _ in predicted.made if size > SCALAR]
    assert is_subsequence(wanted, iter(size for size in real if size > SCALAR))
    peak = max(itertools.accumulate(real))
    assert abs(peak - max(live for _, live in predicted.made)) <= 64


def test_the_order_matters() -> None:
    assert is_subsequence([3, 2], iter([1, 3, 5, 2]))
    assert not is_subsequence([2, 3], iter([1, 3, 5, 2]))
