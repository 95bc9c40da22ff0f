"""Clipping by value, by norm and by both: the gradients that the optimizer gets, and the norm that is reported."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from planner.config.run import RunConfig
from reference_trainer.measure.measure import build_model
from reference_trainer.optim.updater import Updater, make_optimizer

MakeConfig = Callable[..., RunConfig]


def with_gradients(config: RunConfig, outlier: float) -> tuple[Updater, list[Tensor]]:
    """An updater whose gradients are drawn, and those gradients; one element is `outlier`."""
    updater = make_optimizer(build_model(config), config)
    torch.manual_seed(3)
    holders = updater.weights if updater.has_master and updater.wide_gradients else updater.parameters
    for w in holders.values():
        w.grad = torch.randn_like(w) / 100
    first = next(iter(holders.values()))
    assert first.grad is not None
    first.grad.view(-1)[0] = outlier
    return updater, [w.grad for w in holders.values() if w.grad is not None]


def norm_of(grads: list[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.cat([g.flatten().double() for g in grads])))


@pytest.mark.parametrize("recipe", ["fp32", "master-bf16", "master-bf16-grad16"])
def test_values_are_cut_first_and_the_norm_is_that_of_the_rest(tiny: MakeConfig, recipe: str) -> None:
    updater, grads = with_gradients(tiny(recipe=recipe, clip_value=0.02), 100.0)
    before = [g.clone() for g in grads]
    expected = [g.clamp(-0.02, 0.02) for g in before]
    factor = 0.5 / norm_of(expected)
    found = updater.clip(0.5)
    assert float(found) == pytest.approx(norm_of(before), rel=1e-2 if recipe.endswith("16") else 1e-5)
    for g, cut in zip(grads, expected, strict=True):
        torch.testing.assert_close(g.float(), cut.float() * factor, rtol=2e-2, atol=1e-6)
    assert norm_of(grads) == pytest.approx(0.5, rel=1e-2)
    # by the norm alone the outlier would have taken nearly all of it, and the others would be 200 times smaller
    assert float(grads[1].abs().max()) > 0.5 * 0.02 * factor


def test_by_value_alone_only_what_is_too_large_changes(tiny: MakeConfig) -> None:
    updater, grads = with_gradients(tiny(clip_value=0.03), -7.0)
    before = [g.clone() for g in grads]
    updater.clip(None)
    assert float(grads[0].view(-1)[0]) == pytest.approx(-0.03)
    for g, old in zip(grads, before, strict=True):
        assert torch.equal(g, old.clamp(-0.03, 0.03))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("limit", [None, 1.0])
def test_an_infinity_is_seen_before_it_is_cut(tiny: MakeConfig, limit: float | None, bad: float) -> None:
    updater, _ = with_gradients(tiny(clip_value=0.03), bad)
    assert not bool(updater.clip(limit).isfinite())
