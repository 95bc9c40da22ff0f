"""Update rules, checked against their papers' equations in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from planner.config.run import IMPLEMENTATIONS, OptimizerConfig
from planner.counts.roles import Role
from reference_trainer.optim.optimizers import optimizers_for

Array = NDArray[numpy.float64]
RATE, DECAY, STEPS = 0.02, 0.1, 3
SHAPES = {"blocks.0.mlp.up.weight": (6, 4), "blocks.0.mlp.up.bias": (6,), "embedding.weight": (5, 3)}
ROLES = dict(zip(SHAPES, (Role.MATRIX, Role.BIAS, Role.TABLE), strict=True))


def gradients(name: str) -> list[Array]:
    random = numpy.random.default_rng(len(name))
    return [random.standard_normal(SHAPES[name]) for _ in range(STEPS)]


def start(name: str) -> Array:
    return numpy.random.default_rng(7 + len(name)).standard_normal(SHAPES[name])


def adamw(w: Array, grads: Sequence[Array], decay: float, beta1: float = 0.9, beta2: float = 0.95) -> Array:
    m = v = numpy.zeros_like(w)
    for t, g in enumerate(grads, 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        w = w - RATE * decay * w - RATE * (m / (1 - beta1**t)) / (numpy.sqrt(v / (1 - beta2**t)) + 1e-8)
    return w


def lion(w: Array, grads: Sequence[Array], decay: float) -> Array:
    m = numpy.zeros_like(w)
    for g in grads:
        w = w - RATE * (numpy.sign(0.9 * m + 0.1 * g) + decay * w)
        m = 0.95 * m + 0.05 * g
    return w


def sgd(w: Array, grads: Sequence[Array], decay: float) -> Array:
    velocity = numpy.zeros_like(w)
    for g in grads:
        velocity = 0.9 * velocity + g + decay * w
        w = w - RATE * velocity
    return w


def adafactor(w: Array, grads: Sequence[Array], decay: float) -> Array:
    matrix, r, c, v = w.ndim > 1, numpy.zeros(w.shape[:1]), numpy.zeros(w.shape[-1:]), numpy.zeros_like(w)
    for t, g in enumerate(grads, 1):
        fresh = t**-0.8
        size = max(1e-3, float(numpy.sqrt(numpy.mean(w * w)))) * min(RATE, t**-0.5)
        w = w - RATE * decay * w
        if matrix:
            r, c = (1 - fresh) * r + fresh * (g * g).mean(1), (1 - fresh) * c + fresh * (g * g).mean(0)
            estimate = numpy.outer(r, c) / r.mean()
        else:
            estimate = v = (1 - fresh) * v + fresh * g * g
        u = g / numpy.sqrt(estimate)
        w = w - size * u / max(1.0, float(numpy.sqrt(numpy.mean(u * u))))
    return w


RULES: dict[str, Callable[[Array, Sequence[Array], float], Array]] = {
    "adamw": adamw,
    "lion": lion,
    "sgd": sgd,
    "adafactor": adafactor,
}
CASES = [(name, way) for name in RULES for way in IMPLEMENTATIONS[name]]


def config_for(name: str, way: str) -> OptimizerConfig:
    return OptimizerConfig.model_validate(
        {"name": name, "implementation": way, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": DECAY}
    )


def trained(config: OptimizerConfig, moments: str | None = None) -> dict[str, Tensor]:
    weights = {name: torch.tensor(start(name), dtype=torch.float32) for name in SHAPES}
    optimizers = optimizers_for(weights, ROLES, config, moments)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = RATE
    for step in range(STEPS):
        for name, w in weights.items():
            w.grad = torch.tensor(gradients(name)[step], dtype=torch.float32)
        for optimizer in optimizers:
            optimizer.step()
    return weights


@pytest.mark.parametrize(("name", "way"), CASES)
def test_three_updates_are_those_of_the_paper(name: str, way: str) -> None:
    for parameter, w in trained(config_for(name, way)).items():
        decay = DECAY if len(SHAPES[parameter]) > 1 else 0.0
        expected = RULES[name](start(parameter), gradients(parameter), decay)
        numpy.testing.assert_allclose(w.numpy(), expected, rtol=2e-5, atol=2e-6)


def test_adamw_with_bf16_moments_is_adamw_but_for_rounding() -> None:
    for parameter, w in trained(config_for("adamw", "for-loop"), "bf16").items():
        decay = DECAY if len(SHAPES[parameter]) > 1 else 0.0
        expected = adamw(start(parameter), gradients(parameter), decay)
        assert 1e-6 < numpy.abs(w.numpy() - expected).max() < 0.02 * STEPS * RATE


def test_muon_moves_block_matrices_along_an_orthogonal_matrix_and_adamw_the_rest() -> None:
    found = trained(config_for("muon", "fused"))
    for parameter in ("embedding.weight", "blocks.0.mlp.up.bias"):
        decay = DECAY if len(SHAPES[parameter]) > 1 else 0.0
        numpy.testing.assert_allclose(
            found[parameter].numpy(), adamw(start(parameter), gradients(parameter), decay), rtol=2e-5, atol=2e-6
        )
    name = "blocks.0.mlp.up.weight"
    w, buffer = start(name), numpy.zeros(SHAPES[name])
    for g in gradients(name):
        buffer = 0.95 * buffer + 0.05 * g
        left, _, right = numpy.linalg.svd(0.05 * g + 0.95 * buffer, full_matrices=False)
        w = w * (1 - RATE * DECAY) - 0.2 * max(SHAPES[name]) ** 0.5 * RATE * left @ right
    # Newton-Schulz in bf16 stops at singular values between 0.7 and 1.2: near the exact factor, not at it
    moved, wanted = found[name].numpy() - start(name), w - start(name)
    cosine = float((moved * wanted).sum() / numpy.linalg.norm(moved) / numpy.linalg.norm(wanted))
    assert cosine > 0.97 and 0.6 < numpy.linalg.norm(moved) / numpy.linalg.norm(wanted) < 1.3
