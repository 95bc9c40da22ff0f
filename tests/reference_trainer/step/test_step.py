"""The learning rate is the planner's, every token has the same weight, and only finite updates reach the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from planner.config.model import ModelConfig
from planner.config.run import RunConfig
from planner.counts.run import rate_at
from planner.errors import PlanError
from reference_trainer.data.samples import open_data
from reference_trainer.loop.startup import build
from reference_trainer.metrics.records import RunResult
from reference_trainer.model.gpt import GPT
from reference_trainer.optim.updater import make_optimizer
from reference_trainer.step.spike_guard import NonFiniteCounter
from reference_trainer.step.step import numerics, train_step
from reference_trainer.step.step_results import read_one

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]


def test_every_update_has_the_rate_of_the_plan(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, used, step = tiny(), list[float](), torch.optim.AdamW.step

    def spied(self: torch.optim.AdamW) -> None:
        used.extend({group["lr"] for group in self.param_groups})
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    result = train(config)
    plan = [rate_at(config, k) for k in range(1, 9)]
    assert used == plan and len(set(plan)) == 8
    assert result.rates == list(enumerate(plan, start=1))
    assert [json.loads(line)["lr"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()] == plan
    assert max(plan) == config.schedule.peak_lr and plan[-1] == pytest.approx(config.schedule.min_lr)


@pytest.mark.parametrize(("micro", "accumulation"), [(4, 1), (1, 4)])
def test_accumulation_changes_the_memory_and_not_the_run(
    tiny: MakeConfig, train: Train, micro: int, accumulation: int
) -> None:
    """Sums in another order: equal to fp32's rounding, not to the bit."""
    one = train(tiny())
    other = train(tiny(micro_batch=micro, accumulation=accumulation), "other")
    assert other.losses == pytest.approx(one.losses, rel=1e-5)
    assert other.grad_norms == pytest.approx(one.grad_norms, rel=1e-4)


def test_the_loss_starts_at_that_of_a_uniform_guess_and_falls(tiny: MakeConfig, train: Train) -> None:
    losses = train(tiny(steps=60, peak_lr=1e-2)).losses
    assert losses[0] == pytest.approx(math.log(256), rel=0.02)
    assert losses[-1] < 3.0  # the letters are drawn one by one: their entropy is 2.7 nats


def test_gradients_are_clipped_to_the_limit_and_freed(
    tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def spied(self: torch.optim.AdamW) -> None:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads]))))
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    for limit in (0.01, None):
        config = tiny(clip_norm=limit)
        context = build(config, torch.device("cpu"), open_data(text, 256, 32))
        done = read_one(train_step(context, 1))
        assert done.grad_norm > 0.1  # the norm before clipping is what is reported
        assert norms[-1] == pytest.approx(limit or done.grad_norm, rel=1e-4)
        assert all(p.grad is None for p in context.model.parameters())


def test_matrices_decay_and_vectors_do_not(tiny: MakeConfig) -> None:
    config = tiny()
    model = GPT(config.model, config.training, torch.float32)
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, config)
    groups = {group["weight_decay"]: [names[id(p)] for p in group["params"]] for group in optimizer.param_groups}
    assert sorted(groups[0.1] + groups[0.0]) == sorted(names.values())
    assert all(name.endswith("bias") or "norm" in name for name in groups[0.0])
    assert not any(name.endswith("bias") or "norm" in name for name in groups[0.1])
    assert len(groups[0.1]) == 2 + 4 * config.model.layers  # both tables (the head is tied), four matrices a block
    by_size = {(p.dim() >= 2, group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert by_size == {(True, 0.1), (False, 0.0)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


def test_an_update_is_that_of_the_paper(tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loshchilov and Hutter 2019, algorithm 2: at the first step the bias-corrected moments are g and g²."""
    config = tiny(clip_norm=None)
    context = build(config, torch.device("cpu"), open_data(text, 256, 32))
    before, grads = {n: p.detach().clone() for n, p in context.model.named_parameters()}, dict[str, Tensor]()
    step = torch.optim.AdamW.step

    def spied(self: torch.optim.AdamW) -> None:
        grads.update({name: p.grad.clone() for name, p in context.model.named_parameters() if p.grad is not None})
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    read_one(train_step(context, 1))
    rate, decaying = rate_at(config, 1), [n for n, p in context.model.named_parameters() if p.dim() >= 2]
    for name, p in context.model.named_parameters():
        kept = before[name] * (1 - rate * config.optimizer.weight_decay) if name in decaying else before[name]
        expected = kept - rate * grads[name] / (grads[name].abs() + config.optimizer.eps)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-6)


def poison(monkeypatch: pytest.MonkeyPatch, bad_steps: set[int], kind: str) -> None:
    """Make the last micro-batch of each bad step (two micro-batches a step) not finite, in the loss or its gradient."""
    forward, calls = GPT.forward, list[int]()

    def poisoned(self: GPT, ids: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        calls.append(1)
        loss = forward(self, ids, targets, documents)
        if len(calls) % 2 or len(calls) // 2 not in bad_steps:
            return loss
        if kind == "gradient":  # 0 forward; backward 0 * inf
            return loss + (self.head.weight.sum() * 0).sqrt()
        return loss * float(kind)

    monkeypatch.setattr(GPT, "forward", poisoned)


def rows(path: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_fault_09_a_step_that_is_not_finite_is_skipped(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    poison(monkeypatch, {3}, kind)
    said: list[str] = []
    result = train(tiny(steps=4, checkpoint_every=1), said=said)
    assert result.finished and any("step 3" in line and "the update was skipped" in line for line in said)
    for file in ("model.safetensors", "optimizer.safetensors"):
        after = [load_file(tmp_path / f"run/checkpoints/step-0000000{step}" / file) for step in (2, 3, 4)]
        assert all(torch.equal(after[0][key], after[1][key]) for key in after[0])
        assert not all(torch.equal(after[1][key], after[2][key]) for key in after[0])
        assert all(bool(tensor.isfinite().all()) for tensor in after[2].values())
    metrics = rows(tmp_path / "run/metrics.jsonl")
    assert [row["updated"] for row in metrics] == [True, True, False, True]
    assert metrics[2]["grad_norm"] is None and (metrics[2]["loss"] is None) == (kind != "gradient")


def test_fault_09_three_in_a_row_end_the_training(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {2, 3, 5, 6, 7}, "nan")
    with pytest.raises(
        PlanError, match="stopped at step 7: loss or gradient was not finite in 3 steps in a row"
    ) as caught:
        train(tiny())
    assert caught.value.why and caught.value.remedy
    assert len(rows(tmp_path / "run/metrics.jsonl")) == 7
    assert rows(tmp_path / "run/events.jsonl")[-1]["event"] == "diverged"
    weights = load_file(tmp_path / "run/checkpoints/step-00000006/model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_a_good_step_starts_the_count_again() -> None:
    nonfinite_counter = NonFiniteCounter(3)
    for loss, norm in [(math.nan, 1.0), (1.0, math.inf), (1.0, 1.0), (math.inf, 1.0), (1.0, math.nan)]:
        nonfinite_counter.add(1, loss, norm)
    with pytest.raises(PlanError):
        nonfinite_counter.add(6, math.nan, math.nan)


@pytest.mark.parametrize(("before", "after", "ends_at"), [({3, 4}, {1}, 5), ({2, 3}, {1, 2}, None), ({4}, {1, 2}, 6)])
def test_fault_09_the_count_goes_on_after_a_resume(
    tiny: MakeConfig, train: Train, before: set[int], after: set[int], ends_at: int | None
) -> None:
    """Steps that are not finite before and after step 4, where the run stops and continues; `after` counts from there.

    The limit is three in a row: a run may not escape it by stopping, nor meet it early for steps that were long ago.
    """
    config = tiny(checkpoint_every=1)
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, before, "nan")
        train(config, stop_after=4)
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, after, "nan")
        if ends_at is None:
            assert train(config, resume=True).finished
            return
        with pytest.raises(PlanError, match=f"stopped at step {ends_at}: .* in 3 steps in a row"):
            train(config, resume=True)


@pytest.mark.parametrize("where", ["forward", "__init__"])
def test_too_little_memory_is_explained(
    tiny: MakeConfig, train: Train, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(GPT, where, fail)
    with pytest.raises(PlanError, match=r"this machine ran out of memory (in step 1|before the first step)") as caught:
        train(tiny())
    assert "DefaultCPUAllocator" in caught.value.why


def test_other_errors_of_pytorch_are_not_disguised(
    tiny: MakeConfig, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(GPT, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tiny())


def test_the_deterministic_run_gives_the_same_and_resets_the_switch(tiny: MakeConfig, train: Train) -> None:
    with numerics(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with numerics(False):  # a caller's own choice holds
            assert torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert train(tiny(), deterministic=True).losses == train(tiny(), "again", deterministic=True).losses
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("balancing", ["none", "bias", "loss-mean"])
def test_the_loss_of_a_step_is_that_of_the_language(
    tiny: MakeConfig, train: Train, balancing: str, tmp_path: Path
) -> None:
    """However experts are balanced: the first step of the same weights on the same data has one loss."""
    moe = {"experts": 4, "top_k": 2, "expert_ffn": 24, "balancing": balancing}
    moe |= {} if balancing == "none" else {"balancing_rate": 0.5}
    plain = tiny(steps=1)
    config = plain.model_copy(update={"model": ModelConfig.model_validate(plain.model.model_dump() | {"moe": moe})})
    result = train(config, balancing)
    without = train(with_balancing(config, "none"), f"{balancing}, without")
    assert result.losses == pytest.approx(without.losses, rel=1e-6)
    row = json.loads((tmp_path / balancing / "metrics.jsonl").read_text())
    assert (row.get("balancing_loss") or 0) > 0 if balancing == "loss-mean" else row.get("balancing_loss") is None


def with_balancing(config: RunConfig, balancing: str) -> RunConfig:
    assert config.model.moe is not None
    moe = config.model.moe.model_copy(update={"balancing": balancing, "balancing_rate": None})
    return config.model_copy(update={"model": config.model.model_copy(update={"moe": moe})})
