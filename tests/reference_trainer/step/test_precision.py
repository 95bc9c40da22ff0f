"""Precision policies: master weights, gradient dtypes, the loss scale; what PyTorch cannot train is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from planner.errors import ConfigError, PlanError
from reference_trainer.data.samples import open_data
from reference_trainer.loop.startup import build
from reference_trainer.step import precision
from reference_trainer.step.precision import refuse_unrunnable
from reference_trainer.step.spike_guard import NonFiniteCounter
from reference_trainer.step.step import train_step
from reference_trainer.step.step_results import read_one

MakeConfig = Callable[..., RunConfig]


@pytest.mark.parametrize("recipe", ["master-bf16", "master-bf16-grad16"])
def test_weights_are_their_masters_rounded_and_keep_what_bf16_would_lose(
    tiny: MakeConfig, text: Path, recipe: str
) -> None:
    context = build(tiny(recipe=recipe), torch.device("cpu"), open_data(text, 256, 32))
    for step in (1, 2):
        assert read_one(train_step(context, step)).updated
    for name, p in context.model.named_parameters():
        assert p.dtype == torch.bfloat16 and context.optimizer.weights[name].dtype == torch.float32
        assert torch.equal(p.detach(), context.optimizer.weights[name].bfloat16())
        assert p.grad is None and context.optimizer.weights[name].grad is None
    assert any(not torch.equal(w, w.bfloat16().float()) for w in context.optimizer.weights.values())


def test_fp32_gradients_are_the_sum_of_bf16_ones(tiny: MakeConfig, text: Path) -> None:
    """Two micro-batches: the main gradient is their exact sum, the 2-byte one is rounded after each."""
    wide, narrow = (
        build(tiny(recipe=recipe), torch.device("cpu"), open_data(text, 256, 32))
        for recipe in ("master-bf16", "master-bf16-grad16")
    )
    ids = torch.arange(64).reshape(2, 32) % 256
    single = []
    for offset in (0, 5):
        narrow.optimizer.backward(narrow.model(ids + offset, ids))
        single.append({name: p.grad.float() for name, p in narrow.model.named_parameters() if p.grad is not None})
        narrow.optimizer.zero_grad()
        wide.optimizer.backward(wide.model(ids + offset, ids))
    for name, w in wide.optimizer.weights.items():
        assert w.grad is not None and wide.optimizer.parameters[name].grad is None
        torch.testing.assert_close(w.grad, single[0][name] + single[1][name], rtol=0, atol=0)


def test_the_loss_scale_leaves_the_update_as_it_was(tiny: MakeConfig, text: Path) -> None:
    """A scale is a power of two: gradients divided by it again are those of the unscaled loss."""
    contexts = [build(tiny(recipe="mixed-fp16"), torch.device("cpu"), open_data(text, 256, 32)) for _ in range(2)]
    contexts[1].optimizer.scaler = None
    steps = [[read_one(train_step(context, step)) for step in (1, 2)] for context in contexts]
    assert contexts[0].optimizer.scale > 1
    for scaled, plain in zip(*steps, strict=True):
        assert scaled.loss == pytest.approx(plain.loss, rel=1e-4)
        assert scaled.grad_norm == pytest.approx(plain.grad_norm, rel=2e-2)


def test_an_overflow_skips_the_update_halves_the_scale_and_is_no_divergence(tiny: MakeConfig, text: Path) -> None:
    context = build(tiny(recipe="mixed-fp16"), torch.device("cpu"), open_data(text, 256, 32))
    scaler = context.optimizer.scaler
    assert scaler is not None
    scaler.scale(torch.ones(()))
    scaler.update(2.0**40)
    before = [w.clone() for w in context.optimizer.weights.values()]
    nonfinite_counter = NonFiniteCounter(3)
    for step in range(1, 6):
        done = read_one(train_step(context, step))
        assert not done.updated and done.scale == 2.0 ** (41 - step)
        nonfinite_counter.add(step, done.loss, done.grad_norm, done.scale)
    assert context.optimizer.scale == 2.0**35
    assert all(torch.equal(a, b) for a, b in zip(before, context.optimizer.weights.values(), strict=True))


def test_the_guard_stops_a_scaled_run_whose_loss_is_not_finite() -> None:
    nonfinite_counter, nan = NonFiniteCounter(3), float("nan")
    for step in (1, 2):
        nonfinite_counter.add(step, nan, nan, scale=2.0**16)
    with pytest.raises(PlanError, match="3 steps in a row"):
        nonfinite_counter.add(3, nan, nan, scale=2.0**16)


@pytest.mark.parametrize("recipe", ["fp8-te", "fp8-torchao", "fp8-deepseek-v3"])
def test_recipes_without_a_trainer_are_refused_by_name(tiny: MakeConfig, recipe: str) -> None:
    with pytest.raises(ConfigError, match=f"does not run the recipe {recipe}"):
        refuse_unrunnable(tiny(recipe=recipe), torch.device("cpu"))


def test_tf32_wants_tensor_cores(tiny: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="recipe tf32"):
        refuse_unrunnable(tiny(recipe="tf32"), torch.device("cpu"))


def test_updates_that_pytorch_loses_are_refused(tiny: MakeConfig) -> None:
    def with_sgd(recipe: str, way: str) -> RunConfig:
        config = tiny(recipe=recipe)
        changed = config.optimizer.model_copy(update={"name": "sgd", "implementation": way})
        return config.model_copy(update={"optimizer": changed})

    with pytest.raises(ConfigError, match="does not change bfloat16 weights"):
        refuse_unrunnable(with_sgd("pure-bf16", "fused"), torch.device("cpu"))
    for recipe, way in (("pure-bf16", "foreach"), ("master-bf16", "fused"), ("fp32", "fused")):
        refuse_unrunnable(with_sgd(recipe, way), torch.device("cpu"))


def test_a_missing_package_is_named_with_its_pip_line(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    config = tiny()
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"name": "adamw8bit"})})
    with pytest.raises(PlanError, match="bitsandbytes") as caught:
        refuse_unrunnable(config, torch.device("cpu"))
    assert 'pip install "gptplan[8bit]"' in caught.value.remedy


def test_a_package_without_kernels_for_the_device_is_named(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As bitsandbytes 0.49 is on a processor: the package is there, its 8-bit update is not."""

    def as_adamw(groups: Any, **options: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, **options)

    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(AdamW8bit=as_adamw)))
    monkeypatch.setattr(precision, "UPDATE_8BIT", "bitsandbytes::an_update_that_nobody_registered")
    config = tiny()
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"name": "adamw8bit"})})
    with pytest.raises(PlanError, match="no 8-bit update for cpu") as caught:
        refuse_unrunnable(config, torch.device("cpu"))
    assert "bitsandbytes>=0.50" in caught.value.remedy
    monkeypatch.setattr(precision, "UPDATE_8BIT", "aten::_fused_adamw_")  # one that there is
    refuse_unrunnable(config, torch.device("cpu"))


def test_moments_of_another_type_have_one_implementation(tiny: MakeConfig) -> None:
    config = tiny(state_dtype="bf16")
    with pytest.raises(ConfigError, match="needs moments of the weights' type"):
        refuse_unrunnable(config, torch.device("cpu"))
