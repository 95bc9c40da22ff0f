"""Each check of the model fails on the fault that it looks for: first loss, gradients, decay groups, causality."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.model import MoeConfig
from reference_trainer.data.samples import batch, open_data
from reference_trainer.model.gpt import GPT
from reference_trainer.preflight import model as preflight_model
from reference_trainer.preflight.model import (
    check_causality,
    check_decay_groups,
    check_first_loss,
    check_gradients,
    check_overfitting,
    expected_first_loss,
    one_sequence,
)
from tests.reference_trainer.preflight.checks import CPU, MakeConfig, built

CAUSAL = [
    {},
    {"position": "rotary", "sliding_window": 8, "kv_heads": 1},
    {"position": "alibi", "attention_kernel": "math"},
    {"recipe": "mixed-bf16", "norm": "rmsnorm"},
    {"runtime": "autocast", "recipe": "mixed-bf16"},
    {"moe": MoeConfig(experts=4, top_k=2, expert_ffn=16)},
]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty steps are enough for a model of this size to learn one sequence."""
    monkeypatch.setattr(preflight_model, "OVERFIT_STEPS", 40)


@pytest.mark.parametrize("changes", CAUSAL, ids=str)
def test_causality_holds_and_a_leak_is_seen(
    tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    context, given = built(tiny(**changes), text)
    assert check_causality(context.model, given).verdict == "ok"
    whole = GPT.hidden_states
    # each position sees its mirror image a little; among experts, whose rounding is allowed for, a little more
    leak = 0.2 if "moe" in changes else 1e-2
    monkeypatch.setattr(GPT, "hidden_states", lambda self, x, d: (h := whole(self, x, d)) + leak * h.flip(1))
    assert check_causality(context.model, given).verdict == "failed"
    monkeypatch.setattr(GPT, "hidden_states", lambda self, x, d: whole(self, x * 0, d))
    assert "has any effect" in check_causality(context.model, given).why


@pytest.mark.parametrize("hidden", [32, 256])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab", [256, 5000])
def test_the_first_loss_is_within_its_tolerance(
    tiny: MakeConfig, text: Path, hidden: int, tied: bool, vocab: int
) -> None:
    config = tiny(hidden=hidden, head_dim=hidden // 2, ffn=2 * hidden, tied_embeddings=tied, vocab=vocab)
    context, given = built(config, text)
    found = check_first_loss(context.model, config, given)
    assert found.verdict == "ok", found
    e = expected_first_loss(config.model, 10, 0.0)
    assert abs(e.middle - math.log(vocab)) < 0.06 and e.tolerance < 0.6
    with torch.no_grad():
        context.model.head.weight.mul_(30)  # an initialisation that is far too large
    assert check_first_loss(context.model, config, given).verdict in (("warning", "failed") if tied else ("failed",))


def test_a_first_loss_that_is_too_low_or_no_number_fails(tiny: MakeConfig, text: Path) -> None:
    config = tiny()
    context, given = built(config, text)
    for value in (1e-3, math.nan):
        context.model.forward = lambda *_, v=value: torch.tensor(v)  # type: ignore[method-assign]
        assert check_first_loss(context.model, config, given).verdict == "failed"


def test_a_tensor_without_a_gradient_is_named(tiny: MakeConfig, text: Path) -> None:
    for recipe in ("fp32", "master-bf16", "pure-bf16", "mixed-fp16"):
        context, given = built(tiny(recipe=recipe), text)
        norm, every = check_gradients(context, given)
        assert norm.verdict == every.verdict == "ok" and norm.values["grad_norm"] > 0
        assert all(w.grad is None for w in (*context.model.parameters(), *context.optimizer.weights.values()))
    context, given = built(tiny(), text)
    context.model.blocks[1].mlp.down.weight.requires_grad_(False)
    _, every = check_gradients(context, given)
    assert every.verdict == "failed" and "blocks.1.mlp.down.weight" in every.why
    context.model.blocks[1].mlp.down.weight.requires_grad_(True).register_hook(torch.zeros_like)
    _, every = check_gradients(context, given)
    assert every.verdict == "warning" and "blocks.1.mlp.down.weight" in every.why
    next(context.model.parameters()).register_hook(lambda g: g * math.nan)
    norm, _ = check_gradients(context, given)
    assert norm.verdict == "failed" and norm.values["grad_norm"] is None


def test_decay_groups_are_those_of_the_real_optimizer(tiny: MakeConfig, text: Path) -> None:
    for name in ("muon", "adamw"):
        config = tiny()
        named_so = config.optimizer.model_copy(update={"name": name})
        context, _ = built(config.model_copy(update={"optimizer": named_so}), text)
        found = check_decay_groups(context)
        assert found.verdict == "ok"
        assert found.values["decayed_parameters"] == sum(
            w.numel() for w in context.optimizer.weights.values() if w.dim() >= 2
        )
    moved = context.optimizer.param_groups[1]["params"].pop()
    assert "in no group" in check_decay_groups(context).why
    context.optimizer.param_groups[0]["params"].append(moved)
    assert "in the wrong one" in check_decay_groups(context).why and check_decay_groups(context).verdict == "failed"


def test_one_sequence_is_learnt_by_heart_or_it_is_said(
    tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    data = open_data(text, 256, 32)
    one = one_sequence(data, config)
    for index in (0, 1, 5):
        assert all(
            torch.equal(a, b)
            for a, b in zip(batch(one, config, index, 1)[:2], batch(data, config, 0, 1)[:2], strict=True)
        )
    assert check_overfitting(config, data, CPU, 60.0).verdict == "ok"
    assert check_overfitting(config, data, CPU, 0.0).verdict == "skipped"  # one step is no answer
    monkeypatch.setattr(preflight_model, "OVERFIT_STEPS", 30)
    assert check_overfitting(tiny(peak_lr=1e-9, min_lr=0.0), data, CPU, 60.0).verdict == "failed"
    assert check_overfitting(tiny(peak_lr=2e-4, min_lr=0.0), data, CPU, 60.0).verdict == "warning"


def test_a_model_that_repeats_its_input_is_a_warning(tiny: MakeConfig, text: Path) -> None:
    """A wide tied head explains a high loss; an untied one does not."""
    context, given = built(tiny(), text)
    context.model.forward = lambda *_: torch.tensor(9.0 * given.valid)  # type: ignore[method-assign]
    wide = {"hidden": 4096, "position": "rotary"}
    found = check_first_loss(context.model, tiny(**wide), given)
    assert found.verdict == "warning" and "repeating its input" in found.why
    assert check_first_loss(context.model, tiny(**wide, tied_embeddings=False), given).verdict == "failed"
