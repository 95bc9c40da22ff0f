"""Simulated memory and PyTorch's own: allocations in order, peaks of phases, saved bytes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import recipe_of, resolve, tokens_per_step
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import simulation_context
from planner.memory.ledger import Ledger
from planner.memory.micro_batch import simulate_micro_batch
from planner.memory.phases import simulate_run
from reference_trainer.measure.measure import build_model, saved_bytes_by_operator
from reference_trainer.measure.replay import StorageTracker, Track, track_steps, watch_phases, zero_inputs
from reference_trainer.optim.updater import make_optimizer

SCALARS = 64  # bytes: the loss, its divisor, counts of steps
SCALAR = 4  # bytes of the loss and of its gradient, which belong to the trainer, not to the model
SMALL = 2_000_000  # parameters: up to here PyTorch computes real tensors faster than it makes fake ones
Made = list[tuple[int, int]]  # bytes of each allocation, bytes alive after it


class Recorder(Ledger):
    """A ledger that records every allocation: bytes, and bytes alive after it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Made = []

    def allocate(self, component: str, size: int) -> int:
        """Add `size` bytes and record it; returns the key of the allocation."""
        key = super().allocate(component, size)
        self.made.append((size, self.total))
        return key


def simulated_allocations(config: RunConfig) -> Made:
    """The allocations that the planner simulates for the last micro-batch of a step."""
    recorder = Recorder()
    autograd = Autograd(recorder)
    recipe = recipe_of(config)
    autograd.gradient_widening = recipe.gradients_bytes_per_parameter // recipe.weights_bytes_per_parameter
    autograd.gradients_exist = config.training.accumulation > 1
    context = simulation_context(resolve(config))
    if (
        config.training.returns_logits and config.training.accumulation > 1
    ):  # those of the micro-batch before are still there
        size = context.tokens * context.shape.vocab * context.compute_bytes
        autograd.previous_logits = autograd.allocate(size, "logits")
        recorder.made.clear()
    before = recorder.total
    simulate_micro_batch(context, autograd, every_block=True)
    return [(size, live - before) for size, live in recorder.made if size > SCALAR]


def _tensors(config: RunConfig) -> AbstractContextManager[object]:
    """Real tensors for a small model. Fake ones for a large model, and for experts: their sizes would depend on values.

    Both allocate the same: a test compares them for every option of the model.
    """
    small = config.model.moe is None and parameters_of(config.model).total <= SMALL
    return nullcontext() if small else FakeTensorMode()


def pytorch_track(config: RunConfig) -> Track:
    """The peaks of every phase of two steps, evaluation, save and resume, as PyTorch allocates on a CPU."""
    with _tensors(config):
        return track_steps(config, StorageTracker())


def pytorch_allocations(config: RunConfig) -> Made:
    """PyTorch's allocations for the last micro-batch of a step."""
    training, shape = config.training, (config.training.micro_batch, config.training.seq)
    with _tensors(config):
        model = build_model(config)
        model.make_tables(training.seq, torch.device("cpu"))
        inputs = zero_inputs(config, shape)
        optimizer = make_optimizer(model, config)
        tracker = StorageTracker()
        tracker.events = events = []
        tracker.add(list(model.parameters()), optimizer.weights, list(model.buffers()), model.tables, inputs)
        watch_phases(model, tracker)
        for _ in range(min(2, training.accumulation)):
            events.clear()
            before = tracker.track.live_bytes
            with tracker:
                loss = model(*inputs) / tokens_per_step(config)
                optimizer.backward(loss)
                del loss
    return [(size, live - before) for _, size, live in events if size > SCALAR]


def first_difference(config: RunConfig) -> str:
    """The first allocation that differs between PyTorch and the planner; "" if none does."""
    return difference_of(pytorch_allocations(config), simulated_allocations(config))


def difference_of(replayed: Made, simulated: Made) -> str:
    """The first difference of two sequences of allocations; "" if there is none."""
    for place, (a, b) in enumerate(zip(replayed, simulated, strict=False)):
        if a[0] != b[0] or abs(a[1] - b[1]) > SCALARS:
            return f"allocation {place}: PyTorch {a[0]:,} of {a[1]:,} alive, planner {b[0]:,} of {b[1]:,} alive"
    return (
        ""
        if len(replayed) == len(simulated)
        else f"{len(replayed)} allocations of PyTorch, {len(simulated)} of the planner"
    )


@dataclass(frozen=True, slots=True)
class PhasePeaks:
    """Peak of one phase in bytes: predicted, and replayed by PyTorch."""

    phase: str
    predicted: int
    replayed: int

    @property
    def difference(self) -> int:
        """Predicted less replayed, bytes."""
        return self.predicted - self.replayed


def phase_peaks(config: RunConfig) -> list[PhasePeaks]:
    """The peaks of every phase of two steps, evaluation, save and resume."""
    replayed = pytorch_track(config).by_phase()
    return [PhasePeaks(p.phase, p.peak_bytes, replayed[p.phase]) for p in simulate_run(resolve(config)).phases]


def saved_bytes(config: RunConfig) -> dict[str, int]:
    """Bytes that autograd saves in one forward pass, by operator."""
    with _tensors(config):
        model = build_model(config)
        model.make_tables(config.training.seq, torch.device("cpu"))
        shape = (config.training.micro_batch, config.training.seq)
        return saved_bytes_by_operator(model, *zero_inputs(config, shape))
