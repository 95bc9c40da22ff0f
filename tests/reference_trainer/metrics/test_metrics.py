"""Statistics of a step: watchers measure what plain arithmetic gives, and no step waits for them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from planner.config.run import RunConfig
from reference_trainer.data.samples import open_data
from reference_trainer.loop.startup import build
from reference_trainer.metrics import layer_statistics as statistics
from reference_trainer.metrics.layer_statistics import kept_bytes, layer_of
from reference_trainer.metrics.noise_scale import DECAY, FEWEST, SmoothedNoise, estimates, smoothed_noise
from reference_trainer.metrics.records import RunResult
from reference_trainer.metrics.watchers import attach_watchers
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step import StepContext, train_step
from reference_trainer.step.step_results import read_one

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
CPU = torch.device("cpu")


def work_of(config: RunConfig, text: Path, **options: Any) -> StepContext:
    context = build(config, CPU, open_data(text, 256, 32))
    attach_watchers(context, RunOptions(**options))
    return context


class Spy:
    """Keeps what the watchers saw: gradients of both moments, weights before and after, outputs of the blocks."""

    def __init__(self) -> None:
        self.micro: dict[str, Tensor] = {}
        self.whole: dict[str, Tensor] = {}
        self.old: dict[str, Tensor] = {}
        self.new: dict[str, Tensor] = {}

    def before_step(self, context: StepContext, step: int) -> None:
        pass

    def after_micro(self, context: StepContext, step: int, micro: int) -> None:
        kept = {
            n: g.clone() / context.optimizer.scale_tensor for n, g in statistics.gradients_of(context.optimizer).items()
        }
        if micro == 0:
            self.micro = kept
        self.whole = kept

    def before_update(self, context: StepContext, step: int) -> None:
        self.old = {n: w.detach().clone() for n, w in context.optimizer.weights.items()}

    def after_update(self, context: StepContext, step: int) -> dict[str, Tensor]:
        self.new = {n: w.detach().clone() for n, w in context.optimizer.weights.items()}
        return {}


def joined(tensors: dict[str, Tensor], layer: str) -> Tensor:
    return torch.cat([t.double().reshape(-1) for name, t in tensors.items() if layer_of(name) == layer])


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation_checkpointing": "full", "recipe": "mixed-bf16", "clip_norm": 0.01},
        {"recipe": "mixed-fp16"},
        {"recipe": "master-bf16"},
        {"mlp": "relu", "accumulation": 1, "recipe": "pure-bf16"},
    ],
)
def test_the_statistics_are_those_of_the_tensors(tiny: MakeConfig, text: Path, changes: dict[str, Any]) -> None:
    context, spy = work_of(tiny(**changes), text, statistics_every=2), Spy()
    context.watchers.append(spy)
    seen: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> None:
        seen.setdefault(name, x.detach().clone())

    for i, block in enumerate(context.model.blocks):
        block.register_forward_hook(lambda _, __, out, i=i: keep(f"blocks.{i}", out))
        block.mlp.down.register_forward_pre_hook(lambda _, args, i=i: keep(f"blocks.{i}.mlp", args[0]))
    assert read_one(train_step(context, 1)).signals == {}
    seen.clear()
    signals = read_one(train_step(context, 2)).signals
    layers = {layer_of(name) for name in spy.old}
    assert {"blocks.0.mlp", "blocks.1.attention", "embedding", "norm"} <= layers
    exact = pytest.approx
    for layer in layers:
        old, new, gradient = (joined(t, layer) for t in (spy.old, spy.new, spy.whole))
        assert signals[f"update_ratio/{layer}"] == exact(rms(new - old) / rms(old), rel=1e-3)
        assert signals[f"grad_rms/{layer}"] == exact(rms(gradient), rel=1e-3)
        assert signals[f"grad_max/{layer}"] == exact(float(gradient.abs().max()), rel=1e-3)
    for index in (0, 1):
        out, inner = seen[f"blocks.{index}"].double(), seen[f"blocks.{index}.mlp"]
        assert signals[f"activation_rms/blocks.{index}"] == exact(rms(out), rel=1e-3)
        assert signals[f"activation_max/blocks.{index}"] == exact(float(out.abs().max()), rel=1e-3)
        share = float((inner == 0).double().mean())
        assert signals[f"zero_share/blocks.{index}.mlp"] == exact(share, abs=1e-6)
        assert (0.2 < share < 0.8) == (changes.get("mlp") == "relu")
    whole = torch.cat([w.double().reshape(-1) for w in spy.new.values()])
    assert signals["weight_norm"] == exact(float(whole.norm()), rel=1e-3)
    assert all(len(block._forward_hooks) == 1 for block in context.model.blocks)  # the test's own; ours are gone


def test_a_sample_of_a_large_tensor_is_close_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    w = torch.randn(512, 1024) * torch.linspace(0.5, 2.0, 1024)  # columns differ: a stride of 2^k would miss most
    sample = statistics._sample(w)
    assert sample.numel() <= statistics.SAMPLED_ELEMENTS == 65536 and kept_bytes([w]) == sample.numel() * 4
    assert rms(sample) == pytest.approx(rms(w), rel=0.02)
    assert torch.equal(statistics._sample(w[:2]), w[:2].reshape(-1))


def test_statistics_change_no_bit_of_the_run(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    config = tiny(steps=4, activation_checkpointing="full", dropout=0.1)
    plain = train(config, "plain")
    watched = train(config, statistics_every=2, noise_scale=True)
    assert (watched.losses, watched.grad_norms) == (plain.losses, plain.grad_norms)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "update_ratio/head" in row or "update_ratio/embedding" in row] == [2, 4]
    assert all("noise_trace" in row for row in rows)


def test_elements_above_the_limit_are_counted(tiny: MakeConfig, text: Path) -> None:
    context, spy = work_of(tiny(), text, statistics_every=1), Spy()
    context.optimizer.clip_value = 1e-3
    context.watchers.append(spy)
    share = read_one(train_step(context, 1)).signals["clipped_share"]
    whole = torch.cat([g.reshape(-1) for g in spy.whole.values()])
    assert share == pytest.approx(float((whole.abs() > 1e-3).float().mean()), rel=1e-4) and 0.05 < share < 0.95


def test_a_compiled_program_shows_no_activations(tiny: MakeConfig, text: Path) -> None:
    context = build(tiny(), CPU, open_data(text, 256, 32))
    training = context.config.training.model_copy(update={"runtime": "compiled"})
    context.config = context.config.model_copy(update={"training": training})
    notes = attach_watchers(context, RunOptions(statistics_every=1))
    assert any("a compiled program cannot run the hooks" in note for note in notes)
    signals = read_one(train_step(context, 1)).signals
    assert "update_ratio/norm" in signals and not any(key.startswith(("activation", "zero")) for key in signals)


# --- the gradient-noise scale -----------------------------------------------------------------------------------------


def test_the_noise_scale_of_a_known_problem() -> None:
    """Per-token gradients g + e, e of covariance s² I: |G|² = |g|², S = 64 s², B_simple = S / |G|²."""
    torch.manual_seed(5)
    truth, spread, small, large = torch.full((64,), 0.1), 2.0, 32, 256
    total = [0.0, 0.0]
    for _ in range(4000):
        # means over tokens, of which the small batch's are the first
        first = truth + torch.randn(64) * spread / math.sqrt(small)
        rest = truth + torch.randn(64) * spread / math.sqrt(large - small)
        whole = (small * first + (large - small) * rest) / large
        found = estimates(float(first.square().sum()), float(whole.square().sum()), small, large)
        total = [total[0] + found[0], total[1] + found[1]]
    gradient_sq, trace = (t / 4000 for t in total)
    assert gradient_sq == pytest.approx(0.64, rel=0.03) and trace == pytest.approx(256.0, rel=0.03)
    assert trace / gradient_sq == pytest.approx(400.0, rel=0.05)


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16", "master-bf16"])
def test_a_steps_estimates_are_those_of_its_gradients(tiny: MakeConfig, text: Path, recipe: str) -> None:
    context, spy = work_of(tiny(recipe=recipe, accumulation=4, clip_norm=0.01), text, noise_scale=True), Spy()
    context.watchers.append(spy)
    signals = read_one(train_step(context, 1)).signals
    one, whole = (torch.cat([g.double().reshape(-1) for g in t.values()]) for t in (spy.micro, spy.whole))
    gradient_sq, trace = estimates(float((one * 4).square().sum()), float(whole.square().sum()), 64, 256)
    assert signals["noise_gradient_sq"] == pytest.approx(gradient_sq, rel=1e-2)
    assert signals["noise_trace"] == pytest.approx(trace, rel=1e-2) and trace > 0


def test_one_micro_batch_has_no_noise_scale_and_says_why(tiny: MakeConfig, text: Path) -> None:
    context = build(tiny(accumulation=1), CPU, open_data(text, 256, 32))
    (note,) = attach_watchers(context, RunOptions(noise_scale=True))
    assert "accumulation of 2 or more" in note and context.watchers == []


def test_both_estimates_are_averaged_before_they_are_divided() -> None:
    rows = [{"updated": True, "noise_gradient_sq": 1.0 + 3.0 * (-1) ** k, "noise_trace": 50.0} for k in range(600)]
    found = smoothed_noise(rows)
    assert found.tokens == pytest.approx(50.0, rel=0.05)  # each quotient alone would be 12.5 or -25
    assert smoothed_noise(rows[: FEWEST - 1]).tokens is None
    weights = [DECAY ** (599 - k) for k in range(600)]
    mean = sum(w * float(r["noise_gradient_sq"]) for w, r in zip(weights, rows, strict=True)) / sum(weights)
    assert found.gradient_sq / found.weight == pytest.approx(mean, rel=1e-6)
    found.add({"updated": False, "noise_gradient_sq": 1e9, "noise_trace": 1e9})
    found.add({"updated": True, "noise_gradient_sq": None, "noise_trace": None})
    assert found.steps == 600
    assert SmoothedNoise(gradient_sq=-1.0, trace=1.0, weight=1.0, steps=FEWEST).tokens is None
