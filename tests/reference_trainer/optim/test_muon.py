"""Muon in stacks against torch.optim.Muon, matrix by matrix; how much it launches; what it needs in bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.memory_reference import pytorch_track
from planner.config.run import RunConfig
from planner.counts import stacks
from planner.counts.run import resolve
from planner.counts.stacks import NEWTON_SCHULZ_STEPS, stack_sizes
from planner.memory.phases import simulate_run
from reference_trainer.measure.measure import build_model
from reference_trainer.optim.lion_adamw import stacks_of
from reference_trainer.optim.muon import StackedMuon
from reference_trainer.optim.updater import make_optimizer

MakeConfig = Callable[..., RunConfig]
SHAPES = [(24, 16), (16, 24), (24, 16), (16, 16), (24, 16), (16, 24)]
RATE, DECAY = 0.02, 0.1
# of an update: products of bf16 numbers in five iterations, summed in another order; on a CPU of 2026 they are equal
TOLERANCE = 0.02


def steps(make: Callable[[list[Tensor]], Any], count: int) -> list[Tensor]:
    torch.manual_seed(3)
    weights = [torch.randn(shape).requires_grad_() for shape in SHAPES]
    gradients = [[torch.randn(shape) * 0.1 for shape in SHAPES] for _ in range(count)]
    optimizer = make(weights)
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient
        optimizer.step()
    return [w.detach() for w in weights]


@pytest.mark.parametrize("largest", [stacks.STACK_ELEMENTS, 2 * 24 * 16, 1])
def test_stacks_give_what_torch_gives_matrix_by_matrix(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    monkeypatch.setattr(stacks, "STACK_ELEMENTS", largest)
    group = {"lr": RATE, "weight_decay": DECAY, "momentum": 0.95}
    found = steps(lambda weights: StackedMuon([{"params": weights, **group}], None), 4)
    wanted = steps(lambda weights: torch.optim.Muon(weights, **group, adjust_lr_fn="match_rms_adamw"), 4)  # type: ignore[arg-type]
    for mine, its in zip(found, wanted, strict=True):
        update = 0.2 * max(its.shape) ** 0.5 * RATE  # root mean square, of singular values near 1
        assert (mine - its).abs().max() <= TOLERANCE * update


def test_matrices_are_stacked_by_shape_and_in_order() -> None:
    matrices = [torch.empty(shape) for shape in SHAPES]
    found = [[next(i for i, m in enumerate(matrices) if m is one) for one in stack] for stack in stacks_of(matrices)]
    assert found == [[0, 2, 4], [1, 5], [3]]
    assert stack_sizes(stacks.STACK_ELEMENTS // 3, 7) == (3, 3, 1) and stack_sizes(2**30, 2) == (1, 1)


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts batched products, and all operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = self.all = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.all += 1
        self.products += "bmm" in func.__name__
        return func(*args, **(kwargs or {}))


def with_muon(tiny: MakeConfig, **more: Any) -> RunConfig:
    config = tiny(**more)
    chosen = config.optimizer.model_copy(update={"name": "muon", "implementation": "fused"})
    return config.model_copy(update={"optimizer": chosen})


def test_products_are_launched_for_each_shape_and_not_for_each_matrix(tiny: MakeConfig) -> None:
    seen = {}
    for layers in (1, 4):
        model = build_model(config := with_muon(tiny, layers=layers))
        updater = make_optimizer(model, config)
        updater.set_lr(0.01)
        ids = torch.arange(64).reshape(2, 32) % 50
        updater.backward(model(ids, ids))
        with Products() as counted:
            updater.step()
        shapes = {p.shape for name, p in model.named_parameters() if updater.roles[name].has_muon}
        assert counted.products == 3 * NEWTON_SCHULZ_STEPS * len(shapes)
        seen[layers] = counted.all
        names = {key for key in updater.state() if key.endswith("momentum_buffer")}
        assert len(names) == sum(role.has_muon for role in updater.roles.values()), "as in older checkpoints"
    matrices = 3 * len(shapes)
    assert seen[4] - seen[1] < 16 * matrices, "what is left for each matrix: its state, its views, two selections"


@pytest.mark.parametrize("matrices", [1, 2])
@pytest.mark.parametrize("recipe", ["fp32", "pure-bf16", "master-bf16-grad16"])
def test_the_scratch_of_stacks_of_any_size_is_planned(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, recipe: str, matrices: int
) -> None:
    config = with_muon(tiny, layers=3, recipe=recipe)
    largest = max(p.numel() for name, p in build_model(config).named_parameters() if "blocks" in name)
    monkeypatch.setattr(stacks, "STACK_ELEMENTS", matrices * largest)
    seen = pytorch_track(config).by_phase()
    planned = {phase.phase: phase.peak_bytes for phase in simulate_run(resolve(config)).phases}
    for phase in ("first_optimizer_step", "optimizer_step"):
        assert abs(planned[phase] - seen[phase]) <= 64, phase
